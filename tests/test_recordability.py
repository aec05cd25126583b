"""Whatever is priced is recorded: a line that asks a symbol for an actual number is named, with its file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

import graphsim as gs
import graphsim.ops
from graphsim.compile.reasons import why_not_recorded
from graphsim.cost import calibrated
from graphsim.cost.choose import choose_cost
from graphsim.cost.families import gemm
from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.batched_gemm import BatchedShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.encoder_attention import EncoderShape
from graphsim.cost.families.exchange_work import LIKE, ExchangeShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.families.hyper_connections import HyperConnectionShape
from graphsim.cost.families.mla_work import MlaShape
from graphsim.cost.families.moe_work import MoeShape
from graphsim.cost.families.quantize import QuantizeShape
from graphsim.cost.families.recurrent_work import RecurrentShape
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.families.sparse import SparseShape
from graphsim.cost.parameters.basis import basis
from graphsim.deployment.inference import Inference, Requests
from graphsim.errors import GraphsimError
from graphsim.graph import schedule
from graphsim.hardware import Hardware
from graphsim.lora.variants import known
from graphsim.ops import Gemm, Op, Part, Repeat, Sharding, Together
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.lora_kernels import LoraKernel
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.refusal import CONFUSED, reason
from tests.benchmarks import measure
from tests.catalog import NO_MLP, models

DEVICES = ("a100-sxm-80gb", "h100-sxm", "b200-sxm", "l4", "tpu-v5e")

KNOWN = {"group": 4.0, "stride": 2.0, "devices": 4.0}
"""Numbers that choose a link of the device, which a symbol cannot; degrees of parallelism are never symbols."""


def why_not(record: Callable[[Tape], object]) -> str:
    """Why something is not recorded, with file and line; "" where it is."""
    try:
        record(Tape(literal=True))
    except GraphsimError:  # the device lacks the format or the link: nothing to be priced
        return ""
    except CONFUSED as error:
        return reason(error)
    return ""


def numbers(kind: type, tape: Tape, **known: Any) -> dict[str, Any]:
    """Symbols for the fields that are numbers, but for those known."""
    names = [f.name for f in fields(kind) if str(f.type) in ("Num", "Num | None")]
    return {name: tape.variable(name) for name in names} | {n: v for n, v in known.items() if n in names}


SHAPES: list[tuple[Any, dict[str, Any]]] = [
    *[(GemmShape, {"dtype": dtype}) for dtype in ("bfloat16", "fp8", "fp8_block", "int4_wo", "nvfp4")],
    (GemmShape, {"eager": True}),
    (ElementwiseShape, {}),
    (ElementwiseShape, {"host": True}),
    *[
        (AttentionShape, {"phase": phase, "kv_dtype": kv})
        for phase in ("prefill", "decode")
        for kv in ("bfloat16", "fp8")
    ],
    *[
        (RecurrentShape, {"step": step, "phase": phase, "mechanism": mechanism})
        for step, phase, mechanism in (
            ("convolution", "context", "gdn"),
            ("convolution", "generation", "kda"),
            ("scan", "context", "gdn"),
            ("scan", "context", "mamba2"),
            ("scan", "generation", "gdn"),
            ("scan", "verify", "kda"),
        )
    ],
    *[(MlaShape, {"phase": phase, "kv_dtype": kv}) for phase in ("prefill", "decode") for kv in ("bfloat16", "fp8")],
    *[
        (SparseShape, {"part": part, "method": method, "phase": "decode", "kv_dtype": "fp8"})
        for part, method in (("scores", "dsa"), ("attend", "dsa"), ("attend", "hca"))
    ],
    *[(BatchedShape, {"dtype": dtype}) for dtype in ("bfloat16", "fp8_block")],
    *[(MoeShape, {"dtype": dtype}) for dtype in ("bfloat16", "fp8")],
    (EncoderShape, {}),
    *[(HyperConnectionShape, {"phase": phase}) for phase in ("pre", "post")],
    *[(QuantizeShape, {"dtype": dtype}) for dtype in ("fp8", "nvfp4")],
    *[
        (ExchangeShape, {"backend": backend, "phase": phase, "dtype": "fp8"})
        for backend in LIKE
        for phase in ("prepare", "dispatch", "combine")
    ],
    *[(CollectiveShape, {"kind": kind}) for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")],
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "chosen"), SHAPES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_family_is_recorded(shape: Any, chosen: dict[str, Any], device: str) -> None:
    hardware = gs.load_hardware(device)
    family = FAMILIES[shape.family]
    parameters = basis(hardware, family.name).parameters
    if parameters:
        latency_s = family.module.latency_s
        assert not why_not(
            lambda tape: latency_s(parameters, hardware, shape(**numbers(shape, tape, **KNOWN), **chosen))
        )


def test_no_family_is_forgotten() -> None:
    assert {shape.family for shape, _ in SHAPES} == set(FAMILIES) - {"mla_block"}  # of whole blocks, no node's


def kinds() -> list[type[Op]]:
    """Every operation of every module of graphsim.ops."""
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(graphsim.ops.__path__, "graphsim.ops.")]
    found = {thing for module in modules for thing in vars(module).values() if inspect.isclass(thing)}
    ops = [kind for kind in found if issubclass(kind, Op) and kind not in (Op, Repeat, Together, LoraKernel)]
    return sorted(ops, key=lambda kind: kind.__name__)


def samples(kind: type[Op], tape: Tape) -> Iterator[Op]:
    """The operation in each of the forms that its switches allow, with symbols for numbers."""
    given: dict[str, Any] = {
        "of": 8, "chosen": 2, "gather": True, "slices": 2.0,
        "routing": ExpertGemm(m=tape.variable("m"), n=4.0, k=8.0, experts=8.0, of=8, chosen=2, tokens=3.0, ranks=2.0),
    }  # fmt: skip
    names = {f.name for f in fields(kind)}
    dims = numbers(kind, tape, **KNOWN)
    plain = kind(**{name: value for name, value in given.items() if name in names} | dims)
    yield plain
    for name, values in {
        "split": (Sharding.COLUMN, Sharding.ROW), "bias": (True,), "shared": (True,), "decode": (True,),
        "matrix": (True,), "soft_cap": (True,), "local": (True,), "whole": (True,), "gated": (True,),
        "by_tokens": (True,),
    }.items():  # fmt: skip
        if name in names:
            yield from (replace(plain, **{name: value}) for value in values)
    if "parts" in names:
        parts = tuple(Part(name=n, width=tape.variable(n), units=tape.variable(f"{n} units")) for n in ("a", "b"))
        yield replace(plain, parts=parts, **({"split": Sharding.COLUMN} if issubclass(kind, Gemm) else {}))


def answers(op: Op, tape: Tape) -> list[Any]:
    """All that an operation says of itself, and its share among devices."""
    said = [op.work(), op.parameters, op.weight_storage_bytes, op.state_bytes, op.out_elems, op.in_elems, op.out_parts]
    cut = [] if type(op).cut is Op.cut else [op.cut(tape.variable("ways"))]
    return [*said, *cut]


@pytest.mark.parametrize("kind", kinds())
def test_every_operation_is_recorded(kind: type[Op]) -> None:
    tape = Tape(literal=True)
    for op in samples(kind, tape):
        assert not why_not(lambda _, op=op: answers(op, tape)), op  # type: ignore[misc]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("kind", kinds())
def test_every_price_of_every_operation_is_recorded(kind: type[Op], cost: str, device: str) -> None:
    hardware = gs.load_hardware(device)
    price, _ = choose_cost(cost, hardware)
    for op in samples(kind, Tape(literal=True)):
        assert not why_not(lambda _, op=op: price(op, hardware).latency_s), op  # type: ignore[misc]


LORA = gs.LoraConfig(rank=16, active_adapters=3, adapter_share=0.5)
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    **{f"{engine} of {model}": {"engine": engine, "model": model, "lora": LORA}
       for engine in gs.list_engines() for model in ("llama-3.1-8b", "mixtral-8x7b")},
    **{variant: {"lora": replace(LORA, variant=variant)} for variant in known()},
    **{f"{name} merged": {"lora": replace(LORA, variant=name, strategy="merge")}
       for name, variant in known().items() if not variant.unmerged},
    "tensor parallel": {"lora": LORA, "parallelism": gs.Parallelism(tp=4)},
    "sequence parallel": {"lora": LORA, "parallelism": gs.Parallelism(tp=4, sp=4)},
    "fully sharded": {"lora": replace(LORA, fully_sharded_loras=True), "parallelism": gs.Parallelism(tp=2)},
    "pipeline": {"lora": LORA, "parallelism": gs.Parallelism(pp=4, dp=2)},
    "experts": {"model": "mixtral-8x7b", "lora": LORA, "parallelism": gs.Parallelism(tp=2, ep=8)},
    "experts in a group": {"model": "mixtral-8x7b", "parallelism": gs.Parallelism(tp=4, ep=4)},
    "4 bits": {"lora": LORA, "precision": "int4"},
    "nf4": {"lora": LORA, "precision": "nf4"},
    "8 bits": {"precision": "fp8,kv=fp8"},
    "widened embedding": {"lora": replace(LORA, target_modules="all-linear", modules_to_save=("lm_head",))},
}  # fmt: skip
"""Together, these go through every pass."""


def inference(cost: str, device: Hardware, case: dict[str, Any]) -> Inference:
    choice = {"model": "llama-3.1-8b"} | case
    return Inference(
        deployment=gs.Deployment(hardware=device, cost=cost, **{"engine": "reference", **choice}),
        requests=Requests(batch=5, input_tokens=300, output_tokens=40),
    )


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("case", DEPLOYMENTS)
@pytest.mark.slow
def test_every_pass_is_recorded(case: str, cost: str) -> None:
    assert why_not_recorded(inference(cost, gs.load_hardware("b200-sxm"), DEPLOYMENTS[case])) == []


@pytest.mark.parametrize("model", models(but=NO_MLP))
def test_every_model_is_recorded(model: str) -> None:
    """On the device whose own kernels price most families; every price is tried on every device above."""
    chosen = {"model": model, "lora": LORA, "precision": "bf16"}
    assert why_not_recorded(inference("calibrated", gs.load_hardware("b200-sxm"), chosen)) == []


def changed(function: Any, old: str, new: str) -> tuple[Any, int]:
    """A function of the library with one line of its source changed, and that line's number in its file."""
    lines, first = inspect.getsourcelines(function)
    (at,) = [i for i, line in enumerate(lines) if old in line]
    lines[at] = lines[at].replace(old, new)
    scope = dict(function.__globals__)
    exec(compile("\n" * (first - 1) + "".join(lines), inspect.getfile(function), "exec"), scope)
    return scope[function.__name__], first + at


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("np.median(kernel + memory)", "numpy.median of a symbol"),
        ("kernel if kernel > memory else memory", "a branch depends on a symbol"),
        ("kernel * (2.0 if np.any(shape.m > 8) else 1.0)", "numpy.any of a symbol"),
    ],
)
def test_a_line_of_a_family_that_asks_is_named(monkeypatch: pytest.MonkeyPatch, new: str, said: str) -> None:
    """In whichever way it is noticed: by the family, the operation's price or a whole deployment."""
    broken, line = changed(gemm._device_s, "overlapped(kernel, memory)", f"({new})")
    monkeypatch.setattr(gemm, "_device_s", broken)
    monkeypatch.setattr(calibrated, "_kinds", Memo(most=1))  # with no kernel known
    hardware, sentence = replace(gs.load_hardware("a100-sxm-80gb")), f"gemm.py:{line}: {said}"
    parameters = basis(hardware, "gemm").parameters
    assert parameters
    assert why_not(lambda tape: gemm.latency_s(parameters, hardware, GemmShape(**numbers(GemmShape, tape)))) == sentence
    price = choose_cost("calibrated", hardware)[0]
    assert why_not(lambda tape: price(Gemm(m=tape.variable("m"), n=8.0, k=64.0), hardware)) == sentence
    assert why_not_recorded(inference("calibrated", hardware, {})) == [sentence]


def calls_of_new_prompts(monkeypatch: pytest.MonkeyPatch, sizes: Iterator[int]) -> int:
    """Calls of Python's that steps of an engine with new prompts take, with no kernel known before."""
    monkeypatch.setattr(calibrated, "_kinds", Memo(most=64))
    deployment = gs.Deployment("llama-3.1-8b", replace(gs.load_hardware("a100-sxm-80gb")), cost="calibrated")
    requests = Requests(batch=1, input_tokens=1, output_tokens=1)
    assert why_not_recorded(Inference(deployment=deployment, requests=requests)) == []
    step = gs.compile_step(deployment)

    def steps() -> None:
        for _ in range(40):
            step(prompt_tokens=next(sizes), generating=8, cache_rows=8000)

    steps()
    return measure.calls(steps)


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("_device_s", "overlapped(kernel, memory)",
         "overlapped(kernel, memory) * np.interp(shape.m, [1.0, 9e9], [1.0, 2.0])"),
        ("_coordinates", '"m": m, "n": n', '"m": m + 0.01 * np.sqrt(np.ceil(shape.m / 96.0)), "n": n'),
        ("_skeleton", "device = _device_s(c, hardware, shape)",
         "device = _device_s(c, hardware, shape) + 1e-9 * np.log1p(shape.m) * np.cbrt(shape.k)"),
    ],
    ids=["numpy.interp", "another coordinate", "another term"],
)  # fmt: skip
def test_a_change_of_a_family_is_recorded_and_costs_little(
    monkeypatch: pytest.MonkeyPatch, function: str, old: str, new: str
) -> None:
    """The steps of an engine with new prompts take about as many calls of Python's as before."""
    sizes = iter(range(100, 10**6, 7))
    before = calls_of_new_prompts(monkeypatch, sizes)
    slower, _ = changed(getattr(gemm, function), old, new)
    monkeypatch.setattr(gemm, function, slower)
    assert calls_of_new_prompts(monkeypatch, sizes) < 1.5 * before


def test_a_line_of_a_pass_that_asks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def asks(graph: Any) -> Any:
        return max(schedule.makespan_s(graph), 1.0)

    monkeypatch.setattr("graphsim.deployment.inference.makespan_s", asks)
    (found,) = why_not_recorded(inference("roofline", gs.load_hardware("l4"), {}))
    assert found.startswith("test_recordability.py:") and found.endswith("a branch depends on a symbol")
