// What a state of the page gives: no document is needed for any of it.
const MEMORY = ["weights", "kv_cache", "activations", "adapters", "overhead"];

function keyOf(state) { return `${state.engine}/${state.device}/${state.tp}/${state.strategy}`; }

// The values of all variables; an adapter that is folded in takes none that its kernels would.
function inputsOf(state) {
  const merged = state.strategy === "merge" ? { active_adapters: 1, adapter_share: 1, max_loras: 0 } : {};
  return { ...PAGE.values, ...ratesOf(state), ...state, ...merged };
}
// The rates of the state's device, each times what its slider says.
function ratesOf(state) {
  const found = {}, rates = PAGE.rates[state.device], scale = scalable(state) ? name => state[PAGE.scales[name]] ?? 1 : () => 1;
  for (const name in rates) found[name] = rates[name] * scale(name);
  return found;
}
// Whether one formula holds wherever the sliders of rates stand.
function scalable(state) { return PAGE.scaled.length > 0 && !PAGE.unscaled.includes(`${state.engine}/${state.device}`); }
// Whether anything in a state depends on the rates that a slider multiplies.
function matters(state, scale) {
  const formula = FORMULAS[keyOf(state)];
  return Boolean(formula) && scalable(state) && namesOf(formula).some(name => PAGE.scales[name] === scale);
}
function given([names, made], inputs) { return made(...names.map(name => inputs[name])); }

// What was computed is kept: most moves leave most of what is shown as it is.
const kept = new Map();
function remembered(key, made) {
  let found = kept.get(key);
  if (found === undefined) {
    if (kept.size > 20000) kept.clear();
    kept.set(key, found = made());
  }
  return found;
}
const REQUESTS = ["batch", "input_tokens", "output_tokens", "dp"];
function namesOf(formula) {
  return formula.names ||= [...new Set([...formula.fixed[0], ...formula.growing.flatMap(sum => sum.inputs), ...REQUESTS])];
}

// The same numbers as gs.simulate, by its names; null where the page has no formula for the state.
function figuresOf(state) {
  const key = keyOf(state), formula = FORMULAS[key];
  if (!formula) return null;
  const x = inputsOf(state), values = namesOf(formula).map(name => x[name]);
  return remembered(`${key} ${values.join()}`, () => figuresAt(formula, x));
}
function figuresAt(formula, x) {
  const [ttft_s, one_time_s, level_s, ...memory] = given(formula.fixed, x);
  const count = max(x.output_tokens - 1, 1);
  let generation_s = count * level_s;
  for (const sum of formula.growing) {
    const [value, piece] = given([sum.inputs, sum.parts], x);
    generation_s += total(value, piece, sum.nodes, x.input_tokens, count);
  }
  const latency_s = ttft_s + (x.output_tokens > 1 ? generation_s : 0);
  const figures = {
    ttft_s, one_time_s, generation_s, latency_s, tpot_s: generation_s / count,
    tokens_per_s: x.batch * x.output_tokens / latency_s,
  };
  [...MEMORY, "capacity"].forEach((name, at) => { figures[`${name}_bytes`] = memory[at]; });
  figures.max_batch = memory[MEMORY.length + 1];
  figures.total_bytes = MEMORY.reduce((sum, name) => sum + figures[`${name}_bytes`], 0);
  figures.fits = figures.total_bytes <= figures.capacity_bytes;
  return figures;
}

// Seconds of the first token and of each further one by cause, as gs.explain says; other is what remains to the whole.
function causesOf(state, figures) {
  const formula = FORMULAS[keyOf(state)];
  if (!formula || !figures) return null;
  const found = given(formula.causes, atMean(inputsOf(state))), names = PAGE.causes;
  return Object.fromEntries(["ttft_s", "tpot_s"].map((quantity, at) => {
    const parts = Object.fromEntries(names.map((name, i) => [name, found[at * names.length + i]]));
    const rest = figures[quantity] - Object.values(parts).reduce((sum, part) => sum + part, 0);
    parts.other_s = Math.abs(rest) > 1e-12 * figures[quantity] ? rest : 0;
    return [quantity, parts];
  }));
}

// Joules and watts of the batch as gs.simulate's energy; null where the device's power is not known.
function energyOf(state, figures) {
  const formula = FORMULAS[keyOf(state)];
  const power = WATTS[state.device];
  if (!formula || !figures || !formula.activity || !power) return null;
  const x = atMean(inputsOf(state));
  const [memory, compute, later_memory, later_compute] = given(formula.activity, x);
  const watts = (one, other, seconds) => power(one / seconds, other / seconds)[0], devices = devicesOf(state);
  const prefill_j = devices * watts(memory, compute, figures.ttft_s) * figures.ttft_s;
  const decode_s = x.output_tokens > 1 ? figures.generation_s : 0;
  const total_j = prefill_j + devices * watts(later_memory, later_compute, figures.tpot_s) * decode_s;
  return {
    total_j, per_token_j: total_j / (x.batch * x.output_tokens), watts: total_j / (devices * figures.latency_s),
  };
}
// With the mean context of the generation.
function atMean(x) { return { ...x, context: x.input_tokens + max(x.output_tokens - 2, 0) / 2 }; }
function devicesOf(state) { return PAGE.counts[state.tp] * state.dp; }
// Of a generated token, prompts included, in the currency of the prices; null where there is no price.
function costOf(state, figures) {
  const price = PAGE.prices[state.device];
  return price && figures ? devicesOf(state) * price / 3600 / figures.tokens_per_s : null;
}

// The low and the high end of a figure, where gs.simulate was asked: where the page opens, and along one control from there.
function bandOf(state, figure) {
  const over = PAGE.bands[keyOf(state)]?.over || {}, moved = Object.keys(PAGE.options).filter(name => state[name] !== PAGE.start[name]);
  const name = moved.length ? moved[0] : Object.keys(over)[0];
  if (moved.length > 1 || !Object.hasOwn(over, name)) return null;
  const ends = over[name][figure], at = PAGE.options[name].indexOf(state[name]);
  return ends && at >= 0 ? ends[at] : null;
}

// Latency over that of the base model, as a part of it; null where the page has no base.
function overheadOf(state, figures) {
  const base = state.strategy === "base" ? figures : figuresOf({ ...state, strategy: "base" });
  return base && figures ? figures.latency_s / base.latency_s - 1 : null;
}

// What is refused in a state: the sentence by the control that it is about.
function refusedIn(state, figures) {
  const found = {}, key = keyOf(state), choice = PAGE.refused[key], formula = FORMULAS[key];
  if (choice) found.tp = choice;
  for (const [rule, about, sentence] of formula ? refusals(formula.guards, inputsOf(state)) : [])
    found[controlOf(rule, about)] ||= sentence;
  if (figures && !figures.fits)
    found.batch = figures.max_batch >= 1
      ? `does not fit in memory: ${whole(figures.max_batch)} of these requests do`
      : "does not fit in memory: not even one of these requests does";
  return found;
}

// The control of what a guard is about, which is named as in a call.
const RULED = { slots: "max_loras", positions: "output_tokens", max_lora_rank: "rank" };
function controlOf(rule, about) {
  const name = RULED[rule] || about.replace(/^(lora|parallelism)\./, "");
  return Object.hasOwn(PAGE.options, name) ? name : "tp";
}

// The call of Python that gives the same numbers.
function callOf(state) {
  const call = PAGE.call, degrees = [`tp=${state.tp}`];
  if (call.sequence_parallel) degrees.push(`sp=${state.tp}`);
  if (state.dp > 1) degrees.push(`dp=${state.dp}`);
  const slots = `, active_adapters=${state.active_adapters}, max_loras=${state.max_loras}`;
  const served = state.strategy === "merge" ? "" : `${slots}, adapter_share=${state.adapter_share}${call.shares}`;
  const lora = state.strategy === "base" ? "gs.LoraConfig(enabled=False)"
    : `gs.LoraConfig(rank=${state.rank}, strategy="${state.strategy}"${served}${call.lora})`;
  return `gs.simulate(
    ${call.model}, ${deviceOf(state)},
    batch=${state.batch}, input_tokens=${state.input_tokens}, output_tokens=${state.output_tokens},
    parallelism=gs.Parallelism(${degrees.join(", ")}${call.parallelism}),
    lora=${lora},
    ${[`engine=${call.engines[state.engine]}`, ...call.kept].join(", ")},
)`;
}

function deviceOf(state) {
  const given = PAGE.call.devices[state.device], own = PAGE.rates[state.device], rates = ratesOf(state);
  const other = Object.keys(own).filter(name => rates[name] !== own[name]).map(name => `"${name}": ${rates[name]}`);
  return other.length ? `with_rates(gs.load_hardware(${given}), {${other.join(", ")}})` : given;
}
// What the call needs besides graphsim itself.
function importOf(state) { return callOf(state).includes("with_rates(") ? "from graphsim.cost.rates import with_rates\n\n" : ""; }

// A state as the fragment of an address, and back; what is not known there stays as it is.
function fragmentOf(state, view) { return "#" + new URLSearchParams({ ...state, ...view }); }
function stateFrom(fragment, state, view) {
  for (const [name, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (Object.hasOwn(PAGE.options, name) && Number.isFinite(+text) && text !== "") state[name] = bounded(name, +text);
    else if (name === "tp" && PAGE.degrees.includes(+text)) state.tp = +text;
    else if (name === "device" && Object.hasOwn(PAGE.devices, text)) state.device = text;
    else if (name === "engine" && PAGE.engines.includes(text)) state.engine = text;
    else if (name === "strategy" && PAGE.strategies.includes(text)) state.strategy = text;
    else if (Object.hasOwn(view, name) && VIEWS[name].includes(text)) view[name] = text;
  }
}
const BOUNDS = { adapter_share: [0.01, 1], max_loras: [0, 1e6], active_adapters: [1, 1e6], rank: [1, 65536], dp: [1, 1e6] };
const VIEWS = {
  over: Object.keys(PAGE.options),
  figure: ["tpot_s", "ttft_s", "latency_s", "tokens_per_s", "total_bytes", "overhead", "joules", "cost"],
};
// Rates are those of the sliders, and what has one place stays there.
function bounded(name, value) {
  const near = (best, at) => Math.abs(at - value) < Math.abs(best - value) ? at : best;
  if (PAGE.scaled.includes(name) || PAGE.options[name].length === 1) return PAGE.options[name].reduce(near);
  const [least, most] = BOUNDS[name] || [1, 1e8];
  const inside = Math.min(Math.max(value, least), most);
  return name === "adapter_share" ? inside : Math.round(inside);
}

function whole(value) { return Math.floor(value).toLocaleString("en"); }
