// Draws the pictures of a Firn report. Every number it shows is in the tables too; it computes
// nothing but places on the screen. No network, no storage, no library.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "6 2 1 2"];

  // A ninth line has the first one's colour, but not its dashes.
  const dash = (i) => DASHES[(i + 3 * Math.floor(i / 8)) % 8];

  const make = (name, attributes, text) => {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const html = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Three significant digits and a unit, as the tables have them.
  const digits = (x) => (x < 9.995 ? x.toFixed(2) : x < 99.95 ? x.toFixed(1) : x.toFixed(0));
  const time = (ns) => {
    const size = Math.abs(ns), sign = ns < 0 ? "-" : "";
    if (size < 1e3) return sign + Math.round(size) + " ns";
    if (size < 1e6) return sign + digits(size / 1e3) + " us";
    if (size < 1e9) return sign + digits(size / 1e6) + " ms";
    return sign + digits(size / 1e9) + " s";
  };
  const tick = (ns) => time(ns).replace(/\.0+ /, " ").replace(/(\.\d*[1-9])0+ /, "$1 ");
  const percent = (share) => {
    const p = share * 100;
    return (p >= 0.1 || p === 0 ? +p.toFixed(1) : +p.toPrecision(1)) + " %";
  };
  const number = (n) => (n >= 10 ? Math.round(n).toLocaleString("en") : +n.toFixed(1)).toString();

  // Scales: a value to a place between 0 and 1.
  const linear = (a, b) => ({ a, b, at: (v) => (v - a) / (b - a || 1), from: (t) => a + t * (b - a) });
  const log = (a, b) => {
    const la = Math.log10(a), span = Math.log10(b) - la || 1;
    return { a, b, at: (v) => (Math.log10(Math.max(v, a)) - la) / span, from: (t) => 10 ** (la + t * span) };
  };
  // Linear near zero, logarithmic far from it, in both directions.
  const both = (a, b) => {
    const la = Math.asinh(a), span = Math.asinh(b) - la || 1;
    return { a, b, at: (v) => (Math.asinh(v) - la) / span, from: (t) => Math.sinh(la + t * span) };
  };
  const decadesBetween = (a, b) => {
    const out = [];
    for (let e = Math.floor(Math.log10(a)); 10 ** e <= b * 1.0001; e++) if (10 ** e >= a * 0.9999) out.push(10 ** e);
    return out;
  };
  const niceTicks = (a, b, n) => {
    const raw = (b - a) / n || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const out = [];
    for (let v = Math.ceil(a / step) * step; v <= b + step * 1e-6; v += step) out.push(Math.abs(v) < step * 1e-6 ? 0 : v);
    return out;
  };

  // Axes, grid and an accessible name. Returns the places of values.
  const frame = (plot, options) => {
    const width = Math.max(plot.clientWidth, 240), height = options.height || 300;
    const left = options.left || 62, right = 14, top = options.top || 12, bottom = options.bottom || 40;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": options.name });
    const x = (v) => left + options.x.at(v) * (width - left - right);
    const y = (v) => height - bottom - options.y.at(v) * (height - top - bottom);
    const back = svg.appendChild(make("g", {}));
    for (const [v, label] of options.xticks) {
      svg.appendChild(make("line", { class: "gridline", x1: x(v), x2: x(v), y1: top, y2: height - bottom }));
      svg.appendChild(make("text", { x: x(v), y: height - bottom + 15, "text-anchor": "middle" }, label));
    }
    for (const [v, label] of options.yticks) {
      svg.appendChild(make("line", { class: "gridline", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
      svg.appendChild(make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, label));
    }
    svg.appendChild(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    if (options.xlabel) svg.appendChild(make("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, options.xlabel));
    plot.appendChild(svg);
    return { svg, back, x, y, left, right: width - right, top, bottom: height - bottom, width, scaleX: options.x };
  };

  const path = (f, xs, ys, keep) => {
    let d = "", pen = "M";
    xs.forEach((v, i) => {
      if (ys[i] === null || (keep && !keep(ys[i]))) { pen = "M"; return; }
      d += `${pen}${f.x(v).toFixed(1)} ${f.y(ys[i]).toFixed(1)}`;
      pen = "L";
    });
    return d;
  };

  // A line to read values by: pointer, or arrow keys on the focused picture.
  const reader = (f, output, places, say) => {
    const cursor = f.svg.appendChild(make("line", { class: "cursor", y1: f.top, y2: f.bottom, visibility: "hidden" }));
    let now = -1;
    const show = (i) => {
      now = Math.max(0, Math.min(places.length - 1, i));
      cursor.setAttribute("x1", f.x(places[now]));
      cursor.setAttribute("x2", f.x(places[now]));
      cursor.setAttribute("visibility", "visible");
      output.textContent = say(now, places[now]);
    };
    const nearest = (event) => {
      const box = f.svg.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * f.width;
      let best = 0;
      places.forEach((v, i) => { if (Math.abs(f.x(v) - px) < Math.abs(f.x(places[best]) - px)) best = i; });
      show(best);
    };
    f.svg.setAttribute("tabindex", "0");
    f.svg.addEventListener("pointermove", nearest);
    f.svg.addEventListener("pointerdown", nearest);
    f.svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (event.key === "Home") show(0);
      else if (event.key === "End") show(places.length - 1);
      else if (step) show(now + step);
      else return;
      event.preventDefault();
    });
  };

  const legend = (tools, items) => {
    tools.querySelectorAll(".legend").forEach((old) => old.remove());
    if (!items.length) return;
    const box = html("div", "legend");
    for (const item of items) {
      const span = html("span", "");
      const svg = make("svg", { viewBox: "0 0 28 12", "aria-hidden": "true" });
      const color = item.className || `s${item.color % 8}`;
      if (item.fill) svg.appendChild(make("rect", { class: item.plain ? color : `bar ${color}`, x: 2, y: 1, width: 24, height: 10, ...(item.opacity ? { opacity: item.opacity } : {}) }));
      else svg.appendChild(make("line", { class: `line ${color}`, x1: 0, x2: 28, y1: 6, y2: 6, "stroke-dasharray": item.dash || "" }));
      span.append(svg, item.name);
      box.append(span);
    }
    tools.append(box);
  };

  const bounds = (lists) => {
    let low = Infinity, high = -Infinity;
    for (const list of lists) for (const v of list) if (v !== null && v > 0) { low = Math.min(low, v); high = Math.max(high, v); }
    return [low, high];
  };
  const wholeDecades = (low, high) => [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.0001))];
  const valueAt = (curve, x) => {
    // The last point not to the right of x; nothing beyond the ends.
    if (x < curve.x[0] - 1e-9 || x > curve.x[curve.x.length - 1] + 1e-9) return null;
    let i = 0;
    while (i + 1 < curve.x.length && curve.x[i + 1] <= x + 1e-9) i++;
    return curve.y[i];
  };
  const series = (curves) => curves.map((c) => ({ name: c.name, color: c.color, dash: dash(c.color) }));
  const lines = (f, curves, keep) => {
    for (const c of curves) {
      const group = f.svg.appendChild(make("g", { class: `s${c.color % 8}` }));
      if (c.low && c.low.length) {
        const up = path(f, c.x, c.high, keep);
        const back = path(f, [...c.x].reverse(), [...c.low].reverse(), keep).replace("M", "L");
        group.appendChild(make("path", { class: "band", d: `${up}${back}Z` }));
      }
      for (const one of c.singles || []) group.appendChild(make("path", { class: "single", d: path(f, one.x, one.y, keep) }));
      group.appendChild(make("path", { class: "line", d: path(f, c.x, c.y, keep), "stroke-dasharray": dash(c.color) }));
    }
  };

  const NINES = [[0, "0 %"], [1, "90 %"], [2, "99 %"], [3, "99.9 %"], [4, "99.99 %"], [5, "99.999 %"], [6, "6 nines"], [7, "7 nines"], [8, "8 nines"], [9, "9 nines"]];
  const quantileName = (x) => {
    const share = 1 - 10 ** -x, places = Math.max(0, Math.ceil(x) - 1);
    return "p" + +(share * 100).toFixed(places + 1);
  };

  const draw = {
    percentiles(plot, choice, tools, output) {
      const all = choice.curves.flatMap((c) => [c.y, c.low, c.high, ...c.singles.map((s) => s.y)]);
      let [low, high] = bounds(all);
      if (choice.floor) { low = Math.min(low, choice.floor); high = Math.max(high, choice.floor); }
      [low, high] = wholeDecades(low, high);
      const end = Math.max(1, ...choice.curves.map((c) => c.x[c.x.length - 1]));
      const narrow = plot.clientWidth < 480;
      const xticks = NINES.filter(([v]) => v <= end).filter(([v]) => !narrow || end < 5 || v % 2 === 0 || v === 1);
      const f = frame(plot, {
        name: `Percentile curves of ${choice.label}: ${choice.curves.map((c) => `${c.name}, longest ${time(c.y[c.y.length - 1])}`).join("; ")}. Arrow keys read values.`,
        x: linear(0, end), y: log(low, high), xticks, yticks: decadesBetween(low, high).map((v) => [v, tick(v)]), xlabel: "share of events that were faster",
      });
      if (choice.floor) f.svg.appendChild(make("line", { class: "floor", x1: f.left, x2: f.right, y1: f.y(choice.floor), y2: f.y(choice.floor) }));
      lines(f, choice.curves, (v) => v > 0);
      legend(tools, series(choice.curves));
      const longest = choice.curves.reduce((a, b) => (b.x.length > a.x.length ? b : a));
      reader(f, output, longest.x, (_, x) => `${quantileName(x)}: ` + choice.curves.map((c) => [c, valueAt(c, x)]).filter(([, v]) => v !== null).map(([c, v]) => `${c.name} ${time(v)}`).join(", "));
    },

    timeline(plot, choice, tools, output) {
      const step = choice.interval;
      const n = Math.max(...choice.tracks.map((t) => t.worst.length));
      const start = Math.floor(choice.from / step) * step;
      let [low, high] = bounds(choice.tracks.map((t) => t.worst));
      if (!isFinite(low)) { low = 1e3; high = 1e6; }
      [low, high] = wholeDecades(low, high);
      const f = frame(plot, {
        height: 320, top: 20,
        name: `Worst of each interval, ${choice.label}: ${choice.tracks.map((t) => `${t.name} up to ${time(Math.max(...t.worst.filter((v) => v !== null)))}`).join("; ")}. Arrow keys read values.`,
        x: linear(start, n * step), y: log(low, high),
        xticks: niceTicks(start / 1e9, (n * step) / 1e9, plot.clientWidth < 480 ? 4 : 10).map((v) => [v * 1e9, +v.toFixed(3) + " s"]),
        yticks: decadesBetween(low, high).map((v) => [v, tick(v)]), xlabel: "time",
      });
      const kinds = new Set();
      for (const [kind, begin, end] of choice.phases) {
        if (end < start || begin > n * step) continue;
        const from = Math.max(f.left, f.x(begin)), to = Math.min(f.right, f.x(end));
        f.back.appendChild(make("rect", { class: `phase-${kind}`, x: from, width: Math.max(1, to - from), y: f.top, height: f.bottom - f.top }));
        kinds.add(kind);
      }
      for (const [, begin] of choice.pauses) {
        if (begin < start || begin > n * step) continue;
        f.svg.appendChild(make("line", { class: "pause", x1: f.x(begin), x2: f.x(begin), y1: f.top - 8, y2: f.top - 1 }));
      }
      const first = start / step;
      const places = Array.from({ length: n - first }, (_, i) => (first + i + 0.5) * step);
      choice.tracks.forEach((t, i) => {
        const group = f.svg.appendChild(make("g", { class: `s${i % 8}` }));
        const values = t.worst.slice(first);
        group.appendChild(make("path", { class: "line", d: path(f, places.slice(0, values.length), values, (v) => v > 0), "stroke-dasharray": dash(i), style: "stroke-width:1.6" }));
        // A value without neighbours has no line.
        values.forEach((v, k) => {
          const alone = (j) => !(values[j] > 0);
          if (v > 0 && alone(k - 1) && alone(k + 1)) group.appendChild(make("circle", { class: "dot", cx: f.x(places[k]), cy: f.y(v), r: 2.2 }));
        });
      });
      legend(tools, [
        ...choice.tracks.map((t, i) => ({ name: t.name, color: i, dash: dash(i) })),
        ...[...kinds].map((k) => ({ name: k === "mark" ? "marking" : "compacting", className: `phase-${k}`, fill: true, plain: true })),
      ]);
      reader(f, output, places, (k) => {
        const i = first + k;
        return `${((i * step) / 1e9).toFixed(1)} s: ` + choice.tracks.filter((t) => t.worst[i] !== null && t.worst[i] !== undefined).map((t) => `${t.name} ${time(t.worst[i])}`).join(", ");
      });
    },

    utilization(plot, choice, tools, output) {
      const xs = choice.curves.flatMap((c) => c.x);
      const low = Math.min(...xs), high = Math.max(...xs, low * 10);
      const ticks = [...new Set(xs)].sort((a, b) => a - b);
      const f = frame(plot, {
        name: `Mutator utilisation: ${choice.curves.map((c) => c.name + " " + c.x.map((x, i) => `${percent(c.y[i])} at ${x} ms`).join(", ")).join("; ")}.`,
        x: log(low, high), y: linear(0, 1), xticks: ticks.map((v) => [v, v.toString()]),
        yticks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, percent(v)]), xlabel: "window, ms",
      });
      lines(f, choice.curves);
      for (const c of choice.curves) c.x.forEach((x, i) => f.svg.appendChild(make("circle", { class: `dot s${c.color % 8}`, cx: f.x(x), cy: f.y(c.y[i]), r: 3 })));
      legend(tools, series(choice.curves));
      reader(f, output, ticks, (_, x) => `${x} ms: ` + choice.curves.map((c) => [c, valueAt(c, x)]).filter(([, v]) => v !== null).map(([c, v]) => `${c.name} ${percent(v)}`).join(", "));
    },

    overrun(plot, choice, tools, output) {
      const xs = choice.curves.flatMap((c) => c.x);
      const low = Math.min(...xs, -1), high = Math.max(...xs, 1);
      const least = Math.min(...choice.curves.flatMap((c) => c.y));
      const bottom = 10 ** Math.floor(Math.log10(least));
      const shareAt = (c, x) => (x < c.x[0] ? 1 : x > c.x[c.x.length - 1] ? 0 : valueAt(c, x));
      const f = frame(plot, {
        name: `Frame overrun at ${choice.label}: ${choice.curves.map((c) => `${c.name} missed ${percent(shareAt(c, 0))}, latest ${c.x[c.x.length - 1].toFixed(1)} ms late`).join("; ")}.`,
        x: both(low, high), y: log(bottom, 1),
        xticks: [-1000, -100, -10, -1, 0, 1, 10, 100, 1000, 10000].filter((v) => v >= low && v <= high).map((v) => [v, (v > 0 ? "+" : "") + v]),
        yticks: decadesBetween(bottom, 1).map((v) => [v, percent(v)]), xlabel: "after the deadline, ms",
      });
      lines(f, choice.curves);
      f.svg.appendChild(make("line", { class: "zero", x1: f.x(0), x2: f.x(0), y1: f.top, y2: f.bottom }));
      f.svg.appendChild(make("text", { x: f.x(0) + (f.x(0) > f.width / 2 ? -5 : 5), y: f.bottom - 6, "text-anchor": f.x(0) > f.width / 2 ? "end" : "start" }, "deadline"));
      legend(tools, series(choice.curves));
      const places = [...new Set([...xs, 0])].sort((a, b) => a - b);
      reader(f, output, places, (_, x) => `later than ${x > 0 ? "+" : ""}${x.toFixed(1)} ms: ` + choice.curves.map((c) => `${c.name} ${percent(shareAt(c, x))}`).join(", "));
    },

    stalls(plot, choice, tools, output) {
      const n = choice.cycles.length;
      const sums = choice.cycles.map((_, i) => choice.causes.reduce((sum, c) => sum + c.ns[i], 0));
      const high = Math.max(...sums, 1);
      const f = frame(plot, {
        name: `Stalls of ${n} collections, ${choice.label}: ${choice.causes.map((c) => `${c.name} ${time(c.ns.reduce((a, b) => a + b, 0))}`).join(", ")} in all.`,
        x: linear(-0.5, n - 0.5), y: linear(0, high),
        xticks: choice.cycles.map((c, i) => [i, c.toString()]).filter((_, i) => i % Math.ceil(n / (plot.clientWidth / 45)) === 0),
        yticks: niceTicks(0, high / 1e6, 5).map((v) => [v * 1e6, +v.toPrecision(3) + " ms"]), xlabel: "collection",
      });
      const wide = Math.max(1, ((f.right - f.left) / n) * 0.76);
      choice.cycles.forEach((_, i) => {
        let base = 0;
        choice.causes.forEach((cause, k) => {
          const ns = cause.ns[i];
          if (!ns) return;
          const top = f.y(base + ns), h = f.y(base) - top;
          f.svg.appendChild(make("rect", { class: `bar s${k % 8}`, x: f.x(i) - wide / 2, width: wide, y: top, height: Math.max(h, 0.5) }));
          base += ns;
        });
      });
      legend(tools, choice.causes.map((c, k) => ({ name: c.name, color: k, fill: true })));
      reader(f, output, choice.cycles.map((_, i) => i), (i) => `collection ${choice.cycles[i]}: ${time(sums[i])}: ` + choice.causes.filter((c) => c.ns[i]).map((c) => `${c.name} ${time(c.ns[i])}`).join(", "));
    },

    heat(plot, choice, tools, output) {
      const columns = Math.max(...choice.cells.map((c) => c[0])) + 1;
      const first = Math.min(...choice.cells.map((c) => c[1])), last = Math.max(...choice.cells.map((c) => c[1]));
      const most = Math.max(...choice.cells.map((c) => c[2]));
      const edge = (row) => (row < 0 ? choice.edges[0] / Math.SQRT2 : choice.edges[row]);
      const low = edge(first - 1), high = edge(last), step = choice.interval;
      const begin = Math.floor(Math.min(choice.from, ...choice.cells.map((c) => c[0] * step)) / step);
      const f = frame(plot, {
        height: 300, name: `Fault latency over time, ${choice.label}: lengths from ${time(low)} to ${time(high)}, at most ${most} in a cell.`,
        x: linear(begin * step, columns * step), y: log(low, high * 1.0001),
        xticks: niceTicks((begin * step) / 1e9, (columns * step) / 1e9, plot.clientWidth < 480 ? 4 : 8).map((v) => [v * 1e9, +v.toFixed(3) + " s"]),
        yticks: decadesBetween(low, high).map((v) => [v, tick(v)]), xlabel: "time",
      });
      const columnsOf = new Map();
      for (const [column, row, n] of choice.cells) {
        const shade = 0.15 + 0.85 * (Math.log(n + 1) / Math.log(most + 1));
        const x = f.x(column * step), y = f.y(edge(row));
        f.svg.appendChild(make("rect", { class: "cell", x, y, width: Math.max(0.7, f.x((column + 1) * step) - x), height: Math.max(1, f.y(edge(row - 1)) - y), style: `fill:rgba(var(--heat),${shade.toFixed(2)})` }));
        if (!columnsOf.has(column)) columnsOf.set(column, []);
        columnsOf.get(column).push([row, n]);
      }
      legend(tools, [[1, "1"], [Math.sqrt(most), number(Math.sqrt(most))], [most, number(most)]].filter(([n], i, all) => i === 0 || n > all[i - 1][0]).map(([n, name]) => ({ name, className: "", fill: true, plain: true, shade: 0.15 + 0.85 * (Math.log(n + 1) / Math.log(most + 1)) })));
      tools.querySelectorAll(".legend rect").forEach((rect, i) => {
        const n = [1, Math.sqrt(most), most][i];
        rect.setAttribute("style", `fill:rgba(var(--heat),${(0.15 + 0.85 * (Math.log(n + 1) / Math.log(most + 1))).toFixed(2)})`);
      });
      const places = Array.from({ length: columns - begin }, (_, i) => (begin + i + 0.5) * step);
      reader(f, output, places, (k) => {
        const i = begin + k;
        const cells = columnsOf.get(i) || [];
        if (!cells.length) return `${((i * step) / 1e9).toFixed(1)} s: no stall`;
        const all = cells.reduce((sum, c) => sum + c[1], 0), top = Math.max(...cells.map((c) => c[0]));
        return `${((i * step) / 1e9).toFixed(1)} s: ${number(all)} stalls, the longest up to ${time(edge(top))}`;
      });
    },

    decades(plot, choice, tools, output) {
      const facets = plot.appendChild(html("div", "facets"));
      const most = Math.max(1, ...choice.roles.flatMap((r) => r.series.flatMap((s) => s.counts)));
      const top = 10 ** Math.ceil(Math.log10(most * 1.0001));
      // A log axis has no zero: half an event stands for none.
      const low = 0.5;
      for (const role of choice.roles) {
        const cell = facets.appendChild(html("div", ""));
        cell.append(html("p", "subtitle", role.role));
        const holder = cell.appendChild(html("div", ""));
        const short = ["<1 us", "10 us", "100 us", "1 ms", "10 ms", "0.1 s", "1 s", "≥1 s"];
        const f = frame(holder, {
          height: 190, left: 56,
          name: `${role.role}, waits ${choice.label}: ${role.series.map((s) => s.name + ": " + s.counts.map((n, i) => [n, i]).filter(([n]) => n > 0).map(([n, i]) => `${number(n)} in ${choice.decades[i]}`).join(", ")).join("; ")}`,
          x: linear(-0.5, 7.5), y: log(low, top), xticks: short.map((label, i) => [i, label]).filter((_, i) => holder.clientWidth > 380 || i % 2 === 0),
          yticks: decadesBetween(1, top).filter((_, i, all) => all.length < 6 || i % 2 === 0).map((v) => [v, number(v)]), xlabel: "wait, up to",
        });
        const slot = ((f.right - f.left) / 8) * 0.8, wide = slot / role.series.length;
        role.series.forEach((s, k) => s.counts.forEach((n, i) => {
          if (!(n > 0)) return;
          const y = f.y(Math.max(n, low * 1.15));
          f.svg.appendChild(make("rect", { class: `bar s${s.color % 8}`, x: f.x(i) - slot / 2 + k * wide, width: Math.max(1, wide - 1), y, height: f.bottom - y }));
        }));
        reader(f, output, choice.decades.map((_, i) => i), (i) => `${role.role}, ${choice.decades[i]}: ` + role.series.map((s) => `${s.name} ${number(s.counts[i])}`).join(", "));
      }
      const seen = new Map();
      for (const r of choice.roles) for (const s of r.series) seen.set(s.name, s.color);
      legend(tools, [...seen].map(([name, color]) => ({ name, color, fill: true })));
    },
  };

  for (const figure of document.querySelectorAll("figure[data-kind]")) {
    const { choices } = data[figure.id];
    const plot = figure.querySelector(".plot"), tools = figure.querySelector(".tools"), output = figure.querySelector("output");
    let chosen = 0;
    if (choices.length > 1) {
      const select = html("select", "");
      select.setAttribute("aria-label", figure.querySelector("h3").textContent + ": what is shown");
      choices.forEach((c, i) => select.append(new Option(c.label, i)));
      select.addEventListener("change", () => { chosen = +select.value; redraw(); });
      tools.append(select);
    }
    const redraw = () => {
      plot.replaceChildren();
      output.textContent = "";
      draw[figure.dataset.kind](plot, choices[chosen], tools, output);
      figure.dataset.drawn = "true";
    };
    redraw();
    let width = plot.clientWidth;
    // Not within the observer's own round: drawing changes the height.
    new ResizeObserver(() => requestAnimationFrame(() => {
      if (plot.clientWidth === width) return;
      width = plot.clientWidth;
      redraw();
    })).observe(plot);
  }
})();
