"""Every command: tables for people, one JSON document for scripts, one sentence and status 2 for mistakes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cli.commands import parser
from graphsim.cli.parsing import subparsers

RUN = ["run", "gpt-2", "--hardware", "l4"]
LORA = ["lora", "gpt-2", "--hardware", "l4"]
EXPORT = ["export", "gpt-2", "--hardware", "l4", "--to"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The files that a command reports, and prints nothing else about."""
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert out == ""
    return [line.removeprefix("wrote ") for line in err.splitlines()]


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    return json.loads(told(capsys, *arguments, "--json"))


def test_run_prints_what_simulate_returns(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--batch", "4", "--input", "100", "--output", "7", "--tp", "2", "--lora", "rank=8,targets=attn"]
    found = document(capsys, *RUN, *asked)
    lora = gs.LoraConfig(rank=8, target_modules=("attn",))
    expected = gs.simulate("gpt-2", "l4", 4, 100, 7, gs.Parallelism(tp=2), lora)
    assert isinstance(found, dict)
    for name in ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s"):
        assert found[name] == getattr(expected, name)
    assert found["memory"]["total_bytes"] == expected.memory.total_bytes and found["memory"]["fits"] is True
    assert found["settings"]["batch"] == 4 and found["settings"]["parallelism"]["tp"] == 2


@pytest.fixture
def skewed(tmp_path: Path) -> str:
    """Eight experts, some of them more popular than others."""
    path = tmp_path / "skewed.yaml"
    path.write_text(
        "name: skewed\nhidden_size: 512\nvocab_size: 1000\nlayers: 2\n"
        "attention: {heads: 8, kv_heads: 8, head_dim: 64}\n"
        "moe: {experts: 8, experts_per_token: 2, intermediate_size: 512, skew: 1.0}\n",
        encoding="utf-8",
    )
    return str(path)


def test_where_experts_lie_is_said_as_their_degree_is(capsys: pytest.CaptureFixture[str], skewed: str) -> None:
    asked = ["--hardware", "h100-sxm", "--engine", "vllm", "--ep", "4", "--input", "4096", "--output", "4"]
    placed = ["--expert-placement", "balanced", "--redundant-experts", "4"]
    run = document(capsys, "run", skewed, *asked, *placed)
    degrees = gs.Parallelism(ep=4, expert_placement="balanced", redundant_experts=4)
    expected = gs.simulate(skewed, "h100-sxm", 1, 4096, 4, degrees, engine="vllm")
    assert isinstance(run, dict) and run["ttft_s"] == expected.ttft_s
    against = document(capsys, "explain", skewed, *asked, "--against", "expert_placement=contiguous")
    assert isinstance(against, dict) and against["totals"]["ttft_s"] < 0.0
    rows = document(
        capsys, "sweep", skewed, *asked, "--expert-placement", "random,balanced", "--redundant-experts", "0,4"
    )
    assert isinstance(rows, list) and len(rows) == 4
    assert rows[3]["ttft_s"] == pytest.approx(expected.ttft_s) and "'random'" in rows[1]["reason"]
    found = document(capsys, "best", skewed, *asked, "--expert-placement", "contiguous,random,balanced")
    assert isinstance(found, dict)
    placements = [row["expert_placement"] for row in found["best"]]
    assert placements == ["balanced", "random", "contiguous"]


def test_an_adapter_may_be_written_with_the_names_of_the_configs_fields(capsys: pytest.CaptureFixture[str]) -> None:
    fields = "rank=8,target_modules=attn,max_loras=4,active_adapters=2,max_lora_rank=16,adapter_share=0.5"
    short = "rank=8,targets=attn,max_loras=4,adapters=2,max_rank=16,share=0.5"
    engine = ["--batch", "4", "--engine", "vllm"]
    assert document(capsys, *RUN, *engine, "--lora", fields) == document(capsys, *RUN, *engine, "--lora", short)
    assert main([*RUN, *engine, "--lora", "rank=17,max_lora_rank=16"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "LoRA rank 17 is greater than max_lora_rank 16" in err
    assert main([*RUN, "--lora", "max_rank=16,max_lora_rank=16"]) == 2
    assert "'max_lora_rank' is given twice" in capsys.readouterr().err


def test_run_shows_latency_memory_and_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, *RUN, "--lora", "strategy=merge", "--top", "3")
    for expected in (
        "time to first token",
        "once, before serving",
        "weights",
        "fits",
        "prefill:",
        "decode:",
        "bound by",
    ):
        assert expected in text
    assert len([line for line in text.splitlines() if " x " in line]) == 6


def test_lora_compares_three_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *LORA, "--lora", "rank=4,targets=all-linear")
    assert isinstance(found, dict) and list(found["strategies"]) == ["base", "dynamic", "merge"]
    assert found["adapter_parameters"] == gs.lora_parameters(
        "gpt-2", gs.LoraConfig(rank=4, target_modules="all-linear")
    )
    assert found["strategies"]["merge"]["one_time_s"] > 0 and found["strategies"]["base"]["overhead"] == 0
    assert "it pays after" in told(capsys, *LORA)


@pytest.mark.parametrize("kind", ["models", "hardware"])
def test_catalogs_are_listed_and_shown(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = gs.list_models() if kind == "models" else gs.list_hardware()
    found = document(capsys, kind)
    assert isinstance(found, list) and [entry["name"] for entry in found] == names
    text = told(capsys, kind)
    assert all(name in text for name in names)
    one = document(capsys, kind, names[0])
    assert isinstance(one, dict) and one["name"] == names[0]
    assert len(told(capsys, kind, names[0]).splitlines()) > 10


@pytest.mark.parametrize("suffix", [".dot", ".csv", ".txt"])
def test_export_writes_the_graph_and_says_where(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"graph{suffix}"
    assert written(capsys, *EXPORT, str(path), "--phase", "decode", "--lora", "targets=c_attn") == [str(path)]
    text = path.read_text()
    assert "c_attn" in text and "lora_a" in text


@pytest.mark.parametrize(
    ("name", "inside"), [("t.trace.json", '"traceEvents"'), ("r.html", "<html"), ("g.json", "nodes")]
)
def test_export_writes_timelines_reports_and_graphs(
    name: str, inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    assert written(capsys, *EXPORT, str(path), "--engine", "vllm", "--lora", "targets=c_attn") == [str(path)]
    text = path.read_text(encoding="utf-8")
    assert inside in text and "lora_shrink" in text
    assert main([*EXPORT, str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": [str(path)]}


def test_export_writes_a_trace_of_each_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = written(capsys, *EXPORT, str(tmp_path / "step.et"), "--tp", "2")
    assert printed == [str(tmp_path / f"step.{device}.et") for device in range(2)]
    assert all(Path(path).stat().st_size > 1000 for path in printed)


MISTAKES = {
    "unknown model": (["run", "gpt-3", "--hardware", "l4"], "did you mean 'gpt-2'"),
    "unknown device": (["run", "gpt-2", "--hardware", "l5"], "did you mean 'l4'"),
    "no device": (["run", "gpt-2"], "--hardware"),
    "no model": (["run", "--hardware", "l4"], "MODEL"),
    "an option without a command": (["--batch", "4"], "'--batch' is not an option"),
    "unknown command": (["rum"], "'rum' is not known; did you mean 'run'?"),
    "misspelt option in the place of a needed one": (["run", "gpt-2", "--hardwre", "l4"], "did you mean '--hardware'?"),
    "word too many": ([*RUN, "fast"], "unrecognized arguments: fast"),
    "batches set apart": (
        ["sweep", "gpt-2", "--hardware", "l4", "--batch", "1", "8"],
        "by commas, as in 1,8,64",
    ),
    "facts that are not there": (["validate", "e2e", "nowhere.csv"], "nowhere.csv: there is no such file or folder"),
    "fact of unknown kind": (["validate", "kernel", "x.csv"], "did you mean 'kernels'?"),
    "unknown option": ([*RUN, "--bach", "4"], "'--bach' is not an option; did you mean '--batch'?"),
    "option cut short": ([*RUN, "--bat", "4"], "--bat"),
    "batch as word": ([*RUN, "--batch", "many"], "'many' is not a number"),
    "batch of zero": ([*RUN, "--batch", "0"], "batch = 0"),
    "half a batch": ([*RUN, "--batch", "1.5"], "batch = 1.5"),
    "endless batch": ([*RUN, "--batch", "1e999"], "batch = inf"),
    "batch that is not a number": ([*RUN, "--batch", "nan"], "batch = nan"),
    "absurd input": ([*RUN, "--input", "1e300"], "--input = "),
    "no output": ([*RUN, "--output", "0"], "--output = 0"),
    "tp that does not divide": ([*RUN, "--tp", "5"], "allowed: 1, 2, 3, 4, 6, 12"),
    "tp of zero": ([*RUN, "--tp", "0"], "--tp = 0"),
    "negative pp": ([*RUN, "--pp", "-1"], "--pp = -1"),
    "half a stage": ([*RUN, "--pp", "1.5"], "--pp = 1.5"),
    "too many stages": ([*RUN, "--pp", "13"], "it has 12 layers"),
    "sp unlike tp": ([*RUN, "--tp", "4", "--sp", "2"], "expected 1, or tp"),
    "a placement": ([*RUN, "--expert-placement", "sorted"], "allowed: balanced, contiguous, random"),
    "copies without balance": ([*RUN, "--redundant-experts", "2"], "expected 0, or 'balanced'"),
    "swept copies": (["sweep", *RUN[1:], "--redundant-experts", "some"], "is not a whole number"),
    "experts of a dense model": ([*RUN, "--ep", "2"], "has no experts"),
    "unknown precision": ([*RUN, "--precision", "int5"], "precision = 'int5'"),
    "precision without peak": (["run", "gpt-2", "--hardware", "tpu-v5e", "--precision", "fp8"], "no peak for 'fp8'"),
    "unknown cost model": ([*RUN, "--cost", "magic"], "cost = 'magic'"),
    "unknown adapter key": ([*RUN, "--lora", "rnk=8"], "did you mean 'rank'"),
    "adapter key twice": ([*RUN, "--lora", "rank=8,rank=9"], "'rank' is given twice"),
    "adapter key without value": ([*RUN, "--lora", "rank="], "'rank' has no value"),
    "rank as word": ([*RUN, "--lora", "rank=high"], "'high' is not a number"),
    "negative rank": ([*RUN, "--lora", "rank=-4"], "--lora: rank = -4"),
    "unknown strategy": ([*RUN, "--lora", "strategy=merged"], "did you mean 'merge'"),
    "unknown target": ([*RUN, "--lora", "targets=q_proj"], "matches no module"),
    "unknown adapter format": ([*RUN, "--lora", "dtype=bf17"], "did you mean 'bf16'"),
    "flag that is none": ([*RUN, "--lora", "fully_sharded=maybe"], "expected true or false"),
    "share above one": ([*RUN, "--lora", "share=3"], "--lora: share = 3"),
    "adapter that is not there": ([*RUN, "--lora", "./no/adapter"], "no such adapter"),
    "unknown popularity": ([*RUN, "--lora", "registered=9,popularity=zip"], "expected uniform, one, zipf:1.5"),
    "popularity of none": ([*RUN, "--lora", "popularity=uniform"], "'popularity' needs 'registered'"),
    "adapters twice": ([*RUN, "--lora", "adapters=2,registered=9"], "'adapters' and 'registered' are both given"),
    "unknown variant": ([*RUN, "--lora", "variant=dorra"], "did you mean 'dora'"),
    "comparison with an unknown target": ([*LORA, "--lora", "targets=nothing"], "matches no module"),
    "picture of unknown kind": ([*EXPORT, "layer.gif"], "'.gif' is not a known suffix"),
    "picture without suffix": ([*EXPORT, "layer"], "is not a known suffix"),
    "picture in no folder": ([*EXPORT, "no/such/folder/layer.dot"], "cannot be written"),
    "unknown phase": ([*EXPORT, "x.dot", "--phase", "train"], "'train' is not known; allowed: decode, prefill"),
    "model to show that is not there": (["models", "lama"], "lama"),
    "device to show that is not there": (["hardware", "h1000"], "h1000"),
    "operations to list as word": ([*RUN, "--top", "all"], "'all' is not allowed; expected a whole number from 0"),
    "fewer operations than none": ([*RUN, "--top", "-5"], "'-5' is not allowed; expected a whole number from 0"),
    "no processes": (
        ["sweep", "gpt-2", "--hardware", "l4", "--workers", "0"],
        "'0' is not allowed; expected a whole number from 1",
    ),
    "adapter of no words": ([*RUN, "--lora", ""], "--lora: is empty"),
    "misspelt strategy of a sweep": (["sweep", *RUN[1:], "--strategy", "merg"], "did you mean 'merge'"),
    "report in no folder": ([*RUN, "--html", "no/folder/x.html"], "there is no folder 'no/folder'"),
    "table in no folder": ([*EXPORT, "no/folder/x.csv"], "there is no folder 'no/folder'"),
    "sweep's table in no folder": (
        ["sweep", "gpt-2", "--hardware", "l4", "--to", "no/x.csv"],
        "there is no folder 'no'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_on_standard_error_and_status_2(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[name]
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse leaves by itself
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert expected in err and err.startswith("graphsim") and err.count("\n") == 1, err
    assert "Traceback" not in err and len(err) < 1000


def test_every_command_has_examples_that_parse_and_prints_json_where_asked() -> None:
    for name, command in {"": parser(), **subparsers(parser())}.items():
        assert not name or "--json" in command.format_help(), name
        examples = [line.strip() for line in str(command.epilog).splitlines() if line.startswith("  graphsim ")]
        assert examples, name
        for example in examples:
            parser().parse_args(shlex.split(example.partition(" > ")[0])[1:])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["models"], 0),
        ([*RUN, "--json"], 0),
        (["run", "gpt-3", "--hardware", "l4"], 2),
        ([*RUN, "--tp", "5", "--json"], 2),
        ([*RUN, "--batch", "x"], 2),
    ],
)
def test_the_program_itself(arguments: list[str], status: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graphsim", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert bool(done.stdout) == (status == 0) and done.stderr.count("\n") == (1 if status else 0)
    if "--json" in arguments and not status:
        json.loads(done.stdout)


def test_there_is_help_with_examples_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in subparsers(parser()):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0 and "examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"graphsim {gs.__version__}\n"
