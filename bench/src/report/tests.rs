//! The page as a whole: what is in it, that no text can break it, and that a browser draws it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::schema::Document;

#[path = "../../tests/support/browser.rs"]
mod browser;
use browser::browser;

fn file(label: &str, name: &str, document: Document) -> Labelled {
    Labelled { label: label.into(), results: Results { path: name.into(), document } }
}

fn example() -> Vec<Labelled> {
    let backends = ["art", "pingpong"];
    (1..=3).map(|i| file("", &format!("{i}.json"), samples::document(&backends, i))).collect()
}

fn page(files: &[Labelled]) -> String {
    html::page(&model::sections(files), files)
}

#[test]
fn repetitions_are_one_series_and_labels_and_kernels_are_not() {
    let files = example();
    let sections = model::sections(&files);
    assert_eq!(sections.len(), 1);
    let names: Vec<_> =
        sections[0].series.iter().map(|s| (s.name.as_str(), s.members.len())).collect();
    assert_eq!(names, [("art", 3), ("pingpong", 3)]);
    let mut files = [
        file("old", "a", samples::document(&["art"], 1)),
        file("new", "b", samples::document(&["art"], 2)),
    ];
    let names = |files: &[Labelled]| -> Vec<String> {
        model::sections(files)[0].series.iter().map(|s| s.name.clone()).collect()
    };
    assert_eq!(names(&files), ["art, old", "art, new"]);
    files.iter_mut().for_each(|f| f.label.clear());
    assert_eq!(names(&files), ["art"]);
    files[1].results.document.environment.as_mut().unwrap().kernel = "6.6.1".into();
    assert_eq!(names(&files), ["art, 6.18.0", "art, 6.6.1"]);
}

#[test]
fn every_picture_has_its_numbers_in_tables() {
    let files = example();
    let sections = model::sections(&files);
    let (pictures, missing) = pictures::of(&sections[0]);
    assert_eq!(pictures.len(), 7, "{missing:?}");
    assert!(missing.is_empty());
    for picture in &pictures {
        assert!(!picture.tables.is_empty(), "{}", picture.title);
        for table in &picture.tables {
            assert!(!table.rows.is_empty(), "{}: {}", picture.title, table.caption);
            for row in &table.rows {
                assert_eq!(row.len(), table.heads.len(), "{}: {}", picture.title, table.caption);
            }
        }
        assert!(!picture.data["choices"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_run_without_something_says_so_instead_of_drawing_nothing() {
    let mut files = example();
    for run in files.iter_mut().flat_map(|f| &mut f.results.document.runs) {
        run.locks = None;
        run.frames = None;
        run.cycles.clear();
        run.faults = None;
    }
    let page = page(&files);
    for said in [
        "Lock waits by role (mmap_lock was not recorded",
        "Frame overrun (",
        "Fault latency over time (",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("data-kind=\"decades\" aria"));
}

#[test]
fn the_page_asks_for_nothing_and_no_text_can_break_out() {
    let mut files = example();
    files[0].results.document.runs[0].verdict.text = "</script><script>alert(1)</script>".into();
    files[0].results.document.runs[0].spans.threads[0].name = "<img src=x>".into();
    files[0].results.document.runs[0].worst_frames[0].what = "\"><b>".into();
    files[0].results.document.runs[0].timeline.tracks[0].name = "</script><b>".into();
    let page = page(&files);
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script>").count(), 2);
    for text in ["<img", "\"><b>", "alert(1)</", "http://", "https://", "@import", "url("] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn labels_are_taken_apart_from_names_of_files() {
    let of = |texts: &[&str]| labelled(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
    let file = |label: &str, path: &str| (label.to_owned(), PathBuf::from(path));
    assert_eq!(of(&["a", "x=b"]), [file("", "a"), file("x", "b")]);
    assert_eq!(
        of(&["old=", "a", "b", "new=", "c", "x=d", "e"]),
        [file("old", "a"), file("old", "b"), file("new", "c"), file("x", "d"), file("new", "e")]
    );
    assert!(of(&["old="]).is_empty());
}

#[test]
fn what_cannot_be_read_or_written_is_one_line() {
    let args = |file: &str, output: &str| ReportArgs {
        base: None,
        files: vec![file.into()],
        output: output.into(),
        only: None,
        trace: None,
    };
    let failure = run(&args("/no/such.json", "/tmp/x.html"), |_| {}).unwrap_err();
    assert!(failure.message.starts_with("/no/such.json: cannot be read"), "{failure}");
    let folder = std::env::temp_dir();
    let input = folder.join(format!("firn-report-{}.json", std::process::id()));
    std::fs::write(&input, samples::text(&["art"], 1)).unwrap();
    let failure =
        run(&args(input.to_str().unwrap(), "/no/such/folder/x.html"), |_| {}).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    let mut only = args(input.to_str().unwrap(), "-");
    only.only = Some("nothing".into());
    assert!(run(&only, |_| {}).unwrap_err().message.contains("--only nothing"));
    std::fs::remove_file(&input).unwrap();
}

/// What somebody does with a keyboard and the list of choices, and a mark for each thing that answered.
const HANDS: &str = r#"<script>
addEventListener("load", () => {
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector(".plot svg"), output = figure.querySelector("output");
    svg.focus();
    svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    const first = output.textContent;
    svg.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
    if (document.activeElement === svg && first && output.textContent !== first) figure.dataset.keys = "read";
    const select = figure.querySelector("select");
    if (!select) continue;
    const before = figure.querySelector(".plot svg").getAttribute("aria-label");
    select.selectedIndex = 1;
    select.dispatchEvent(new Event("change"));
    if (figure.querySelector(".plot svg").getAttribute("aria-label") !== before) figure.dataset.choice = "shown";
  }
});
</script></body>"#;

#[test]
fn every_picture_is_read_with_the_keyboard_and_every_choice_is_shown() {
    let Some(browser) = browser() else { return };
    let path = std::env::temp_dir().join(format!("firn-hands-{}.html", std::process::id()));
    std::fs::write(&path, page(&example()).replace("</body>", HANDS)).unwrap();
    let (dom, complaints) = render(&browser, &path, 900);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(complaints, "");
    for figure in dom.split("<figure ").skip(1).map(|f| f.split('>').next().unwrap()) {
        assert!(figure.contains("data-keys=\"read\""), "{figure}");
        let single = figure.contains("data-kind=\"utilization\"");
        assert_eq!(figure.contains("data-choice=\"shown\""), !single, "{figure}");
    }
}

/// Lets the browser draw a page and returns the document as it then is, with what the script complained
/// about.
fn render(browser: &Path, page: &Path, width: u32) -> (String, String) {
    let profile = std::env::temp_dir().join(format!("firn-browser-{}-{width}", std::process::id()));
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--window-size={width},2000"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let _ = std::fs::remove_dir_all(&profile);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| line.contains("CONSOLE")).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), complaints.join("\n"))
}

#[test]
fn a_browser_draws_every_picture_without_a_complaint() {
    let Some(browser) = browser() else { return };
    let path = std::env::temp_dir().join(format!("firn-report-{}.html", std::process::id()));
    for (name, files) in [
        ("several runs", example()),
        ("one run", vec![file("", "one.json", samples::document(&["art"], 9))]),
    ] {
        std::fs::write(&path, page(&files)).unwrap();
        for width in [360, 1280] {
            let (dom, complaints) = render(&browser, &path, width);
            assert_eq!(complaints, "", "{name}, {width}");
            let figures: Vec<&str> = dom
                .split("<figure ")
                .skip(1)
                .map(|f| f.split("</figure>").next().unwrap())
                .collect();
            assert_eq!(figures.len(), 7, "{name}, {width}");
            for figure in figures {
                let kind = figure.split("data-kind=\"").nth(1).unwrap().split('"').next().unwrap();
                assert!(figure.contains("data-drawn=\"true\""), "{name}, {width}: {kind}");
                let plot =
                    figure.split("class=\"plot\"").nth(1).unwrap().split("<output").next().unwrap();
                let marks: &[&str] = match kind {
                    "stalls" | "decades" => &["class=\"bar "],
                    "heat" => &["class=\"cell\""],
                    "timeline" => {
                        &["class=\"line\"", "phase-mark", "phase-compact", "class=\"pause\""]
                    }
                    "overrun" => &["class=\"line\"", "class=\"zero\""],
                    "percentiles" if name == "several runs" => {
                        &["class=\"line\"", "class=\"band\"", "class=\"single\"", "class=\"floor\""]
                    }
                    _ => &["class=\"line\""],
                };
                for mark in marks {
                    assert!(plot.contains(mark), "{name}, {width}: {kind} has no {mark}");
                }
                assert!(
                    !plot.contains("NaN")
                        && !plot.contains("Infinity")
                        && !plot.contains("undefined"),
                    "{name}, {width}: {kind}"
                );
                assert!(plot.contains("role=\"img\"") && plot.contains("aria-label=\""), "{kind}");
            }
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_browser_test_sees_a_script_that_fails() {
    let Some(browser) = browser() else { return };
    let path = std::env::temp_dir().join(format!("firn-broken-{}.html", std::process::id()));
    // The script cannot find the data of its first picture.
    std::fs::write(&path, page(&example()).replace("\"p0-0\":", "\"q0-0\":")).unwrap();
    let (dom, complaints) = render(&browser, &path, 800);
    std::fs::remove_file(&path).unwrap();
    assert!(complaints.contains("TypeError"), "{complaints}");
    assert!(!dom.contains("data-drawn=\"true\""));
}

/// A set of two kernels with three boots each, whose reports are runs of two back ends.
fn set() -> crate::kernels::set::Set {
    use crate::kernels::set::tests::example;
    let mut set = example(&["6.1.0-50", "6.12.107+deb13"], None);
    let pattern = std::mem::take(&mut set.boots);
    for run in 1..=3 {
        for (k, boot) in pattern.iter().enumerate() {
            let mut document = samples::document(&["art", "pingpong"], run as u64);
            for each in &mut document.runs {
                each.name = format!("compact-vs-writers/storm/{}", each.backend);
                each.variant = "storm".into();
                let locks = each.locks.as_mut().unwrap();
                for row in &mut locks.total {
                    row.count = if k == 0 { 1000 + run as u64 } else { 10 };
                }
            }
            let mut boot = boot.clone();
            (boot.run, boot.place) = (run, 2 * run + k);
            boot.boot.report = Some(serde_json::to_value(&document).unwrap());
            set.boots.push(boot);
        }
    }
    set
}

#[test]
fn a_set_of_kernels_is_drawn_by_kernel_with_the_notes_beside_the_steps() {
    let page = super::kernels::page(&set(), None, None).unwrap();
    for part in ["6.1 (base)", "6.12", "lock.read", "6.9: per-VMA locks in userfaultfd", "art"] {
        assert!(page.contains(part), "{part}");
    }
    // A panel for each metric, and for each curve one a kernel.
    let panels = page.matches("<svg viewBox").count();
    assert!(panels >= 8, "{panels}");
    assert_eq!(panels, page.matches("</svg></div>").count());
    for panel in page.split("<svg viewBox").skip(1) {
        let panel = panel.split("</svg>").next().unwrap();
        assert!(!panel.contains("NaN") && !panel.contains("inf"), "no number: {panel}");
        assert!(panel.contains("circle") || panel.contains("<path"), "an empty panel: {panel}");
    }
    // The script names the namespace of pictures.
    let body = page.split("<script").next().unwrap();
    assert!(!body.contains("http://") && !body.contains("https://"));
    let only = super::kernels::page(&set(), Some("6.12"), Some("pingpong")).unwrap();
    assert!(only.contains("6.12 (base)") && !only.contains("storm art"));
    assert!(super::kernels::page(&set(), Some("5.4"), None).is_err());
}
