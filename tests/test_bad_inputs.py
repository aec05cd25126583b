"""Every mistake in a call is one readable sentence: where, what was found, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.ops import Add

MODEL, DEVICE = "llama-3.1-8b", "h100-sxm"
LORA, PAR = gs.LoraConfig, gs.Parallelism


def simulate(**asked: object) -> object:
    return gs.simulate(**{"engine": "reference", **({"model": MODEL, "hardware": DEVICE} | asked)})  # type: ignore[arg-type]


def with_lora(**asked: object) -> object:
    return gs.lora_parameters(MODEL, LORA(**asked))  # type: ignore[arg-type]


def cycle() -> nx.DiGraph:
    graph = gs.build_graph("gpt-2", input_tokens=8)
    graph.add_edge("sample", "wte")
    return graph


BAD: dict[str, tuple[Callable[[], object], str]] = {
    # requests
    "no sequences": (lambda: simulate(batch=0), "batch = 0 is not allowed; expected whole numbers from 1"),
    "half a sequence": (lambda: simulate(batch=1.5), "batch = 1.5"),
    "batch as text": (lambda: simulate(batch="8"), "batch = '8'"),
    "batch as flag": (lambda: simulate(batch=True), "batch = True"),
    "batch as nothing": (lambda: simulate(batch=None), "batch = None"),
    "batch as complex number": (lambda: simulate(batch=1j), "batch = 1j"),
    "batch as table": (lambda: simulate(batch=[[1, 2]]), r"batch = \[\[1, 2\]\]"),
    "no scenarios": (lambda: simulate(batch=[]), r"batch = \[\]"),
    "flags as scenarios": (lambda: simulate(batch=np.array([True, False])), "batch = array"),
    "one bad scenario": (lambda: simulate(batch=[1, 2, 0]), "batch holds 0, which is not allowed"),
    "no prompt": (lambda: simulate(input_tokens=0), "input_tokens = 0"),
    "endless prompt": (lambda: simulate(input_tokens=float("inf")), "input_tokens = inf"),
    "a prompt that is not a number": (lambda: simulate(input_tokens=float("nan")), "input_tokens = nan"),
    "an absurd prompt": (lambda: simulate(input_tokens=10**300), "input_tokens = 1000.* to 1,000,000,000"),
    "no output": (lambda: simulate(output_tokens=0), "output_tokens = 0"),
    "negative output": (lambda: simulate(output_tokens=-5), "output_tokens = -5"),
    "scenarios of two lengths": (
        lambda: simulate(batch=[1, 2], input_tokens=[8, 16, 32]),
        "arrays over scenarios differ in length: 2, 3",
    ),
    "scenarios of two lengths across arguments": (
        lambda: simulate(batch=[1, 2], lora=LORA(rank=[8, 16, 32])),
        "arrays over scenarios differ in length: 2, 3",
    ),
    "kernels as a mapping": (lambda: gs.predict_kernels({"op": "gemm"}, "l4"), "given as a dict; expected a pandas"),
    # names
    "unknown model": (lambda: simulate(model="lama-3.1-8b"), "did you mean 'llama-3.1-8b'"),
    "model as number": (lambda: simulate(model=8), "model = 8 is not allowed"),
    "empty model name": (lambda: simulate(model=""), "model = ''"),
    "absent model file": (lambda: simulate(model="./absent/model.yaml"), "absent/model.yaml"),
    "unknown device": (lambda: simulate(hardware="h100-smx", engine="reference"), "did you mean 'h100-sxm'"),
    "device as nothing": (lambda: simulate(hardware=None, engine="reference"), "hardware"),
    "absent device file": (lambda: simulate(hardware="./absent/device.yaml", engine="reference"), "absent/device.yaml"),
    "unknown precision": (lambda: simulate(precision="bf17"), "did you mean 'bf16'"),
    "unknown cache precision": (lambda: simulate(precision="fp8,kv=fp9"), "kv precision = 'fp9'"),
    "misspelt cache precision": (lambda: simulate(precision="fp8,cache=fp8"), "fp8,kv=fp8"),
    "precision as number": (lambda: simulate(precision=16), "precision = 16"),
    "precision without a peak": (lambda: simulate(hardware="tpu-v5e", precision="fp8"), "states no peak for 'fp8'"),
    "unknown cost model": (lambda: simulate(cost="rooflin"), "did you mean 'roofline'"),
    "cost model as number": (lambda: simulate(cost=3), "cost = 3"),
    # parallelism
    "tp that does not divide": (lambda: simulate(parallelism=PAR(tp=7)), "allowed: 1, 2, 4, 8, 16, 32"),
    "more tp than heads": (lambda: simulate(parallelism=PAR(tp=64)), "does not divide the 32 attention heads"),
    "tp out of reach": (
        lambda: simulate(model="llama-2-7b", hardware="rtx-4090", parallelism=PAR(tp=32, pp=4), engine="reference"),
        "'rtx-4090' connects at most 64 devices, asked for 128",
    ),
    "tp of zero": (lambda: PAR(tp=0), "parallelism.tp = 0 is not allowed; expected a whole number from 1"),
    "tp as text": (lambda: PAR(tp="2"), "parallelism.tp = '2'"),
    "tp as flag": (lambda: PAR(tp=True), "parallelism.tp = True"),
    "half a device": (lambda: PAR(tp=1.5), "parallelism.tp = 1.5"),
    "an absurd tp": (lambda: PAR(tp=10**300), "parallelism.tp = 1000"),
    "negative dp": (lambda: PAR(dp=-2), "parallelism.dp = -2"),
    "more stages than layers": (lambda: simulate(parallelism=PAR(pp=33)), "it has 32 layers, allowed: 1 to 32"),
    "pp as scenarios": (lambda: PAR(pp=np.array([1, 2])), "expected a single whole number"),
    "micro-batches as scenarios": (lambda: PAR(micro_batches=[1, 2]), "parallelism.micro_batches"),
    "negative micro-batches": (lambda: PAR(micro_batches=-1), "parallelism.micro_batches = -1"),
    "sp unlike tp": (lambda: PAR(tp=4, sp=2), "parallelism.sp = 2 is not allowed with tp = 4; expected 1, or tp"),
    "sp in some scenarios": (lambda: PAR(tp=4, sp=[1, 4]), "in every scenario"),
    "parallelism as mapping": (lambda: simulate(parallelism={"tp": 2}), "is not a Parallelism"),
    # adapters
    "adapter as mapping": (lambda: simulate(lora={"rank": 8}), "is not a LoraConfig"),
    "adapter as nothing": (lambda: gs.lora_parameters(MODEL, None), "lora = None"),  # type: ignore[arg-type]
    "negative rank": (lambda: LORA(rank=-1), "lora.rank = -1 is not allowed; expected a whole number from 0 to 65,536"),
    "half a rank": (lambda: LORA(rank=0.5), "lora.rank = 0.5"),
    "rank as text": (lambda: LORA(rank="16"), "lora.rank = '16'"),
    "an absurd rank": (lambda: LORA(rank=10**300), "lora.rank = 1000"),
    "several ranks counted as one": (lambda: with_lora(rank=[8, 16]), "several ranks"),
    "unknown strategy": (lambda: LORA(strategy="merged"), "did you mean 'merge'"),
    "strategy as list": (lambda: LORA(strategy=["merge"]), "lora.strategy"),
    "enabled as text": (lambda: LORA(enabled="yes"), "lora.enabled = 'yes'"),
    "unknown format": (lambda: LORA(lora_dtype="bf17"), "did you mean 'bf16'"),
    "format as list": (lambda: LORA(lora_dtype=["bf16"]), "lora.lora_dtype"),
    "no targets": (lambda: LORA(target_modules=[]), "target_modules is empty"),
    "target as number": (lambda: LORA(target_modules=3), "lora.target_modules = 3"),
    "empty target": (lambda: LORA(target_modules=["q_proj", ""]), "lora.target_modules"),
    "target of another model": (lambda: with_lora(target_modules=["c_attn"]), "c_attn.* matches no module .* o_proj"),
    "misspelt target": (lambda: with_lora(target_modules=["q_porj"]), "did you mean 'q_proj'"),
    "part of a name": (lambda: with_lora(target_modules=["proj"]), "did you mean 'v_proj'"),
    "one good target, one bad": (lambda: with_lora(target_modules=["q_proj", "x_proj"]), "'x_proj' matches no"),
    "broken target pattern": (lambda: with_lora(target_modules="q_proj("), "not a regular expression"),
    "broken exclusion": (lambda: with_lora(exclude_modules="["), "lora.exclude_modules: '\\['"),
    "broken rank pattern": (lambda: with_lora(rank_pattern={"q_proj(": 8}), "lora.rank_pattern"),
    "rank pattern as list": (lambda: LORA(rank_pattern=[8]), "is not a mapping of module names to ranks"),
    "rank pattern of numbers": (lambda: LORA(rank_pattern={3: 8}), "lora.rank_pattern"),
    "negative rank in a pattern": (lambda: LORA(rank_pattern={"q_proj": -8}), "lora.rank_pattern.q_proj = -8"),
    "broken layers pattern": (
        lambda: with_lora(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="("),
        "lora.layers_pattern",
    ),
    "layers pattern as number": (lambda: LORA(layers_pattern=3), "lora.layers_pattern = 3"),
    "layer that is not there": (lambda: with_lora(layers_to_transform=[32]), "the model has layers 0 to 31"),
    "negative layer": (lambda: LORA(layers_to_transform=[-1]), "lora.layers_to_transform"),
    "layers as text": (lambda: LORA(layers_to_transform="all"), "lora.layers_to_transform = 'all'"),
    "share above one": (lambda: LORA(adapter_share=2), "lora.adapter_share = 2 is not allowed; expected a number"),
    "negative adapters": (lambda: LORA(active_adapters=-1), "lora.active_adapters = -1"),
    "half a slot": (lambda: LORA(max_loras=1.5), "lora.max_loras = 1.5"),
    "comparison of many scenarios": (lambda: gs.compare_lora(MODEL, DEVICE, batch=[1, 2]), "one scenario"),
    # graphs
    "unknown phase": (lambda: gs.build_graph(MODEL, "training"), "phase = 'training' is not known"),
    "negative context": (lambda: gs.build_graph(MODEL, "decode", context_tokens=-1), "context_tokens = -1"),
    "context as text": (lambda: gs.build_graph(MODEL, "decode", context_tokens="long"), "context_tokens = 'long'"),
    "no graph": (lambda: gs.annotate(3, DEVICE), "graph = 3 is not a networkx.DiGraph"),  # type: ignore[arg-type]
    "node without op": (lambda: gs.annotate(nx.path_graph(2, create_using=nx.DiGraph), DEVICE), "carries no op"),
    "graph without prices": (lambda: gs.critical_path(gs.build_graph("gpt-2")), "annotate the graph first"),
    "empty graph": (lambda: gs.critical_path(nx.DiGraph()), "no nodes"),
    "input that is not there": (lambda: gs.add(nx.DiGraph(), "x", Add(elems=1.0), ["y"]), "'y'"),
    "launched before its input": (lambda: gs.validate(cycle()), "launched before its input 'sample'"),
    # the LoRA document's calls
    "configuration of nobody": (lambda: gs.get_configs("lama-7b"), "did you mean"),
    "folder that cannot be": (
        lambda: gs.create_full_prefill_model("gpt-2", data_path=f"{__file__}/below"),
        "cannot be written to",
    ),
    "bits that are none": (lambda: gs.estimate_end_to_end_performance(bits="16bit"), "precision = '16bit'"),
}  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_readable_sentence(name: str) -> None:
    call, expected = BAD[name]
    with pytest.raises(gs.GraphsimError) as caught:
        call()
    text = str(caught.value)
    assert re.search(expected, text), text
    assert "\n" not in text and 10 < len(text) < 1000
    assert not re.search(r"object at 0x|Traceback|NoneType|\bself\b", text)


@pytest.mark.parametrize("name", BAD)
def test_an_error_hides_what_python_said(name: str) -> None:
    call, _ = BAD[name]
    with pytest.raises(gs.GraphsimError) as caught:
        call()
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)


def test_a_model_file_may_lie_anywhere(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match="holds no config.json"):
        gs.load_model(tmp_path)
