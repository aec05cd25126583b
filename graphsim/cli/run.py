"""`graphsim run`: one estimate with breakdowns of time and memory."""

from __future__ import annotations

import argparse
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.outputs import PAGE, OutFile, report_written
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.display.columns import bytes_column, times_column
from graphsim.display.intervals import interval_text
from graphsim.display.nodes import bound_of, entries
from graphsim.display.texts import asked_text
from graphsim.result import COVERAGE, Estimate, PhaseEstimate
from graphsim.simulation import simulate
from graphsim.units import joules_text, seconds_text, throughput_text

EXAMPLES = """examples:
  graphsim run llama-3.1-8b --hardware h100-sxm --batch 8
  graphsim run llama-3.1-70b --hardware h100-sxm --tp 4 --lora rank=16,targets=attn+ffn,strategy=dynamic
  graphsim run llama-2-7b --hardware l4 --precision fp8 --json
  graphsim run qwen2.5-vl/config.json --hardware l4 --input 2000 --images 1 --image-size 1080x1920
  graphsim run llama-3.1-8b --hardware l4 --engine vllm --lora rank=16,adapters=4,max_loras=8 --html report.html
  graphsim run llama-3.1-70b --hardware h100-sxm --tp 4 --speculation draft=llama-3.1-8b,tokens=3,acceptance=0.8
"""


def add_commands(commands: Any) -> None:
    """Add `run`."""
    parser = shared.add_command(commands, "run", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_media(parser)
    shared.add_deployment(parser)
    shared.add_speculation(parser)
    parser.add_argument("--top", type=shared.whole(0), default=8, metavar="N", help="operations to list per phase (8)")
    parser.add_argument("--html", type=OutFile(PAGE), metavar="FILE", help="write a report as one self-contained page")
    shared.add_json(parser)
    parser.set_defaults(command_function=run)


def run(options: argparse.Namespace) -> None:
    """Estimate and print the result."""
    estimate = simulate(
        shared.deployment(options), **shared.requests(options), media=shared.media(options),
        speculation=shared.speculation(options),
    )  # fmt: skip
    if options.html:
        from graphsim.export.html import to_html

        to_html(estimate, options.html, explore=True)
        report_written(options, [options.html])
    if options.json:
        print_json(estimate.to_dict())
        return
    _print_headline(estimate)
    _print_speculation(estimate)
    _print_energy(estimate)
    _print_memory(estimate)
    for phase in (estimate.prefill, estimate.decode):
        _print_phase(phase, options.top)


def _print_headline(estimate: Estimate) -> None:
    print_line(str(estimate.basis))
    print_line(asked_text(estimate.settings))
    for note in estimate.notes:
        print_line(f"note: {note}")
    print_line()
    ends = {name: (float(low), float(high)) for name, (low, high) in estimate.intervals(COVERAGE).items()}
    rows = [
        [label, interval_text(float(getattr(estimate, name)), ends.get(name), shown)]
        for name, label, shown in (
            ("ttft_s", "time to first token", seconds_text),
            ("tpot_s", "time per output token", seconds_text),
            ("latency_s", "whole batch", seconds_text),
            ("tokens_per_s", "throughput", throughput_text),
        )
    ]
    if estimate.engine_time.total_s:
        rows.insert(1, ["  of it the engine", seconds_text(float(estimate.engine_time.total_s))])
    if estimate.one_time_s:
        rows.append(["once, before serving", seconds_text(float(estimate.one_time_s))])
    print_table(["latency", ""], rows, right=[] if ends else [1])
    if ends:
        print_line(f"in brackets: expected in {COVERAGE:.0%} of cases")
    print_line()


def _print_speculation(estimate: Estimate) -> None:
    told = estimate.speculation
    if told is None:
        return
    rows = [
        ["tokens of a step", f"{float(told.tokens_per_step):.2f}"],
        ["drafting, verifying", f"{seconds_text(float(told.draft_s))}, {seconds_text(float(told.verify_s))}"],
        ["a step without it", seconds_text(float(told.plain_s))],
        ["the draft's prompts", seconds_text(float(told.draft_prompt_s))],
        ["tokens/s of the generation", f"{float(told.speedup):.2f} x"],
    ]
    print_table(["speculation", ""], rows, right=[1])
    print_line()


def _print_energy(estimate: Estimate) -> None:
    energy = estimate.energy
    if not float(energy.limit_watts) > 0:
        return
    rows = [
        ["power of a device", f"{float(energy.watts):.0f} W of {float(energy.limit_watts):.0f} W"],
        ["prefill, decode", f"{float(energy.prefill_watts):.0f} W, {float(energy.decode_watts):.0f} W"],
        ["energy per token", joules_text(float(energy.per_token_j))],
        ["energy of the batch", joules_text(float(energy.total_j))],
    ]
    print_table(["energy", ""], rows, right=[1])
    print_line(energy.origin)
    print_line()


def _print_memory(estimate: Estimate) -> None:
    memory = estimate.memory
    parts = ("weights", "kv_cache", "activations", "adapters", "overhead", "total", "capacity")
    texts = bytes_column([float(getattr(memory, f"{part}_bytes")) for part in parts])
    rows = [[part.replace("_", " "), text] for part, text in zip(parts, texts, strict=True)]
    print_table(["memory per device", ""], rows, right=[1])
    verdict = "fits" if memory.fits else "does not fit"
    print_line(f"{verdict}; largest batch that fits: {float(memory.max_batch):,.0f}")
    if not memory.fits:
        from graphsim.cli.fit import print_what_would_fit

        print_what_would_fit(estimate.inference)


def _print_phase(phase: PhaseEstimate, top: int) -> None:
    listed = [entry for entry in entries(phase.graph) if not entry.op.once]
    total_s = [float(entry.data["latency_s"]) * entry.times for entry in listed]
    whole = float(phase.latency_s)
    print_line(f"\n{phase.name}: {seconds_text(whole)}, {sum(entry.times for entry in listed)} operations")
    longest = sorted(zip(total_s, listed, strict=True), key=lambda pair: -pair[0])[:top]
    each = times_column([float(entry.data["latency_s"]) for _, entry in longest])
    rows = [
        [entry.name, f"{entry.times} x", each_s, f"{spent_s / whole:6.1%}", bound_of(entry.data, 0)]
        for each_s, (spent_s, entry) in zip(each, longest, strict=True)
    ]
    print_table(["operation", "times", "each", "share", "bound by"], rows, right=[1, 2, 3])
