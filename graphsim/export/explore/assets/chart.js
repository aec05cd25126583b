// Numbers as texts, the curve and the bar of memory as plain SVG.
const three = value => value >= 1000 || value === 0 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
const seconds = value => value === 0 ? "0 s" : value < 1e-3 ? `${three(value * 1e6)} µs`
  : value < 1 ? `${three(value * 1e3)} ms` : `${three(value)} s`;
const gib = value => `${three(value / 2 ** 30)} GiB`;
const percent = value => value === null ? "–" : value > 9 ? `× ${three(value + 1)}`
  : `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)} %`;
const FIGURES = {
  ttft_s: ["time to first token", seconds], tpot_s: ["time per token", seconds], latency_s: ["latency of the batch", seconds],
  tokens_per_s: ["throughput", value => `${three(value)} tok/s`], total_bytes: ["memory per device", gib],
  overhead: ["overhead of LoRA", percent],
};
const PARTS = { weights: "one", kv_cache: "three", activations: "four", adapters: "two", overhead: "five" };

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}
function html(name, attributes, ...inside) {
  const made = document.createElement(name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  made.append(...inside);
  return made;
}
function legend(place, entries) {
  place.replaceChildren(...entries.map(([text, colour]) =>
    html("span", {}, html("i", { style: `background:var(--${colour})` }), text)));
}

function valueOf(state, figure) {
  const figures = figuresOf(state);
  if (!figures) return null;
  const value = figure === "overhead" ? overheadOf(state, figures) : figures[figure];
  return value === null ? null : { value, fits: figures.fits };
}

// Round marks between two values.
function marks(low, high) {
  const raw = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find(times => times * unit >= raw * 0.999), found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

function drawCurve(place, state, view, label, pinned) {
  const name = view.over, shown = FIGURES[view.figure][1];
  const places = [...new Set([...PAGE.options[name], state[name]])].sort((a, b) => a - b);
  const lines = [["now", state, "one"], ["base model", { ...state, strategy: "base" }, "five"], ["pinned", pinned, "two"]]
    .filter(([which, from]) => from && !(which === "base model" && (state.strategy === "base" || view.figure === "overhead")))
    .map(([which, from, colour]) => [which, colour, places.map(at => [at, valueOf({ ...from, [name]: at }, view.figure)])
      .filter(([, found]) => found)]);
  const width = Math.max(280, place.parentNode.clientWidth - 36), height = width < 520 ? 220 : 280;
  const left = 84, right = 24, top = 10, bottom = 34;
  const values = lines.flatMap(([, , points]) => points.map(([, found]) => found.value));
  const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-12) * 1.05;
  const log = at => Math.log(at + (places[0] === 0 ? 1 : 0)), from = log(places[0]), to = log(places[places.length - 1]);
  const x = at => left + (width - left - right) * (log(at) - from) / (to - from || 1);
  const y = value => height - bottom - (height - top - bottom) * (value - low) / (high - low);
  const parts = [];
  for (const at of marks(low, high)) {
    parts.push(svg("line", { x1: left, x2: width - right, y1: y(at), y2: y(at), stroke: "var(--line)" }));
    parts.push(svg("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, shown(at)));
  }
  let last = -Infinity;
  for (const at of PAGE.options[name]) if (x(at) - last > 56) {
    parts.push(svg("text", { x: x(at), y: height - 12, "text-anchor": "middle" }, at.toLocaleString("en")));
    last = x(at);
  }
  for (const [which, colour, points] of [...lines].reverse()) {
    const dash = which === "now" ? "" : which === "pinned" ? "2 4" : "7 5";
    for (let i = 1; i < points.length; i++) {
      const [[a, one], [b, other]] = [points[i - 1], points[i]];
      parts.push(svg("line", { x1: x(a), y1: y(one.value), x2: x(b), y2: y(other.value), stroke: `var(--${colour})`,
        "stroke-width": 2.4, "stroke-linecap": "round", "stroke-dasharray": dash, opacity: one.fits && other.fits ? 1 : 0.3 }));
    }
  }
  const now = valueOf(state, view.figure);
  if (now) parts.push(svg("circle", { cx: x(state[name]), cy: y(now.value), r: 6, fill: "var(--one)", stroke: "var(--surface)", "stroke-width": 2 }));
  place.setAttribute("viewBox", `0 0 ${width} ${height}`);
  place.setAttribute("aria-label", `${FIGURES[view.figure][0]} over ${label}` + (now ? `: ${shown(now.value)} at ${state[name]}` : ""));
  place.replaceChildren(...parts);
  return [...lines.map(([which, colour]) => [which, colour]), ["pale: does not fit in memory", "line"]];
}

function drawMemory(place, figures) {
  const width = Math.max(280, place.parentNode.clientWidth - 36), wholeWidth = Math.max(figures.total_bytes, figures.capacity_bytes) * 1.02;
  let at = 0;
  const parts = MEMORY.map(name => {
    const wide = width * figures[`${name}_bytes`] / wholeWidth, made = svg("rect", { x: at, y: 8, width: wide, height: 26, fill: `var(--${PARTS[name]})` });
    at += wide;
    return made;
  });
  const end = width * figures.capacity_bytes / wholeWidth;
  parts.push(svg("line", { x1: end, x2: end, y1: 2, y2: 40, stroke: "var(--bad)", "stroke-width": 2, "stroke-dasharray": "4 3" }));
  place.setAttribute("viewBox", `0 0 ${width} 44`);
  place.setAttribute("aria-label", `${gib(figures.total_bytes)} of ${gib(figures.capacity_bytes)} taken`);
  place.replaceChildren(...parts);
}
