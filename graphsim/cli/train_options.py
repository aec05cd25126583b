"""Options of `graphsim train`, and the arguments of `gs.train` and of a run's plan made from them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.several import Names, add_price
from graphsim.cli.values import Quantity
from graphsim.errors import ConfigError

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig
    from graphsim.training.config_files.finish import TrainingFile
    from graphsim.training.setup import Method

STEP = {
    "method": ("M", "lora, qlora, full, pretrain, relora, dora, … (lora)"),
    "recipe": ("R", "whose code runs the step: peft, unsloth, torchtune, megatron-bridge, … or a YAML (peft)"),
    "recompute": ("R", "none, full or selective (as the recipe does)"),
    "optimizer": ("O", "adamw, adamw_8bit, paged_adamw, adafactor, muon, sgd, … (as the recipe does)"),
    "sharding": (
        "S",
        "ddp, zero1, zero2, zero3, fsdp1, fsdp2, shard_grad_op, distributed_optimizer (as the recipe does)",
    ),
    "schedule": ("S", "pipeline schedule: 1f1b, gpipe, interleaved, zb-h1, … (1f1b)"),
    "cp-comm": ("C", "how context-parallel ranks exchange keys and values: p2p, a2a or all_gather (p2p)"),
    "precision": ("P", "format of the weights: bf16, fp8, nf4, … (as published)"),
    "cost": ("MODEL", "calibrated or roofline (the device's best)"),
}
SIZES = {
    "batch": "sequences of a micro-batch on each data-parallel rank (1)",
    "seq-len": "tokens of each sequence (2048)",
    "accumulate": "micro-batches of an optimizer step (1)",
    "squares": "mean sum of squared document lengths of a micro-batch, where sequences are packed",
    "recompute-every": "recompute every n-th layer only (1)",
}
DEGREES = {
    "tp": "tensor parallel degree (1)", "pp": "pipeline stages (1)", "ep": "expert parallel degree (1)",
    "sp": "sequence parallel degree, 1 or tp (1)", "cp": "context parallel degree (1)",
    "dp": "data-parallel ranks (1)", "zero": "ZeRO stage, 0 to 3 (0)",
    "virtual-stages": "virtual stages of an interleaved pipeline (1)",
    "shard-group": "data-parallel ranks of a sharding group, replicated across groups (all)",
}  # fmt: skip
WORDS = ("schedule", "cp-comm")
"""Options for fields of `Parallelism` whose values are words."""

COURSE = {
    "tokens": ("N", "tokens of the whole run, such as 1e9 or 1B; prints its plan"),
    "epochs": ("N", "epochs of the dataset, instead of --tokens"),
    "steps": ("N", "optimizer steps, instead of --tokens"),
    "dataset-tokens": ("N", "tokens of the dataset"),
    "dataset-samples": ("N", "sequences of the dataset"),
    "evaluate-every": ("N", "steps between evaluations"),
    "evaluation-tokens": ("N", "tokens per evaluation"),
    "checkpoint-every": ("N", "steps between checkpoints (one at the end)"),
    "failure-device-hours": ("H", "device-hours between failures of the run (no failures)"),
    "relora-every": ("N", "steps between two merges of ReLoRA"),
    "warm-start-steps": ("N", "steps of full training before ReLoRA's first merge"),
    "rewarm-steps": ("N", "warm-up steps after each merge of ReLoRA"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add MODEL and all options for what is trained, how, and for how long."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a name (see `graphsim models`), a YAML file or a model folder"
    )
    parser.add_argument(
        "--hardware", required=True, metavar="HW", help="a name (see `graphsim hardware`) or a YAML file"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="use a model's config alone, without checking its checkpoint"
    )
    shared.add_ignore(parser)
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="FILE",
        help="a trainer's own files: Axolotl, LLaMA-Factory, torchtune; TrainingArguments, adapter_config.json; "
        "accelerate, DeepSpeed. Command-line options override them",
    )  # fmt: skip
    parser.add_argument(
        "--devices",
        type=shared.whole(1),
        metavar="N",
        help="number of devices, if the files of --config do not state it",
    )
    for name, (metavar, text) in STEP.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    for name, text in SIZES.items():
        parser.add_argument(f"--{name}", type=shared.number, metavar="N", help=text)
    for name, text in DEGREES.items():
        parser.add_argument(f"--{name}", type=shared.few, metavar="N", help=text)
    parser.add_argument(
        "--offload",
        type=Names(),
        metavar="A,B",
        help="what is kept in host memory: optimizer, parameters, activations",
    )
    parser.add_argument("--lora", metavar="SPEC", help=shared.ADAPTERS)
    shared.add_passes(parser)
    for name, (metavar, text) in COURSE.items():
        kind = Quantity("h" if metavar == "H" else "count")
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--disk", type=Quantity("bytes/s"), metavar="RATE",
        help="write rate of checkpoints, such as 2GB/s (1000MiB/s)",
    )  # fmt: skip
    add_price(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the options and a trainer's files ask for.

    train: arguments of `train`
    course: arguments of the whole run
    notes: remarks on the trainer's files for the user
    """

    train: dict[str, Any]
    course: dict[str, Any]
    notes: tuple[str, ...] = ()


def asked(options: argparse.Namespace) -> Asked:
    """The requested training; options take precedence over files. Raises ConfigError without a model."""
    file = _configured(options)
    found = {} if file is None else dict(file.train)
    found |= _given(options, (name for name in STEP if name not in WORDS))
    found |= _given(options, SIZES)
    if options.offload:
        found["offload"] = options.offload
    found["parallelism"] = _parallelism(found.get("parallelism"), _given(options, (*DEGREES, *WORDS)))
    if options.lora is not None:
        found["lora"] = _adapter(options, found.get("method", "lora"))
    if options.model is not None:
        found["model"] = shared.model(options)
    if "model" not in found:
        raise ConfigError("MODEL is missing, and no --config names one; give a name, a YAML file or a model folder")
    train = found | {"hardware": options.hardware, "passes": shared.passes(options)}
    course, missing = _course(options, {} if file is None else file.plan)
    return Asked(train=train, course=course, notes=(*_told(options, file), *missing))


def _adapter(options: argparse.Namespace, method: str | Method) -> LoraConfig | None:
    """The adapter that `--lora` describes. Raises ConfigError unless the method trains one."""
    from graphsim.training.methods import load_method

    found = shared.lora_config(options.lora)
    if found is not None and not options.vary and not (other := load_method(method)).adapters:
        raise ConfigError(f"--lora: method '{other.name}' trains no adapter; leave out --lora, or give --method lora")
    if found is None and not options.vary and (trained := load_method(method)).adapters:
        raise ConfigError(
            f"--lora {options.lora}: method '{trained.name}' trains an adapter; give --method full or pretrain, or "
            "another --lora"
        )
    return found


def _told(options: argparse.Namespace, file: TrainingFile | None) -> list[str]:
    """Remarks on a trainer's files, except those on settings that an option provides."""
    given = tuple(f"give {name}" for name in ("seq_len", "squares") if getattr(options, name) is not None)
    return [] if file is None else [note for note in file.notes if not note.endswith(given)]


def _given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The given options, by argument name."""
    values = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _parallelism(given: Any, degrees: dict[str, Any]) -> Any:
    from graphsim.deployment.parallelism import Parallelism

    known = {field.name for field in fields(Parallelism)}
    before = {} if given is None else {name: getattr(given, name) for name in known}
    return Parallelism(**before | degrees)


def _configured(options: argparse.Namespace) -> TrainingFile | None:
    """The settings in the trainer's own files; None if there are none."""
    if not options.config:
        if options.devices is not None:
            raise ConfigError(f"--devices {options.devices} needs --config; without one, give --dp, --tp and so on")
        return None
    from graphsim.training.config_files.reader import read_training_config

    named = None if options.model is None else shared.model(options)
    ignored = "all" if options.ignore == "all" else [key for key in options.ignore.split(",") if key]
    return read_training_config(*options.config, devices=options.devices, model=named, ignore=ignored)


def _course(options: argparse.Namespace, file: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of the run, empty if no run is requested, and notes on what is missing for the files' run."""
    given = _given(options, COURSE) | ({"disk_bytes_per_s": options.disk} if options.disk else {})
    lengths, sizes = {"tokens", "epochs", "steps"}, {"dataset_tokens", "dataset_samples"}
    known = {name: value for name, value in file.items() if not (name in lengths and lengths & given.keys())}
    whole = known | given
    if not lengths & whole.keys():
        for name in given:
            flag = name.removesuffix("_bytes_per_s").replace("_", "-")
            raise ConfigError(f"--{flag} applies to a whole run; give --tokens, --epochs or --steps with it")
        return {}, []
    if "epochs" in file and "epochs" not in given and "epochs" in whole and not sizes & whole.keys():
        return {}, ["the files say epochs and not how large the dataset is; --dataset-samples gives the whole run"]
    return whole, []
