"""Messages of the command line name what was typed, and what to type instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphsim.cli.naming import as_options
from tests.command import status_of

SERVED = "serve gpt-2 --hardware l4 --rate 4 --requests 5"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run gpt-2 --hardware l4 --input=-5", "graphsim: --input = -5 is not allowed"),
        ("run gpt-2 --hardware l4 --tp 5", "graphsim: --tp = 5 does not divide"),
        ("run gpt-2 --hardware l4 --engine vlm", "graphsim: --engine = 'vlm' is not known; did you mean 'vllm'?"),
        ("run gpt-2 --hardware l4 --lora rank=-1", "graphsim: --lora: rank = -1 is not allowed"),
        ("run gpt-2 --hardware l4 --lora targets=c_atn", "graphsim: --lora: targets = ['c_atn'] matches no module"),
        ("run gpt-2 --hardware l4 --lora none,rank=8", "'none' is the base model and stands alone"),
        ("run gpt-2 --hardware l4 --batch 10,000", "a number has no commas: 10000"),
        ("run gpt-2 --hardware l4 --batch 1,2", "`graphsim sweep`, `best` and --vary take several"),
        ("sweep gpt-2 --hardware l4 --batch 3,0", "graphsim: --batch holds 0, which is not allowed"),
        ("best gpt-2 --hardware l4 --tpot 1us", "tpot_s <= 1 µs excludes 1; nearest is gpt-2 on l4: tpot_s = "),
        ("train gpt-2 --hardware l4 --method full --lora rank=8", "method 'full' trains no adapter"),
        ("train gpt-2 --hardware l4 --vary method=lora --goal hours", "--goal hours needs --tokens"),
        (f"{SERVED} --router fastest", "graphsim: --router = 'fastest' is not known"),
        (f"{SERVED} --attainment 200%", "expected a share from 0 to 1, or 0% to 100%"),
        (f"{SERVED} --find-capacity", "--find-capacity needs a limit: --slo"),
        ("fleet gpt-2 --hardware l4 --rate 4 --slo ttft=1 --choose seqs=1", "--choose seqs is not known"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_the_name_that_was_typed(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(words.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1, err


def test_only_the_beginning_of_a_message_is_an_option() -> None:
    known = ("--input", "--lora", "--batch")
    assert as_options("input_tokens = 0 is not allowed", known) == "--input = 0 is not allowed"
    for message in ("t.csv: line 3: input_tokens = -3", "output_tokens = 0", "no batch = 1", "lora is none"):
        assert as_options(message, known) == message


def test_reasons_of_a_sweep_are_whole_below_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["sweep", "gpt-2", "--hardware", "l4", "--tp", "1,5", "--batch", "1,2", "--strategy", "base"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("gpt-2  ")][1::2] == ["(1)", "(1)"]
    [reason] = [line for line in out.splitlines() if line.startswith("(1) ")]
    assert "tp = 5 does not divide the 12 attention heads" in reason and reason.endswith("allowed: 1, 2, 3, 4, 6, 12")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["run gpt-2 --hardware l4", "serve --help", "run gpt-2 --hardware é"])
def test_an_encoding_without_a_character_gets_another_one(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graphsim", *words.split()]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False, cwd=tmp_path)
    assert b"Traceback" not in done.stderr and done.returncode in (0, 2)
    assert (done.stdout + done.stderr).isascii()
    if done.returncode == 0 and "run" in words:
        assert b" us " in done.stdout
    if done.returncode:
        assert b"hardware '\\xe9' is not known" in done.stderr
