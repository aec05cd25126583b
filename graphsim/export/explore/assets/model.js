// What a state of the page gives: no document is needed for any of it.
const MEMORY = ["weights", "kv_cache", "activations", "adapters", "overhead"];

function keyOf(state) { return `${state.device}/${state.tp}/${state.strategy}`; }

// The values of all variables; an adapter that is folded in takes none that its kernels would.
function inputsOf(state) {
  const merged = state.strategy === "merge" ? { active_adapters: 1, adapter_share: 1, max_loras: 0 } : {};
  return { ...PAGE.values, ...state, ...merged };
}

// The same numbers as gs.simulate, by its names; null where the page has no formula for the state.
function figuresOf(state) {
  const formula = FORMULAS[keyOf(state)];
  if (!formula) return null;
  const x = inputsOf(state), given = names => names.map(name => x[name]);
  const [ttft_s, one_time_s, level_s, ...memory] = formula.fixed(...given(formula.inputs));
  const count = max(x.output_tokens - 1, 1);
  let generation_s = count * level_s;
  for (const sum of formula.growing) {
    const [value, piece] = sum.parts(...given(sum.inputs));
    generation_s += total(value, piece, sum.nodes, x.input_tokens, count);
  }
  const latency_s = ttft_s + (x.output_tokens > 1 ? generation_s : 0);
  const figures = {
    ttft_s, one_time_s, latency_s, tpot_s: generation_s / count, tokens_per_s: x.batch * x.output_tokens / latency_s,
  };
  [...MEMORY, "capacity"].forEach((name, at) => { figures[`${name}_bytes`] = memory[at]; });
  figures.max_batch = memory[MEMORY.length + 1];
  figures.total_bytes = MEMORY.reduce((sum, name) => sum + figures[`${name}_bytes`], 0);
  figures.fits = figures.total_bytes <= figures.capacity_bytes;
  return figures;
}

// Latency over that of the base model, as a part of it; null where the page has no base.
function overheadOf(state, figures) {
  const base = state.strategy === "base" ? figures : figuresOf({ ...state, strategy: "base" });
  return base && figures ? figures.latency_s / base.latency_s - 1 : null;
}

// What is refused in a state: the sentence by the control that it is about.
function refusedIn(state, figures) {
  const found = {}, limits = PAGE.limits, tokens = state.input_tokens + state.output_tokens;
  const choice = PAGE.refused[keyOf(state)];
  if (choice) found.tp = choice;
  if (limits.longest && tokens > limits.longest)
    found.output_tokens = `${whole(tokens)} tokens of input and output are more than the ${whole(limits.longest)} that `
      + `${PAGE.engine} takes with ${limits.model}`;
  if (state.strategy === "dynamic") {
    const rank = limits.ranks[`${state.tp}/${state.rank}`];
    const slots = limits.slots[`${state.active_adapters}/${state.max_loras}`];
    if (rank) found.rank = rank;
    if (slots) found.max_loras = slots;
  }
  if (figures && !figures.fits)
    found.batch = figures.max_batch >= 1
      ? `does not fit in memory: ${whole(figures.max_batch)} of these requests do`
      : "does not fit in memory: not even one of these requests does";
  return found;
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
    ${call.model}, ${call.devices[state.device]},
    batch=${state.batch}, input_tokens=${state.input_tokens}, output_tokens=${state.output_tokens},
    parallelism=gs.Parallelism(${degrees.join(", ")}${call.parallelism}),
    lora=${lora},
    ${call.kept},
)`;
}

// A state as the fragment of an address, and back; what is not known there stays as it is.
function fragmentOf(state, view) { return "#" + new URLSearchParams({ ...state, ...view }); }
function stateFrom(fragment, state, view) {
  for (const [name, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (name in PAGE.options && Number.isFinite(+text) && text !== "") state[name] = bounded(name, +text);
    else if (name === "tp" && PAGE.degrees.includes(+text)) state.tp = +text;
    else if (name === "device" && Object.hasOwn(PAGE.devices, text)) state.device = text;
    else if (name === "strategy" && PAGE.strategies.includes(text)) state.strategy = text;
    else if (name in view && VIEWS[name].includes(text)) view[name] = text;
  }
}
const BOUNDS = { adapter_share: [0.01, 1], max_loras: [0, 1e6] };
const VIEWS = {
  over: Object.keys(PAGE.options), figure: ["tpot_s", "ttft_s", "latency_s", "tokens_per_s", "total_bytes", "overhead"],
};
// Ranks, adapters and slots are those of the sliders, of which is known what the engine refuses.
const LISTED = ["rank", "active_adapters", "max_loras"];
function bounded(name, value) {
  const near = (best, at) => Math.abs(at - value) < Math.abs(best - value) ? at : best;
  if (LISTED.includes(name)) return PAGE.options[name].reduce(near);
  const [least, most] = BOUNDS[name] || [1, 1e8];
  const inside = Math.min(Math.max(value, least), most);
  return name === "adapter_share" ? inside : Math.round(inside);
}

function whole(value) { return Math.floor(value).toLocaleString("en"); }
