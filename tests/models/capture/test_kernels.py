"""Operators in place of loops over tokens: same shapes and states as the model's own code, sizes stay symbols."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch._dispatch.python import enable_python_dispatcher  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from graphsim.errors import ConfigError  # noqa: E402
from graphsim.models.capture.kernels import FUNCTIONS, kernels  # noqa: E402
from graphsim.models.capture.specialised import fail_if_specialised  # noqa: E402

pytestmark = pytest.mark.slow

SEQUENCES, TOKENS = 2, 75
"""Sizes of the numeric run; the symbolic one has 3 and 53 as hints."""

STEPS = ("prompt", "decode")

PLAIN = {"vocab_size": 96, "pad_token_id": 0, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 80}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
MIXED = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 12, "mamba_chunk_size": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

CONFIGS: dict[str, dict[str, Any]] = {
    "mamba": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 12},
    "falcon_mamba": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 12},
    "mamba2": {
        "vocab_size": 96,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 16,
        "n_groups": 2,
        "state_size": 12,
        "chunk_size": 16,
    },
    "jamba": PLAIN | HEADS | {"attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 12, "num_experts": 4},
    "bamba": PLAIN | HEADS | MAMBA2 | {"attn_layer_indices": [1]},
    "granitemoehybrid": PLAIN | HEADS | MAMBA2 | MIXED | {"num_local_experts": 4, "shared_intermediate_size": 32},
    "falcon_h1": PLAIN | HEADS | MAMBA2 | {"mamba_d_ssm": 128},
    "qwen3_next": PLAIN | HEADS | DELTA | MIXED | EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3_5_text": PLAIN | HEADS | DELTA | MIXED,
    "olmo_hybrid": PLAIN | HEADS | DELTA | MIXED,
    "kimi_linear": PLAIN
    | MIXED
    | EXPERTS
    | {"num_attention_heads": 4, "num_key_value_heads": 4, "linear_num_heads": 4, "linear_head_dim": 16},
    "lfm2": PLAIN | HEADS | {"layer_types": ["conv", "full_attention", "conv"]},
    "rwkv": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2},
    "xlstm": {
        "vocab_size": 96,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_blocks": 2,
        "num_heads": 4,
        "chunk_size": 16,
    },
    "minimax": PLAIN | HEADS | MIXED | {"block_size": 16, "num_local_experts": 4},
    "recurrent_gemma": PLAIN
    | {"num_attention_heads": 4, "lru_width": 64, "block_types": ["recurrent", "recurrent", "attention"]},
}
COUNTED = {"mm", "addmm", "bmm", "baddbmm", "_grouped_mm"}
"""Products of matrices; depthwise convolutions are none."""

LEARNED = {
    "mamba": 128 * 12 + 128,
    "falcon_mamba": 128 * 12 + 128,
    "jamba": 128 * 12 + 128,
    "mamba2": 3 * 8,
    "bamba": 3 * 8,
    "granitemoehybrid": 3 * 8,
    "falcon_h1": 3 * 8,
    "qwen3_next": 2 * 4,
    "qwen3_5_text": 2 * 4,
    "olmo_hybrid": 2 * 4,
    "kimi_linear": 4 * 16 + 4,
    "rwkv": 2 * 64,
    "xlstm": 0,
    "minimax": 0,
    "recurrent_gemma": 64,
}
"""Weights of one recurrence: decay per channel and state or per head, skip, bias of the step."""


@dataclass
class AttentionSource(TorchDispatchMode):
    """Calls of graphsim's operators, and flops of matrix products as PyTorch's formulas have them."""

    scans: list[tuple[Any, ...]] = field(default_factory=list)
    convs: list[tuple[Any, ...]] = field(default_factory=list)
    flops: Any = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if func.namespace == "graphsim":
            (self.scans if name == "scan" else self.convs).append((*args, out))
        elif name == "_grouped_mm":
            self.flops = self.flops + 2 * args[0].shape[0] * args[0].shape[1] * out.shape[-1]
        elif name in COUNTED:
            self.flops = self.flops + flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


@dataclass
class Step:
    """What one step of a model was: tensors that it left, matrix flops, and what graphsim's operators took."""

    left: list[tuple[tuple[Any, ...], Any]]
    flops: Any
    inside: int = 0
    seen: AttentionSource | None = None
    env: Any = None
    symbols: dict[str, Any] = field(default_factory=dict)

    def at(self, value: Any, sizes: dict[str, int]) -> Any:
        """A symbolic number at the sizes of the numeric run."""
        expression = value.node.expr if hasattr(value, "node") else value
        found = {self.symbols[name].node.expr: size for name, size in sizes.items()}
        return int(expression.subs(found)) if hasattr(expression, "subs") else expression


def build(kind: str) -> Any:
    """A small model without weights."""
    config = transformers.CONFIG_MAPPING[kind].from_dict(dict(CONFIGS[kind]))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval().to(torch.bfloat16)


def run(model: Any, ids: Any, watches: dict[str, Any]) -> Iterator[tuple[str, list[tuple[tuple[Any, ...], Any]]]]:
    """A prompt step, and a decode step after it: what each leaves; its watch is open around it."""
    given = {}
    if model.config.model_type == "recurrent_gemma":  # its states lie on the modules, its result has no cache
        given = {"cache": transformers.DynamicCache(config=model.config)}
    for step, tokens in (("prompt", ids), ("decode", ids[:, :1])):
        with torch.no_grad(), watches[step]:
            result = model(input_ids=tokens, use_cache=True, **given)
        given = given or {key: result[key] for key in ("cache", "state") if key in result}
        yield step, tensors_left(model, result, given)


def tensors_left(model: Any, result: Any, given: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """Shape and format of the logits and of all states, in a fixed order."""
    found: list[Any] = []

    def visit(thing: Any) -> None:
        if isinstance(thing, torch.Tensor):
            found.append((tuple(thing.shape), thing.dtype))
        elif isinstance(thing, dict):
            for key in sorted(thing, key=str):
                visit(thing[key])
        elif isinstance(thing, list | tuple):
            for part in thing:
                visit(part)
        elif type(thing).__name__.endswith(("Cache", "Layer")):
            visit(vars(thing))

    visit([result.logits, result.get("cache"), result.get("state"), given.get("cache")])
    for module in model.modules():
        visit([getattr(module, name, None) for name in ("conv1d_state", "recurrent_states")])
    return found


@contextmanager
def counted_inside(model: Any, counts: list[int]) -> Iterator[None]:
    """Flops of the model's own kernels, while they run as the model spells them."""
    places = [vars(inspect.getmodule(type(module))) for module in model.modules()]
    places = [(place, name) for place in {id(p): p for p in places}.values() for name in FUNCTIONS if name in place]
    places += [(vars(type(m)), "forward") for m in model.modules() if type(m).__name__ == "xLSTMBackend"][:1]
    before = [(place, name, place[name]) for place, name in places]

    def counting(own: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with AttentionSource() as seen:
                out = own(*args, **kwargs)
            counts.append(seen.flops)
            return out

        return call

    try:
        for place, name, own in before:
            _put(place, name, counting(own), model)
        yield
    finally:
        for place, name, own in before:
            _put(place, name, own, model)


def _put(place: Any, name: str, function: Any, model: Any) -> None:
    if name == "forward":
        cls = next(type(m) for m in model.modules() if type(m).__name__ == "xLSTMBackend")
        cls.forward = function
    else:
        place[name] = function


@cache
def numeric(kind: str) -> dict[str, Step]:
    """The model as it is, by numbers; one sequence where its decode step is wrong for several."""
    model = build(kind)
    ids = torch.zeros(sequences_of(kind), TOKENS, dtype=torch.long, device="meta")
    seen = {step: AttentionSource() for step in STEPS}
    counts: list[int] = []
    steps = {}
    with counted_inside(model, counts):
        for step, left in run(model, ids, seen):
            inside = sum(counts) + (lightning_flops(model.config, step, len(ids)) if kind == "minimax" else 0)
            steps[step] = Step(left=left, flops=seen[step].flops, inside=inside)
            counts.clear()
    return steps


def lightning_flops(config: Any, step: str, sequences: int) -> int:
    """arXiv 2401.04658, algorithm 1: QK' and its product with V in blocks, Q times the state, K'V."""
    d, block = config.head_dim, config.block_size
    blocks = [1] if step == "decode" else [min(block, TOKENS - start) for start in range(0, TOKENS, block)]
    inside = 0 if step == "decode" else sum(2 * 2 * n * n * d for n in blocks)
    layers = config.layer_types.count("linear_attention")
    return layers * sequences * config.num_attention_heads * (inside + sum(2 * 2 * n * d * d for n in blocks))


@cache
def symbolic(kind: str) -> dict[str, Step]:
    """The model under capture: fake tensors with a symbolic batch and length."""
    model = build(kind)
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
    made: dict[int, Any] = {}

    def fake(tensor: Any, *dynamic: int) -> Any:
        sizes = [DimDynamic.DYNAMIC if i in dynamic else DimDynamic.STATIC for i in range(tensor.dim())]
        return mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    store[name] = made.setdefault(id(tensor), fake(tensor))
    ids = fake(torch.zeros(3, 53, dtype=torch.long, device="meta"), 0, 1)
    seen = {step: AttentionSource() for step in STEPS}
    symbols = dict(zip(("batch", "length"), ids.shape, strict=True))
    with enable_python_dispatcher(), mode, kernels(model):
        return {
            step: Step(left=left, flops=seen[step].flops, seen=seen[step], env=env, symbols=symbols)
            for step, left in run(model, ids, seen)
        }


def sequences_of(kind: str) -> int:
    """Of the numeric run; RWKV's own decode step is right for a single one only."""
    return 1 if kind == "rwkv" else SEQUENCES


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_with_kernels_is_the_model(kind: str) -> None:
    """Same logits, same states, same products outside of the scans; batch and length are symbols to the end."""
    sizes = {"batch": sequences_of(kind), "length": TOKENS}
    for step in STEPS:
        theirs, ours = numeric(kind)[step], symbolic(kind)[step]
        fail_if_specialised(ours.env, ours.symbols, kind)
        left = [(tuple(ours.at(size, sizes) for size in shape), dtype) for shape, dtype in ours.left]
        assert left == theirs.left
        assert len(left) > 2
        assert ours.at(ours.flops, sizes) == theirs.flops - theirs.inside


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", LEARNED)
def test_a_scan_knows_its_sizes_and_its_weights(kind: str, step: str) -> None:
    """Tokens are results over channels, sequences the first size of the state."""
    ours = symbolic(kind)[step]
    sizes = {"batch": 5, "length": 70}
    assert ours.seen is not None and ours.seen.scans
    for values, inputs, learned, before, _bias, _kind, channels, shape, dtype, _matrix, (out, after) in ours.seen.scans:
        assert ours.at(out.numel(), sizes) == channels * 5 * (1 if step == "decode" else 70)
        assert ours.at(after.shape[0], sizes) == 5 and tuple(after.shape[1:]) == tuple(shape)
        assert after.dtype is dtype
        assert out.shape == values.shape and inputs
        assert sum(weight.numel() for weight in learned) == LEARNED[kind]
        if step == "decode":
            assert sum(ours.at(part.numel(), sizes) for part in before) == 5 * prod(shape)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ("rwkv", "xlstm", "minimax")])
def test_a_convolution_knows_its_taps(kind: str) -> None:
    prompt, decode = (symbolic(kind)[step] for step in STEPS)
    assert prompt.seen is not None and decode.seen is not None
    assert len(prompt.seen.convs) == len(decode.seen.convs) > 0
    for step, of in ((prompt, 53), (decode, 1)):
        for values, weight, _bias, _before, channels, taps, kept, _activation, (out, after) in step.seen.convs:
            assert tuple(weight.shape) == (channels, taps) and taps == (3 if kind == "lfm2" else 4)
            assert out.shape == values.shape and out.shape[1] == channels
            assert step.at(out.shape[2], {"batch": 3, "length": 53}) == of
            assert tuple(after.shape[1:]) == (channels, kept)


def test_everything_is_as_it_was_afterwards_also_after_an_error() -> None:
    model = build("recurrent_gemma")
    other = build("mamba2")
    for chosen in (model, other):
        file = inspect.getmodule(type(chosen))
        before = dict(vars(file)), [dict(vars(module)) for module in chosen.modules()]
        with pytest.raises(KeyError), kernels(chosen):
            assert dict(vars(file)) != before[0] or chosen is model
            raise KeyError
        assert dict(vars(file)) == before[0]
        for module, was in zip(chosen.modules(), before[1], strict=True):
            assert vars(module).keys() == was.keys()
            assert not module._forward_hooks and not module._forward_pre_hooks


def _sizes() -> tuple[Any, dict[str, Any]]:
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * 2)
    tensor = mode.from_tensor(torch.zeros(3, 53, device="meta"), symbolic_context=context)
    return env, dict(zip(("batch", "length"), tensor.shape, strict=True))


def test_a_loop_over_tokens_is_found() -> None:
    env, sizes = _sizes()
    assert len(range(sizes["length"])) == 53
    with pytest.raises(ConfigError, match=r"the prompt: length became 53 \(.*test_kernels.py, line \d+, in test"):
        fail_if_specialised(env, sizes, "the prompt")


def test_a_loop_over_chunks_is_found_though_the_length_stays_a_symbol() -> None:
    env, sizes = _sizes()
    assert len(range((sizes["length"] + 15) // 16)) == 4
    with pytest.raises(ConfigError, match=r"layer 0: .*length.* became 4 \("):
        fail_if_specialised(env, sizes, "layer 0")


def test_a_size_tied_to_another_is_found() -> None:
    env, sizes = _sizes()
    torch._check(sizes["length"] == sizes["batch"] + 50)
    with pytest.raises(ConfigError, match=r"(length became batch \+ 50|batch became length - 50) .*must not be tied"):
        fail_if_specialised(env, sizes, "a step")


def test_a_loop_that_compares_is_found() -> None:
    env, sizes = _sizes()
    done = 0
    while done < sizes["length"]:
        done += 16
    with pytest.raises(ConfigError, match="a step: length is held between 49 and 64; a loop over tokens or chunks"):
        fail_if_specialised(env, sizes, "a step")


def test_an_equation_that_always_holds_is_no_loop() -> None:
    """As of a length that is padded to whole blocks."""
    env, sizes = _sizes()
    padded = sizes["length"] + -sizes["length"] % 16
    torch._check(padded == padded // 16 * 16)
    fail_if_specialised(env, sizes, "a step")


def test_comparisons_of_a_length_are_no_loops() -> None:
    env, sizes = _sizes()
    assert sizes["length"] > 4 and sizes["length"] != 1 and sizes["batch"] < 1000
    fail_if_specialised(env, sizes, "a step")


MARKED = re.compile(r'use_kernel_func_from_hub_with_fallback\(\s*"(\w+)".*?\n\)?\n?def (\w+)\(', re.DOTALL)
"""A function with a loop inside that a package has a kernel for: the kernel's name and the function's."""
FOR_TRAINING = {"mamba_inner_fn", "mamba_split_conv1d_scan_combined", "mamba2_split_conv1d_scan_combined"}


def test_every_kernel_of_transformers_has_a_replacement() -> None:
    files = Path(transformers.__file__).parent.glob("models/*/modeling_*.py")
    names = {name for file in files for pair in MARKED.findall(file.read_text("utf8")) for name in pair}
    assert len(names) > 15
    assert names - FOR_TRAINING <= FUNCTIONS.keys()
