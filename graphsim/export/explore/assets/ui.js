// Controls, what they show, and the address that reopens it.
const $ = id => document.getElementById(id);
const LABELS = {
  batch: "batch", input_tokens: "input tokens", output_tokens: "output tokens", dp: "replicas", rank: "rank",
  active_adapters: "adapters in a batch", max_loras: "slots (0: as many as adapters)", adapter_share: "share of tokens adapted",
};
const SHORT = { ...LABELS, max_loras: "slots" };
const GROUPS = [
  ["Requests", ["batch", "input_tokens", "output_tokens"]], ["Deployment", ["device", "tp", "dp"]],
  ["Adapter", ["strategy", "rank", "active_adapters", "max_loras", "adapter_share"]],
];
const WORDS = { base: "none: the base model", dynamic: "dynamic: in every step", merge: "merged into the weights" };
const USED = {
  base: [], merge: ["rank"], dynamic: ["rank", "active_adapters", "max_loras", "adapter_share"],
};
const state = { ...PAGE.start }, view = { over: "batch", figure: "tpot_s" };
let pinned = null, waiting = false, later = 0;

function row(name) {
  const why = html("span", { class: "why", id: `why-${name}`, role: "alert" });
  if (!(name in PAGE.options)) {
    const select = html("select", { id: name, "aria-describedby": why.id });
    select.addEventListener("input", () => { state[name] = name === "tp" ? +select.value : select.value; soon(); });
    return html("div", { class: "row pick" }, html("label", { for: name }, name === "tp" ? "tensor parallel" : name), select, why);
  }
  const number = html("input", { id: name, type: "number", min: (BOUNDS[name] || [1])[0], step: name === "adapter_share" ? 0.01 : 1, "aria-describedby": why.id });
  const range = html("input", { id: `${name}-range`, type: "range", min: 0, max: PAGE.options[name].length - 1, step: 1, "aria-label": LABELS[name] });
  number.addEventListener("change", () => { if (number.value !== "") state[name] = bounded(name, +number.value); soon(); });
  range.addEventListener("input", () => { state[name] = PAGE.options[name][+range.value]; soon(); });
  return html("div", { class: "row" }, html("label", { for: name }, LABELS[name]), number, range, why);
}
function option(value, text) { return html("option", { value }, text); }
function build() {
  for (const [title, names] of GROUPS) $("controls").append(html("fieldset", {}, html("legend", {}, title), ...names.map(row)));
  for (const name in PAGE.devices) $("device").append(option(name, PAGE.devices[name]));
  for (const name of PAGE.strategies) $("strategy").append(option(name, WORDS[name]));
  for (const degree of PAGE.degrees) $("tp").append(option(degree, degree === 1 ? "1 device" : `${degree} devices`));
  for (const name of VIEWS.figure) $("figure").append(option(name, FIGURES[name][0]));
  for (const name of VIEWS.over) $("over").append(option(name, SHORT[name]));
  for (const name of ["over", "figure"]) $(name).addEventListener("input", () => { view[name] = $(name).value; soon(); });
  $("pin").addEventListener("click", () => { pinned = { ...state }; draw(); });
  $("unpin").addEventListener("click", () => { pinned = null; draw(); $("pin").focus(); });
  $("back").addEventListener("click", () => { Object.assign(state, pinned); draw(); });
  $("copy").addEventListener("click", copy);
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
}
function copy() {
  const range = document.createRange();
  range.selectNodeContents($("call"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  if (navigator.clipboard) navigator.clipboard.writeText($("call").textContent).catch(() => {});
}
function theme(dark) { document.documentElement.dataset.theme = dark ? "dark" : "light"; }

function place(figures) {
  const refused = refusedIn(state, figures), used = USED[state.strategy];
  for (const [title, names] of GROUPS) for (const name of names) {
    $(name).value = state[name];
    $(`why-${name}`).textContent = refused[name] || "";
    $(name).setAttribute("aria-invalid", name in refused);
    if (!(name in PAGE.options)) continue;
    const range = $(`${name}-range`), places = PAGE.options[name];
    const nearest = places.reduce((best, at, i) => Math.abs(at - state[name]) < Math.abs(places[best] - state[name]) ? i : best, 0);
    range.value = nearest;
    range.setAttribute("aria-valuetext", String(state[name]));
    $(name).disabled = range.disabled = title === "Adapter" && !used.includes(name);
  }
  for (const degree of $("tp").options) mark(degree, { ...state, tp: +degree.value });
  for (const strategy of $("strategy").options) mark(strategy, { ...state, strategy: strategy.value });
  for (const device of $("device").options) mark(device, { ...state, device: device.value });
  for (const name in view) $(name).value = view[name];
}
// What cannot be run can still be chosen, so that the reason can be read.
function mark(entry, there) {
  const text = entry.dataset.text || (entry.dataset.text = entry.textContent);
  entry.textContent = FORMULAS[keyOf(there)] ? text : `${text} (refused)`;
}

function card(label, value, hint, bad) {
  return html("div", { class: bad ? "card bad" : "card" }, html("span", { class: "label" }, label), html("strong", {}, value), html("span", { class: "hint" }, hint));
}
function showCards(figures) {
  if (!figures) {
    $("cards").replaceChildren(card("not run", "–", "another choice of device, degree or strategy can be", true));
    return;
  }
  const base = figuresOf({ ...state, strategy: "base" }), lora = state.strategy !== "base" && base;
  const beside = (name, shown) => lora ? `base ${shown(base[name])}` : "";
  const cards = [
    card("time to first token", seconds(figures.ttft_s), beside("ttft_s", seconds)),
    card("time per token", seconds(figures.tpot_s), beside("tpot_s", seconds)),
    card("latency of the batch", seconds(figures.latency_s), beside("latency_s", seconds)),
    card("tokens per second", three(figures.tokens_per_s), lora ? `base ${three(base.tokens_per_s)}` : "generated, of the batch"),
    card("memory per device", gib(figures.total_bytes), `${figures.fits ? "fits in" : "does not fit in"} ${gib(figures.capacity_bytes)}`, !figures.fits),
    card("fit in memory", whole(figures.max_batch), "such requests at once", figures.max_batch < 1),
  ];
  if (lora) cards.push(card("overhead of LoRA", percent(overheadOf(state, figures)), "latency over the base model's"));
  if (figures.one_time_s) cards.push(card("merging", seconds(figures.one_time_s), "once, before serving"));
  $("cards").replaceChildren(...cards);
}

const NAMES = { one: "state", device: "device", tp: "tensor parallel", strategy: "adapter" };
function showCompared(figures) {
  const before = pinned && figuresOf(pinned);
  $("back").hidden = $("unpin").hidden = !pinned;
  $("compare-hint").hidden = Boolean(pinned);
  if (!before || !figures) { $("compare-table").replaceChildren(); return; }
  const words = from => ({ ...from, device: PAGE.devices[from.device], strategy: WORDS[from.strategy] });
  const [then, now] = [words(pinned), words(state)];
  const changed = Object.keys(now).filter(name => now[name] !== then[name])
    .map(name => [SHORT[name] || NAMES[name], String(then[name]), String(now[name]), ""]);
  const measured = ["ttft_s", "tpot_s", "latency_s", "tokens_per_s", "total_bytes"]
    .map(name => [FIGURES[name][0], FIGURES[name][1](before[name]), FIGURES[name][1](figures[name]), percent(figures[name] / before[name] - 1)]);
  measured.push(["fit in memory", whole(before.max_batch), whole(figures.max_batch), before.max_batch ? percent(figures.max_batch / before.max_batch - 1) : ""]);
  const rows = [...changed, ...measured].map(([first, ...others]) => html("tr", {}, html("th", { scope: "row" }, first), ...others.map(text => html("td", {}, text))));
  const head = html("tr", {}, ...["", "pinned", "now", "change"].map(text => html("th", { scope: "col" }, text)));
  $("compare-table").replaceChildren(html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows)));
}

function draw() {
  const figures = figuresOf(state);
  place(figures);
  showCards(figures);
  const label = SHORT[view.over], title = FIGURES[view.figure][0];
  $("curve-title").textContent = `${title[0].toUpperCase()}${title.slice(1)} over ${label}`;
  legend($("curve-legend"), drawCurve($("curve"), state, view, label, pinned));
  $("memory").parentNode.hidden = !figures;
  if (figures) {
    drawMemory($("memory"), figures);
    legend($("memory-legend"), [...MEMORY.map(name => [`${name.replace("_", " ")} ${gib(figures[`${name}_bytes`])}`, PARTS[name]]), [`capacity ${gib(figures.capacity_bytes)}`, "bad"]]);
  }
  showCompared(figures);
  $("call").textContent = callOf(state);
  clearTimeout(later);
  later = setTimeout(() => settle(figures), 250);
}
// Once nothing moves any more: the address, and what a screen reader is told.
function settle(figures) {
  history.replaceState(null, "", fragmentOf(state, view));
  const told = figures ? `time to first token ${seconds(figures.ttft_s)}, time per token ${seconds(figures.tpot_s)}, `
    + `${three(figures.tokens_per_s)} tokens per second, ${figures.fits ? "fits" : "does not fit"} in memory` : "not run";
  if ($("told").textContent !== told) $("told").textContent = told;
}
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

theme(matchMedia("(prefers-color-scheme: dark)").matches);
build();
stateFrom(location.hash, state, view);
draw();
addEventListener("resize", soon);
addEventListener("hashchange", () => { stateFrom(location.hash, state, view); draw(); });
