"""Options shared by several commands, and the objects that they describe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from graphsim.cli.adapters import LORA_KEYS
from graphsim.cli.adapters import lora_config as lora_config
from graphsim.cli.listing import text_of
from graphsim.cli.values import Quantity, Whole

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.graph import Pass
    from graphsim.models.config import ModelConfig
    from graphsim.models.media import Media
    from graphsim.speculation.speculation import Speculation

DEGREES = {
    "tp": "tensor parallel degree", "pp": "pipeline stages", "ep": "expert parallel degree",
    "cp": "context parallel degree: ranks that share the tokens of prompts",
    "sp": "sequence parallel degree, 1 or tp", "dp": "replicas that share the batch",
}  # fmt: skip
number, few, whole = Quantity(), Quantity("few"), Whole
"""Types of options: a count, a small count such as a degree, and integers with a lower bound."""

ADAPTERS = (
    "none, or rank=16,targets=attn+ffn,strategy=dynamic,…, or PEFT folders or YAML files, A,B, and then ,key=value"
)
"""Syntax of `--lora` in every command."""

_EXPERTS = ("expert_placement", "redundant_experts")


def add_command(commands: Any, name: str, examples: str) -> argparse.ArgumentParser:
    """Add a command of the listing, with examples at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text_of(name), epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add MODEL and --hardware."""
    parser.add_argument(
        "model", metavar="MODEL", help="a name (see `graphsim models`), a YAML file, a model folder or a GGUF file"
    )
    add_ignore(parser)
    parser.add_argument(
        "--hardware", required=True, metavar="HW", help="a name (see `graphsim hardware`) or a YAML file"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="use a model's config alone, without checking its checkpoint"
    )


def model(options: argparse.Namespace) -> str | ModelConfig:
    """The model that MODEL names; loaded here if its checkpoint must not be checked or keys are ignored."""
    from graphsim.models.loading import load_model

    named: str = options.model
    if not options.no_check and not options.ignore:
        return named
    return load_model(named, check=not options.no_check, ignore=options.ignore)


def add_ignore(parser: argparse.ArgumentParser) -> None:
    """Add --ignore."""
    parser.add_argument(
        "--ignore", default="", metavar="KEYS",
        help="unknown keys of the config.json to ignore: a,b,… or all",
    )  # fmt: skip


def add_requests(parser: argparse.ArgumentParser) -> None:
    """Add --batch, --input and --output."""
    parser.add_argument("--batch", type=number, default=1, metavar="N", help="requests served together (1)")
    parser.add_argument("--input", type=number, default=512, metavar="N", help="prompt tokens of each (512)")
    parser.add_argument("--output", type=number, default=128, metavar="N", help="tokens generated for each (128)")


def add_media(parser: argparse.ArgumentParser) -> None:
    """Add --images, --image-size and --audio-s."""
    parser.add_argument("--images", type=whole(0), default=0, metavar="N", help="images in each prompt (0)")
    parser.add_argument(
        "--image-size", type=_sides, default=(1024, 1024), metavar="HxW", help="pixels of each image (1024x1024)"
    )
    parser.add_argument(
        "--audio-s", type=Quantity("s"), default=0, metavar="S", help="seconds of sound in each prompt (0)"
    )


def media(options: argparse.Namespace) -> Media | None:
    """The media that the options of `add_media` describe; None for text-only prompts."""
    from graphsim.models.media import Media

    found = Media(images=options.images, image_size=options.image_size, audio_s=options.audio_s)
    return found if found.is_any else None


def _sides(text: str) -> tuple[int, int]:
    high, _, wide = text.lower().partition("x")
    if high.isdecimal() and wide.isdecimal():
        return int(high), int(wide)
    raise argparse.ArgumentTypeError(f"'{text}' is not height x width in pixels, such as 1080x1920")


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """Add the options for parallel degrees, precision, adapter and cost model."""
    for name, text in DEGREES.items():
        parser.add_argument(f"--{name}", type=few, default=1, metavar="N", help=f"{text} (1)")
    parser.add_argument(
        "--expert-placement", default="random", metavar="P",
        help="how experts are placed on ranks: random, contiguous or balanced (random)",
    )  # fmt: skip
    parser.add_argument(
        "--redundant-experts", type=few, default=0, metavar="N",
        help="extra copies of popular experts, with balanced placement (0)",
    )  # fmt: skip
    parser.add_argument("--precision", metavar="P", help="bf16, fp8, nvfp4, int4, …; `fp8,kv=fp8` for the cache too")
    further = ", ".join(key for key in LORA_KEYS if key not in ("rank", "targets", "strategy"))
    parser.add_argument("--lora", metavar="SPEC", help=f"{ADAPTERS} (further keys: {further})")
    parser.add_argument(
        "--engine", metavar="E", help="whose kernels run: vllm, sglang, … or a YAML file (vllm; for graphs, reference)"
    )
    parser.add_argument("--cost", metavar="MODEL", help="calibrated or roofline (the device's best)")
    add_passes(parser)


def add_speculation(parser: argparse.ArgumentParser) -> None:
    """Add --speculation."""
    parser.add_argument(
        "--speculation", metavar="SPEC",
        help="a draft whose tokens the model verifies: draft=MODEL|mtp|ngram,tokens=3,acceptance=0.8 (0.8/0.7/0.6 for "
        "each position; 0:0.2/3:0.8 for a distribution; draft_tp, precision, seed)",
    )  # fmt: skip


def speculation(options: argparse.Namespace) -> Speculation | None:
    """The speculation that `--speculation` describes; None without it."""
    if options.speculation is None:
        return None
    from graphsim.speculation.parsing import speculation_of

    return speculation_of(options.speculation)


def add_passes(parser: argparse.ArgumentParser) -> None:
    """Add --pass."""
    parser.add_argument(
        "--pass", action="append", default=[], dest="passes", metavar="MODULE:NAME",
        help="a custom pass applied to every graph; may be given several times",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def deployment(options: argparse.Namespace) -> Deployment:
    """The deployment that MODEL, --hardware and the options of `add_deployment` describe."""
    from graphsim.deployment.deployment import Deployment
    from graphsim.deployment.parallelism import Parallelism

    return Deployment(
        model(options), options.hardware, precision=options.precision, cost=options.cost, engine=options.engine,
        parallelism=Parallelism(**{name: getattr(options, name) for name in (*DEGREES, *_EXPERTS)}),
        lora=lora_config(options.lora, getattr(options, "batch", 1)), passes=passes(options),
    )  # fmt: skip


def passes(options: argparse.Namespace) -> list[Pass]:
    """The passes that `--pass` names, from modules on Python's path, including the working folder."""
    if not options.passes:
        return []
    from graphsim.passes.loading import load_pass

    if "" not in sys.path:
        sys.path.insert(0, "")
    return [load_pass(ref) for ref in options.passes]


def requests(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_requests` as arguments of `simulate` and similar functions."""
    return {"batch": options.batch, "input_tokens": options.input, "output_tokens": options.output}
