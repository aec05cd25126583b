"""`graphsim models` and `graphsim hardware`: list the catalogs, or show one entry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from math import nan
from typing import TYPE_CHECKING, Any, TypeVar

from graphsim.cli import options as shared
from graphsim.cli.checkpoint import checkpoint_facts, print_checkpoint
from graphsim.cli.outputs import OutFile, report_written
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.cost.choose import caution
from graphsim.display.columns import figures_column
from graphsim.errors import ConfigError, GraphsimError
from graphsim.hardware import Hardware, list_hardware, load_hardware
from graphsim.models.config import ModelConfig
from graphsim.units import amount_text, bytes_text, scaled

if TYPE_CHECKING:
    from graphsim.models.checkpoint.report import CheckpointReport


Loaded = TypeVar("Loaded")


def add_commands(commands: Any) -> None:
    """Add `models` and `hardware`."""
    for name, function, one in (("models", models, "llama-3.1-8b"), ("hardware", hardware, "h100-sxm")):
        examples = f"examples:\n  graphsim {name}\n  graphsim {name} {one}\n  graphsim {name} my.yaml --json\n"
        parser = shared.add_command(commands, name, examples)
        parser.add_argument("name", nargs="?", metavar="NAME", help="show only this one")
        if function is models:
            shared.add_ignore(parser)
            parser.add_argument(
                "--capture", action="store_true",
                help="NAME is a config.json: capture the model from PyTorch and transformers (extra `torch`)",
            )  # fmt: skip
            parser.add_argument(
                "--save", type=OutFile((".yaml", ".yml", ".json")), metavar="FILE",
                help="write the model as a model file (.yaml, .json)",
            )  # fmt: skip
        shared.add_json(parser)
        parser.set_defaults(command_function=function)


def models(options: argparse.Namespace) -> None:
    """List models, or show one."""
    from graphsim.models.loading import list_models, load_model

    if options.name:
        _show_model(options)
        return
    if options.capture or options.save:
        raise ConfigError("NAME is missing; give the model to capture or save")
    found = _readable(load_model, list_models())
    if options.json:
        print_json([_model_facts(config) for config in found])
        return
    billions = figures_column([c.num_parameters / 1e9 for c in found])
    rows = [
        [c.name, f"{count} B", *(f"{size:,}" for size in (c.num_layers, c.hidden_size, c.vocab_size))]
        for c, count in zip(found, billions, strict=True)
    ]
    print_table(["model", "parameters", "layers", "hidden", "vocabulary"], rows, right=range(1, 5))


def _readable(load: Callable[[str], Loaded], names: Iterable[str]) -> list[Loaded]:
    """Everything that can be loaded; a file that cannot be loaded is reported on standard error and skipped."""
    found = []
    for name in names:
        try:
            found.append(load(name))
        except GraphsimError as error:
            sys.stderr.write(f"graphsim: left out {error}\n")
    return found


def _model_facts(config: ModelConfig) -> dict[str, Any]:
    return {
        "name": config.name,
        "parameters": config.num_parameters,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "tied_embeddings": config.tied_embeddings,
        "max_positions": config.max_positions,
        "source": config.source,
        "notes": list(config.notes),
    }


def _show_model(options: argparse.Namespace) -> None:
    from graphsim.graph import to_text
    from graphsim.models.build import build
    from graphsim.models.phase import prefill

    config, report = _loaded(options)
    if options.save:
        written = config.save(options.save)
        report_written(options, [written])
        if options.json:
            print_json({"written": [str(written)]})
        return
    facts, as_json = _model_facts(config), options.json
    precision = config.own_precision
    facts["precision"] = precision.name
    if as_json:
        print_json(facts | ({} if report is None else {"checkpoint": checkpoint_facts(report)}))
        return
    told = {key: value for key, value in facts.items() if key != "name" and value not in ("", [])}
    print_table(["model", config.name], [[key.replace("_", " "), _fact(value)] for key, value in told.items()])
    if report is not None:
        print_checkpoint(report)
    print_line("\noperations for one token:")
    print_line(to_text(build(config, prefill(1.0, 1.0), precision)))


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return amount_text(value) if isinstance(value, int | float) else str(value)


def _loaded(options: argparse.Namespace) -> tuple[ModelConfig, CheckpointReport | None]:
    """The model that the options name, and the report on its checkpoint if it has one."""
    from graphsim.models.loading import checkpoint_report, load_model

    if options.capture:
        from graphsim.models.capture import capture

        return capture(options.name), None
    config = load_model(options.name, check=False, ignore=options.ignore)
    return config, checkpoint_report(config, options.name, options.ignore)


def hardware(options: argparse.Namespace) -> None:
    """List devices, or show one."""
    if options.name:
        _show_hardware(load_hardware(options.name), options.json)
        return
    found = _readable(load_hardware, list_hardware())
    if options.json:
        print_json([_hardware_facts(device) for device in found])
        return
    peaks = [float(device.peak(sixteen)) if (sixteen := _sixteen_bits(device)) else nan for device in found]
    columns = [
        [device.name for device in found],
        [device.title for device in found],
        [text if peak != peak else f"{text} TFLOP/s" for text, peak in _in(peaks, 1e12)],
        [f"{text} GiB" for text, _ in _in([float(device.memory_bytes) for device in found], 2.0**30)],
        [f"{text} GB/s" for text, _ in _in([float(device.memory_bytes_per_s) for device in found], 1e9)],
        ["no" if caution(None, device) else "yes" for device in found],
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    print_table(["hardware", "device", "16 bit", "memory", "bandwidth", "measured"], rows, right=range(2, 5))


def _in(values: Sequence[float], unit: float) -> list[tuple[str, float]]:
    """Each value in a unit, as the text of a column and as a number."""
    return list(zip(figures_column([value / unit for value in values]), values, strict=True))


def _sixteen_bits(device: Hardware) -> str:
    """The 16-bit format of a device's matrix units: bf16, or fp16 on older devices."""
    return next((name for name in ("bf16", "fp16") if name in device.flops_per_s), "")


def _hardware_facts(device: Hardware) -> dict[str, Any]:
    return {
        "name": device.name,
        "title": device.title,
        "architecture": device.architecture,
        "flops_per_s": dict(device.flops_per_s),
        "vector_flops_per_s": device.vector_flops_per_s,
        "memory_bytes": device.memory_bytes,
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "cache_bytes": device.cache_bytes,
        "cores": device.cores,
        "clock_hz": device.clock_hz,
        "links": [
            {
                "name": link.name,
                "devices": link.devices,
                "bytes_per_s": link.bytes_per_s,
                "latency_s": link.latency_s,
                "topology": link.topology,
            }
            for link in (*device.links, device.host_link)
        ],
        "launch_s": device.launch_s,
        "eager_launch_s": device.eager_launch_s,
        "power_w": device.power_w,
        "sources": dict(device.sources),
        "caution": caution(None, device),
    }


def _show_hardware(device: Hardware, as_json: bool) -> None:
    facts = _hardware_facts(device)
    if as_json:
        print_json(facts)
        return
    rows = [[f"{name} peak", scaled(float(rate), "FLOP/s")] for name, rate in device.flops_per_s.items()]
    rows += [
        ["vector peak", scaled(float(device.vector_flops_per_s), "FLOP/s")],
        ["memory", f"{bytes_text(float(device.memory_bytes))} at {scaled(float(device.memory_bytes_per_s), 'B/s')}"],
        ["cache", bytes_text(float(device.cache_bytes))],
        ["cores", f"{amount_text(device.cores)} at {scaled(float(device.clock_hz), 'Hz')}"],
    ]
    for link in (*device.links, device.host_link):
        reach = f", up to {amount_text(link.devices)} devices ({link.topology})" if link in device.links else ""
        rows.append([link.name, f"{scaled(float(link.bytes_per_s), 'B/s')} per direction{reach}"])
    print_table([device.name, f"{device.title} ({device.architecture})"], rows)
    if facts["caution"]:
        print_line(f"\nnote: {facts['caution']}")
    print_line("\nsources:")
    for key, source in device.sources.items():
        print_line(f"  {key}: {source}")
