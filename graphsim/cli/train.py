"""`graphsim train`: one optimizer step: whether it fits, its time by part, and the cost of the whole run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli import train_options
from graphsim.cli.explain import print_explanation
from graphsim.cli.outputs import GRAPH, JSON, PAGE, OutFile, report_written
from graphsim.cli.printing import RunProgress, print_json, print_line
from graphsim.cli.several import named_as_options
from graphsim.cli.train_tables import print_advice, print_plan, print_step
from graphsim.cli.train_varied import print_varied
from graphsim.display.axes import PICTURES, save
from graphsim.errors import ConfigError

if TYPE_CHECKING:
    from graphsim.training.advice import TrainAdvice
    from graphsim.training.estimate import TrainEstimate
    from graphsim.training.plan import Plan

_FILES = ("html", "dot", "trace", "plot")
EXAMPLES = """examples:
  graphsim train llama-3.1-8b --hardware h100-sxm --method lora --batch 2 --seq-len 4096
  graphsim train llama-3.1-8b --hardware l4 --method qlora --recipe unsloth --lora rank=16,targets=all-linear
  graphsim train llama-3.1-70b --hardware h100-sxm --method full --dp 16 --sharding fsdp2 --recompute full
  graphsim train llama-3.1-8b --hardware h100-sxm --longest-sequence --recompute full
  graphsim train llama-3.1-8b --hardware h100-sxm --tokens 1e9 --price 2.5 --checkpoint-every 500 --html page.html
  graphsim train llama-3.1-8b --hardware h100-sxm --vary method=full,lora,qlora --vary recompute=none,full
  graphsim train --config axolotl.yaml --hardware a100-sxm-80gb
"""


def add_commands(commands: Any) -> None:
    """Add `train`."""
    parser = shared.add_command(commands, "train", EXAMPLES)
    train_options.add_options(parser)
    parser.add_argument("--largest-batch", action="store_true", help="the largest micro-batch that fits")
    parser.add_argument("--longest-sequence", action="store_true", help="the longest sequence that fits")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="NAME=A,B,…",
        help="compare several values: method=full,lora,qlora; if repeated, every combination",
    )  # fmt: skip
    parser.add_argument(
        "--goal", metavar="GOAL",
        help="rank the variants of --vary that fit: step, tokens_per_s, tokens_per_s_per_gpu, mfu, memory, hours, cost "
        "(the last two with --tokens)",
    )  # fmt: skip
    parser.add_argument("--top", type=shared.whole(0), default=10, metavar="N", help="rows of where the time goes (10)")
    parser.add_argument("--explain", action="store_true", help="explain the step time, cause by cause")
    parser.add_argument("--no-advice", action="store_true", help="omit suggestions for making it fit, or faster")
    parser.add_argument("--html", type=OutFile(PAGE), metavar="FILE", help="write a report as one self-contained page")
    parser.add_argument(
        "--dot", type=OutFile(GRAPH), metavar="FILE", help="write forward and backward of the step as a GraphViz graph"
    )
    parser.add_argument("--trace", type=OutFile(JSON), metavar="FILE", help="write a timeline for Perfetto, .json")
    parser.add_argument(
        "--plot", type=OutFile(PICTURES), metavar="FILE",
        help="draw where time and memory go: .png, .svg or .pdf (extra plot)",
    )  # fmt: skip
    shared.add_json(parser)
    parser.set_defaults(command_function=train)


def train(options: argparse.Namespace) -> None:
    """Estimate one step, or search, and print the result."""
    asked = train_options.asked(options)
    if options.goal and not options.vary:
        raise ConfigError(f"--goal {options.goal} needs --vary, whose choices it ranks")
    if options.vary:
        print_varied(asked.train, options)
        return
    if options.largest_batch or options.longest_sequence:
        _search(dict(asked.train), options)
        return
    from graphsim.analysis.explain import explain
    from graphsim.training.plan import course_of, plan_of
    from graphsim.training.train import train as verb

    estimate = verb(**asked.train)
    with named_as_options():
        plan = plan_of(estimate, course_of(estimate, asked.course), options.price) if asked.course else None
    advice = None if options.no_advice else _advice(estimate)
    _write(estimate, plan, options)
    if options.json:
        found = estimate.to_dict() | ({} if plan is None else {"plan": plan.to_dict()})
        found |= {"config_notes": list(asked.notes)} if options.config else {}
        found |= {"explanation": explain(estimate).to_dict()} if options.explain else {}
        print_json(found | ({} if advice is None else {"advice": advice.to_dict()}))
        return
    print_step(estimate, options.top)
    for note in asked.notes:
        print_line(f"note: {note}")
    if options.explain:
        print_line()
        print_explanation(explain(estimate), options.top)
    if plan is not None:
        print_plan(plan)
    if advice is not None:
        print_advice(advice)


def _search(asked: dict[str, Any], options: argparse.Namespace) -> None:
    """Search for the largest number that fits, and print the step with it."""
    from graphsim.training.fits import largest_micro_batch, longest_sequence

    if options.largest_batch and options.longest_sequence:
        raise ConfigError("--largest-batch and --longest-sequence exclude each other; ask one question at a time")
    name, search = ("batch", largest_micro_batch) if options.largest_batch else ("seq_len", longest_sequence)
    if name in asked and getattr(options, name) is not None:
        raise ConfigError(f"--{name.replace('_', '-')} is the value to be found; leave it out")
    asked.pop(name, None)
    found = search(**asked)
    what = "largest micro-batch" if options.largest_batch else "longest sequence"
    unit = "sequences" if options.largest_batch else "tokens"
    estimate = _estimated(asked, {name: max(found, 1)})
    _write(estimate, None, options)
    if options.json:
        print_json({name: found, "step": estimate.to_dict() if found else None})
        return
    print_line(f"{what} that fits: {found:,} {unit}" if found else f"{what} that fits: none, not even 1 of {unit}")
    print_line()
    print_step(estimate, options.top)


def _estimated(asked: dict[str, Any], further: dict[str, Any]) -> TrainEstimate:
    from graphsim.training.train import train as verb

    return verb(**asked | further)


def _advice(estimate: TrainEstimate) -> TrainAdvice:
    from graphsim.training.advice import advice_of

    with RunProgress(0) as progress:
        return advice_of(estimate, progress.trying)


def _write(estimate: TrainEstimate, plan: Plan | None, options: argparse.Namespace) -> None:
    """Write the requested files."""
    if options.html:
        from graphsim.export.training_html import training_html

        training_html(estimate, options.html, plan=plan)
    if options.dot:
        from graphsim.export.training_dot import training_dot

        training_dot(estimate, options.dot)
    if options.trace:
        from graphsim.export.trace import to_trace

        to_trace(estimate, options.trace)
    if options.plot:
        save(estimate.plot(), Path(options.plot), "--plot")
    report_written(options, [getattr(options, name) for name in _FILES])
