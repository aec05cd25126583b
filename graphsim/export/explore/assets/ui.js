// What the page shows of a state, and the address that reopens it.
let pinned = null, waiting = false, later = 0, width = 600, job = null, stale = false, asked = 0;

function build() {
  buildControls();
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

function cardsOf(figures) {
  if (!figures) return [["not run", "–", "another engine, device, degree or strategy can be", true]];
  const base = figuresOf({ ...state, strategy: "base" }), lora = state.strategy !== "base" && base;
  const beside = (name, shown) => lora ? `base ${shown(base[name])}` : "";
  const energy = energyOf(state, figures), cost = costOf(state, figures);
  const within = (name, shown) => {
    const ends = bandOf(state, name);
    return ends ? `${shown(ends[0])} to ${shown(ends[1])} in ${100 * PAGE.coverage} % of cases` : "";
  };
  const cards = [
    ["time to first token", seconds(figures.ttft_s), beside("ttft_s", seconds), false, within("ttft_s", seconds)],
    ["time per token", seconds(figures.tpot_s), beside("tpot_s", seconds), false, within("tpot_s", seconds)],
    ["latency of the batch", seconds(figures.latency_s), beside("latency_s", seconds), false, within("latency_s", seconds)],
    ["tokens per second", three(figures.tokens_per_s), lora ? `base ${three(base.tokens_per_s)}` : "generated, of the batch", false, within("tokens_per_s", three)],
    ["memory per device", gib(figures.total_bytes), `${figures.fits ? "fits in" : "does not fit in"} ${gib(figures.capacity_bytes)}`, !figures.fits],
    ["fit in memory", whole(figures.max_batch), "such requests at once", figures.max_batch < 1],
  ];
  if (lora) cards.push(["overhead of LoRA", percent(overheadOf(state, figures)), "latency over the base model's"]);
  if (figures.one_time_s) cards.push(["merging", seconds(figures.one_time_s), "once, before serving"]);
  if (energy) cards.push(["energy per token", joules(energy.per_token_j), `${three(energy.watts)} W per device, mean`]);
  if (cost !== null) cards.push(["cost of a million tokens", money(cost), `at ${PAGE.prices[state.device]} per device-hour`]);
  return cards;
}
function showCards(figures) {
  const cards = cardsOf(figures);
  const made = several($("cards"), cards.length, () =>
    html("div", {}, html("span", { class: "label" }), html("strong", {}), html("span", { class: "hint" }), html("span", { class: "hint" })));
  cards.forEach(([label, value, hint, bad, range], at) => {
    with_(made[at], { class: bad ? "card bad" : "card" });
    [label, value, hint, range || ""].forEach((text, i) => write(made[at].children[i], text));
  });
}

function showCauses(figures) {
  const causes = causesOf(state, figures);
  $("causes").hidden = !causes;
  if (!causes) return;
  const shown = Object.keys(CAUSES).filter(name => ["ttft_s", "tpot_s"].some(which => Math.abs(causes[which][name]) > 1e-3 * figures[which]));
  for (const which of ["ttft_s", "tpot_s"]) {
    const parts = shown.map(name => [causes[which][name], CAUSES[name][1]]);
    const whole_ = Math.max(figures[which], parts.reduce((sum, [part]) => sum + Math.max(part, 0), 0));
    drawBar($(`causes-${which}`), parts, whole_, width, `${FIGURES[which][0]} by cause`);
  }
  legend($("causes-legend"), shown.map(name =>
    [`${CAUSES[name][0]} ${seconds(causes.ttft_s[name])} · ${seconds(causes.tpot_s[name])}`, CAUSES[name][1]]));
}
function showMemory(figures) {
  $("memory").parentNode.hidden = !figures;
  if (!figures) return;
  const parts = MEMORY.map(name => [figures[`${name}_bytes`], PARTS[name]]);
  const whole_ = Math.max(figures.total_bytes, figures.capacity_bytes) * 1.02;
  drawBar($("memory"), parts, whole_, width, `${gib(figures.total_bytes)} of ${gib(figures.capacity_bytes)} taken`, figures.capacity_bytes);
  legend($("memory-legend"), [...MEMORY.map(name => [`${name.replace("_", " ")} ${gib(figures[`${name}_bytes`])}`, PARTS[name]]), [`capacity ${gib(figures.capacity_bytes)}`, "bad"]]);
}

function compared(figures, before) {
  const words = from => ({ ...from, device: PAGE.devices[from.device], strategy: WORDS[from.strategy] });
  const [then, now] = [words(pinned), words(state)];
  const changed = Object.keys(now).filter(name => now[name] !== then[name])
    .map(name => [SHORT[name] || NAMES[name], String(then[name]), String(now[name]), ""]);
  const ratio = (one, other) => one && Number.isFinite(other / one) ? percent(other / one - 1) : "";
  const measured = ["ttft_s", "tpot_s", "latency_s", "tokens_per_s", "total_bytes"]
    .map(name => [FIGURES[name][0], FIGURES[name][1](before[name]), FIGURES[name][1](figures[name]), ratio(before[name], figures[name])]);
  measured.push(["fit in memory", whole(before.max_batch), whole(figures.max_batch), ratio(before.max_batch, figures.max_batch)]);
  for (const name of ["joules", "cost"]) {
    const [one, other] = [valueOf(pinned, name), valueOf(state, name)];
    if (one && other) measured.push([FIGURES[name][0], FIGURES[name][1](one.value), FIGURES[name][1](other.value), ratio(one.value, other.value)]);
  }
  return [...changed, ...measured];
}
function showCompared(figures) {
  const before = pinned && figuresOf(pinned), table = $("compare-table");
  $("back").hidden = $("unpin").hidden = !pinned;
  $("compare-hint").hidden = Boolean(pinned);
  table.hidden = !before || !figures;
  if (table.hidden) return;
  const rows = compared(figures, before);
  several(table.tBodies[0], rows.length, () => html("tr", {}, html("th", { scope: "row" }), ...[1, 2, 3].map(() => html("td", {}))))
    .forEach((made, i) => rows[i].forEach((text, at) => write(made.children[at], text)));
}

const BANDED = ["ttft_s", "tpot_s", "latency_s", "tokens_per_s"];
// What a move is answered with; the curve follows in the same frame where there is time, else in the next ones.
const BUDGET_MS = 8;
function draw() {
  const begun = performance.now(), figures = figuresOf(state);
  placeControls(figures);
  showCards(figures);
  showCauses(figures);
  showMemory(figures);
  showCompared(figures);
  write($("call"), importOf(state) + callOf(state));
  stale = true;
  advance(begun + BUDGET_MS);
  clearTimeout(later);
  later = setTimeout(() => settle(figures), 250);
}
// The curve of a state is finished before that of the next one is begun, so that it moves while one drags.
function advance(end) {
  for (;;) {
    if (!job) {
      if (!stale) return;
      stale = false;
      job = { ...shownNow(), steps: null };
      job.steps = lines(job.state, job.view, job.pinned);
    }
    for (let step = job.steps.next(); ; step = job.steps.next()) {
      if (step.done) { showCurve(step.value, job); job = null; break; }
      if (performance.now() > end) { cancelAnimationFrame(asked); asked = requestAnimationFrame(() => advance(performance.now() + BUDGET_MS)); return; }
    }
  }
}
function shownNow() { return { state: { ...state }, view: { ...view }, pinned: pinned && { ...pinned } }; }
function showCurve(curve, of) {
  const label = SHORT[of.view.over], title = FIGURES[of.view.figure][0];
  for (const name in view) if ($(name).value !== view[name]) $(name).value = view[name];
  write($("curve-title"), `${title[0].toUpperCase()}${title.slice(1)} over ${label}`);
  write($("bands"), curve.ends.length > 1 || !BANDED.includes(of.view.figure) ? "" : `No band: ${PAGE.bands[keyOf(of.state)]?.missing
    || "how far times may be off is in the page where it opens, and along one control from there"}.`);
  $("curve-none").hidden = curve.lines.some(({ points }) => points.length);
  legend($("curve-legend"), drawCurve($("curve"), curve, of.state, of.view, label, width));
}
// Once nothing moves any more: the address, and what a screen reader is told.
function settle(figures) {
  const fragment = fragmentOf(state, view);
  if (location.hash !== fragment) history.replaceState(null, "", fragment);
  const refused = Object.values(refusedIn(state, figures));
  const told = figures ? `time to first token ${seconds(figures.ttft_s)}, time per token ${seconds(figures.tpot_s)}, `
    + `${three(figures.tokens_per_s)} tokens per second, ${figures.fits ? "fits" : "does not fit"} in memory` : "not run";
  write($("told"), [told, ...refused].join(". "));
}
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
function measure() { width = widthOf($("curve")); }

theme(matchMedia("(prefers-color-scheme: dark)").matches);
build();
measure();
stateFrom(location.hash, state, view);
draw();
addEventListener("resize", () => { measure(); soon(); });
addEventListener("hashchange", () => { stateFrom(location.hash, state, view); draw(); });
