"""The list of commands and their purposes, available before any of their modules is imported."""

from __future__ import annotations

COMMANDS: dict[str, dict[str, str]] = {
    "run": {"run": "latency, throughput and memory of a model on a device"},
    "lora": {"lora": "merge the adapter, or apply it dynamically?"},
    "fit": {"fit": "what fits: batch, context, KV cache, adapters, and the fewest devices"},
    "serve": {"serve": "many requests over time: latencies, goodput, capacity"},
    "fleet": {"fleet": "the cheapest fleet that meets latency limits under given traffic"},
    "train": {"train": "one step of fine-tuning or pre-training: time, memory, plan"},
    "explain": {"explain": "where an estimate's time comes from, or why two times differ"},
    "explore": {"explore": "an interactive page for what-if questions"},
    "sweep": {"sweep": "simulate all combinations of many choices"},
    "best": {"best": "the best deployment for a goal, under limits"},
    "sensitivity": {"sensitivity": "how latency depends on bandwidth, peak, launch, link, rank and batch"},
    "export": {"export": "write a graph, a timeline, a trace or a report"},
    "catalog": {"models": "list models, or show one", "hardware": "list devices, or show one"},
    "validate": {"validate": "score predictions against measured or counted facts"},
    "calibration": {
        "calibrate": "fit a device's constants to kernel measurements",
        "measure": "time kernels on this machine with PyTorch",
    },
    "doctor": {"doctor": "what is installed, and what the catalogs contain"},
    "completion": {"completion": "print a shell's completion script"},
}
"""One-line descriptions of commands, by module of `graphsim.cli` and name, in the order of the help."""

_TEXTS = {name: text for commands in COMMANDS.values() for name, text in commands.items()}
_MODULES = {name: module for module, commands in COMMANDS.items() for name in commands}


def text_of(command: str) -> str:
    """The one-line description of a command."""
    return _TEXTS[command]


def module_of(command: str) -> str:
    """The module of `graphsim.cli` that adds a command; "" if there is no such command."""
    return _MODULES.get(command, "")
