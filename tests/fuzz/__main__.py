"""`python -m tests.fuzz 10000`: so many cases of every fuzzer, or of those named behind the number.

Behind the number: names of fuzzers, `seed=N` for another stream of cases, `first=N` for where to begin in it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz import FUZZERS
from tests.fuzz.runner import run


def main(words: list[str]) -> int:
    cases = int(words[0]) if words else 1000
    numbers = dict(word.split("=") for word in words[1:] if "=" in word)
    names = [word for word in words[1:] if "=" not in word] or list(FUZZERS)
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            seed, first = int(numbers.get("seed", 0)), int(numbers.get("first", 0))
            found = run(FUZZERS[name], cases, Path(folder), seed=seed, first=first)
        print(found, flush=True)
        for problem in found.failed:
            print(f"  {problem}", flush=True)
        failed += len(found.failed)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
