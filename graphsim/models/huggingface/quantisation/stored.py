"""The result of a method's reader: how a checkpoint stores each module and the KV cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.names import Test, any_name, is_linear, is_output, transformers_list
from graphsim.models.quantised import Module
from graphsim.ops.formats import FORMATS, Format

Choose = Callable[[Module], Format | None]
"""Returns the format of a module; None if it is not quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How a checkpoint stores its modules.

    choose: returns the format of a module
    cache: format of cached keys and values
    """

    choose: Choose
    cache: Format | None = None
    notes: tuple[str, ...] = ()


def linears(own: Format, skipped: Test | None, experts: Format | None = None) -> Choose:
    """A choice of every nn.Linear except those in a list; without a list, every one except the output head.

    transformers 5.24, `HfQuantizer.get_modules_to_not_convert`: an explicit list replaces the default one, which
    consists of the output head and tied weights.
    """

    def choose(module: Module) -> Format | None:
        if not is_linear(module) and not (skipped is not None and is_output(module)):
            return None
        if skipped is not None and any_name(module, skipped):
            return None
        return experts if experts is not None and module.kind.value == "experts" else own

    return choose


def strings(quant: Fields, *keys: str) -> list[str] | None:
    """The entries of the lists under these keys; None if the config has none of them."""
    found: list[str] | None = None
    for key in keys:
        if key in quant:
            entries = quant.sequence(key)
            if not all(isinstance(entry, str) for entry in entries):
                quant.problem(key, "is not allowed; expected a list of names")
                entries = []
            found = (found or []) + [entry for entry in entries if entry]
    return found


def kept_out(quant: Fields, *keys: str) -> Test | None:
    """A test for modules that transformers excludes by the lists under these keys; None if there are no lists."""
    entries = strings(quant, *keys)
    if entries is None:
        return None
    try:
        return transformers_list(entries)
    except re.error as error:
        quant.problems.append(f"quantization_config.{keys[0]} has an entry that is not a regular expression ({error})")
        return None


def refused(quant: Fields, what: str) -> None:
    """Note a problem with a feature of a checkpoint that is not simulated."""
    quant.problems.append(f"quantization_config: {what} is not simulated; give precision= a format that comes close")


def cache_format(bits: int, floating: bool) -> Format | None:
    """The format of cached keys and values; None if they are not quantised."""
    return FORMATS["fp8" if floating else "int8"] if bits == 8 else FORMATS["nvfp4"] if bits == 4 else None


def first_of(tests: Iterable[tuple[Test, Format | None]], module: Module) -> tuple[bool, Format | None]:
    """Whether a test in an ordered list matches the module, and the format of the first that does."""
    for test, own in tests:
        if any_name(module, test):
            return True, own
    return False, None
