"""Options that several commands share, and how their texts become objects."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphsim.config import Parallelism
from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig

_LORA_KEYS = {
    "rank": "rank",
    "targets": "target_modules",
    "strategy": "strategy",
    "adapters": "active_adapters",
    "share": "adapter_share",
    "max_loras": "max_loras",
    "max_rank": "max_lora_rank",
    "dtype": "lora_dtype",
    "fully_sharded": "fully_sharded_loras",
    "tp_scheme": "tp_scheme",
    "mixed_ranks": "mixed_ranks",
}


def add_command(commands: Any, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    """A command with examples at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL and --hardware."""
    parser.add_argument("model", metavar="MODEL", help="a name (see `graphsim models`), a YAML file or a config.json")
    parser.add_argument(
        "--hardware", required=True, metavar="HW", help="a name (see `graphsim hardware`) or a YAML file"
    )


def add_requests(parser: argparse.ArgumentParser) -> None:
    """--batch, --input, --output."""
    parser.add_argument("--batch", type=_number, default=1, metavar="N", help="requests served together (1)")
    parser.add_argument("--input", type=_number, default=512, metavar="N", help="prompt tokens of each (512)")
    parser.add_argument("--output", type=_number, default=128, metavar="N", help="tokens generated for each (128)")


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """Parallel degrees, precision, adapter, cost model."""
    for name, text in (("tp", "tensor parallel degree"), ("pp", "pipeline stages"), ("ep", "expert parallel degree")):
        parser.add_argument(f"--{name}", type=_number, default=1, metavar="N", help=f"{text} (1)")
    parser.add_argument("--sp", type=_number, default=1, metavar="N", help="sequence parallel degree, 1 or tp (1)")
    parser.add_argument("--dp", type=_number, default=1, metavar="N", help="replicas that share the batch (1)")
    parser.add_argument("--precision", metavar="P", help="bf16, fp8, nvfp4, int4, …; `fp8,kv=fp8` for the cache too")
    further = ", ".join(key for key in _LORA_KEYS if key not in ("rank", "targets", "strategy"))
    parser.add_argument(
        "--lora",
        metavar="SPEC",
        help=f"rank=16,targets=attn+ffn,strategy=dynamic (further keys: {further}), or a PEFT adapter's folder",
    )
    parser.add_argument(
        "--engine", default="reference", metavar="E", help="whose kernels run: vllm, sglang, … or a YAML"
    )
    parser.add_argument("--cost", metavar="MODEL", help="calibrated or roofline (the device's best)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def whole(least: int) -> Callable[[str], int]:
    """What reads a whole number that is not below `least`."""

    def read(text: str) -> int:
        if text.strip().removeprefix("-").isdecimal() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} on")

    return read


def parallelism(options: argparse.Namespace) -> Parallelism:
    """The degrees that were given."""
    return Parallelism(tp=options.tp, pp=options.pp, ep=options.ep, sp=options.sp, dp=options.dp)


def lora_config(text: str | None) -> LoraConfig | None:
    """A LoraConfig from `rank=16,targets=attn+ffn,strategy=dynamic` or from a PEFT adapter's folder or file.

    Raises ConfigError naming the key and what is allowed.
    """
    if text is None:
        return None
    if not text.strip():
        raise ConfigError("--lora: is empty; write key=value,… or the path of a PEFT adapter")
    if "=" not in text:
        path = Path(text).expanduser()
        if not path.exists():
            raise ConfigError(f"--lora {text}: no such adapter; write key=value,… or the path of a PEFT adapter")
        return LoraConfig.from_peft(path)
    fields: dict[str, Any] = {}
    for entry in text.split(","):
        key, _, value = entry.partition("=")
        if key not in _LORA_KEYS:
            raise ConfigError(f"--lora: '{key}' is not a known key; {choices_text(key, _LORA_KEYS)}")
        if _LORA_KEYS[key] in fields:
            raise ConfigError(f"--lora: '{key}' is given twice")
        fields[_LORA_KEYS[key]] = _lora_value(key, value)
    return LoraConfig(**fields)


def _lora_value(key: str, value: str) -> Any:
    if not value:
        raise ConfigError(f"--lora: '{key}' has no value")
    if key == "targets":
        return value if value == "all-linear" else tuple(value.split("+"))
    if key == "mixed_ranks":
        return tuple(_lora_value("rank", rank) for rank in value.split("+"))
    if key in ("strategy", "dtype", "tp_scheme"):
        return value
    if key == "fully_sharded":
        if value not in ("true", "false"):
            raise ConfigError(f"--lora: fully_sharded = '{value}' is not allowed; expected true or false")
        return value == "true"
    try:
        return _number(value)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--lora: {key} = {error}") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    return int(number) if number.is_integer() else number
