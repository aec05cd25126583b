"""`graphsim lora`: comparison of base, dynamic and merged adapter, and when merging pays off."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.basis import print_basis, served_basis
from graphsim.cli.fit import print_what_would_fit
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.display.columns import bytes_column, numbers_column, times_column
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.lora.config import LoraConfig
from graphsim.units import amount_text, bytes_text

if TYPE_CHECKING:
    import pandas as pd

    from graphsim.deployment.deployment import Deployment

EXAMPLES = """examples:
  graphsim lora llama-3.1-8b --hardware h100-sxm --batch 8
  graphsim lora llama-2-7b --hardware l4 --lora rank=64,targets=q_proj+v_proj
  graphsim lora llama-2-7b --hardware l4 --lora my-adapter/ --modules
"""


def add_commands(commands: Any) -> None:
    """Add `lora`."""
    parser = shared.add_command(commands, "lora", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument(
        "--modules", action="store_true", help="only list which modules have an adapter and which do not"
    )
    shared.add_json(parser)
    parser.set_defaults(command_function=lora)


def lora(options: argparse.Namespace) -> None:
    """Compare and print."""
    from graphsim.analysis.advice import lora_advice
    from graphsim.analysis.compare import compare_lora
    from graphsim.deployment.arguments import inference_of
    from graphsim.simulation import lora_parameters

    given = LoraConfig() if options.lora is None else shared.lora_config(options.lora, options.batch)
    if given is None:
        _print_base(options)
        return
    config: LoraConfig = given
    if options.modules:
        _print_modules(options, config)
        return
    deployment, requests = replace(shared.deployment(options), lora=config), shared.requests(options)
    frame = compare_lora(deployment, **requests)
    parameters = lora_parameters(shared.model(options), config)
    slot = _slot(deployment, options.input + options.output)
    advice, basis = lora_advice(deployment, **requests), served_basis(deployment)
    if options.json:
        strategies = {name: row.to_dict() for name, row in frame.iterrows()}
        found = {
            "basis": basis.to_dict(),
            "adapter_parameters": parameters,
            "slot": slot,
            "strategies": strategies,
            "advice": advice.to_dict(),
        }
        print_json(found)
        return
    print_basis([basis])
    print_line(f"adapter: {parameters:,} parameters, rank {config.rank}\n")
    _print_strategies(frame)
    print_line(f"\n{advice}")
    if not frame["fits"].all():
        print_what_would_fit(inference_of(deployment, **requests))
    if slot:
        amount = f"or {slot['requests']:.2f} requests of {amount_text(options.input + options.output)} tokens"
        print_line(f"each slot takes {bytes_text(slot['bytes'])}: {slot['kv_tokens']:.0f} tokens of KV cache, {amount}")
    for note in config.notes:
        print_line(f"note: {note}")


def _print_base(options: argparse.Namespace) -> None:
    """Print the row of the base model, the only one without an adapter."""
    from graphsim.analysis.compare import compare_lora
    from graphsim.deployment.arguments import inference_of

    if options.modules:
        raise ConfigError(f"--lora {options.lora}: --modules lists the modules of an adapter; leave out one of the two")
    deployment, requests = shared.deployment(options), shared.requests(options)
    base, basis = compare_lora(deployment, **requests).loc[["base"]], served_basis(deployment)
    if options.json:
        strategies = {"base": base.loc["base"].to_dict()}
        told = {"basis": basis.to_dict(), "adapter_parameters": 0, "slot": {}, "strategies": strategies, "advice": None}
        print_json(told)
        return
    print_basis([basis])
    print_line("adapter: none\n")
    _print_strategies(base)
    if not base["fits"].all():
        print_what_would_fit(inference_of(deployment, **requests))


def _print_strategies(frame: pd.DataFrame) -> None:
    columns = [
        [str(name) for name in frame.index],
        times_column(frame["ttft_s"].tolist()),
        times_column(frame["tpot_s"].tolist()),
        numbers_column(frame["tokens_per_s"].tolist()),
        [f"{value:+.1%}" for value in frame["overhead"]],
        times_column(frame["one_time_s"].tolist()),
        bytes_column(frame["memory_bytes"].tolist()),
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    print_table(["strategy", "TTFT", "TPOT", "tokens/s", "latency", "once", "memory"], rows, right=range(1, 7))


def _slot(deployment: Deployment, tokens: float) -> dict[str, float]:
    """What each slot takes from the KV cache; empty if there are no slots, or no cache that grows."""
    from graphsim.analysis.slots import footprint

    try:
        found = footprint(deployment)
    except InfeasibleError:
        return {}
    if not found.slots or not found.kv_token_bytes:
        return {}
    requests = float(found.concurrency_per_slot(tokens))
    return {"bytes": float(found.slot_bytes), "kv_tokens": float(found.kv_tokens_per_slot), "requests": requests}


def _print_modules(options: argparse.Namespace, config: LoraConfig) -> None:
    """Print identical modules as one line, with the number of layers that have them."""
    from graphsim.analysis.match_report import match_report

    report = match_report(shared.model(options), config)
    if options.json:
        print_json(report.to_dict("records"))
        return
    report["name"] = report["module"].str.rpartition(".")[2]
    rows = []
    alike = ["name", "rank", "in_features", "out_features", "experts"]
    for (name, rank, *sizes), group in report.groupby(alike, sort=False):
        numbers = [len(group), *sizes, rank, group["parameters"].sum()]
        rows.append([str(name), *(f"{number:,}" for number in numbers)])
    print_table(["module", "times", "in", "out", "experts", "rank", "parameters"], rows, right=range(1, 7))
    reached = int(report["matched"].sum())
    print_line(f"\n{reached} of {len(report)} modules reached, {report['parameters'].sum():,} parameters")
