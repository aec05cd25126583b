"""A device that nobody measured says so, in the same sentence, wherever its times are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cost.choose import caution
from graphsim.cost.parameters.store import calibration_path
from graphsim.cost.roofline import roofline
from graphsim.graph import Rule, Step, Value
from graphsim.hardware import list_hardware, load_hardware
from graphsim.ops import Op

MODEL, FAR = "gpt-2", "mi250x"
TOLD = "mi250x was not measured: its times are scaled from a100-sxm-80gb (ampere) and may be far off"
ROOFLINE = "times are the datasheet's roofline, and real kernels take longer"
ADAPTER = gs.LoraConfig(rank=8)


@pytest.fixture(scope="module")
def far() -> gs.Estimate:
    return gs.simulate(MODEL, FAR, 2, 64, 4, engine="reference")


def test_every_shipped_device_either_has_measurements_or_says_that_it_has_none() -> None:
    for name in list_hardware():
        device = load_hardware(name)
        told = caution(None, device)
        if calibration_path(device) is not None:
            assert told == "", name
        else:
            assert told.startswith(f"{name} was not measured: its times are "), name


@pytest.mark.parametrize(
    ("device", "cost", "told"),
    [
        ("gh200", None, "gh200 was not measured: its times are scaled from h100-sxm (hopper) and may be off"),
        ("h200-sxm", None, ""),
        (FAR, None, TOLD),
        (FAR, "calibrated", TOLD),
        ("tpu-v5p", None, f"tpu-v5p was not measured: its {ROOFLINE}"),
        ("h100-sxm", "roofline", "times of h100-sxm are the datasheet's roofline, and real kernels take longer"),
        ("h100-sxm", roofline, "times of h100-sxm are the datasheet's roofline, and real kernels take longer"),
        ("h100-sxm", None, ""),
        (FAR, lambda op, device: roofline(op, device), ""),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_times_rest_on(device: str, cost: object, told: str) -> None:
    assert caution(cost, load_hardware(device)) == told  # type: ignore[arg-type]


def test_the_objects_that_answer_carry_it(far: gs.Estimate) -> None:
    life = gs.lifecycle(MODEL, FAR, ADAPTER, engine="reference")
    assert TOLD in far.notes and TOLD in far.to_dict()["notes"] and far.caution == TOLD
    assert TOLD in gs.explain(far).notes and TOLD in str(gs.explain(far))
    assert TOLD in gs.explain(gs.simulate(MODEL, "h100-sxm", 2, 64, 4, engine="reference"), far).notes
    assert life.caution == life.to_dict()["caution"] == TOLD
    assert gs.break_even(MODEL, FAR, 2, 64, 4, lora=ADAPTER, engine="reference").caution == TOLD
    assert TOLD in gs.lora_advice(MODEL, FAR, 2, 64, 4, lora=ADAPTER, engine="reference").cautions


@pytest.mark.parametrize(
    "table",
    [
        lambda devices: gs.sweep(MODEL, devices, batch=[1, 2], output_tokens=4, engine="reference"),
        lambda devices: gs.best(MODEL, devices, batch=[1, 2], output_tokens=4, engine="reference"),
    ],
    ids=["sweep", "best"],
)  # fmt: skip
def test_a_table_says_it_in_the_rows_of_that_device_and_no_other(table: Callable[[list[str]], pd.DataFrame]) -> None:
    frame = table([FAR, "h100-sxm"])
    assert set(frame["hardware"]) == {FAR, "h100-sxm"}
    assert (frame["caution"] == frame["hardware"].map({FAR: TOLD, "h100-sxm": ""})).all()


@dataclass(frozen=True, slots=True)
class NeedsNumbers(gs.Pass):
    """Leaves a graph as it is, and asks so much of its numbers that no formula is recorded."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            yield (name, op, inputs) if float(np.sum(op.work().flops)) >= 0.0 else inputs[0]

        return rule


def test_a_sweep_through_a_users_pass_says_it_too() -> None:
    assert set(
        gs.sweep(MODEL, FAR, batch=[1, 2], output_tokens=4, passes=[NeedsNumbers()], engine="reference")["caution"]
    ) == {TOLD}


def test_the_strategies_of_an_adapter_say_it() -> None:
    assert set(gs.compare_lora(MODEL, FAR, 2, 64, 4, lora=ADAPTER, engine="reference")["caution"]) == {TOLD}


def test_whatever_else_gives_times_says_it() -> None:
    assert set(gs.break_even_curve(MODEL, FAR, [10.0], lora=ADAPTER)["caution"]) == {TOLD}
    assert gs.sensitivity(MODEL, FAR, 2, 64, 4, engine="reference").attrs["caution"] == TOLD
    step = gs.compile_step(MODEL, FAR, engine="reference")
    assert step.caution == TOLD and TOLD in repr(step)
    assert gs.compile_step(MODEL, "h100-sxm", engine="reference").caution == ""


def test_graphs_and_what_is_drawn_of_them_say_it(far: gs.Estimate, tmp_path: Path) -> None:
    graph = far.decode.graph
    again = gs.annotate(gs.build_graph(MODEL, "decode", 2, 64), FAR)
    assert graph.graph["caution"] == again.graph["caution"] == TOLD
    assert TOLD in gs.to_dot(graph) and TOLD in gs.to_json(graph)
    assert TOLD in gs.to_trace(far)["otherData"]["notes"]
    assert TOLD in far._repr_html_()
    assert TOLD in gs.to_html(far)


def test_a_chakra_trace_says_it(far: gs.Estimate, tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf")
    from graphsim.export.chakra import read_chakra

    header, _ = read_chakra(gs.to_chakra(far, tmp_path / "trace", phase="decode")[0])
    assert TOLD in str(header)


def test_prices_of_another_device_take_the_sentence_away() -> None:
    far = gs.annotate(gs.build_graph(MODEL, "decode", 2, 64), FAR)
    assert "caution" not in gs.annotate(far, "h100-sxm").graph


def test_attributes_of_a_graph_stay_when_it_is_priced_and_scheduled() -> None:
    graph = gs.build_graph(MODEL, "decode", 2, 64)
    nodes = set(graph)
    graph.graph["mine"] = "some words"
    priced = gs.annotate(graph, "h100-sxm")
    scheduled = gs.critical_path(priced).graph
    assert priced.graph["mine"] == scheduled.graph["mine"] == "some words"
    assert set(priced) == set(scheduled) == nodes


COMMANDS = {
    "run": ["run", MODEL, "--hardware", FAR, "--output", "4"],
    "explain": ["explain", MODEL, "--hardware", FAR, "--output", "4"],
    "lora": ["lora", MODEL, "--hardware", FAR, "--output", "4"],
    "sensitivity": ["sensitivity", MODEL, "--hardware", FAR, "--output", "4"],
    "sweep": ["sweep", MODEL, "--hardware", FAR, "h100-sxm", "--output", "4"],
    "best": ["best", MODEL, "--hardware", FAR, "h100-sxm", "--output", "4"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_commands_text_and_json_say_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    assert capsys.readouterr().out.count(TOLD) == 1
    assert main([*command, "--json"]) == 0
    told = capsys.readouterr().out
    json.loads(told)
    assert TOLD in told
