"""Kernels of recurrent layers: short convolutions and scans of the gated delta rule, KDA and Mamba-2.

The skeletons (`recurrent_kernels.py`) times exp of a small surface over tokens per sequence, walks per core and cache
fill, and never below the memory-bound time. Fits are kept by phase and by mechanism and step.

Kernels without measurements use the nearest one (`NEAREST`). Mamba-2's convolution is the delta rule's kernel, and its
update of one token moves states as the delta rule's does; its scan of prompts passes states on with different kernels
from either delta rule and has constants counted from them (`recurrent_kernels.DUAL`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.recurrent_kernels import (
    DUAL,
    HOST,
    OF_FURTHER_TOKENS,
    OTHER_STARTS,
    SKELETONS,
    START,
    coordinates,
    kind_of,
)
from graphsim.cost.families.recurrent_work import RecurrentShape, floor_s, roofline_s
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RecurrentShape", "fit", "floor_s", "latency_s", "roofline_s", "shape_of"]

MECHANISMS = {"gdn:gdn": "gdn", "kda:kda": "kda", "mamba2:mamba2": "mamba2"}
"""The mechanism of each measured op."""

PHASES = ("context", "generation", "verify")

STEPS = {"causal_conv1d": "convolution", "fused_kda_decode": "fused", "kda_fused_decode": "fused"}
"""Steps by the prefix of a kernel's name; all others are scans."""

NEAREST = {
    "gdn convolution": ("gdn convolution",),
    "kda convolution": ("kda convolution", "gdn convolution"),
    "gdn scan": ("gdn scan", "kda scan"),
    "kda scan": ("kda scan", "kda fused", "gdn scan"),
    "mamba2 scan": ("mamba2 scan", "gdn scan", "kda scan"),
    "kda fused": ("kda fused", "kda scan", "gdn scan"),
}
"""The fits used for a mechanism and step, the nearest first."""

LEVELS = (PHASES, tuple(NEAREST))

_KNOTS = {"seq": [0, 2, 4, 6, 8, 11, 15], "fill": [-8, -4, -2, -1, 0, 1, 2, 4, 8]}
LAYOUTS = {
    "convolution": SurfaceSpec(
        knots=_KNOTS | {"seq": [0, 1, 3, 4, 6, 9, 10, 12, 15], "waves": [0, 3, 6, 8, 10, 13]},
        terms=[("seq", "waves"), ("fill",)], flat=0.05,
    ),
    "scan": SurfaceSpec(
        knots=_KNOTS | {"waves": [-6, -4, -2, -1, 0, 1, 2, 3, 5]},
        terms=[("seq", "waves"), ("fill",)], flat=0.05,
    ),
    "update": SurfaceSpec(
        knots=_KNOTS | {"seq": [0, 1, 2, 3], "waves": [-6, -3, -1, 0, 1, 2, 3, 4, 6, 8]},
        terms=[("seq", "waves"), ("fill",)], flat=0.05,
    ),
}  # fmt: skip
"""The coordinates of each correction table, and their knots (log2 units)."""

SURFACES = tuple(LAYOUTS.values())

DISTURBED = 1.5
"""Multiple of the skeleton's time from which a row counts as disturbed, if there are many: a kernel that shared the
card took longer, never shorter. Of SGLang 0.5.14's gated delta-net on an H200, a seventh of the rows take 2 to 10
times as long as on an H100, the longer the more there is to do, and their neighbours do not."""

MANY = 0.03
"""The share of such rows from which they are left out."""

MEASURED_ROWS = 1000
"""Largest number of rows that constants are fitted to."""

HOST_BOUND_S = 1e-4
"""A small convolution slower than this waits for the host."""


def needed(phase: str, name: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START[kind_of(name.partition(" ")[2], phase)]


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: RecurrentShape) -> Num:
    """Seconds of one kernel of a recurrent layer, from fitted `parameters` (of `fit`); no tokens, no time.

    Raises ConfigError for an unknown phase, mechanism or step.
    """
    key, safe = _key(shape), _at_least_one(shape)
    entry = entry_of(parameters, key, lambda one: _entry(one, *key))
    kind = kind_of(shape.step, shape.phase)
    time = fitted_s(
        entry, lambda c: SKELETONS[kind](c, hardware, safe), lambda: coordinates(kind, hardware, safe)
    )  # fmt: skip
    work = shape.batch * shape.seq_len * (shape.channels if kind == "convolution" else shape.heads)
    return np.where(np.greater(work, 0), np.maximum(time, floor_s(hardware, safe)), 0.0)


def _key(shape: RecurrentShape) -> tuple[str, str]:
    """The phase, and the mechanism with the step. Raises ConfigError for unknown ones."""
    if shape.phase not in PHASES:
        raise ConfigError(f"phase '{shape.phase}' is not known; {choices_text(shape.phase, PHASES)}")
    plain = shape.step == "convolution" and shape.mechanism == "mamba2"
    name = f"{'gdn' if plain else shape.mechanism} {shape.step}"
    if name not in NEAREST:
        raise ConfigError(f"kernel '{name}' is not known; {choices_text(name, NEAREST)}")
    return shape.phase, name


def _entry(parameters: Mapping[str, Any], phase: str, name: str) -> KernelFit:
    """The fit of a kernel or of the nearest one. Verification of drafts uses the fit of generation if it has none."""
    near = ("mamba2 scan",) if (phase, name) == ("context", "mamba2 scan") else NEAREST[name]
    for place in (phase, "generation") if phase == "verify" else (phase,):
        known: Mapping[str, KernelFit] = parameters.get(place, {})
        for like in near:
            if like in known:
                return known[like]
    if near == ("mamba2 scan",):
        return {"constants": DUAL}
    return {"constants": START[kind_of(name.partition(" ")[2], phase)]}


def _at_least_one(shape: RecurrentShape) -> RecurrentShape:
    names = ("batch", "seq_len", "heads", "key_heads", "channels")
    return replace(shape, **{name: np.maximum(getattr(shape, name), 1.0) for name in names})


def shape_of(frame: pd.DataFrame) -> RecurrentShape:
    """The shape of reference rows of one `op`, `phase` and `kernel`. Raises ConfigError for columns that are missing.

    The tables of TensorRT-LLM, and of SGLang 0.5.10, hold the gated delta-net's convolution of the keys alone: its time
    does not change with the value heads, lies below what memory allows for all channels, and is that of Mamba-2's
    for as many channels as the keys have.
    """
    op, phase, kernel = (str(frame[name].iloc[0]) for name in ("op", "phase", "kernel"))
    mechanism = MECHANISMS[op]
    names = (
        {"heads": "n_heads", "value_dim": "head_dim", "key_heads": "n_groups", "key_dim": "d_state"}
        if mechanism == "mamba2"
        else {"heads": "v_heads", "value_dim": "v_dim", "key_heads": "k_heads", "key_dim": "k_dim"}
    )
    columns = {"batch": "batch", "seq_len": "seq_len", "taps": "d_conv"} | names
    missing = [column for column in columns.values() if column not in frame.columns]
    if missing:
        raise ConfigError(f"column {', '.join(missing)} missing; rows of op '{op}' need {', '.join(columns.values())}")
    sizes: dict[str, Any] = {field: frame[column].to_numpy(dtype=float) for field, column in columns.items()}
    keys, values = sizes["key_heads"] * sizes["key_dim"], sizes["heads"] * sizes["value_dim"]
    channels = keys if mechanism == "gdn" and _of_keys_alone(frame) else 2.0 * keys + values
    step = next((step for start, step in STEPS.items() if kernel.startswith(start)), "scan")
    return RecurrentShape(step=step, phase=phase, mechanism=mechanism, channels=channels, **sizes)


def _of_keys_alone(frame: pd.DataFrame) -> bool:
    framework, version = (str(frame[name].iloc[0]) if name in frame.columns else "" for name in _WHOSE)
    return framework == "trtllm" or (framework, version) == ("sglang", "0.5.10")


_WHOSE = ("framework", "framework_version")


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per phase, mechanism and step, from reference rows of the recurrent ops."""
    parts: dict[tuple[str, str], list[tuple[RecurrentShape, Array]]] = {}
    whose = [name for name in _WHOSE if name in frame.columns]
    for _, rows in frame.groupby(["op", "phase", "kernel", *whose], sort=True, dropna=False):
        shape = shape_of(rows)
        parts.setdefault(_key(shape), []).append((shape, rows["latency_us"].to_numpy(dtype=float) * 1e-6))
    found: dict[str, Any] = {}
    for (phase, name), measured in sorted(parts.items()):
        found.setdefault(phase, {})[name] = _fit_one(hardware, *_joined(measured))
    return found


def _joined(parts: list[tuple[RecurrentShape, Array]]) -> tuple[RecurrentShape, Array]:
    """Rows of several kernels as one shape, and their times."""
    first = parts[0][0]
    names = [field.name for field in fields(first) if isinstance(getattr(first, field.name), np.ndarray)]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(shape, name) for shape, _ in parts]) for name in names}
    return replace(first, **arrays), np.concatenate([measured_s for _, measured_s in parts])


def _fit_one(hardware: Hardware, shape: RecurrentShape, measured_s: Array) -> dict[str, Any]:
    kind = kind_of(shape.step, shape.phase)
    constants, kept = _constants(kind, hardware, shape, measured_s)
    shape, measured_s = _rows(shape, kept), measured_s[kept]
    target = np.log(measured_s / SKELETONS[kind](constants, hardware, shape))
    order = _order(kind, constants, hardware, shape)
    surface = fit_surface(LAYOUTS[kind], _arrays(kind, hardware, shape), target, order=order, rounds=10)
    return {"constants": constants, "surface": surface.to_json()}


def _constants(
    kind: str, hardware: Hardware, shape: RecurrentShape, measured_s: Array, rounds: int = 4
) -> tuple[dict[str, float], Any]:
    """The constants of a kernel, and the rows that they describe: all except for disturbed ones."""
    kept = np.ones(len(measured_s), dtype=bool)
    starts = (START[kind], *OTHER_STARTS[kind])
    for _ in range(rounds):
        known, times = _rows(shape, kept), measured_s[kept]
        tried = [_fitted(kind, hardware, known, times, start) for start in starts]
        errors = [np.abs(np.log(times / SKELETONS[kind](c, hardware, known))).mean() for c in tried]
        constants = tried[int(np.argmin(errors))]
        fair = measured_s < DISTURBED * np.asarray(SKELETONS[kind](constants, hardware, shape))
        if np.mean(~fair) < MANY or (fair == kept).all():
            break
        kept, starts = fair, (constants,)
    return constants, kept


def _fitted(
    kind: str, hardware: Hardware, shape: RecurrentShape, measured_s: Array, start: Mapping[str, float]
) -> dict[str, float]:
    """The constants from a start, except for those that the rows do not determine: with one token per sequence, those
    of further tokens; if the host dominates, those of the launch.
    """
    some = slice(None, None, max(1, len(measured_s) // MEASURED_ROWS))
    few = _rows(shape, some)
    held = {name: start[name] for name in OF_FURTHER_TOKENS[kind]} if shape.phase == "generation" else {}
    if kind == "convolution" and ("host_s" in start or measured_s.min() > HOST_BOUND_S):
        held, start = held | {"launch_s": 3.0 * START[kind]["launch_s"]}, {**HOST, **start}
    free = {name: value for name, value in start.items() if name not in held}
    found = fit_constants(
        lambda c: np.asarray(SKELETONS[kind]({**held, **c}, hardware, few)), free, np.log(measured_s[some]),
        hold=3e-4, rounds=40,
    )  # fmt: skip
    return {**held, **found}


def _rows(shape: RecurrentShape, chosen: Any) -> RecurrentShape:
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    arrays = {name: value[chosen] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(shape, **arrays)


def _arrays(kind: str, hardware: Hardware, shape: RecurrentShape) -> dict[str, Array]:
    found = coordinates(kind, hardware, shape)
    return {name: np.asarray(value, dtype=float) for name, value in found.items()}


def _order(kind: str, constants: Mapping[str, float], hardware: Hardware, like: RecurrentShape) -> Order:
    """Pairs of kernels, the second with up to four times the sequences, tokens of each, or heads."""
    low, high = _pairs(kind, like)
    growth = np.log(SKELETONS[kind](constants, hardware, high) / SKELETONS[kind](constants, hardware, low))
    return Order(low=_arrays(kind, hardware, low), high=_arrays(kind, hardware, high), least=-growth, weight=30.0)


def _pairs(kind: str, like: RecurrentShape, count: int = 4000) -> Iterator[RecurrentShape]:
    random = np.random.default_rng(0)
    longest = 16.0 if like.phase == "context" else 3.0 if like.phase == "verify" else 0.0
    bits = random.uniform(0.0, (10.0, longest, 7.0), (count, 3))
    grown = random.choice([0, 1, 2] if longest else [0, 2], (count, 1))
    more = np.where(np.arange(3) == grown, random.uniform(0.3, 2.0, (count, 1)), 0.0)
    group = random.choice([1.0, 2.0, 4.0], count)
    for batch, seq_len, heads in (np.ceil(2.0**exponents).T for exponents in (bits, bits + more)):
        yield replace(
            like, batch=batch, seq_len=seq_len, heads=heads, key_heads=np.maximum(heads / group, 1.0), value_dim=128.0,
            key_dim=128.0, channels=384.0 * heads, taps=4.0,
        )  # fmt: skip
