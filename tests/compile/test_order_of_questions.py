"""The same question gives the same digits, whatever was asked before, by how many threads, and in which process."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import formulas, lowered
from graphsim.symbolic.content import content_of
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.memo import Memo

QUESTIONS = list(itertools.product(("h100-sxm", "h200-sxm", "l4", "l40s"), (1, 7), (0, 8)))
"""Devices of two architectures; those of each share a tape."""

Answer = tuple[float, ...]


def asked(device: str, batch: int, rank: int) -> Answer:
    lora = gs.LoraConfig(rank=rank) if rank else None
    found = gs.simulate("llama-3.1-8b", device, batch, 100 + batch, 20, gs.Parallelism(tp=2), lora)
    return float(found.ttft_s), float(found.tpot_s), float(found.memory.total_bytes), float(found.watts)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((formulas, "_devices"), (formulas, "_structures"), (lowered, "_lowered")):
        monkeypatch.setattr(module, name, Memo(most=64))


@pytest.mark.slow
def test_the_order_of_questions_and_threads_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(order: Iterable[int], threads: int = 1) -> list[Answer]:
        forget(monkeypatch)
        with ThreadPoolExecutor(threads) as pool:
            found = dict(pool.map(lambda at: (at, asked(*QUESTIONS[at])), order))
        return [found[at] for at in range(len(QUESTIONS))]

    places = range(len(QUESTIONS))
    first = answers(places)
    assert answers(reversed(places)) == first
    assert answers(np.random.default_rng(0).permutation(len(QUESTIONS)).tolist()) == first
    assert answers(places, threads=8) == first


@pytest.mark.slow
def test_another_process_gives_the_same_digits() -> None:
    question = ("l4", 7, 8)
    asked("l40s", 1, 8)
    text = f"import json; from {__name__} import asked; print(json.dumps(asked{question!r}))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert tuple(json.loads(done.stdout)) == asked(*question)


def test_the_content_of_a_formula_does_not_depend_on_what_else_is_on_the_tape() -> None:
    def made(tape: Tape, names: str) -> tuple[int, int]:
        for name in names:
            tape.variable(name)
        x, y, z = map(tape.variable, "xyz")
        total = 2.0 * x + np.maximum(y, z * x) + np.sqrt(y * z)
        return content_of(total), content_of(np.maximum(z, y))

    assert made(Tape(), "xyz") == made(Tape(), "zyx")
    assert len(set(made(Tape(), "xyz"))) == 2
