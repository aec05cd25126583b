"""How a fuzzer runs: seeded cases, each of which ends in a result or in one sentence, at a bounded cost."""

from __future__ import annotations

import random
import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from graphsim.errors import GraphsimError

Case = Callable[[random.Random, Path], None]
"""Makes and tries one case from random numbers, with an empty folder to write to.

It returns where there was a result, raises a GraphsimError where the library refused, and anything else where it erred.
"""

DEAREST = 5.0
"""How often the cost of all of a fuzzer's sound cases together one case may cost."""

LEAST_S = 1.0
"""CPU seconds that any case may take, so that a cheap fuzzer is not judged by the noise of the clock."""

HANGS_S = 120
"""Wall seconds after which a case hangs."""


@dataclass(frozen=True, slots=True)
class Fuzzer:
    """A subject, how one case is made and tried, and the cases that are sound, whose cost is the measure."""

    name: str
    case: Case
    sound: Callable[[Path], None]


@dataclass(slots=True)
class Outcome:
    """How many cases gave a result, how many a sentence, the dearest, and those that failed with the reason."""

    name: str
    results: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    dearest_s: float = 0.0
    bound_s: float = 0.0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        refused = ", ".join(f"{count} {name}" for name, count in sorted(self.refused.items()))
        end = f"dearest {self.dearest_s:.2f} s of at most {self.bound_s:.2f} s"
        return f"{self.name}: {self.results} results, {refused or 'none refused'}, {len(self.failed)} failed; {end}"


def run(fuzzer: Fuzzer, cases: int, folder: Path, seed: int = 0, first: int = 0) -> Outcome:
    """Try cases `first` to `first + cases` of a seed; case numbers name the same case on every machine."""
    fuzzer.sound(folder)  # imports and caches
    start = time.process_time()
    fuzzer.sound(folder)
    found = Outcome(fuzzer.name, bound_s=max(LEAST_S, DEAREST * (time.process_time() - start)))
    for number in range(first, first + cases):
        _clear(folder)
        start = time.process_time()
        try:
            with _no_longer_than(HANGS_S):
                fuzzer.case(random.Random(f"{fuzzer.name} {seed} {number}"), folder)
            found.results += 1
        except GraphsimError as error:
            found.refused[type(error).__name__] += 1
            if problem := wrong_in(str(error)):
                found.failed.append(f"case {number}: {problem}: {error!r}")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit and whatever else escaped
            last = "".join(traceback.format_exception(error)[-3:]).strip()
            found.failed.append(f"case {number}: {type(error).__name__}: {error}\n{last}")
        taken = time.process_time() - start
        if taken > found.bound_s:  # unless it was a collection of garbage that fell into it
            taken = min(taken, _taken_again(fuzzer, f"{fuzzer.name} {seed} {number}", folder))
        found.dearest_s = max(found.dearest_s, taken)
        if taken > found.bound_s:
            found.failed.append(f"case {number}: took {taken:.2f} CPU s, allowed {found.bound_s:.2f}")
    _clear(folder)
    return found


def _taken_again(fuzzer: Fuzzer, drawn: str, folder: Path) -> float:
    """CPU seconds of a case that was tried before."""
    _clear(folder)
    start = time.process_time()
    with suppress(Exception, SystemExit), _no_longer_than(HANGS_S):
        fuzzer.case(random.Random(drawn), folder)
    return time.process_time() - start


def wrong_in(sentence: str) -> str:
    """What is wrong with an error's text; nothing where it is one sentence that people can read."""
    if "\n" in sentence or not 10 <= len(sentence) <= 2000:
        return "no single sentence"
    if re.search(r"Traceback|object at 0x|\bNoneType\b|<class '", sentence):
        return "Python's words"
    return ""


def require_finite(*numbers: Any) -> None:
    """What every result is: finite numbers."""
    for number in numbers:
        assert np.all(np.isfinite(np.asarray(number, dtype=float))), f"a result of {number}"


@contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    """Turn a hang into an error; only in the main thread, which is where tests run."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"hangs: over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
