// Numbers as texts; the curve, and bars of parts. Elements stay, and only what changed about them is set.
const grouped = new Intl.NumberFormat("en"); // toLocaleString makes one each time
const three = value => value >= 1000 || value === 0 ? grouped.format(Math.round(value)) : value.toPrecision(3);
const signed = shown => value => value < 0 ? `−${shown(-value)}` : shown(value);
const seconds = signed(value => value === 0 ? "0 s" : value < 1e-3 ? `${three(value * 1e6)} µs`
  : value < 1 ? `${three(value * 1e3)} ms` : `${three(value)} s`);
const joules = value => value < 1 ? `${three(value * 1e3)} mJ` : `${three(value)} J`;
const gib = value => `${three(value / 2 ** 30)} GiB`;
const money = value => three(value * 1e6);
const percent = value => value === null ? "–" : value > 9 ? `× ${three(value + 1)}`
  : `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)} %`;
const FIGURES = {
  ttft_s: ["time to first token", seconds], tpot_s: ["time per token", seconds], latency_s: ["latency of the batch", seconds],
  tokens_per_s: ["throughput", value => `${three(value)} tokens/s`], total_bytes: ["memory per device", gib],
  overhead: ["overhead of LoRA", percent], joules: ["energy per token", joules], cost: ["cost of a million tokens", money],
};
const PARTS = { weights: "one", kv_cache: "three", activations: "four", adapters: "two", overhead: "five" };
const CAUSES = {
  compute_s: ["matrix and vector units", "one"], memory_s: ["memory bandwidth", "three"], network_s: ["links", "two"],
  shortfall_s: ["kernels short of the datasheet", "four"], launch_s: ["starts of kernels", "six"],
  engine_s: ["the engine on the host", "seven"], other_s: ["overlap, growing contexts", "five"],
};

function svg(name, attributes) { return with_(document.createElementNS("http://www.w3.org/2000/svg", name), attributes); }
function with_(made, attributes) {
  const had = made.had ||= {};
  for (const key in attributes) if (had[key] !== attributes[key]) made.setAttribute(key, had[key] = attributes[key]);
  return made;
}
function html(name, attributes, ...inside) {
  const made = document.createElement(name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  made.append(...inside);
  return made;
}
function write(element, text) { if (element.wrote !== text) element.textContent = element.wrote = text; }
// The elements of a place, as many as are asked for: those that are there are used again.
function several(place, count, make) {
  while (place.children.length > count) place.lastChild.remove();
  while (place.children.length < count) place.append(make());
  return [...place.children];
}
function legend(place, entries) {
  const made = several(place, entries.length, () => html("span", {}, html("i", {}), html("span", {})));
  entries.forEach(([text, colour], at) => {
    with_(made[at].firstChild, { style: `background:var(--${colour})` });
    write(made[at].lastChild, text);
  });
}

function valueOf(state, figure) {
  const figures = figuresOf(state);
  if (!figures) return null;
  const value = figure === "overhead" ? overheadOf(state, figures) : figure === "cost" ? costOf(state, figures)
    : figure === "joules" ? energyOf(state, figures)?.per_token_j ?? null : figures[figure];
  return value === null ? null : { value, fits: figures.fits };
}

// Round marks between two values.
function marks(low, high) {
  const raw = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find(times => times * unit >= raw * 0.999), found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

// The lines of the curve, a place at a time, so that whoever computes them can stop in between.
function* lines(state, view, pinned) {
  const name = view.over, places = [...new Set([...PAGE.options[name], state[name]])].sort((a, b) => a - b);
  const asked = [["now", state, "one"], ["base model", { ...state, strategy: "base" }, "five"], ["pinned", pinned, "two"]]
    .filter(([which, from]) => from && !(which === "base model" && (state.strategy === "base" || view.figure === "overhead")));
  const ends = [], found = asked.map(([which, , colour]) => ({ which, colour, points: [] }));
  for (const at of places) for (let i = 0; i < asked.length; i++) {
    const value = valueOf({ ...asked[i][1], [name]: at }, view.figure);
    if (value) found[i].points.push([at, value]);
    const band = i ? null : bandOf({ ...state, [name]: at }, view.figure);
    if (band && value) ends.push([at, band]);
    yield null;
  }
  return { places, lines: found, ends };
}

function widthOf(place) { return Math.max(280, place.parentNode.clientWidth - 36); }
function scaled(curve, width, height) {
  const left = 84, right = 24, top = 10, bottom = 34, { places } = curve;
  const values = curve.lines.flatMap(({ points }) => points.map(([, found]) => found.value)).concat(curve.ends.map(([, [, end]]) => end));
  const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-12) * 1.05;
  const log = at => Math.log(at + (places[0] === 0 ? 1 : 0)), from = log(places[0]), to = log(places[places.length - 1]);
  return {
    low, high, left, right, x: at => left + (width - left - right) * (log(at) - from) / (to - from || 1),
    y: value => height - bottom - (height - top - bottom) * (value - low) / (high - low),
  };
}
// A line as two paths: what fits in memory, and what does not.
function paths(points, { x, y }) {
  const found = ["", ""];
  for (let i = 1; i < points.length; i++) {
    const [[a, one], [b, other]] = [points[i - 1], points[i]];
    found[one.fits && other.fits ? 0 : 1] += `M${x(a).toFixed(1)} ${y(one.value).toFixed(1)}L${x(b).toFixed(1)} ${y(other.value).toFixed(1)}`;
  }
  return found;
}
function drawCurve(place, curve, state, view, label, width) {
  const height = width < 520 ? 220 : 280, scale = scaled(curve, width, height), { x, y } = scale;
  const name = view.over, shown = FIGURES[view.figure][1], [grid, texts, drawn] = several(place, 3, () => svg("g", {}));
  const rows = marks(scale.low, scale.high), ticks = [];
  for (const at of PAGE.options[name]) if (!ticks.length || x(at) - x(ticks[ticks.length - 1]) > 56) ticks.push(at);
  several(grid, rows.length, () => svg("line", { stroke: "var(--line)" })).forEach((line, i) =>
    with_(line, { x1: scale.left, x2: width - scale.right, y1: y(rows[i]), y2: y(rows[i]) }));
  several(texts, rows.length + ticks.length, () => svg("text", {})).forEach((text, i) => {
    const row = i < rows.length, at = row ? rows[i] : ticks[i - rows.length];
    with_(text, row ? { x: scale.left - 8, y: y(at) + 4, "text-anchor": "end" } : { x: x(at), y: height - 12, "text-anchor": "middle" });
    write(text, row ? shown(at) : PAGE.scaled.includes(name) ? `× ${at}` : grouped.format(at));
  });
  const made = several(drawn, 8, () => svg("path", { fill: "none", "stroke-width": 2.4, "stroke-linecap": "round" }));
  for (let i = 0; i < 3; i++) {
    const line = [...curve.lines].reverse()[i], [whole_, pale] = line ? paths(line.points, scale) : ["", ""];
    const dash = !line || line.which === "now" ? "none" : line.which === "pinned" ? "2 4" : "7 5";
    const style = { stroke: `var(--${line ? line.colour : "one"})`, "stroke-dasharray": dash };
    with_(made[2 * i + 1], { ...style, d: whole_ });
    with_(made[2 * i + 2], { ...style, d: pale, opacity: 0.3 });
  }
  const corner = ([at, ends], end) => `${x(at).toFixed(1)} ${y(ends[end]).toFixed(1)}`;
  const band = [...curve.ends.map(at => corner(at, 1)), ...[...curve.ends].reverse().map(at => corner(at, 0))];
  with_(made[0], { d: curve.ends.length > 1 ? `M${band.join("L")}Z` : "", fill: "var(--one)", opacity: 0.15, stroke: "none" });
  const now = curve.lines[0].points.find(([at]) => at === state[name])?.[1];
  const dot = now ? `M${x(state[name]) - 6} ${y(now.value)}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0` : "";
  with_(made[7], { d: dot, fill: "var(--one)", stroke: "var(--surface)", "stroke-width": 2 });
  with_(place, {
    viewBox: `0 0 ${width} ${height}`,
    "aria-label": `${FIGURES[view.figure][0]} over ${label}` + (now ? `: ${shown(now.value)} at ${state[name]}` : ""),
  });
  const told = curve.ends.length > 1 ? [[`band: ${100 * PAGE.coverage} % of cases`, "band"]] : [];
  return [...curve.lines.map(({ which, colour }) => [which, colour]), ...told, ["pale: does not fit in memory", "line"]];
}

// Parts of a whole side by side: [value, colour]; negative ones have no width. end: where a mark stands.
function drawBar(place, parts, whole_, width, label, end) {
  let at = 0;
  several(place, parts.length + 1, () => svg("rect", { y: 6, height: 22 })).forEach((rect, i) => {
    if (i === parts.length)
      return with_(rect, { x: end === undefined ? 0 : width * end / whole_ - 1, width: end === undefined ? 0 : 2, y: 0, height: 34, fill: "var(--bad)" });
    const wide = width * Math.max(parts[i][0], 0) / whole_;
    with_(rect, { x: at, width: wide, fill: `var(--${parts[i][1]})` });
    at += wide;
  });
  with_(place, { viewBox: `0 0 ${width} 34`, "aria-label": label });
}
