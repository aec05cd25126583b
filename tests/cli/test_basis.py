"""Every command with numbers says first what they are about and how far to trust them; defaults are those of Python."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cli.commands import parser
from graphsim.deployment.basis import Basis, bases_text, basis_of
from graphsim.sweeps.grid import DEFAULTS as SWEPT

MODEL = "gpt-2"
ASKED = ["--input", "64", "--output", "8"]
TRAFFIC = ["--rate", "2", "--requests", "10", *ASKED]
COMMANDS: dict[str, list[str]] = {
    "run": ["run", MODEL, *ASKED],
    "lora": ["lora", MODEL, *ASKED],
    "sweep": ["sweep", MODEL, *ASKED],
    "best": ["best", MODEL, *ASKED],
    "sensitivity": ["sensitivity", MODEL, *ASKED],
    "explain": ["explain", MODEL, *ASKED],
    "explain against": ["explain", MODEL, *ASKED, "--against", "batch=2"],
    "serve": ["serve", MODEL, *TRAFFIC, "--no-advice"],
    "serve, capacity": ["serve", MODEL, *TRAFFIC, "--find-capacity", "--slo", "ttft=0.5"],
    "serve, several": ["serve", MODEL, *TRAFFIC, "--vary", "max_num_seqs=4,8"],
    "fleet": ["fleet", MODEL, *TRAFFIC, "--slo", "ttft=0.5"],
    "train": ["train", MODEL, "--seq-len", "64", "--no-advice"],
    "train, several": ["train", MODEL, "--seq-len", "64", "--vary", "batch=1,2"],
}
TRUST = {
    "h100-sxm": "calibrated on h100-sxm",
    "l4": "scaled from l40s (ada)",
    "trainium-2": "not calibrated: the datasheet's roofline, which real kernels do not reach",
}
ROWS = ("sweep", "serve, several", "train, several")
"""Their JSON is rows, whose columns say it."""


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("device", TRUST)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_says_it(name: str, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = told(capsys, *COMMANDS[name], "--hardware", device).splitlines()[0]
    who = "recipe peft" if name.startswith("train") else "engine vllm"
    assert first.startswith(f"gpt-2 on {device}, {who}, bf16; {TRUST[device]}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ROWS])
def test_the_document_says_it_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*COMMANDS[name], "--hardware", "l4"]
    found = json.loads(told(capsys, *arguments, "--json"))["basis"]
    bases = found if isinstance(found, list) else [found]
    assert bases_text(Basis(**basis) for basis in bases) == told(capsys, *arguments).splitlines()[0]


def test_rows_say_it_in_their_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(told(capsys, "sweep", MODEL, *ASKED, "--hardware", "l4", "h100-sxm", "--json"))
    assert [(row["engine"], row["precision"], row["cost"]) for row in rows] == [
        ("vllm", "bf16", "scaled from l40s (ada)"), ("vllm", "bf16", "calibrated"),
    ]  # fmt: skip


def test_the_interval_is_a_part_of_the_line() -> None:
    line = str(gs.simulate(MODEL, "l4").basis)
    low, high = (end / gs.simulate(MODEL, "l4").tpot_s - 1 for end in gs.simulate(MODEL, "l4").interval("tpot_s"))
    assert line.endswith(f"TPOT {low:+.0%} to {high:+.0%} in 80% of cases") and low < 0 < high


def test_several_deployments_share_a_line() -> None:
    bases = [basis_of(gs.Deployment(MODEL, device, engine="vllm")) for device in ("h100-sxm", "l4", "l4")]
    line = "gpt-2 on h100-sxm, l4, engine vllm, bf16; calibrated on h100-sxm; l4 scaled from l40s (ada)"
    assert bases_text(bases) == line
    several = gs.Deployment(MODEL, "h100-sxm", engine="sglang", parallelism=gs.Parallelism(tp=2), precision="fp8")
    assert str(basis_of(several)) == "gpt-2 on 2 x h100-sxm (tp 2), engine sglang, fp8; calibrated on h100-sxm"


DEFAULTS: dict[str, tuple[list[str], Callable[..., Any], dict[str, str]]] = {
    "run": (["run", MODEL, "--hardware", "l4"], gs.simulate, {"input": "input_tokens", "output": "output_tokens"}),
    "train": (["train", MODEL, "--hardware", "l4"], gs.train, {}),
    "sweep": (["sweep", MODEL, "--hardware", "l4"], gs.sweep, {}),
    "best": (["best", MODEL, "--hardware", "l4"], gs.best, {}),
    "fleet": (["fleet", MODEL, "--hardware", "l4", "--rate", "1", "--slo", "ttft=1"], gs.size_fleet, {}),
    "serve": (["serve", MODEL, "--hardware", "l4", "--rate", "1"], gs.serve, {}),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_options_that_nobody_gives_are_the_verbs_defaults(name: str) -> None:
    words, verb, names = DEFAULTS[name]
    options = vars(parser(words).parse_args(words))
    taken = {
        key: parameter.default
        for key, parameter in inspect.signature(verb).parameters.items()
        if parameter.default is not parameter.empty
    }
    taken |= SWEPT if verb in (gs.sweep, gs.best) else {}
    shared = {names.get(key, key): value for key, value in options.items() if names.get(key, key) in taken}
    shared.pop("hardware", None)
    assert len(shared) > 2
    for key, value in shared.items():
        assert value is None or value == [] or value == taken[key], key


def test_degrees_that_nobody_gives_are_one_device() -> None:
    words = ["run", MODEL, "--hardware", "l4"]
    options = parser(words).parse_args(words)
    for name in ("tp", "pp", "ep", "sp", "dp", "expert_placement", "redundant_experts"):
        assert getattr(options, name) == getattr(gs.Parallelism(), name)


@pytest.mark.slow
def test_each_purpose_has_one_default_engine_in_python_and_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vllm` for what states a time or a memory, `reference` for graphs."""
    device, lora = "h100-sxm", gs.LoraConfig()
    traffic = gs.Traffic.poisson(rate=2.0, requests=5, input_tokens=64, output_tokens=8)
    deployment = gs.Deployment(MODEL, device)
    engines = {
        "simulate": gs.simulate(MODEL, device).engine,
        "compare_lora": gs.compare_lora(MODEL, device, lora=lora)["engine"].iloc[0],
        "sweep": gs.sweep(MODEL, device)["engine"].iloc[0],
        "best": gs.best(MODEL, device)["engine"].iloc[0],
        "footprint": gs.footprint(deployment).engine,
        "serve": gs.serve(MODEL, device, traffic).engine,
    }
    assert set(engines.values()) == {"vllm"}, engines
    for name in ("run", "lora", "sensitivity", "serve"):
        document = json.loads(told(capsys, *COMMANDS[name], "--hardware", device, "--json"))
        assert document["basis"]["engine"] == "engine vllm"
    graph = tmp_path / "graph.txt"
    told(capsys, "export", MODEL, "--hardware", device, *ASKED, "--to", str(graph))
    assert _names(graph.read_text(encoding="utf-8")) == _names(gs.to_text(gs.build_graph(MODEL, input_tokens=64)))


def _names(text: str) -> list[str]:
    """The operations of a graph that is written out, in order."""
    return [line.partition(" = ")[0].strip() for line in text.splitlines() if " = " in line]
