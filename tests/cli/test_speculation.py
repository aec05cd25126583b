"""`--speculation` of run, serve and sweep."""

from __future__ import annotations

import json

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.speculation.parsing import speculation_of

BASE = ["--hardware", "h100-sxm"]
SPEC = "draft=llama-3.2-1b,tokens=3,acceptance=0.7"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--json"]) in (0, None)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (SPEC, {"draft": "llama-3.2-1b", "tokens": 3, "acceptance": 0.7}),
        ("draft=mtp,tokens=2,acceptance=0.9/0.7", {"draft": "mtp", "tokens": 2, "acceptance": [0.9, 0.7]}),
        (
            "draft=ngram,tokens=3,acceptance=0:0.4/3:0.6",
            {"draft": "ngram", "tokens": 3, "acceptance": {0: 0.4, 3: 0.6}},
        ),
        (f"{SPEC},draft_tp=1,precision=fp8,seed=4", {"draft_tp": 1, "seed": 4, "precision": "fp8"}),
    ],
)
def test_texts_say_what_python_says(text: str, given: dict) -> None:
    read, meant = speculation_of(text), gs.Speculation(**{"draft": "x", "tokens": 3, "acceptance": 0.7} | given)
    for name in {*given} - {"precision"}:
        assert getattr(read, name) == getattr(meant, name), name
    if "precision" in given:
        assert read.precision is not None and read.precision.name == "fp8"


def test_run_prints_what_simulate_gives(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "run", "llama-3.1-8b", *BASE, "--batch", "8", "--speculation", SPEC)
    told = gs.simulate("llama-3.1-8b", "h100-sxm", batch=8, speculation=speculation_of(SPEC))
    assert found["tpot_s"] == told.tpot_s
    assert found["speculation"]["tokens_per_step"] == pytest.approx(2.533)
    assert main(["run", "llama-3.1-8b", *BASE, "--speculation", SPEC]) in (0, None)
    assert "tokens of a step" in capsys.readouterr().out


def test_serve_prints_what_serve_gives(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--concurrency", "4", "--requests", "12", "--input", "100", "--output", "40", "--no-advice"]
    found = printed(capsys, "serve", "llama-3.1-8b", *BASE, *asked, "--speculation", SPEC)
    plain = printed(capsys, "serve", "llama-3.1-8b", *BASE, *asked)
    text = json.dumps(found)
    assert '"acceptance": 0.7' in text and "the draft runs once for each proposed token" in text
    assert text != json.dumps(plain)


def test_sweep_has_a_column_for_drafts(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "sweep", "llama-3.1-8b", *BASE, "--batch", "1,8", "--speculation", "none", SPEC)
    assert [row["speculation"] for row in found] == ["none", "llama-3.2-1b: 3 drafted, 2.533 a step"] * 2
    assert [row["batch"] for row in found] == [1, 1, 8, 8]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("draft=ngram", "tokens, acceptance missing"),
        ("ngram", "'ngram' is not key=value"),
        (f"{SPEC},luck=1", "'luck' is not known"),
        (f"{SPEC},tokens=2", "tokens is given twice"),
        ("draft=ngram,tokens=two,acceptance=1", "tokens = 'two' is not a whole number"),
        ("draft=ngram,tokens=2,acceptance=much", "acceptance = 'much' is not a number"),
        ("draft=ngram,tokens=2,acceptance=2", "speculation.acceptance = 2.0 is not allowed"),
        ("draft=,tokens=2,acceptance=1", "'draft=' is not key=value"),
        ("draft=ngram,tokens=99999999999999999999,acceptance=1", "is not allowed"),
        ("draft=ngram,tokens=1,acceptance=nan", "is not allowed"),
    ],
)
def test_mistakes_are_one_sentence(text: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run", "llama-3.1-8b", *BASE], ["serve", "llama-3.1-8b", *BASE, "--rate", "1"]):
        assert main([*command, "--speculation", text]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
