"""What transformers saves for a family is what its structure has; one tensor that is otherwise is found and named."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from graphsim.models.checkpoint.compare import compare
from graphsim.models.checkpoint.names import ENDS, is_buffer, is_correction, plain, scope_of
from graphsim.models.checkpoint.report import CheckpointReport, Difference
from graphsim.models.checkpoint.spellings import Speller
from graphsim.models.huggingface import from_config
from tests.models.checkpoint.folders import Header, saved, saved_models, size, stored, tensors_of

QUICK = (
    "bart", "dbrx", "deepseek_v4", "gemma3", "gemma3n_text", "gemma4_text", "gpt2", "granitemoeshared", "jetmoe",
    "llama4_text", "minimax", "nemotron_h", "qwen3", "stablelm", "zamba2",
)  # fmt: skip
"""Each has something that the others have not, and few tensors."""

KINDS = [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in sorted(saved_models())]


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_saves_is_explained_whole(kind: str) -> None:
    config, header = saved(kind)
    report = compare(from_config(config, kind, ("all",)), stored(header))
    assert report.differences == ()
    uncounted = sum(size(*entry) for name, entry in header.items() if is_buffer(name))
    assert report.explained_bytes == report.checkpoint_bytes - uncounted
    corrections = sum(size(*entry) // 2 for name, entry in header.items() if is_correction(name))
    assert report.parameters <= (report.checkpoint_parameters or 0) <= report.parameters + corrections


NAMELESS = (".A_log", ".D", ".dt_bias", ".conv1d.weight", ".conv1d.bias", ".scale", ".per_expert_scale")
"""Weights of a scan and the like: the structure has no name for them, and a layer that is the only one of its kind has
no other to be compared with."""

WAYS = ("drop", "rename", "turn", "narrow", "widen", "grow")


def mutated(header: Header, way: str, rng: random.Random, spell: Speller) -> tuple[str, Header]:
    """One tensor dropped, renamed, turned, in fewer bits, in more bits, or larger; and which it is."""
    names = [name for name in header if not is_buffer(name) and not is_correction(spell(name))]
    if way == "rename":
        alike = Counter(re.sub(r"\d+", "#", name) for name in names)
        names = [name for name in names if alike[re.sub(r"\d+", "#", name)] > 1 or not name.endswith(NAMELESS)]
    if way in ("turn", "widen"):
        names = [name for name in names if len(header[name][1]) == 2 and len(set(header[name][1])) == 2]
    name = rng.choice(names)
    changed = dict(header)
    dtype, shape = changed.pop(name)
    if way == "rename":
        changed[f"{name}x"] = (dtype, shape)
    elif way != "drop":
        other = {"turn": shape[::-1], "grow": (*shape[:-1], shape[-1] + 8)}.get(way, shape)
        changed[name] = ({"narrow": "F8_E4M3", "widen": "F32"}.get(way, dtype), other)
    return name, changed


def names_it(report: CheckpointReport, tensor: str, way: str) -> bool:
    """Whether the report names the tensor, its module, or the weights without names in its layer."""
    if any(_is_of(tensor, difference) for difference in report.differences):
        return True
    words = [plain(word) for note in report.notes for word in note.split()] if way == "widen" else []
    module = tensor.removesuffix(".weight")
    ends = next((names for names in ENDS if module in names), {module})
    return any(f"{tensor}.".startswith(f"{word}.") or word in ends for word in words)


def _is_of(tensor: str, difference: Difference) -> bool:
    named = plain(difference.module)
    module = tensor.rpartition(".")[0]
    if any(module in names and named in names for names in ENDS):
        return True
    if "weights in the structure" in difference.text:
        return scope_of(named) == scope_of(tensor)
    return (
        f"{tensor}.".startswith(f"{named}.")
        or named.startswith(module)
        or tensor.removesuffix(".weight") in plain(difference.text)
    )


def check(kind: str, rounds: int) -> None:
    config, header = saved(kind)
    experts = config.get("text_config", config).get("moe_num_experts", 0)
    model, spell = from_config(config, kind, ("all",)), Speller(kind, experts)
    for i in range(rounds):
        for way in WAYS:
            name, changed = mutated(header, way, random.Random(f"{kind} {way} {i}"), spell)
            report = compare(model, stored(changed))
            assert names_it(report, plain(spell(name)), way), (way, name, report.differences[:3], report.notes)


@pytest.mark.parametrize("kind", QUICK)
def test_one_tensor_that_is_otherwise_is_named(kind: str) -> None:
    check(kind, rounds=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in sorted(saved_models()) if tensors_of(kind) < 1_500])
def test_any_tensor_that_is_otherwise_is_named(kind: str) -> None:
    """Three tensors in each way: what is compared and named is one code for all families, which are over 200."""
    check(kind, rounds=3)
