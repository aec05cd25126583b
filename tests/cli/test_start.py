"""The program starts at once: a command imports what it uses and no more; without a command it prints the help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from graphsim.cli import main
from graphsim.cli.commands import parser
from graphsim.cli.listing import COMMANDS, module_of, text_of
from graphsim.cli.parsing import subparsers

RUN = ("run", "gpt-2", "--hardware", "l4")
LOADED = """
import sys
from graphsim.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
sys.stderr.write(repr((status, sorted(sys.modules))))
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a process has imported at the end of a command."""
    command = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    status, names = eval(done.stderr)
    assert not status and done.stdout
    return set(names)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()], ids=" ".join)
def test_help_imports_no_large_library_and_no_command(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert not loaded & {"numpy", "pandas", "networkx", "yaml"}
    assert not loaded & {f"graphsim.cli.{module}" for module in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--lora", "rank=8"), ("--json",)], ids=" ".join)
def test_run_imports_neither_pandas_nor_exporters_nor_other_commands(extra: tuple[str, ...]) -> None:
    loaded = loaded_by(*RUN, *extra)
    assert not loaded & {"pandas", "matplotlib", "plotly", "pyarrow", "scipy"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("graphsim.")}
    assert not rooms & {"export", "serving", "traffic", "training", "sweeps", "analysis", "calibration", "validation"}
    assert loaded & {f"graphsim.cli.{module}" for module in COMMANDS} == {"graphsim.cli.run"}


UNUSED = (
    "numpy.ma", "graphsim.speculation.parsing", "graphsim.passes.loading",
    "graphsim.models.capture", "graphsim.models.huggingface", "graphsim.models.checkpoint",
    "graphsim.models.yaml.nodes",
    "graphsim.models.layers.custom", "graphsim.models.layers.ssm", "graphsim.models.layers.mla",
    "graphsim.ops.gradients", "graphsim.ops.lora_experts", "graphsim.ops.lora_variants",
    "graphsim.ops.modules", "graphsim.ops.media", "graphsim.ops.streams", "graphsim.ops.classes",
    "graphsim.ops.lora", "graphsim.ops.lora_kernels", "graphsim.ops.overrides", "graphsim.ops.experts",
    "graphsim.ops.dispatch", "graphsim.ops.collectives", "graphsim.ops.sparse", "graphsim.ops.scan",
    "graphsim.ops.grouped", "graphsim.ops.custom", "graphsim.ops.joins", "graphsim.ops.fused_blocks",
    "graphsim.cost.stack", "graphsim.cost.families.moe", "graphsim.cost.families.collectives",
    "graphsim.cost.families.expert_exchange", "graphsim.cost.families.recurrent", "graphsim.cost.families.sparse",
    "graphsim.models.layers.moe", "graphsim.models.layers.encoder", "graphsim.models.yaml.encoders",
    "graphsim.files.model_names", "graphsim.files.device_names", "graphsim.compile.manifest", "graphsim.cli.several",
    "graphsim.passes.gradients", "graphsim.passes.shard", "graphsim.passes.experts", "graphsim.passes.lower",
    "graphsim.passes.modules", "graphsim.passes.launches", "graphsim.passes.two_batches", "graphsim.graph.validation",
)  # fmt: skip
"""What a plain estimate of a dense model on one device has no use for, with all that is in it."""
WITH_AN_ADAPTER = ("graphsim.lora.config", "graphsim.lora.injection", "graphsim.lora.variants", "graphsim.lora.targets")


@pytest.mark.slow
def test_run_imports_only_what_the_estimate_needs() -> None:
    loaded = loaded_by("run", "llama-2-7b", "--hardware", "a100-sxm-80gb")
    unused = (*UNUSED, *WITH_AN_ADAPTER)
    assert not [name for name in loaded if f"{name}.".startswith(tuple(f"{part}." for part in unused))]
    assert len([name for name in loaded if name.startswith("graphsim.")]) <= 220
    adapted = loaded_by("run", "llama-2-7b", "--hardware", "a100-sxm-80gb", "--lora", "rank=8")
    assert set(WITH_AN_ADAPTER) <= adapted


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out == parser().format_help() and err == ""


def test_the_listing_names_what_the_modules_add() -> None:
    added = subparsers(parser())
    assert list(added) == [name for texts in COMMANDS.values() for name in texts]
    for name in added:
        alone = subparsers(parser([name, "--help"]))
        assert alone[name].format_help() == added[name].format_help()
        assert list(alone) == list(added) and text_of(name) in parser(["--help"]).format_help().replace(
            "\n" + 15 * " ", " "
        )
        assert module_of(name) in COMMANDS
    assert module_of("rum") == ""
