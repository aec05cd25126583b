"""`graphsim serve`: a simulated server from the command line, its searches, its files, and mistakes in one sentence."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main

SERVE = ["serve", "gpt-2", "--hardware", "l4", "--requests", "60", "--input", "64", "--output", "16"]
RATE = [*SERVE, "--rate", "5"]
QUIET = [*RATE, "--no-advice"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, written: Sequence[Path] = ()) -> str:
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == "".join(f"wrote {path}\n" for path in written)
    return out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(list(arguments))
    except SystemExit as left:
        status = int(left.code or 0)
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.count("\n") == 1
    return err


def test_it_prints_what_serve_returns(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, *QUIET, "--seed", "3", "--max-num-seqs", "2", "--json"))
    traffic = gs.Traffic.poisson(rate=5, requests=60, input_tokens=64, output_tokens=16, seed=3)
    expected = gs.serve("gpt-2", "l4", traffic, limits=gs.EngineLimits(max_num_seqs=2))
    assert found["summary"]["p99_ttft_ms"] == expected.summary()["p99_ttft_ms"]
    assert found["settings"]["limits"] == {"max_num_seqs": 2} and found["advice"] is None


def test_tables_say_what_was_served_and_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, *QUIET, "--slo", "ttft=0.5,tpot=0.1")
    assert out.startswith("gpt-2 on l4, engine vllm, bf16; scaled from l40s (ada)\n60 requests\n")
    assert "requests answered  60 of 60, 0 failed" in out
    for line in ("TTFT up to 500 ms", "TPOT up to 100 ms", "all of them", "goodput: "):
        assert line in out


@pytest.mark.slow
def test_it_ends_with_advice_whose_rows_are_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--adapters", "3", "--lora", "rank=8,targets=attn,max_loras=1", "--slo", "ttft=0.2"]
    found = json.loads(told(capsys, *SERVE, "--rate", "20", *asked, "--json"))
    assert found["advice"]["limits"]["limit"] in ("slots", "loads")
    by_hand = json.loads(told(capsys, *SERVE, "--rate", "20", *asked, "--no-advice", "--max-loras", "3", "--json"))
    [lever] = [lever for lever in found["advice"]["levers"] if lever["name"] == "more slots (--max-loras 3)"]
    assert lever["p99_ttft_s"] == pytest.approx(by_hand["summary"]["p99_ttft_ms"] / 1e3)
    assert lever["attainment"] == by_hand["goodput"]["share"]
    out = told(capsys, *SERVE, "--rate", "20", *asked)
    assert "what would help" in out and "as it is" in out and "more slots (--max-loras 3)" in out


@pytest.mark.slow
def test_capacity_strategies_and_settings_are_tables(capsys: pytest.CaptureFixture[str]) -> None:
    searched = told(capsys, *RATE, "--find-capacity", "--slo", "ttft=0.1", "--max-num-seqs", "2")
    assert "keep TTFT 100 ms for 99% of the requests" in searched and "tried" in searched
    asked = ["--adapters", "2", "--lora", "rank=8,targets=attn,max_loras=2"]
    compared = told(capsys, *RATE, *asked, "--strategies", "dynamic,merged:credits")
    assert compared.splitlines()[3].split()[0] == "strategy" and "merged:credits" in compared
    rows = json.loads(told(capsys, *RATE, *asked, "--vary", "max-loras=1,2", "--json"))
    assert [row["max_loras"] for row in rows] == [1, 2] and all(row["completed"] == 60 for row in rows)


def test_what_nobody_saw_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, *QUIET, "--adapters", "2", "--lora", "rank=8", "--client", "cutoff=0.001")
    assert "0 of 60, 0 failed, 60 unfinished" in out and "nan" not in out
    assert "warning: 60 of 60 requests had no answer when the client stopped (cutoff_s)" in out


def test_pipeline_stages_that_are_not_filled_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, *QUIET, "--pp", "2")
    assert "note: a step passes all 2 pipeline stages before the next begins" in out


@pytest.mark.slow
def test_a_strategy_may_stand_with_the_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*QUIET, "--adapters", "2", "--json"]
    apart = json.loads(told(capsys, *asked, "--lora", "rank=8,targets=attn", "--strategy", "merged:fcfs"))
    joined = json.loads(told(capsys, *asked, "--lora", "rank=8,strategy=merged:fcfs,targets=attn"))
    assert joined == apart and joined["settings"]["strategy"] == "merged:fcfs"


@pytest.mark.slow
def test_files_are_written_and_a_measured_run_is_met(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bench, page, line = tmp_path / "bench.json", tmp_path / "page.html", tmp_path / "line.json"
    told(capsys, *QUIET, "--host", "request_s=0.05,step_factor=1.2", "--output-json", str(bench), written=[bench])
    told(capsys, *QUIET, "--html", str(page), "--timeline", str(line), written=[page, line])
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    assert json.loads(line.read_text(encoding="utf-8"))["traceEvents"]
    fit = json.loads(told(capsys, *QUIET, "--measured", str(bench), "--json"))["measured"]["fit"]
    assert fit["constants"]["step_factor"] == pytest.approx(1.2, rel=0.03)
    assert fit["constants"]["request_s"] == pytest.approx(0.05, rel=0.1)
    assert "to use them: --host request_s=" in told(capsys, *QUIET, "--measured", str(bench))
    replayed = told(capsys, "serve", "gpt-2", "--hardware", "l4", "--trace", str(bench), "--no-advice")
    assert "60 of 60" in replayed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--rate 0", "rate = 0 is not allowed"),
        ("--rate -1", "rate = -1 is not allowed"),
        ("", "one of --rate R, --concurrency C and --trace FILE is needed"),
        ("--rate 4 --concurrency 4", "not allowed with argument"),
        ("--rate 4 --requets 5", "'--requets' is neither an option nor an engine's flag; did you mean '--requests'?"),
        ("--rate 4 --max-num-sequences 5", "did you mean '--max-num-seqs'?"),
        ("--rate 4 --max-num-seqs many", "--max-num-seqs = 'many' is not allowed"),
        ("--rate 4 --chunked-prefill-size 512", "is a flag of sglang, not of engine 'vllm'"),
        ("--rate 4 --popularity zipf:1.2", "need --adapters N"),
        ("--rate 4 --adapters 3 --popularity pareto", "popularity = 'pareto' is not allowed"),
        ("--rate 4 --adapters 3 --strategy magic", "'magic'"),
        ("--rate 4 --adapters 3 --drift sometimes=1", "--drift: 'sometimes' is not a known key"),
        ("--rate 4 --adapters 3 --ranks 8/64 --lora rank=8,max_rank=16", "rank 64 does not fit in slots"),
        ("--rate 4 --replicas 2 --router luck", "router = 'luck' is not known"),
        (
            "--rate 4 --replicas 2 --html no/such/page.html",
            "--html: 'no/such/page.html' cannot be written: there is no folder",
        ),
        ("--rate 4 --view-age -1", "--view-age = -1 is not allowed"),
        ("--rate 4 --autoscale most=3", "target is missing"),
        ("--rate 4 --autoscale target=0", "scaling: target = 0 is not allowed"),
        ("--rate 4 --slo ttft=0", "--slo: ttft = 0 is not allowed"),
        ("--rate 4 --slo speed=1", "--slo: 'speed' is not a known key"),
        ("--rate 4 --find-capacity", "--find-capacity needs a limit: --slo"),
        ("--rate 4 --find-capacity --slo ttft=1 --vary max_loras=1,2", "exclude each other"),
        ("--rate 4 --vary max_loras", "expected FLAG=VALUE,VALUE"),
        ("--rate 4 --html /nowhere/at/all.html", "there is no folder '/nowhere/at'"),
        ("--rate 4 --measured nothing.json", "nothing.json"),
        ("--trace nothing.csv", "nothing.csv"),
        ("--rate 4 --host luck=1", "--host: 'luck' is not a known key"),
        ("--rate 4 --range-ratio 0.5", "expected CLIENT:RATIO"),
        ("--concurrency 4 --burstiness 2", "--burstiness and --concurrency exclude each other"),
        ("--rate 2:10,", "expected RATE:SECONDS,RATE:SECONDS,…, such as 2:600,8:60"),
        ("--rate 4 --slo ttft=1,ttft_s=2", "ttft_s is given twice"),
        ("--rate 4 --max-num-seqs 8 --max_num_seqs 9", "--max-num-seqs is given twice"),
        ("--rate 4 --max-num-seqs", "--max-num-seqs needs a value; expected a single whole number"),
        ("--rate 4 --mem-fraction-static 0.8", "this one has --gpu-memory-utilization for it"),
        ("--rate 4 --engine trtllm --block-size 16", "this one has --tokens-per-block for it"),
        ("--rate 4 --kv-tokens 1600 --num-gpu-blocks-override 99", "different things of the KV cache"),
        ("--rate 4 --vary max_num_seqs=8,8", "max_num_seqs = 8 is named twice"),
        ("--rate 4 --vary max_num_seqs=0", "--max-num-seqs = 0 is not allowed"),
        ("--rate 4 --vary max_num_seqs=4,8 --html page.html", "--html and --vary exclude each other"),
        ("--rate 4 --find-capacity --slo ttft=1 --measured bench.json", "--measured and --find-capacity exclude"),
        ("--rate 4 --over adapters", "--over adapters applies to --find-capacity only"),
        ("--rate 4 --client connections=1.5", "connections = 1.5 is not allowed; expected a whole number"),
        ("--rate 4 --dp 2", "parallelism.dp = 2 is not simulated; simulate replicas"),
        ("--rate 4 --strategy page", "did you mean 'paged'?"),
        ("--rate 4 --adapters 2 --strategy mixed --lora strategy=merged", "contradict each other"),
        ("--rate 4 --lora rank=8,registered=7", "give --adapters N"),
        ("--rate 4 --adapters 2 --lora rank=8 --ranks 8/x", "'x' is not allowed; expected whole numbers from 1 to"),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], words: str, sentence: str) -> None:
    command = ["serve", "gpt-2", "--hardware", "l4", "--no-advice", *shlex.split(words)]
    assert sentence in complaint(capsys, *command)


def test_flags_of_engines_stand_anywhere_and_in_either_spelling() -> None:
    from graphsim.cli.commands import parser

    words = "serve --max-num-seqs 4 --no-enable-prefix-caching gpt-2 --hardware l4 --kv-tokens=4096 --rate 1"
    options, extras = parser().parse_known_args(shlex.split(words))
    assert not extras and options.model == "gpt-2" and options.rate == 1
    assert options.handed_on == {"max-num-seqs": "4", "no-enable-prefix-caching": None, "kv-tokens": "4096"}
