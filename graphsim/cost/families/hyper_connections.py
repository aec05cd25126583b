"""Both sides of a hyper-connection: the kernel before a part, which weighs the streams and sums them, and the one
after it, which mixes them with the part's result (arXiv 2512.24880; `mhc_pre` and `mhc_post`
of vLLM and SGLang for DeepSeek-V4).

    t = sites · exp(surface) · ( launch + depth · width + overlapped(mixing flops / peak, traffic / bandwidth) )

The traffic is that of kernels without state between steps: before a part the streams are read for the mixing
weights and once more for the sum, after it they are read and written. Some libraries change kernels with the tokens:
every kernel has its own fit, keyed by the fewest tokens that it was measured with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.elementwise import cached_floor_s, traffic_s
from graphsim.cost.families.formats import peak_of
from graphsim.cost.families.overlap import loosely_overlapped
from graphsim.cost.families.registry import ANY
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec
from graphsim.cost.surfaces.kernel_fit import fit_kernel
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops.formats import FORMATS, RATES
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

PHASES = {"mhc_module:pre": "pre", "mhc_module:post": "post"}
"""The side of a part of each measured op."""

START = {
    "launch_s": 8e-6, "depth_clocks": 0.2, "mix": 2.0, "dram": 1.2, "cache": 0.7,
    "cache_fit": 0.7, "cache_edge": 4.0,
}  # fmt: skip
"""Constants before any fit; see `_skeleton` for their meanings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperConnectionShape:
    """One side of `sites` parts of a model, each over `tokens` rows of `streams` streams of `hidden` numbers.

    phase: `pre` or `post`
    projected: mixing weights per token, all of which `pre` computes by a GEMM with all streams
    """

    family: ClassVar[str] = "hyper_connections"

    tokens: Num
    hidden: Num
    streams: Num = 4.0
    projected: Num = 24.0
    sites: Num = 1.0
    phase: str = "pre"


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: HyperConnectionShape) -> Num:
    """Time of one site before the surface.

    depth_clocks: of one core for each number of a stream, which a block walks
    mix: times the flops of the mixing at the peak of 32-bit GEMMs
    dram, cache, cache_fit, cache_edge: as of other memory-bound kernels (`elementwise.traffic_s`)
    """
    computing_s = c["mix"] * _flops_s(hardware, shape)
    start_s = c["launch_s"] + c["depth_clocks"] * shape.hidden / hardware.clock_hz
    return start_s + loosely_overlapped(computing_s, traffic_s(c, hardware, _moved(shape)))


def _flops_s(hardware: Hardware, shape: HyperConnectionShape) -> Num:
    """The GEMM that gives the mixing weights, or the sum of streams by them; weights are in fp32."""
    columns = shape.projected if shape.phase == "pre" else shape.streams
    return 2.0 * columns * shape.streams * shape.hidden * shape.tokens / peak_of(hardware, RATES["tf32"])


def _passes(shape: HyperConnectionShape) -> Num:
    """Numbers moved per token and width: streams read twice and one written, or n and one read and n written."""
    return 2.0 * shape.streams + 1.0


def _moved(shape: HyperConnectionShape) -> Num:
    return FORMATS["bf16"].bytes * _passes(shape) * shape.hidden * shape.tokens


def _least_bytes(shape: HyperConnectionShape) -> Num:
    """Every stream once."""
    passes = shape.streams + 1.0 if shape.phase == "pre" else _passes(shape)
    return FORMATS["bf16"].bytes * passes * shape.hidden * shape.tokens


def roofline_s(hardware: Hardware, shape: HyperConnectionShape) -> Num:
    """Each stream once at the datasheet's bandwidth, or the mixing at peak, whichever takes longer."""
    moved_s = _least_bytes(shape) / hardware.memory_bytes_per_s
    return shape.sites * np.maximum(moved_s, _flops_s(hardware, shape))


def _coordinates(hardware: Hardware, shape: HyperConnectionShape) -> dict[str, Num]:
    """log2 of tokens per core, and of the traffic relative to the cache."""
    return {
        "tokens": np.log2(shape.tokens / hardware.cores),
        "fill": np.log2(_moved(shape) / np.maximum(hardware.cache_bytes, 1.0)),
    }


LAYOUT = SurfaceSpec(
    knots={
        "tokens": [-8, -6, -4, -2, -1, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10, 12],
        "fill": [-8, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8],
    },
    terms=[("tokens",), ("fill",)],
    smooth=0.1,
    flat=0.02,
)  # fmt: skip
"""The coordinates of each correction table, and their knots."""


LEVELS = (tuple(PHASES.values()), ANY)
SURFACES = (LAYOUT,)


def needed(phase: str, least: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: HyperConnectionShape) -> Num:
    """Seconds of all sites, from fitted `parameters` (of `fit`); no tokens, no time.

    Raises ConfigError for an unknown phase.
    """
    if shape.phase not in PHASES.values():
        raise ConfigError(f"phase '{shape.phase}' is not known; {choices_text(shape.phase, PHASES.values())}")
    safe = replace(shape, tokens=np.maximum(shape.tokens, 1.0), hidden=np.maximum(shape.hidden, 1.0))
    time = np.maximum(_chosen_s(parameters, hardware, safe), cached_floor_s(hardware, _least_bytes(safe)))
    return np.where(np.greater(shape.tokens * shape.hidden, 0), shape.sites * time, 0.0)


def _chosen_s(parameters: Mapping[str, Any], hardware: Hardware, shape: HyperConnectionShape) -> Num:
    """Seconds of the kernel for the shape's tokens; at most those of the next kernel for its fewest tokens."""
    *fewer, last = _kernels(parameters, shape.phase)
    time = _one_s(parameters, (shape.phase, last), hardware, shape)
    for least in reversed(fewer):
        own = _one_s(parameters, (shape.phase, least), hardware, shape)
        time = np.where(np.greater_equal(shape.tokens, float(last)), time, np.minimum(own, time))
        last = least
    return time


def _kernels(parameters: Mapping[str, Any], phase: str) -> list[str]:
    """The least tokens of each kernel of a phase, in order."""
    return sorted(parameters.get(phase, {"1": {}}), key=int)


def _one_s(parameters: Mapping[str, Any], key: tuple[str, str], hardware: Hardware, shape: HyperConnectionShape) -> Num:
    pick: Callable[[Mapping[str, Any]], KernelFit] = lambda one: _entry(one, *key)  # noqa: E731
    entry = entry_of(parameters, key, pick)
    shape = replace(shape, tokens=np.maximum(shape.tokens, float(key[1])))
    return fitted_s(entry, lambda c: _skeleton(c, hardware, shape), lambda: _coordinates(hardware, shape))


def _entry(parameters: Mapping[str, Any], phase: str, least: str) -> KernelFit:
    """A kernel's fit, else that of the kernel for its fewest tokens, else that of the other phase."""
    known: Mapping[str, KernelFit] = parameters.get(phase) or next(iter(parameters.values()), {})
    serving = [name for name in sorted(known, key=int) if int(name) <= int(least)]
    return known[serving[-1]] if serving else next(iter(known.values()), {"constants": START})


def shape_of(frame: pd.DataFrame) -> HyperConnectionShape:
    """The shape of reference rows of one `op`; their latency is that of `num_sites` sites together."""
    tokens, hidden, streams, sites = (
        frame[name].to_numpy(dtype=float) for name in ("tokens", "hidden", "hc_mult", "num_sites")
    )
    return HyperConnectionShape(
        tokens=tokens, hidden=hidden, streams=streams, projected=streams * (2.0 + streams), sites=sites,
        phase=PHASES[str(frame["op"].iloc[0])],
    )  # fmt: skip


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per phase and kernel, a kernel by the fewest tokens that it was measured with."""
    found: dict[str, Any] = {}
    kernels = ["op", "kernel"] if "kernel" in frame.columns else ["op"]
    for key, rows in frame.groupby(kernels, sort=True):
        seconds = rows["latency_us"].to_numpy(dtype=float) * 1e-6
        entry = _fit_one(shape_of(rows), seconds / rows["num_sites"].to_numpy(dtype=float), hardware)
        found.setdefault(PHASES[str(key[0])], {})[str(int(rows["tokens"].min()))] = entry
    return found


def _fit_one(shape: HyperConnectionShape, site_s: Array, hardware: Hardware) -> dict[str, Any]:
    return fit_kernel(
        lambda c: _skeleton(c, hardware, shape), _coordinates(hardware, shape), site_s, start=START, layout=LAYOUT,
        order=lambda c: _order(c, hardware, shape.phase), hold=1e-3, rounds=60,
    )  # fmt: skip


def _arrays(hardware: Hardware, shape: HyperConnectionShape) -> dict[str, Array]:
    return {key: np.asarray(value, dtype=float) for key, value in _coordinates(hardware, shape).items()}


def _order(constants: Mapping[str, float], hardware: Hardware, phase: str) -> Order:
    """Pairs of kernels, the second with up to four times the tokens or the width."""
    random, count = np.random.default_rng(0), 4_000
    bits = random.uniform((0.0, 10.0), (20.0, 14.0), (count, 2))
    more = np.where(np.arange(2) == random.integers(0, 2, (count, 1)), random.uniform(0.1, 2.0, (count, 1)), 0.0)
    low, high = (
        HyperConnectionShape(tokens=tokens, hidden=hidden, phase=phase)
        for tokens, hidden in (np.ceil(2.0**x).T for x in (bits, bits + more))
    )
    growth = np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low))
    return Order(low=_arrays(hardware, low), high=_arrays(hardware, high), least=-growth, weight=10.0)
