"""Convolutions and scans in a graph: which kernels they are, and what a step of prompts and tokens takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cost.calibrated import Prices, calibrated
from graphsim.cost.families import recurrent
from graphsim.cost.kernels import predict_with
from graphsim.cost.roofline import roofline
from graphsim.hardware import load_hardware
from graphsim.models.build import build
from graphsim.models.phase import decode, mixed, prefill
from graphsim.ops import CausalConv, Op, Repeat, Scan
from graphsim.ops.precision import load_precision
from tests.paths import REFERENCE

MODULES = REFERENCE / "modules"
RULE = Scan(
    sequences=4.0, tokens=4096.0, channels=1024.0, state=128.0, inputs=1552.0, matrix=True, mechanism="gdn", heads=8.0,
    key_heads=2.0,
)  # fmt: skip
MODELS = {
    "qwen3-next-80b-a3b": "gdn", "kimi-linear-48b-a3b": "kda", "nemotron-h-56b": "mamba2",
    "codestral-mamba-7b": "mamba2", "minimax-text-01": "mamba2", "mamba-2.8b": "", "jamba-52b": "",
}  # fmt: skip


def prices_of(device: str, fits: dict[str, Any] | None = None) -> Prices:
    """The device's prices with other constants of recurrent kernels; any where none are given."""
    plain = calibrated(load_hardware(device))[0]
    assert isinstance(plain, Prices)
    usual = {"generation": {"gdn scan": {"constants": recurrent.START["update"]}}}
    return Prices(load_hardware(device), {**plain.parameters, "recurrent": usual if fits is None else fits})


@pytest.fixture(scope="module")
def price() -> Prices:
    return prices_of("h100-sxm")


def seconds(price: Prices, op: Op) -> float:
    return float(price(op, load_hardware("h100-sxm")).latency_s)


def along_sequences(model: str, phase: str, batch: int, tokens: int, tp: int = 1, expand: bool = False) -> list[Op]:
    """Convolutions and scans, those of all layers or of the bodies of repeats."""
    degrees = gs.Parallelism(tp=tp)
    graph = gs.build_graph(model, phase, batch=batch, input_tokens=tokens, parallelism=degrees, expand=expand)
    return found_in(graph)


def found_in(graph: nx.DiGraph) -> list[Op]:
    """Those of a graph, and of the bodies of its repeats."""
    ops = [data["op"] for _, data in graph.nodes(data=True)]
    inner = [found_in(op.body) for op in ops if isinstance(op, Repeat)]
    return [op for op in ops if isinstance(op, CausalConv | Scan)] + [op for part in inner for op in part]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unmeasured(Scan):
    """A user's scan that is unlike any measured one."""


def test_a_step_of_prompts_and_tokens_runs_a_kernel_for_each(price):
    prompts, generating = replace(RULE, sequences=3.0, tokens=4095.0), replace(RULE, sequences=1.0, tokens=1.0)
    both = replace(RULE, sequences=4.0, tokens=4096.0, decoding=1.0)
    alone = seconds(price, prompts) + seconds(price, replace(generating, decode=True))
    assert seconds(price, both) == pytest.approx(alone, rel=1e-9)


def test_a_token_in_a_generation_kernel_is_cheaper_than_a_prompt_of_one(price):
    one = replace(RULE, sequences=64.0, tokens=64.0)
    assert seconds(price, replace(one, decode=True)) < seconds(price, one)


def test_a_scan_that_nobody_measured_keeps_its_roofline(price):
    plain = calibrated(load_hardware("h100-sxm"))[0]
    own = Unmeasured(sequences=4.0, tokens=4096.0, channels=1024.0, state=16.0, inputs=2080.0)
    assert seconds(price, own) == float(plain(own, load_hardware("h100-sxm")).latency_s)
    assert seconds(prices_of("h100-sxm", {}), RULE) == seconds(price, replace(RULE, mechanism=""))


def test_dealt_out_heads_are_never_slower_and_share_what_they_had(price):
    cut = RULE.cut(2.0)
    assert (cut.heads, cut.key_heads, cut.channels) == (4.0, 1.0, 512.0)
    assert seconds(price, cut) <= seconds(price, RULE)


def test_scenarios_are_priced_together_as_alone(price):
    tokens = np.array([512.0, 4096.0, 131072.0])
    together = price(replace(RULE, tokens=tokens), load_hardware("h100-sxm")).latency_s
    assert np.allclose(together, [seconds(price, replace(RULE, tokens=x)) for x in tokens], rtol=1e-12)


@pytest.mark.parametrize(("model", "mechanism"), MODELS.items())
def test_every_model_says_the_mechanism_and_heads_of_its_scans(model, mechanism):
    ops = along_sequences(model, "prefill", 2, 64)
    scans, convolutions = ([op for op in ops if isinstance(op, kind)] for kind in (Scan, CausalConv))
    assert scans and {scan.mechanism for scan in scans} == {mechanism}
    assert all(op.sequences == 2.0 and op.tokens == 128.0 and not op.decode and op.decoding == 0.0 for op in ops)
    assert all(op.decode and op.decoding == op.sequences == 2.0 for op in along_sequences(model, "decode", 2, 64))
    if mechanism:
        assert all(scan.channels % scan.heads == 0 and scan.heads % scan.key_heads == 0 for scan in scans)
        kinds = {"kda": {"kda"}, "gdn": {"gdn"}}.get(mechanism, {"mamba2"} if convolutions else set())
        assert {op.mechanism for op in convolutions} == kinds


def test_a_mixed_step_knows_which_sequences_bring_one_token():
    step = mixed(prefill(2, 100), decode(5, 1000))
    ops = found_in(build(gs.load_model("qwen3-next-80b-a3b"), step, load_precision("bf16")))
    assert ops
    assert all((op.sequences, op.tokens, op.decoding, op.decode) == (7.0, 205.0, 5.0, False) for op in ops)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "tokens"), [(1, 32768), (1, 1024), (4, 8192)])
def test_qwen_3_5_in_a_graph_takes_what_its_kernels_were_measured_to_take(batch, tokens):
    """On a B200 under SGLang, eight ways: 66 ms for 32768 tokens, of which a roofline says 3."""
    if not MODULES.is_dir():
        pytest.skip("no reference measurements")
    table = pd.read_parquet(MODULES / "linear_attention.parquet")
    table = table[(table["gpu"] == "b200_sxm") & (table["framework"] == "sglang")]
    prices, hardware = prices_of("b200-sxm", recurrent.fit(table, load_hardware("b200-sxm"))), load_hardware("b200-sxm")
    ops = along_sequences("qwen3.5-397b-a17b", "prefill", batch, tokens, tp=8, expand=True)
    found = sum(float(prices(op, hardware).latency_s) for op in ops)
    alike = table[(table["model"] == "Qwen/Qwen3.5-397B-A17B") & (table["v_heads"] == 8)]
    rows = alike[(alike["phase"] == "context") & (alike["batch"] == batch) & (alike["seq_len"] == tokens)]
    assert len(rows) == 2 and len(ops) == 90
    assert found == pytest.approx(45 * 1e-6 * rows["latency_us"].sum(), rel=0.1)
    assert found > 5 * sum(float(roofline(op, hardware).latency_s) for op in ops)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "one", "other", "framework", "most"),
    [
        ("linear_attention", "gb200", "b200_sxm", "vllm", 0.18),
        ("linear_attention", "h100_sxm", "h200_sxm", "trtllm", 0.18),
        ("kda", "h100_sxm", "h200_sxm", "sglang", 0.22), ("kda", "b200_sxm", "gb200", "sglang", 0.22),
    ],
)  # fmt: skip
def test_a_device_serves_for_its_sibling(table, one, other, framework, most):
    if not MODULES.is_dir():
        pytest.skip("no reference measurements")
    names = {"gb200": "gb200", "b200_sxm": "b200-sxm", "h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm"}
    rows = pd.read_parquet(MODULES / f"{table}.parquet")
    rows = rows[rows["framework"] == framework]
    known = {"recurrent": recurrent.fit(rows[rows["gpu"] == one], load_hardware(names[one]))}
    theirs = rows[rows["gpu"] == other]
    found = predict_with(theirs, load_hardware(names[other]), parameters=known)
    assert (found / theirs["latency_us"] - 1).abs().median() < most
