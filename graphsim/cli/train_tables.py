"""Tables of `graphsim train`: the step, its time by part, its memory, the run, and advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.cli.basis import print_basis
from graphsim.cli.printing import print_line, print_table
from graphsim.display.columns import bytes_column, figures_column, latencies_column, times_column
from graphsim.display.nodes import number
from graphsim.units import bytes_text, counted_text

if TYPE_CHECKING:
    from graphsim.training.advice import TrainAdvice
    from graphsim.training.estimate import TrainEstimate
    from graphsim.training.plan import Plan


SEEN = 1e-6
"""Fraction of a step below which a part gets no row."""


def print_step(estimate: TrainEstimate, top: int) -> None:
    """Print the headline, time by part and by kind, memory by part, and caveats."""
    from graphsim.training.view import headline, method_text

    print_basis([estimate.basis])
    print_line(f"{method_text(estimate)}\n")
    print_table(["step", ""], [[label, text] for label, text in headline(estimate)], right=[1])
    print_line()
    _print_times(estimate, top)
    print_line()
    _print_memory(estimate)
    for note in dict.fromkeys((*estimate.notes, *([estimate.caution] if estimate.caution else []))):
        print_line(f"note: {note}")


def _print_times(estimate: TrainEstimate, top: int) -> None:
    from graphsim.display.training import TIME_LABELS
    from graphsim.training.view import kinds_of

    whole = number(estimate.step_s)
    parts = {name: value for name, part in estimate.parts_s.items() if (value := number(part)) > SEEN * whole}
    rows = [
        [TIME_LABELS.get(name, name), text, f"{value / whole:.1%}"]
        for (name, value), text in zip(parts.items(), times_column([*parts.values()]), strict=True)
    ]
    print_table(["where the time goes", "", "share"], rows, right=[1, 2])
    kinds = sorted(kinds_of(estimate).items(), key=lambda item: -item[1])
    if top and kinds:
        busy = sum(seconds for _, seconds in kinds)
        print_line()
        shown = kinds[:top]
        if len(kinds) > top:
            shown.append(
                (("others", counted_text(len(kinds) - top, "kind")), sum(seconds for _, seconds in kinds[top:]))
            )
        texts = times_column([seconds for _, seconds in shown])
        rows = [[*names, text, f"{s / busy:.1%}"] for (names, s), text in zip(shown, texts, strict=True)]
        print_table(["busy with", "", "", "share"], rows, right=[2, 3])


def _print_memory(estimate: TrainEstimate) -> None:
    from graphsim.display.training import MEMORY_PARTS

    memory = estimate.memory
    sizes = [(name, size) for name in MEMORY_PARTS if (size := number(getattr(memory, f"{name}_bytes"))) > 0]
    totals = (("at the peak", memory.total_bytes), ("reserved by the allocator", memory.reserved_bytes),
              ("between steps", memory.steady_bytes), ("capacity", memory.capacity_bytes))  # fmt: skip
    sizes += [(name, number(size)) for name, size in totals]
    texts = bytes_column([size for _, size in sizes])
    rows = [[name, text] for (name, _), text in zip(sizes, texts, strict=True)]
    print_table(["memory per device", ""], rows, right=[1])
    free = number(memory.capacity_bytes) - number(memory.reserved_bytes)
    fits = f"fits, {bytes_text(free)} free" if memory.fits else f"does not fit, by {bytes_text(-free)}"
    print_line(f"{fits}; fullest at: {memory.peak_moment}")


def print_plan(plan: Plan) -> None:
    """Print the headline of a run, and its parts."""
    print_line()
    print_table(["run", ""], [[label, text] for label, text in plan.lines()])
    frame = plan.to_frame()
    priced = "money" in frame
    print_line()
    columns = [
        list(map(str, frame["part"])), figures_column(frame["count"].tolist()),
        latencies_column(frame["each_s"].tolist()), latencies_column(frame["total_s"].tolist()),
        [f"{share:.1%}" for share in frame["share"]], *([figures_column(frame["money"].tolist())] if priced else []),
    ]  # fmt: skip
    rows = [list(row) for row in zip(*columns, strict=True)]
    header = ["part", "times", "each", "together", "share", *(["money"] if priced else [])]
    print_table(header, rows, right=range(1, len(header)))
    for note in plan.notes[: len(plan.notes) - len(plan.estimate.notes)]:
        print_line(f"note: {note}")


def print_advice(advice: TrainAdvice) -> None:
    """Print one row per change that helps, each of them simulated."""
    print_line()
    if not advice.levers:
        print_line("nothing tried would make it " + ("faster" if advice.now.fits else "fit"))
        return
    found = (advice.now, *advice.levers)
    columns = [
        [outcome.name for outcome in found], [f"{outcome.tokens_per_s_per_gpu:,.0f}" for outcome in found],
        latencies_column([outcome.step_s for outcome in found]),
        bytes_column([outcome.reserved_bytes for outcome in found]),
        ["yes" if outcome.fits else "no" for outcome in found],
    ]  # fmt: skip
    rows = [list(row) for row in zip(*columns, strict=True)]
    title = "what would be faster" if advice.now.fits else "what would fit"
    print_table([title, "tokens/s per device", "step", "reserved", "fits"], rows, right=[1, 2, 3])
