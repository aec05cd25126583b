"""Models beside what torch, transformers and PEFT say of them: `python -m tests.models.capture.compare NAME...|--all`.

For each architecture in its scaled size: parameters, adapters, matrix flops of prompts and decode steps by kind, and
bytes of the cache, of the captured model and of the hand-written family. `--csv FILE` writes one row for each number.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import graphsim as gs
from graphsim.models.config import ModelConfig
from tests.models.capture.counting import TARGETS, adapters_of, cache_of, flops_of
from tests.models.capture.explained import EXPLAINED
from tests.models.capture.truth import Truth, truths

Reader = Callable[[Mapping[str, Any]], ModelConfig]
BUILT: dict[str, Reader] = {"built": gs.load_model}
CLOSE = 1e-9
UNLIKE = ("convolution", "products", "scan")
"""Kinds that are left out of the sums and shown beside them. Convolutions here are of a channel by itself, which torch
counts and no matrix unit computes; scans are products to torch, as its fallbacks in Python compute them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One number of one architecture, as torch has it and as graphsim has it; None where there is none."""

    model_type: str
    way: str
    what: str
    truth: float | None
    found: float | None
    parts: str = ""

    @property
    def explanation(self) -> str:
        """Why the two differ, where that is known."""
        return EXPLAINED.get((self.way, self.model_type, self.kind), "")

    @property
    def kind(self) -> str:
        """What is compared, whatever the size of the step."""
        return self.what.partition(" ")[0] if self.what[-1].isdigit() else self.what

    @property
    def equal(self) -> bool:
        """To nine digits."""
        if self.truth is None or self.found is None:
            return self.truth is self.found
        return abs(self.truth - self.found) <= CLOSE * max(abs(self.truth), 1.0)

    def __str__(self) -> str:
        mark = "=" if self.equal else "!"
        ratio = f" {self.found / self.truth:.4f}" if not self.equal and self.found and self.truth else ""
        why = f" ({self.explanation})" if not self.equal and self.explanation else ""
        return f"  {mark} {self.what}: {_text(self.truth)} | {_text(self.found)}{ratio} {self.parts}{why}"


def _text(number: float | None) -> str:
    return "none" if number is None else f"{number:.15g}"


def ways() -> dict[str, Reader]:
    """How a config becomes a model; captured where this graphsim can."""
    capture = getattr(gs, "capture", None)
    return BUILT | ({} if capture is None else {"captured": capture})


def lines_of(truth: Truth, way: str, model: ModelConfig) -> Iterator[Line]:
    """Every number that the truth has, and what graphsim says."""

    def line(what: str, expected: float | None, found: float | None, parts: str = "") -> Line:
        return Line(model_type=truth.name, way=way, what=what, truth=expected, found=found, parts=parts)

    alone = way.endswith("alone")
    if not alone:
        yield line("parameters", truth.params, model.num_parameters)
    for targets in () if alone else TARGETS:
        yield line(f"adapters {targets}", truth.adapters.get(targets), adapters_of(model, targets))
    for step in truth.compared_steps():
        try:
            found = flops_of(model, step)
        except gs.GraphsimError as error:
            yield line(step.name, sum(step.flops.values()), None, str(error))
            continue
        expected = Counter(step.flops)
        parts = differences(expected, found)
        for kind in UNLIKE if "scan" in found else UNLIKE[:1]:
            expected.pop(kind, None)
            found.pop(kind, None)
        yield line(step.name, sum(expected.values()), sum(found.values()), parts)
    if truth.token_bytes is not None:
        cache = cache_of(model)
        yield line("bytes of a token", truth.token_bytes, float(cache.token_bytes))
        yield line("bytes of a sequence", truth.state_bytes, float(cache.state_bytes))
        yield line("bytes of a source row", truth.source_row_bytes, float(cache.source_token_bytes))


def differences(truth: Counter[str], found: Counter[str]) -> str:
    """Kinds in which the two differ."""
    kinds = [kind for kind in {**truth, **found} if truth[kind] != found[kind]]
    return ", ".join(f"{kind} {truth[kind]} | {found[kind]}" for kind in kinds)


def compared(truth: Truth, readers: Mapping[str, Reader]) -> Iterator[Line | str]:
    """Lines of an architecture in every way, and a sentence where there are none."""
    for way, read in readers.items():
        try:
            model = read(truth.config)
        except gs.GraphsimError as error:
            yield f"{truth.name} {way}: {str(error)[:160]}"
            if way != "built" or "text_config" not in truth.config:
                continue
            try:
                model = read(truth.config["text_config"])
            except gs.GraphsimError:
                continue
            way = "built, text alone"
        yield f"{truth.name} {way}{': torch: ' + truth.why if truth.why else ''}"
        yield from lines_of(truth, way, model)


def main(arguments: list[str]) -> None:
    """Prints, and writes where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="model types")
    parser.add_argument("--all", action="store_true", help="every architecture")
    parser.add_argument("--csv", type=Path, help="a file for one row for each number")
    parser.add_argument("--different", action="store_true", help="print what is not equal only")
    given = parser.parse_args(arguments)
    known = truths()
    lines: list[Line] = []
    for name in known if given.all else given.names:
        for entry in compared(known[name], ways()):
            if isinstance(entry, Line):
                lines.append(entry)
            if not (given.different and isinstance(entry, Line) and entry.equal):
                print(entry, flush=True)
    for way in dict.fromkeys(line.way for line in lines):
        own = [line for line in lines if line.way == way]
        whats = Counter(line.kind for line in own)
        equal = Counter(line.kind for line in own if line.equal)
        other = [line for line in own if not line.equal]
        print(
            f"{way} ({len({line.model_type for line in own})} models):",
            ", ".join(f"{what} {equal[what]} of {times}" for what, times in whats.items()),
            f"; {sum(bool(line.explanation) for line in other)} of the other {len(other)} explained",
        )
    if given.csv:
        with given.csv.open("w", newline="") as out:
            writer = csv.DictWriter(out, [*Line.__slots__, "equal"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(line) | {"equal": line.equal} for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
