"""The report of a training step as one self-contained page: no network access, light and dark themes, any width."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.display.nodes import number
from graphsim.display.operators import frame_of
from graphsim.export.html_graph import layer_svg
from graphsim.export.html_page import card, escaped, filled, json_text, listed, table_html
from graphsim.export.training_figures import figures_of
from graphsim.export.training_layer import layer_graph, pairs_of, plain
from graphsim.files.written import write_text
from graphsim.training.estimate import TrainEstimate
from graphsim.training.plan import Plan
from graphsim.training.variation import comparison_of, methods_of
from graphsim.training.view import asked_of, headline, title_of
from graphsim.units import bytes_text, count_text, scaled, seconds_text, throughput_text

if TYPE_CHECKING:
    import pandas as pd


_PIPELINE = (
    '<section class="wide"><h2>Pipeline</h2><p class="hint">Slots of all micro-batches, a lane for each stage; what is '
    'empty is the bubble.</p><div class="chart" id="chart-pipeline"></div></section>'
)


def training_html(
    estimate: TrainEstimate, path: str | Path | None = None, *, scenario: int = 0, plan: Plan | None = None
) -> str:
    """The report of a training step as one HTML page, also written to `path` if given.

    Headline figures; breakdown of time and peak memory; full fine-tuning, LoRA and QLoRA side by side; the whole run,
    if a plan is given; roofline, one layer forward and backward, timeline, all operations.
    path: the file to write, None for none
    scenario: index of the scenario, if numbers are arrays
    plan: the plan of the whole run, None to leave it out
    Raises ConfigError if there is no such scenario, or `path` is not writable.
    """
    number(estimate.step_s, scenario)  # fails early if there is no such scenario
    compared = _compared(estimate, scenario)
    tabs = _layers(estimate, scenario)
    content = {
        "title": escaped(title_of(estimate)),
        "subtitle": escaped(" · ".join(asked_of(estimate, scenario))),
        "warnings": _warning(estimate, scenario),
        "cards": "".join(_cards(estimate, scenario)),
        "methods": "" if compared is None else _methods(compared),
        "pipeline": "" if estimate.slots is None else _PIPELINE,
        "plan": "" if plan is None else _plan(plan, scenario),
        "tabs": "".join(f'<button type="button" data-tab="{i}">{name}</button>' for i, (name, _) in enumerate(tabs)),
        "layers": "".join(f'<div class="tab" data-tab="{i}">{body}</div>' for i, (_, body) in enumerate(tabs)),
        "operations": _operations(estimate, scenario),
        "notes": listed("Notes", dict.fromkeys(estimate.notes)),
        "figures": json_text(figures_of(estimate, compared, scenario)),
    }
    page = filled("training.html", content)
    if path is not None:
        write_text(path, page)
    return page


def _warning(estimate: TrainEstimate, scenario: int) -> str:
    memory = estimate.memory
    if number(memory.fits, scenario):
        return ""
    over = number(memory.reserved_bytes, scenario) - number(memory.capacity_bytes, scenario)
    text = f"The step does not fit: a device would need {bytes_text(over)} more than it has."
    return f'<section class="wide warning"><p>{escaped(text)}</p></section>'


def _cards(estimate: TrainEstimate, scenario: int) -> Iterable[str]:
    figures = dict(headline(estimate, scenario))
    tokens_per_s, mfu = number(estimate.tokens_per_s, scenario), number(estimate.mfu, scenario)
    step_s = number(estimate.step_s, scenario)
    yield card("step_s", "Step", step_s, seconds_text(step_s), f"{figures['tokens']} tokens")
    hint = f"{figures['per device']} per device" if "per device" in figures else "all tokens of the step"
    yield card("tokens_per_s", "Throughput", tokens_per_s, throughput_text(tokens_per_s), hint)
    hfu = number(estimate.hfu, scenario)
    yield card("mfu", "MFU", mfu, f"{mfu:.1%}", f"HFU {hfu:.1%}, of {estimate.peak_format}'s dense peak")
    memory = estimate.memory
    reserved, capacity = number(memory.reserved_bytes, scenario), number(memory.capacity_bytes, scenario)
    hint = f"reserved, {'fits' if reserved <= capacity else 'does not fit'} in {bytes_text(capacity)}"
    yield card("reserved_bytes", "Memory per device", reserved, bytes_text(reserved), hint, bad=reserved > capacity)
    total = number(memory.total_bytes, scenario)
    yield card("total_bytes", "Allocated at the peak", total, bytes_text(total), f"at: {memory.peak_moment}")
    trained = number(estimate.trainable_parameters, scenario)
    hint = figures["trained"].partition(", ")[2]
    yield card("trainable_parameters", "Trained parameters", trained, count_text(trained), hint)


def _compared(estimate: TrainEstimate, scenario: int) -> pd.DataFrame | None:
    """Estimates of full fine-tuning, LoRA and QLoRA; None if numbers are arrays."""
    if getattr(estimate.step_s, "ndim", 0):
        return None
    return comparison_of(methods_of(estimate), scenario)


_COLUMNS = (
    ("step_s", "step", seconds_text),
    ("tokens_per_s_per_gpu", "per device", throughput_text),
    ("mfu", "MFU", lambda value: f"{value:.1%}"),
    ("trainable_parameters", "trained", count_text),
    ("weights_bytes", "weights", bytes_text),
    ("optimizer_bytes", "optimizer", bytes_text),
    ("activations_bytes", "activations", bytes_text),
    ("total_bytes", "at the peak", bytes_text),
    ("reserved_bytes", "reserved", bytes_text),
)


def _methods(compared: pd.DataFrame) -> str:
    rows = []
    for name, row in compared.iterrows():
        if row["reason"]:
            rows.append([str(name), str(row["reason"]), *[""] * len(_COLUMNS)])
            continue
        figures = [shown(number(row[key])) for key, _, shown in _COLUMNS]
        rows.append([str(name), *figures, "yes" if row["fits"] else "no"])
    body = table_html(["method", *(label for _, label, _ in _COLUMNS), "fits"], rows)
    return (
        '<section class="wide"><h2>Full, LoRA, QLoRA</h2><p class="hint">The same step by each method, one thing '
        f'changed.</p><div class="scroll">{body}</div></section>'
        '<section><h2>Throughput by method</h2><div class="chart" id="chart-methods-time"></div></section>'
        '<section><h2>Memory by method</h2><div class="chart" id="chart-methods-memory"></div></section>'
    )


def _plan(plan: Plan, scenario: int) -> str:
    head = "".join(
        f"<li>{escaped(label)}: <strong>{escaped(text)}</strong></li>" for label, text in plan.lines(scenario)
    )
    frame = plan.to_frame(scenario)
    rows = [
        [
            str(row["part"]), f"{row['count']:,.4g}", seconds_text(row["each_s"]), seconds_text(row["total_s"]),
            f"{row['share']:.1%}",
        ]
        for row in frame.to_dict("records")
    ]  # fmt: skip
    body = table_html(["part", "times", "each", "together", "share"], rows)
    return f'<section class="wide"><h2>The whole run</h2><ul>{head}</ul><div class="scroll">{body}</div></section>'


def _layers(estimate: TrainEstimate, scenario: int) -> list[tuple[str, str]]:
    """Name and picture of a layer, forward and backward, from the repeats with the most iterations."""
    graph = estimate.graph
    pairs = pairs_of(graph)
    if not pairs:
        caption, svg = layer_svg(plain(graph), scenario)
        return [("step", _stage(caption, svg))]
    shown, found = layer_graph(graph, pairs[0]), []
    for name, label in ((pairs[0].forward, "forward"), (pairs[0].backward, "backward")):
        if name is not None:
            caption, svg = layer_svg(shown, scenario, name)
            found.append((label, _stage(caption, svg)))
    return found


def _stage(caption: str, svg: str) -> str:
    return f'<p class="hint">{escaped(caption)}</p><div class="stage">{svg}</div>'


_SHOWN = (
    "name", "op_type", "direction", "times", "dims", "flops", "read_bytes", "write_bytes", "latency_s", "bound",
    "critical",
)  # fmt: skip


def _operations(estimate: TrainEstimate, scenario: int) -> str:
    frame = frame_of(estimate.graph, scenario)
    shown = [name for name in _SHOWN if name in frame]
    return table_html(shown, ([_cell(name, row[name]) for name in shown] for row in frame.to_dict("records")))


def _cell(name: str, value: Any) -> str:
    if name == "latency_s":
        return seconds_text(float(value))
    if name.endswith("bytes"):
        return bytes_text(float(value))
    if name == "flops":
        return scaled(float(value), "").strip()
    return ("yes" if value else "no") if name == "critical" else str(value)
