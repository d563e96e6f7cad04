//! The page: one file, no network, readable without the script.
//!
//! Every text that comes from a file is escaped here and nowhere else. The page forbids itself all
//! network access by its content security policy, so that not even a mistake can make it ask.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::Labelled;
use super::model::Section;
use super::pictures::{self, Picture};
use super::tables::{self, Table};
use crate::schema::Environment;
use crate::stress::units;

const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// Rows of the table of environments in which a difference makes files hard to compare.
const MATTERS: [&str; 8] = [
    "kernel",
    "processor",
    "virtual machine",
    "memory",
    "pages",
    "userfaultfd",
    "measured with",
    "firn",
];

/// The whole page.
pub fn page(sections: &[Section<'_>], files: &[Labelled]) -> String {
    let mut body = String::new();
    let mut data = Map::new();
    head(&mut body, sections, files);
    for (i, section) in sections.iter().enumerate() {
        draw(&mut body, &mut data, section, i);
    }
    machines(&mut body, files);
    let title = match sections {
        [one] => format!("{} – Firn report", one.name),
        _ => "Firn report".to_owned(),
    };
    document(&title, &body, &Value::Object(data).to_string())
}

/// A whole document around `body`, with `data` for the script.
pub(super) fn document(title: &str, body: &str, data: &str) -> String {
    // `<` cannot occur in what follows, so no text can end the script element.
    let data = data.replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the figures</a>\n{body}\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        escape(title)
    )
}

/// Text as HTML has it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

fn head(out: &mut String, sections: &[Section<'_>], files: &[Labelled]) {
    *out += "<header>\n<h1>Firn report</h1>\n";
    let runs: usize = sections.iter().map(|s| s.members().count()).sum();
    let plural = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let mut kernels: Vec<&str> = files
        .iter()
        .filter_map(|f| Some(f.results.document.environment.as_ref()?.kernel.as_str()))
        .collect();
    kernels.dedup();
    let linux = if kernels.is_empty() { "" } else { ", Linux " };
    let _ = writeln!(
        out,
        "<p class=\"sub\">{} from {}{linux}{}</p>",
        plural(runs, "run"),
        plural(files.len(), "file"),
        escape(&kernels.join(", "))
    );
    let mut cautions: Vec<String> = Vec::new();
    for file in files {
        let (name, document) = (file.results.label(), &file.results.document);
        if document.partial {
            cautions
                .push(format!("{name} was interrupted: it holds what was measured until then."));
        }
        if document.environment.as_ref().is_some_and(|e| e.build == "debug") {
            cautions.push(format!("{name} was made by a debug build: its times mean nothing."));
        }
        cautions.extend(document.skipped.iter().map(|line| format!("{name}: {line}")));
    }
    cautions.dedup();
    if !cautions.is_empty() {
        *out += "<ul class=\"cautions\">\n";
        for line in &cautions {
            let _ = writeln!(out, "<li>{}</li>", escape(line));
        }
        *out += "</ul>\n";
    }
    if sections.len() > 1 {
        *out += "<nav aria-label=\"Sections\"><ul>\n";
        for (i, section) in sections.iter().enumerate() {
            let _ = writeln!(out, "<li><a href=\"#s{i}\">{}</a></li>", escape(&section.name));
        }
        *out += "<li><a href=\"#machines\">Where it was measured</a></li>\n</ul></nav>\n";
    }
    *out += "</header>\n<main id=\"main\">\n";
}

fn draw(out: &mut String, data: &mut Map<String, Value>, section: &Section<'_>, number: usize) {
    let name = escape(&section.name);
    let _ = writeln!(
        out,
        "<section id=\"s{number}\" aria-labelledby=\"h{number}\">\n<h2 id=\"h{number}\">{name}</h2>"
    );
    *out += "<ul class=\"verdicts\">\n";
    for (color, series) in section.series.iter().enumerate() {
        let mut said: Vec<&str> = Vec::new();
        for member in &series.members {
            // The series is named already.
            let text = member.run.verdict.text.as_str();
            let named = format!("{}: ", member.run.backend);
            let text = text.strip_prefix(&named).unwrap_or(text);
            if !text.is_empty() && !said.contains(&text) {
                said.push(text);
            }
        }
        let noise = series.members.iter().any(|m| m.run.verdict.inside_noise)
            && !said.first().is_some_and(|text| text.contains("No verdict"));
        let noise = if noise { " <strong>Inside the noise floor: no claim.</strong>" } else { "" };
        let partial = series.members.iter().any(|m| m.run.partial);
        let partial = if partial { " <strong>Partial.</strong>" } else { "" };
        let _ = writeln!(
            out,
            "<li><span class=\"key s{}\" aria-hidden=\"true\"></span><b>{}</b>{}{noise}{partial}</li>",
            color % 8,
            escape(&series.name),
            // With many repetitions, one sentence stands for all.
            said.first().map_or_else(String::new, |text| format!(": {}", escape(text))),
        );
    }
    *out += "</ul>\n";
    let figures = tables::headlines(section);
    // A scenario has figures of its own; the general ones wait behind them.
    let (own, general): (Vec<_>, Vec<_>) =
        figures.rows.iter().cloned().partition(|row| row[0].starts_with("figure."));
    if own.is_empty() {
        table(out, &figures);
    } else {
        table(out, &Table { rows: own, ..figures.clone() });
        details(out, "General figures", &[Table { rows: general, ..figures }]);
    }
    let (pictures, missing) = pictures::of(section);
    *out += "<div class=\"grid\">\n";
    for (i, picture) in pictures.iter().enumerate() {
        let id = format!("p{number}-{i}");
        figure(out, picture, &id);
        data.insert(id, picture.data.clone());
    }
    *out += "</div>\n";
    for member in section.members() {
        let run = member.run;
        let label = format!("{}, {}", run.backend, member.file.results.label());
        for (what, list) in [("frames", &run.worst_frames), ("stalls", &run.worst_stalls)] {
            if !list.is_empty() {
                details(
                    out,
                    &format!("Worst {what}: {label}"),
                    &[tables::worst(&format!("Worst {what}, {label}"), list)],
                );
            }
        }
    }
    details(out, "What ran", &[tables::setup(section)]);
    if !missing.is_empty() {
        *out += "<p class=\"missing\">Not shown: ";
        let all: Vec<String> =
            missing.iter().map(|m| format!("{} ({})", escape(m.title), escape(m.why))).collect();
        *out += &all.join("; ");
        *out += ".</p>\n";
    }
    *out += "</section>\n";
}

fn figure(out: &mut String, picture: &Picture, id: &str) {
    let title = escape(picture.title);
    let _ = writeln!(
        out,
        "<figure id=\"{id}\" data-kind=\"{}\" aria-labelledby=\"{id}-t\" aria-describedby=\"{id}-a\">\n\
         <h3 id=\"{id}-t\">{title}</h3>\n<div class=\"tools\"></div>\n\
         <div class=\"plot\"></div>\n<output aria-live=\"polite\"></output>\n\
         <figcaption id=\"{id}-a\">{}</figcaption>",
        picture.kind,
        escape(&picture.about)
    );
    details(out, "Numbers", &picture.tables);
    *out += "</figure>\n";
}

pub(super) fn details(out: &mut String, summary: &str, tables: &[Table]) {
    let _ = writeln!(out, "<details><summary>{}</summary>", escape(summary));
    tables.iter().for_each(|t| table(out, t));
    *out += "</details>\n";
}

pub(super) fn table(out: &mut String, table: &Table) {
    // A region that scrolls must be reachable by keyboard, and then needs a name.
    let caption = escape(&table.caption);
    let _ = write!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><caption>{caption}</caption>\n<thead><tr>"
    );
    // A column with a sentence in it is a column of text.
    let is_text = |column: usize| {
        table.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.chars().count() > 40))
    };
    let class: Vec<&str> = (0..table.heads.len())
        .map(|column| if column > 0 && is_text(column) { " class=\"long\"" } else { "" })
        .collect();
    for (head, class) in table.heads.iter().zip(&class) {
        let _ = match head.is_empty() {
            true => write!(out, "<td></td>"),
            false => write!(out, "<th scope=\"col\"{class}>{}</th>", escape(head)),
        };
    }
    *out += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        *out += "<tr>";
        for (i, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match i {
                // Names of metrics may break behind their dots.
                0 => write!(out, "<th scope=\"row\">{}</th>", cell.replace('.', ".<wbr>")),
                _ => write!(out, "<td{}>{cell}</td>", class.get(i).unwrap_or(&"")),
            };
        }
        *out += "</tr>\n";
    }
    *out += "</tbody></table></div>\n";
}

fn machines(out: &mut String, files: &[Labelled]) {
    *out += "<section id=\"machines\" aria-labelledby=\"hm\">\n<h2 id=\"hm\">Where it was measured</h2>\n";
    let names: Vec<String> = files
        .iter()
        .map(|file| match file.label.as_str() {
            "" => file.results.label(),
            label => format!("{label}: {}", file.results.label()),
        })
        .collect();
    let heads = std::iter::once("").chain(names.iter().map(String::as_str));
    let mut all = Table::new("Environment of each file", heads);
    type Show = fn(&Environment) -> String;
    let show: [(&str, Show); 12] = [
        ("kernel", |e| format!("{} {}", e.kernel, e.kernel_build)),
        ("processor", |e| format!("{} × {}", e.cpus, e.cpu_model)),
        ("virtual machine", |e| e.hypervisor.clone().unwrap_or_else(|| "none known".into())),
        ("memory", |e| units::bytes(e.memory_bytes)),
        ("pages", |e| {
            format!("{}, THP {}", units::bytes(e.page_bytes as u64), e.transparent_huge_pages)
        }),
        ("userfaultfd", |e| e.userfaultfd.clone().unwrap_or_else(|| "none".into())),
        ("features", |e| e.features.clone()),
        ("governor, clock", |e| {
            format!(
                "{}, {}",
                e.governor.as_deref().unwrap_or("none"),
                e.clock_source.as_deref().unwrap_or("unknown")
            )
        }),
        ("load before", |e| {
            e.load_average
                .map_or_else(|| "unknown".into(), |l| format!("{} {} {}", l[0], l[1], l[2]))
        }),
        ("measured with", |e| {
            let source = |s: &Option<crate::schema::Source>| {
                s.and_then(|s| serde_json::to_value(s).ok()?.as_str().map(str::to_owned))
                    .unwrap_or_else(|| "nothing".into())
            };
            let mut text = format!(
                "locks: {}, blocked time: {}",
                source(&e.measuring.locks),
                source(&e.measuring.blocked)
            );
            for line in &e.measuring.missing {
                let _ = write!(text, "; {line}");
            }
            text
        }),
        ("firn", |e| format!("{} ({})", e.firn_version, e.build)),
        ("command", |e| e.command.join(" ")),
    ];
    let environments: Vec<Option<&Environment>> =
        files.iter().map(|f| f.results.document.environment.as_ref()).collect();
    for (name, get) in show {
        let mut row = vec![name.to_owned()];
        row.extend(environments.iter().map(|e| e.map_or_else(|| "–".into(), get)));
        all.rows.push(row);
    }
    let mut noise = vec!["noise floor".to_owned()];
    noise.extend(files.iter().map(|file| match &file.results.document.noise {
        Some(n) => format!(
            "{} over {:.1} s, {:.2} processors busy",
            units::time(n.floor_ns),
            n.seconds,
            n.busy_cpus
        ),
        None => "not measured".into(),
    }));
    all.rows.push(noise);
    let mut settings: Vec<&String> =
        environments.iter().flatten().flat_map(|e| e.settings.keys()).collect();
    settings.sort_unstable();
    settings.dedup();
    for name in settings {
        let mut row = vec![name.clone()];
        row.extend(
            environments.iter().map(|e| {
                e.and_then(|e| e.settings.get(name)).cloned().unwrap_or_else(|| "–".into())
            }),
        );
        all.rows.push(row);
    }
    let different: Vec<&str> = all
        .rows
        .iter()
        .filter(|row| {
            MATTERS.contains(&row[0].as_str()) && row[1..].windows(2).any(|w| w[0] != w[1])
        })
        .map(|row| row[0].as_str())
        .collect();
    if !different.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"cautions\">The files come from different surroundings. Not the same: {}.</p>",
            escape(&different.join(", "))
        );
    }
    table(out, &all);
    let firn = env!("CARGO_PKG_VERSION");
    let _ = writeln!(out, "</section>\n</main>\n<footer>Written by firn {firn}.</footer>");
}
