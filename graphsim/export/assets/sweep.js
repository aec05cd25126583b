"use strict";
// A table to sort and filter, and the front of two of its figures.
const $ = id => document.getElementById(id), SVG = "http://www.w3.org/2000/svg";
const NAMES = Object.keys(TABLE.columns), AT = Object.fromEntries(NAMES.map((name, at) => [name, at]));
const SMALL = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const three = value => value === 0 ? "0" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en")
  : String(+value.toPrecision(Number.isInteger(value) ? 15 : 3));
const scaled = (value, unit) => {
  const [factor, prefix] = SMALL.find(([least]) => Math.abs(value) >= least) || SMALL[0];
  return `${three(value / factor)} ${prefix}${unit}`;
};
const KINDS = {
  s: value => scaled(value, "s"), j: value => scaled(value, "J"), watts: value => `${three(value)} W`,
  bytes: value => `${three(value / 2 ** 30)} GiB`, text: String,
  number: value => Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : three(value),
};
const shown = (name, value) => value === null || value === "" ? "" : typeof value === "boolean" ? (value ? "yes" : "no")
  : typeof value === "string" ? value : KINDS[TABLE.columns[name]](value);
const label = name => name.replace(/(?<!_per)_(s|bytes|j)$/, "").replaceAll("_", " ");
function made(name, attributes, ...inside) {
  const element = document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...inside);
  return element;
}

const different = Object.fromEntries(NAMES.map((name, at) => [name, [...new Set(TABLE.rows.map(row => row[at]))]]));
const varied = NAMES.filter(name => different[name].length > 1), FEW = 24, PAGE = 200;
const chosen = {}, order = { name: null, down: false };
let onlyFront = false, most = PAGE, x = TABLE.axes[0], y = TABLE.axes[1], front = new Set();

// Rows of numbers that no other beats in one figure without losing in the other.
function frontOf(rows) {
  const sign = name => TABLE.better.includes(name) ? -1 : 1, [a, b] = [AT[x], AT[y]];
  const usable = rows.filter(row => row[a] !== null && row[b] !== null && row[AT.fits] !== false);
  const key = row => [sign(x) * row[a], sign(y) * row[b]];
  usable.sort((one, other) => key(one)[0] - key(other)[0] || key(one)[1] - key(other)[1]);
  let least = Infinity;
  return usable.filter(row => { const found = key(row)[1]; const better = found < least; least = Math.min(least, found); return better; });
}
function filtered() {
  return TABLE.rows.filter(row => Object.entries(chosen).every(([name, text]) => text === "" || String(row[AT[name]]) === text));
}
function sorted(rows) {
  if (!order.name) return rows;
  const at = AT[order.name], sign = order.down ? -1 : 1;
  const worth = value => value === null ? [1, 0] : [0, value];
  return [...rows].sort((one, other) => {
    const [a, b] = [worth(one[at]), worth(other[at])];
    return a[0] - b[0] || sign * (typeof a[1] === "string" ? a[1].localeCompare(b[1]) : a[1] - b[1]);
  });
}

function showRows() {
  const rows = filtered(), best = frontOf(rows);
  front = new Set(best);
  const kept = sorted(onlyFront ? rows.filter(row => front.has(row)) : rows);
  $("body").replaceChildren(...kept.slice(0, most).map(row =>
    made("tr", front.has(row) ? { class: "front" } : {}, ...varied.map(name => made("td", ["caution", "reason"].includes(name) ? { class: "words" } : {}, shown(name, row[AT[name]]))))));
  for (const head of $("head").children)
    head.setAttribute("aria-sort", head.dataset.name !== order.name ? "none" : order.down ? "descending" : "ascending");
  $("count").textContent = `${kept.length} of ${TABLE.rows.length} rows; ★ nothing beats these in ${label(y)} and ${label(x)}`;
  $("more").hidden = kept.length <= most;
  showFront(rows, best);
}
function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  return element;
}
function rowText(row) { return varied.filter(name => row[AT[name]] !== null && row[AT[name]] !== "").map(name => `${label(name)} ${shown(name, row[AT[name]])}`).join(" · "); }
function showFront(rows, best) {
  const [a, b] = [AT[x], AT[y]], points = rows.filter(row => row[a] !== null && row[b] !== null);
  const width = Math.max(280, $("front").parentNode.clientWidth - 36), height = width < 520 ? 240 : 320;
  const ends = at => [Math.min(0, ...points.map(row => row[at])), Math.max(...points.map(row => row[at]), 1e-300) * 1.05];
  const [[left, right], [low, high]] = [ends(a), ends(b)];
  const px = row => 84 + (width - 108) * (row[a] - left) / (right - left || 1);
  const py = row => height - 34 - (height - 48) * (row[b] - low) / (high - low || 1);
  const shares = width < 520 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
  const parts = shares.flatMap(share => {
    const [across, up] = [84 + (width - 108) * share, height - 34 - (height - 48) * share];
    return [
      svg("line", { x1: 84, x2: width - 24, y1: up, y2: up, stroke: "var(--line)" }),
      svg("text", { x: 76, y: up + 4, "text-anchor": "end" }, shown(y, low + (high - low) * share)),
      svg("text", { x: across, y: height - 12, "text-anchor": share === 1 ? "end" : "middle" }, shown(x, left + (right - left) * share)),
    ];
  });
  parts.push(svg("polyline", { points: best.map(row => `${px(row)},${py(row)}`).join(" "), fill: "none", stroke: "var(--two)", "stroke-width": 2 }));
  const dots = [...points.filter(row => !front.has(row)), ...best].map(row => {
    const dot = svg("circle", { cx: px(row), cy: py(row), r: front.has(row) ? 5 : 3.5, fill: front.has(row) ? "var(--two)" : "var(--one)", opacity: front.has(row) ? 1 : 0.55 });
    dot.append(svg("title", {}, rowText(row)));
    dot.addEventListener("pointerenter", () => { $("tip").textContent = rowText(row); });
    return dot;
  });
  $("front").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("front").setAttribute("aria-label", `${label(y)} over ${label(x)}: ${points.length} rows, of which nothing beats ${best.length}; these are marked in the table`);
  $("front").replaceChildren(...parts, ...dots);
}

function filter(name) {
  const select = made("select", { "aria-label": `only rows of this ${label(name)}` }, made("option", { value: "" }, `${label(name)}: all`),
    ...different[name].map(value => made("option", { value: String(value) }, `${label(name)}: ${shown(name, value) || "–"}`)));
  select.addEventListener("input", () => { chosen[name] = select.value; showRows(); });
  return select;
}
function header(name) {
  const button = made("button", { type: "button" }, label(name));
  button.addEventListener("click", () => {
    order.down = order.name === name ? !order.down : TABLE.better.includes(name);
    order.name = name;
    showRows();
  });
  const head = made("th", { scope: "col" }, button);
  head.dataset.name = name;
  return head;
}
// Choices stand in front of the figures, and hold whole numbers or short texts.
const FIRST_FIGURE = NAMES.findIndex(name => TABLE.columns[name] === "s");
function isChoice(name) {
  const values = different[name], short = value => typeof value === "string" ? value.length <= 40 : value === null || typeof value === "boolean" || Number.isInteger(value);
  return values.length <= FEW && (["fits", "tied"].includes(name) || AT[name] < FIRST_FIGURE) && values.every(short);
}
function build() {
  $("constant").textContent = NAMES.filter(name => different[name].length === 1 && different[name][0] !== null && different[name][0] !== "")
    .map(name => `${label(name)} ${shown(name, different[name][0])}`).join(" · ");
  $("head").append(...varied.map(header));
  const asked = varied.filter(isChoice);
  const only = made("input", { type: "checkbox", id: "only" });
  only.addEventListener("input", () => { onlyFront = only.checked; showRows(); });
  $("filters").append(...asked.map(filter), made("label", {}, only, " only what nothing beats"));
  for (const id of ["x", "y"]) {
    $(id).append(...NAMES.filter(name => TABLE.columns[name] !== "text" && different[name].some(value => value !== null)).map(name => made("option", { value: name }, label(name))));
    $(id).value = id === "x" ? x : y;
    $(id).addEventListener("input", () => { if (id === "x") x = $(id).value; else y = $(id).value; showRows(); });
  }
  $("more").addEventListener("click", () => { most += 5 * PAGE; showRows(); });
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
}
function theme(dark) { document.documentElement.dataset.theme = dark ? "dark" : "light"; }

theme(matchMedia("(prefers-color-scheme: dark)").matches);
build();
showRows();
addEventListener("resize", () => showRows());
