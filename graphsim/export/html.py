"""The report of an estimate as one self-contained page: no network access, light and dark themes, any width.

Charts use Plotly (https://plotly.com/javascript), whose script is part of graphsim and is embedded once per page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.compare import comparison, strategies_of
from graphsim.analysis.switches import switches_of
from graphsim.deployment.scenarios import scenarios_in, take
from graphsim.display.intervals import interval_svg
from graphsim.display.nodes import number, require
from graphsim.display.operators import frame_of
from graphsim.errors import ConfigError, GraphsimError
from graphsim.export.html_explore import explore_section
from graphsim.export.html_figures import figures_of
from graphsim.export.html_graph import layer_svg
from graphsim.export.html_page import card, escaped, filled, json_text, listed
from graphsim.export.serving_html import serving_html
from graphsim.export.sweep_html import sweep_html
from graphsim.export.training_html import training_html
from graphsim.files.written import write_text
from graphsim.result import COVERAGE, Estimate
from graphsim.serving.served_run import ServedRun
from graphsim.training.estimate import TrainEstimate
from graphsim.units import amount_text, bytes_text, joules_text, scaled, seconds_text, throughput_text, watts_text

if TYPE_CHECKING:
    import pandas as pd


def to_html(
    estimate: Estimate | TrainEstimate | ServedRun | pd.DataFrame,
    path: str | Path | None = None,
    *,
    scenario: int = 0,
    explore: bool = False,
    **limits: float | None,
) -> str:
    """The report of an estimate, a training step or a served run as one HTML page, also written to `path` if given.

    The page of a table from `sweep` or `best` can be sorted and filtered, see `graphsim.export.sweep_html`.

    It shows headline figures; base, dynamic and merged adapter side by side (the estimate's own adapter, or a common
    one); where time and memory go; a roofline with every operation; timelines; one layer to explore; and a table of all
    operations.
    path: the file to write, None for none
    scenario: index of the scenario, if numbers are arrays
    explore: whether an estimate's page also includes the page of `gs.explore`, which doubles the time to make it
    limits: ttft_s, tpot_s and e2e_s for the page of a served run, see `graphsim.export.serving_html`
    Raises ConfigError if there is no such scenario, or `path` is not writable.
    """
    import pandas as pd

    if isinstance(estimate, ServedRun):
        return serving_html(estimate, path, **limits)
    if isinstance(estimate, pd.DataFrame):
        if limits:
            raise ConfigError(f"{next(iter(limits))} applies to served runs; the page of a table has no limits")
        return sweep_html(estimate, path)
    require("to_html", estimate, Estimate, TrainEstimate)
    if limits:
        raise ConfigError(f"{next(iter(limits))} applies to served runs; the page of an estimate has no limits")
    if isinstance(estimate, TrainEstimate):
        return training_html(estimate, path, scenario=scenario)
    number(estimate.latency_s, scenario)  # fails early if there is no such scenario
    compared = _compared(estimate, scenario)
    content = {
        "title": escaped(f"{estimate.model} on {estimate.hardware}"),
        "subtitle": escaped(_asked(estimate, scenario)),
        "cards": "".join(_cards(estimate, scenario)),
        "compare": "" if compared is None else _comparison_section(estimate, compared),
        "layers": _layers(estimate, scenario),
        "operations": _operations(estimate, scenario),
        "explore": explore_section(estimate, scenario) if explore else "",
        "notes": _notes(estimate, scenario),
        "figures": json_text(figures_of(estimate, compared, scenario)),
    }
    page = filled("page.html", content)
    if path is not None:
        write_text(path, page)
    return page


def _asked(estimate: Estimate, scenario: int) -> str:
    asked = estimate.settings
    batch, prompt, output = (number(asked[key], scenario) for key in ("batch", "input_tokens", "output_tokens"))
    parts = [
        f"batch {amount_text(batch)}", f"{amount_text(prompt)} tokens in", f"{amount_text(output)} out",
        str(asked["precision"]),
    ]  # fmt: skip
    degrees = {key: number(asked["parallelism"][key], scenario) for key in ("tp", "pp", "ep", "cp", "sp", "dp")}
    parts += [f"{key} {amount_text(value)}" for key, value in degrees.items() if value > 1]
    parts.append(f"engine {asked['engine']}")
    lora = asked["lora"]
    if lora is not None:
        targets = lora["target_modules"]
        names = targets if isinstance(targets, str) else ", ".join(targets)
        parts.append(f"LoRA rank {amount_text(number(lora['rank'], scenario))} on {names}, {lora['strategy']}")
        adapters = number(lora["active_adapters"], scenario)
        parts += [f"{amount_text(adapters)} adapters"] if adapters > 1 else []
    count = np.size(estimate.latency_s)
    parts += [f"scenario {scenario} of 0 to {count - 1}"] if count > 1 else []
    return " · ".join([*parts, f"cost model: {estimate.cost_model}"])


def _cards(estimate: Estimate, scenario: int) -> Iterable[str]:
    memory = estimate.memory
    fits = "fits" if number(memory.fits, scenario) else "does not fit"
    used, capacity = number(memory.total_bytes, scenario), number(memory.capacity_bytes, scenario)
    figures = [
        ("ttft_s", "Time to first token", seconds_text, "the prompt's step"),
        ("tpot_s", "Time per token", seconds_text, "mean over the generation"),
        ("latency_s", "Whole batch", seconds_text, "prompt and generation"),
        ("tokens_per_s", "Throughput", throughput_text, "generated tokens of the batch"),
    ]
    intervals = estimate.intervals(COVERAGE)
    for name, label, shown, hint in figures:
        value = number(getattr(estimate, name), scenario)
        drawn = ""
        if name in intervals:
            low, high = (number(end, scenario) for end in intervals[name])
            told = f"{shown(float(f'{low:.3g}'))} to {shown(float(f'{high:.3g}'))} in {COVERAGE:.0%} of cases"
            drawn = interval_svg(value, (low, high), escaped(told)) + f'<span class="hint">{escaped(told)}</span>'
        yield card(name, label, value, shown(value), hint, drawn=drawn)
    hint = f"{fits} in {bytes_text(capacity)}"
    yield card("total_bytes", "Memory per device", used, bytes_text(used), hint, bad=used > capacity)
    energy = estimate.energy
    if number(energy.limit_watts, scenario) > 0:
        power, limit = number(energy.watts, scenario), number(energy.limit_watts, scenario)
        yield card("watts", "Power of a device", power, watts_text(power), f"of {watts_text(limit)}, mean of the batch")
        joules = number(energy.per_token_j, scenario)
        yield card(
            "energy_per_token_j", "Energy per token", joules, joules_text(joules), "all devices, with the prompt"
        )
    once = number(estimate.one_time_s, scenario)
    if once > 0:
        yield card("one_time_s", "Merging, once", once, seconds_text(once), "before the first step")


def _compared(estimate: Estimate, scenario: int) -> pd.DataFrame | None:
    """Estimates of base, dynamic and merged adapter; None if an adapter matches nothing or they cannot be simulated."""
    inference, asked = estimate.inference, estimate.settings
    if inference is None:
        return None
    if scenarios_in(inference.deployment, inference.requests, inference.hardware) is not None:
        estimate = replace(estimate, inference=take(inference, scenario))
    try:
        estimates = strategies_of(estimate)
    except GraphsimError:
        return None
    return comparison(estimates, number(asked["batch"], scenario), number(asked["output_tokens"], scenario))


_COLUMNS = (
    ("ttft_s", "first token", seconds_text),
    ("tpot_s", "per token", seconds_text),
    ("latency_s", "whole batch", seconds_text),
    ("tokens_per_s", "throughput", throughput_text),
    ("energy_per_token_j", "energy per token", lambda value: joules_text(value) if value == value else "–"),
    ("overhead", "over base", lambda value: f"{100 * value:+.2f}%"),
    ("one_time_s", "once", lambda value: seconds_text(value) if value else "–"),
    ("memory_bytes", "memory", bytes_text),
)


def _comparison_section(estimate: Estimate, compared: pd.DataFrame) -> str:
    head = "".join(f"<th>{escaped(label)}</th>" for _, label, _ in _COLUMNS)
    rows = []
    for name, row in compared.iterrows():
        cells = "".join(
            f'<td data-value="{number(row[key])!r}">{escaped(shown(number(row[key])))}</td>'
            for key, _, shown in _COLUMNS
        )
        rows.append(f'<tr id="row-{escaped(str(name))}"><th scope="row">{escaped(str(name))}</th>{cells}</tr>')
    verdict = _verdict(compared, several=_differ(estimate))
    if not estimate.settings["lora"]:
        verdict += " The estimate itself has no adapter: rank 16 on attention and MLP is an example."
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return (
        f'<section class="wide"><h2>Base, dynamic, merge</h2><p>{escaped(verdict)}</p><div class="scroll">{table}</div>'
        '<div class="chart" id="chart-compare"></div></section>'
    )


def _differ(estimate: Estimate) -> bool:
    """Whether requests have different adapters."""
    lora = estimate.settings["lora"]
    return bool(lora) and (np.max(lora["active_adapters"]) > 1 or np.min(lora["adapter_share"]) < 1)


def _verdict(compared: pd.DataFrame, *, several: bool) -> str:
    overhead = 100 * number(compared.overhead["dynamic"])
    text = f"Applying the adapter in every step changes the latency by {overhead:+.2f}%. "
    if several:
        return text + "A merged model serves one adapter only, and here requests differ in theirs."
    if "merge" not in compared.index:
        return text + "It cannot be merged."
    once, tokens = number(compared.one_time_s["merge"]), number(compared.break_even_tokens["dynamic"])
    if tokens == float("inf"):
        return text + f"Merging takes {seconds_text(once)} once and never pays off here."
    least = max(1, math.ceil(tokens))
    return text + (
        f"Merging takes {seconds_text(once)} once and has paid off after {least:,} generated "
        f"token{'s' if least > 1 else ''}."
    )


def _layers(estimate: Estimate, scenario: int) -> str:
    tabs = []
    for phase in (estimate.prefill, estimate.decode):
        caption, svg = layer_svg(phase.graph, scenario)
        picture = f'<p class="hint">{escaped(caption)}</p><div class="stage">{svg}</div>'
        tabs.append(f'<div class="tab" data-tab="{phase.name}">{picture}</div>')
    return "".join(tabs)


_SHOWN = (
    "name", "op_type", "times", "dims", "flops", "read_bytes", "write_bytes", "residency", "latency_s", "bound",
    "critical",
)  # fmt: skip


def _operations(estimate: Estimate, scenario: int) -> str:
    tabs = []
    for phase in (estimate.prefill, estimate.decode):
        frame = frame_of(phase.graph, scenario)
        head = "".join(f"<th>{escaped(name)}</th>" for name in _SHOWN)
        body = "".join(
            "<tr>" + "".join(f"<td>{escaped(_cell(name, row[name]))}</td>" for name in _SHOWN) + "</tr>"
            for _, row in frame.iterrows()
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        tabs.append(f'<div class="tab" data-tab="{phase.name}"><div class="scroll">{table}</div></div>')
    return "".join(tabs)


def _cell(name: str, value: Any) -> str:
    if name == "latency_s":
        return seconds_text(float(value))
    if name.endswith("bytes"):
        return bytes_text(float(value))
    if name == "flops":
        return scaled(float(value), "").strip()
    return ("yes" if value else "no") if name == "critical" else str(value)


def _notes(estimate: Estimate, scenario: int) -> str:
    """The estimate's notes, and the kernel switches at which its time falls although work grows."""
    return listed("Notes", estimate.notes) + listed("Kernel switches", map(str, switches_of(estimate, scenario)))
