// The controls: what each is called, where it stands, what is refused at it.
const $ = id => document.getElementById(id);
const LABELS = {
  batch: "batch", input_tokens: "input tokens", output_tokens: "output tokens", dp: "replicas", rank: "rank",
  active_adapters: "adapters in a batch", max_loras: "slots (0: as many as adapters)", adapter_share: "share of tokens adapted",
  bandwidth: "memory bandwidth ×", peak: "peaks of its units ×", clock: "clock ×", launch: "start of a kernel ×", link: "bandwidth of its links ×",
};
const SHORT = { ...LABELS, max_loras: "slots" };
const NAMES = { engine: "engine", device: "device", tp: "tensor parallel", strategy: "adapter" };
const GROUPS = [
  ["Requests", ["batch", "input_tokens", "output_tokens"]],
  ["Deployment", [...(PAGE.engines.length > 1 ? ["engine"] : []), "device", "tp", "dp"]],
  ["Adapter", ["strategy", "rank", "active_adapters", "max_loras", "adapter_share"]],
  ["Another such device", PAGE.scaled],
].filter(([, names]) => names.length);
const WORDS = { base: "none: the base model", dynamic: "dynamic: in every step", merge: "merged into the weights" };
const USED = {
  base: [], merge: ["rank"], dynamic: ["rank", "active_adapters", "max_loras", "adapter_share"],
};
const state = { ...PAGE.start }, view = { over: "batch", figure: "tpot_s" };

function row(name) {
  const why = html("span", { class: "why", id: `why-${name}` });
  if (!(name in PAGE.options)) {
    const select = html("select", { id: name, "aria-describedby": why.id });
    select.addEventListener("input", () => { state[name] = name === "tp" ? +select.value : select.value; soon(); });
    return html("div", { class: "row pick" }, html("label", { for: name }, NAMES[name]), select, why);
  }
  const number = html("input", { id: name, type: "number", min: (BOUNDS[name] || [name in PAGE.start && !PAGE.scaled.includes(name) ? 1 : 0])[0], step: name === "adapter_share" || PAGE.scaled.includes(name) ? "any" : 1, "aria-describedby": why.id });
  const range = html("input", { id: `${name}-range`, type: "range", min: 0, max: PAGE.options[name].length - 1, step: 1, "aria-label": `${SHORT[name]}, slider`, "aria-describedby": why.id });
  number.addEventListener("change", () => { if (number.value !== "") state[name] = bounded(name, +number.value); number.value = state[name]; soon(); });
  range.addEventListener("input", () => { state[name] = PAGE.options[name][+range.value]; soon(); });
  return html("div", { class: "row" }, html("label", { for: name }, LABELS[name]), number, range, why);
}
function option(value, text) { return html("option", { value }, text); }
function buildControls() {
  for (const [title, names] of GROUPS) $("controls").append(html("fieldset", {}, html("legend", {}, title), ...names.map(row)));
  if (PAGE.scaled.length) $("controls").lastChild.append(html("p", { class: "hint", id: "scaled-why" }));
  for (const name of PAGE.engines.length > 1 ? PAGE.engines : []) $("engine").append(option(name, name));
  for (const name in PAGE.devices) $("device").append(option(name, PAGE.devices[name]));
  for (const name of PAGE.strategies) $("strategy").append(option(name, WORDS[name]));
  for (const degree of PAGE.degrees) $("tp").append(option(degree, degree === 1 ? "1 device" : `${degree} devices`));
  for (const name of VIEWS.figure) if (name !== "cost" || Object.keys(PAGE.prices).length) $("figure").append(option(name, FIGURES[name][0]));
  for (const name of VIEWS.over) $("over").append(option(name, SHORT[name]));
}

let placed = "";
function placeControls(figures) {
  const refused = refusedIn(state, figures), used = USED[state.strategy];
  for (const [title, names] of GROUPS) for (const name of names) {
    if ($(name).value !== String(state[name])) $(name).value = state[name];
    write($(`why-${name}`), refused[name] || "");
    with_($(name), { "aria-invalid": String(name in refused) });
    if (!(name in PAGE.options)) continue;
    const range = $(`${name}-range`), places = PAGE.options[name];
    const nearest = places.reduce((best, at, i) => Math.abs(at - state[name]) < Math.abs(places[best] - state[name]) ? i : best, 0);
    if (+range.value !== nearest) range.value = nearest;
    with_(range, { "aria-valuetext": String(state[name]) });
    const fixed = title === "Adapter" ? !used.includes(name) : PAGE.scaled.includes(name) && !matters(state, name);
    if ($(name).disabled !== fixed) $(name).disabled = range.disabled = fixed;
  }
  for (const name of PAGE.scaled) $(`${name}-range`).parentNode.hidden = !matters(state, name);
  if (PAGE.scaled.length) write($("scaled-why"), scalable(state) ? "" : "Not moved here: which measured devices its times are taken from depends on its rates.");
  const choice = keyOf(state);
  if (placed === choice) return;
  placed = choice;
  for (const name of ["engine", "device", "tp", "strategy"]) if ($(name)) for (const entry of $(name).options)
    mark(entry, { ...state, [name]: name === "tp" ? +entry.value : entry.value });
}
// What cannot be run can still be chosen, so that the reason can be read.
function mark(entry, there) {
  const text = entry.dataset.text || (entry.dataset.text = entry.textContent);
  write(entry, FORMULAS[keyOf(there)] ? text : `${text} (refused)`);
}
