"""Where an estimate falls as work grows: named node by node, as simulating the next steps one by one finds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.switches import MOST, Switch, switches_of
from graphsim.cost.base import Cost
from graphsim.cost.calibrated import calibrated
from graphsim.cost.families import gemm, tiles
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.regimes import regime
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware, load_hardware
from graphsim.ops import AllReduce, Gemm, Norm, Op
from graphsim.ops.lora_kernels import LoraShrink

H100 = load_hardware("h100-sxm")
WORK = ("flops", "vector_flops", "weight_bytes", "read_bytes", "write_bytes", "message_bytes")


def faster_from(rows: float):
    """A cost function whose products take half as long from so many rows on."""

    def cost(op: Op, hardware: Hardware) -> Cost:
        base = roofline(op, hardware)
        if not isinstance(op, Gemm) or not op.pack:
            return base
        return Cost(busy_s=base.busy_s * np.where(np.greater_equal(op.m, rows), 0.5, 1.0))

    return cost


@pytest.mark.parametrize("batch, told", [(7, "batch 14 instead of 7"), (9, "batch 10 instead of 9"), (10, "")])
def test_a_kernel_that_is_faster_from_ten_rows_on_is_told_below_ten(batch: int, told: str) -> None:
    estimate = gs.simulate("llama-3.2-1b", "h100-sxm", batch, 64, 4, cost=faster_from(10.0), engine="reference")
    found = [switch for switch in switches_of(estimate) if switch.quantity == "tpot_s"]
    assert [switch.node.rpartition(".")[2] for switch in found] == (["gate_up_proj", "qkv_proj"] if told else [])
    for switch in found:
        assert switch.step == told and switch.after_s < 0.6 * switch.before_s and switch.times == 16
        assert switch.step_after_s < switch.step_before_s and "the whole step falls" in str(switch)


def test_a_step_is_said_to_fall_only_where_its_figures_do() -> None:
    told = Switch(
        quantity="tpot_s", node="attention", step="batch 2 instead of 1", times=1, before_s=2e-6, after_s=1e-6,
        step_before_s=0.0210900002, step_after_s=0.0210900001,
    )  # fmt: skip
    assert "whole step" not in str(told) and "whole step falls" in str(replace(told, step_after_s=0.02))


def brute_force(asked: dict, batch: int, prompt: int) -> dict[str, set[str]]:
    """Nodes that fall by a hundredth though no amount of work does, from frames of simulations of their own."""
    found: dict[str, set[str]] = {"ttft_s": set(), "tpot_s": set()}
    one = gs.simulate(batch=batch, input_tokens=prompt, **{"engine": "reference", **asked})
    for more in ((batch + 1, prompt), (2 * batch, prompt), (batch, prompt + 1), (batch, 2 * prompt)):
        other = gs.simulate(batch=more[0], input_tokens=more[1], **{"engine": "reference", **asked})
        for quantity, phase in (("ttft_s", "prefill"), ("tpot_s", "decode")):
            before, after = (getattr(e, phase).to_frame().set_index("name") for e in (one, other))
            grown = (after[[*WORK]] >= before[[*WORK]]).all(axis=1) & (after[[*WORK]] > before[[*WORK]]).any(axis=1)
            found[quantity] |= set(before.index[grown & (after.latency_s < 0.99 * before.latency_s)])
    return found


@pytest.mark.parametrize(
    "batch, further",
    [(31, {}), pytest.param(63, {"lora": gs.LoraConfig(rank=16), "engine": "peft"}, marks=pytest.mark.slow)],
)
def test_the_nodes_are_those_that_simulating_the_next_steps_finds(batch: int, further: dict) -> None:
    asked = {"model": "llama-3.1-8b", "hardware": "h100-sxm", "output_tokens": 8, **further}
    expected = brute_force(asked, batch, 200)
    found = switches_of(gs.simulate(batch=batch, input_tokens=200, **{"engine": "reference", **asked}))
    for quantity, nodes in expected.items():
        named = {switch.node for switch in found if switch.quantity == quantity}
        assert named <= nodes and len(named) == min(len(nodes), MOST)
    assert all(switch.gained_s > 0 for switch in found)


def test_each_of_many_scenarios_has_its_own() -> None:
    batches = np.array([9, 10, 63])
    many = gs.simulate("llama-3.2-1b", "h100-sxm", batches, 64, 4, cost=faster_from(10.0), engine="reference")
    for i, batch in enumerate(batches):
        alone = gs.simulate("llama-3.2-1b", "h100-sxm", int(batch), 64, 4, cost=faster_from(10.0), engine="reference")
        assert list(map(str, switches_of(many, i))) == list(map(str, switches_of(alone)))


def test_explain_and_the_page_tell_them(tmp_path: Path) -> None:
    estimate = gs.simulate("llama-3.2-1b", "h100-sxm", 9, 64, 4, cost=faster_from(10.0), engine="reference")
    found = gs.explain(estimate)
    assert (
        len(found.switches) == 2 and str(found.switches[0]) in found.findings and "batch 10 instead of 9" in str(found)
    )
    assert json.loads(json.dumps(found.to_dict()))["switches"][0]["step"] == "batch 10 instead of 9"
    gs.to_html(estimate, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Kernel switches" in page and "batch 10 instead of 9" in page
    rising = gs.simulate("llama-3.2-1b", "h100-sxm", 9, 64, 4, cost="roofline", engine="reference")
    assert not gs.explain(rising).switches
    gs.to_html(rising, tmp_path / "page.html")
    assert "Kernel switches" not in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("m", [1.0, 16.0, 100.0, 2048.0])
@pytest.mark.parametrize("n, k", [(4096.0, 4096.0), (28672.0, 4096.0), (4096.0, 14336.0)])
def test_the_tile_that_is_named_is_the_one_that_is_priced(m: float, n: float, k: float) -> None:
    price, _ = calibrated(H100)
    entry = price.parameters["gemm"]["bfloat16"]["constants"]
    operands = tiles.Operands(x_bytes=2.0, w_bytes=2.0, rates=("bf16",))
    alone = {choice: float(tiles._all_choices(entry, H100, operands).times_s(m, n, k)[i].item())
             for i, choice in enumerate(tiles._CHOICES)}  # fmt: skip
    named = gemm.tile_of(price.parameters["gemm"], H100, GemmShape(m=m, n=n, k=k))
    assert alone[named] == min(alone.values()) == float(tiles.fastest_s(entry, H100, operands, m, n, k))
    rows, columns, _ = named
    assert regime(Gemm(m=m, n=n, k=k), price, H100).startswith(f"tiles of {rows:.0f} × {columns:.0f}")


def test_collectives_and_grids_are_named() -> None:
    """vLLM's own all-reduce serves up to 8 MiB."""
    price, _ = calibrated(H100)
    small, large = (AllReduce(elems=elems, group=8.0) for elems in (2.0**12, 2.0**23))
    assert regime(small, price, H100) == "the engine's own all-reduce"
    assert regime(large, price, H100) == "the library's all-reduce"
    shrink = LoraShrink(m=8.0, n=16.0, k=4096.0, adapters=1.0, slices=1, tiles=1536.0, empty_tiles=64.0)
    assert regime(shrink, roofline, H100) == "a grid of 1,536 tiles and 64 empty ones"
    assert regime(Norm(rows=8.0, width=64.0), price, H100) == regime(small, roofline, H100) == ""
