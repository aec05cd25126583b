"""What transformers saves for a family is what its structure has, and one tensor that is otherwise is found and named."""

from __future__ import annotations

import random

import pytest

from graphsim.models.checkpoint.compare import compare
from graphsim.models.checkpoint.names import is_buffer, is_correction, plain
from graphsim.models.checkpoint.report import Difference
from graphsim.models.huggingface import from_config
from tests.models.checkpoint.folders import Header, saved, saved_models, size, stored

KINDS = sorted(saved_models())
SMALL = [kind for kind in KINDS if len(saved(kind)[1]) < 1_000]
BUFFERS = {"minimax": 4, "gemma4_text": 1, "apertus": 2, "falcon_h1": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_saves_is_explained_whole(kind: str) -> None:
    config, header = saved(kind)
    report = compare(from_config(config, kind), stored(header))
    assert report.differences == ()
    uncounted = sum(size(*entry) for name, entry in header.items() if is_buffer(name))
    assert report.explained_bytes == report.checkpoint_bytes - uncounted
    corrections = sum(size(*entry) // 2 for name, entry in header.items() if is_correction(name))
    assert report.parameters <= (report.checkpoint_parameters or 0) <= report.parameters + corrections


def mutations(header: Header, rng: random.Random) -> list[tuple[str, str, Header]]:
    """One tensor dropped, renamed, turned, narrowed, grown."""
    names = [name for name in header if not is_buffer(name) and not is_correction(name)]
    out = []
    for way in ("drop", "rename", "turn", "narrow", "grow"):
        usable = [n for n in names if way != "turn" or len(header[n][1]) == 2 and len(set(header[n][1])) == 2]
        name = rng.choice(usable)
        changed = dict(header)
        dtype, shape = changed.pop(name)
        if way == "rename":
            changed[f"{name}x"] = (dtype, shape)
        elif way != "drop":
            other = {"turn": shape[::-1], "grow": (*shape[:-1], shape[-1] + 8), "narrow": shape}[way]
            changed[name] = ("F8_E4M3" if way == "narrow" else dtype, other)
        out.append((way, name, changed))
    return out


def is_of(tensor: str, difference: Difference) -> bool:
    """Whether a difference names the tensor, its module, or the weight without a name in its layer."""
    module = plain(difference.module)
    return (
        f"{tensor}.".startswith(f"{module}.")
        or module.startswith(tensor.rpartition(".")[0])
        or tensor in plain(difference.text)
    )


@pytest.mark.parametrize("kind", SMALL)
def test_one_tensor_that_is_otherwise_is_named(kind: str) -> None:
    config, header = saved(kind)
    model = from_config(config, kind)
    rng = random.Random(kind)
    for way, name, changed in mutations(header, rng):
        report = compare(model, stored(changed))
        assert any(is_of(plain(name), difference) for difference in report.differences), (
            way,
            name,
            report.differences[:3],
            report.notes,
        )
