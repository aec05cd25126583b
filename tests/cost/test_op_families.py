"""An operation says which cost family prices it; a user's own ops are priced without an edit anywhere else."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, replace
from importlib import import_module
from typing import ClassVar

import numpy as np
import pytest

import graphsim.ops
from graphsim.cost import families
from graphsim.cost.base import Cost
from graphsim.cost.calibrated import calibrated
from graphsim.cost.families.registry import FAMILIES, FAMILY_OF
from graphsim.cost.roofline import roofline
from graphsim.errors import GraphError
from graphsim.hardware import load_hardware
from graphsim.ops import (
    Activation,
    Add,
    AllGather,
    AllReduce,
    AllToAll,
    Attention,
    CausalConv,
    CollapseStreams,
    Compute,
    Concatenate,
    Elementwise,
    Embedding,
    ExchangeTokens,
    ExpandStreams,
    ExpertActivation,
    ExpertGemm,
    Gemm,
    HeadGemm,
    IndexScores,
    Input,
    Join,
    KvCache,
    Launch,
    LoraA,
    LoraAdd,
    LoraB,
    LoraMerge,
    MlaAttention,
    Norm,
    Op,
    Permute,
    ReduceScatter,
    Repeat,
    Rope,
    Route,
    Sample,
    Scan,
    SendReceive,
    Sharding,
    SparseAttention,
    SquareSum,
    TakeRows,
    Together,
    Work,
)
from graphsim.ops.bitsandbytes import Dequantise
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_experts import ExpertLoraA, ExpertLoraAdd, ExpertLoraB, LoraDelta
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraLookup, LoraShrink
from graphsim.ops.lora_variants import DoraNorm, DoraScale, GroupPool, VectorScale
from graphsim.units import Num

MEASURED: dict[str, tuple[type[Op], ...]] = {
    "gemm": (Gemm, LoraA, LoraB, ExpertLoraA, ExpertLoraB),
    "batched_gemm": (HeadGemm,),
    "attention": (Attention,),
    "mla": (MlaAttention,),
    "sparse": (IndexScores, SparseAttention),
    "moe": (ExpertGemm, ExpertActivation, Route, Permute),
    "collectives": (AllReduce, AllGather, ReduceScatter, AllToAll),
    "elementwise": (
        Elementwise, Activation, Add, Concatenate, VectorScale, Norm, Rope, TakeRows, Sample, Embedding, KvCache,
        LoraAdd, ExpertLoraAdd, SquareSum,
    ),
    "recurrent": (CausalConv, Scan),
    "expert_exchange": (ExchangeTokens,),
    "hyper_connections": (CollapseStreams, ExpandStreams),
    "": (
        SendReceive, Compute, Input, Join, Launch, Repeat, Together, LoraMerge,
        LoraDelta, LoraFill, LoraShrink, LoraExpand, LoraLookup, DoraNorm, DoraScale, GroupPool, Dequantise,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def device():
    return load_hardware("h100-sxm")


@pytest.fixture(scope="module")
def price(device):
    return calibrated(device)[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gelu(Elementwise):
    """A user's element-wise operation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupNorm(Norm):
    """A user's norm."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sparse24(Gemm):
    """A user's product of which `density` of the weights is kept."""

    density: float = 1.0

    def work(self) -> Work:
        whole = Gemm.work(self)
        return replace(whole, flops=whole.flops * self.density, weight_bytes=whole.weight_bytes * self.density)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HierarchicalReduce(AllReduce):
    """A user's all-reduce."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedRoute(Route):
    """A user's router, which lies in the measured block as every router does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fft(Op):
    """A user's operation unlike any other."""

    elems: Num

    def work(self) -> Work:
        moved = self.elems * self.activations.bytes
        return Work(vector_flops=5.0 * self.elems, input_bytes=moved, write_bytes=moved)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copy(Fft):
    """One whose author says that it moves bytes as measured kernels do."""

    family: ClassVar[str] = "elementwise"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stray(Fft):
    """One that claims to be a part of the measured expert blocks, which do no such thing."""

    family: ClassVar[str] = "moe"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Misspelt(Fft):
    """One whose author names a family that there is not."""

    family: ClassVar[str] = "elementwize"


def parts(cost: Cost) -> tuple[float, ...]:
    names = ("busy_s", "compute_s", "memory_s", "network_s", "launch_s")
    return tuple(float(getattr(cost, name)) for name in names)


def test_every_shipped_op_is_priced_by_the_family_that_it_says() -> None:
    kinds = {kind for found in MEASURED.values() for kind in found}
    assert {kind: kind.family for kind in kinds} == {kind: name for name, found in MEASURED.items() for kind in found}
    for module in pkgutil.iter_modules(graphsim.ops.__path__):
        held = vars(import_module(f"graphsim.ops.{module.name}")).values()
        for kind in (kind for kind in held if isinstance(kind, type) and issubclass(kind, Op)):
            assert kind.family in ("", *FAMILIES)


def test_all_lists_of_families_are_one() -> None:
    modules = [module.name for module in pkgutil.iter_modules(families.__path__)]
    priced = [name for name in modules if hasattr(import_module(f"{families.__name__}.{name}"), "needed")]
    assert sorted(FAMILIES) == sorted(priced)
    assert {name: family.name for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}
    assert {op for family in FAMILIES.values() for op in family.ops} == set(FAMILY_OF)


def test_a_resumed_sweep_is_another_one_when_any_family_was_fitted_again(monkeypatch) -> None:
    from graphsim.sweeps import parquet
    from graphsim.sweeps.grid import grid_of

    grid, plain = grid_of("gpt-2", "h100-sxm", {}, ()), parquet.basis
    digests = {parquet.request_hash(grid)}
    for family in FAMILIES:

        def refitted(device, name, *table, family=family):
            found = plain(device, name, *table)
            return replace(found, origin="another fit") if name == family else found

        monkeypatch.setattr(parquet, "basis", refitted)
        digests.add(parquet.request_hash(grid))
    assert len(digests) == 1 + len(FAMILIES)


@pytest.mark.parametrize(
    ("own", "known"),
    [
        (Gelu(elems=1e6), Elementwise(elems=1e6)),
        (GroupNorm(rows=64.0, width=4096.0), Norm(rows=64.0, width=4096.0)),
        (HierarchicalReduce(elems=1e6, group=4.0), AllReduce(elems=1e6, group=4.0)),
        (GroupedRoute(tokens=64.0, experts=8.0, chosen=2.0), Route(tokens=64.0, experts=8.0, chosen=2.0)),
        (Sparse24(m=64.0, n=4096.0, k=4096.0), Gemm(m=64.0, n=4096.0, k=4096.0)),
    ],
)
def test_a_users_subclass_is_priced_as_what_it_is_a_kind_of(device, price, own, known) -> None:
    assert parts(price(own, device)) == parts(price(known, device))


def test_an_operation_that_measured_expert_blocks_do_not_hold_has_its_roofline(device, price) -> None:
    claims, plain = Stray(elems=1e6), Fft(elems=1e6)
    assert parts(price(claims, device)) == parts(price(plain, device))
    assert price(claims, device).latency_s > roofline(claims, device).busy_s > 0.0


def test_an_op_of_a_new_kind_keeps_its_roofline_and_is_never_free(device, price) -> None:
    found, bare = price(Fft(elems=1e8), device), roofline(Fft(elems=1e8), device)
    assert found.latency_s >= bare.busy_s > 0
    moved = Elementwise(elems=1e8, steps=5.0)
    assert price(Copy(elems=1e8), device).latency_s == price(moved, device).latency_s


def test_a_family_that_there_is_not_is_refused_by_name(device, price) -> None:
    with pytest.raises(GraphError, match="Misspelt.family = 'elementwize' is not known; did you mean 'elementwise'"):
        price(Misspelt(elems=1.0), device)


def test_what_lies_in_the_experts_block_takes_no_time_of_its_own_only_where_blocks_were_measured(device) -> None:
    op = Permute(tokens=64.0, width=4096.0, chosen=2.0, gather=True)
    assert calibrated(device)[0](op, device).latency_s == 0.0
    bare = roofline(op, device)
    assert bare.latency_s > 0


ASKED = {
    "head product, bf16": HeadGemm(m=64.0, n=512.0, k=128.0, heads=128.0),
    "head product, fp32": HeadGemm(m=64.0, n=512.0, k=128.0, heads=128.0, activations=FORMATS["fp32"]),
    "product, bf16": Gemm(m=64.0, n=4096.0, k=4096.0),
    "product, fp32": Gemm(m=64.0, n=4096.0, k=4096.0, activations=FORMATS["fp32"]),
    "dense": Sparse24(m=64.0, n=4096.0, k=4096.0),
    "sparse": Sparse24(m=64.0, n=4096.0, k=4096.0, density=0.5),
    "experts, bf16": ExpertGemm(m=16.0, n=4096.0, k=2048.0, tokens=8.0, experts=8.0, of=8, chosen=2,
                                split=Sharding.COLUMN),
    "experts, fp32": ExpertGemm(m=16.0, n=4096.0, k=2048.0, tokens=8.0, experts=8.0, of=8, chosen=2,
                                split=Sharding.COLUMN, activations=FORMATS["fp32"]),
    "grouped int4": Gemm(m=64.0, n=4096.0, k=4096.0, weights=replace(FORMATS["int4"], bytes=0.625)),
    "int4": Gemm(m=64.0, n=4096.0, k=4096.0, weights=FORMATS["int4"]),
    "arrays": Gemm(m=np.array([64.0, 7.0]), n=4096.0, k=4096.0),
    "other arrays": Gemm(m=np.array([64.0, 9.0]), n=4096.0, k=4096.0),
}  # fmt: skip


def test_prices_do_not_depend_on_what_was_asked_before(device) -> None:
    def costs(names: list[str]) -> dict[str, list[object]]:
        price = calibrated(device)[0]
        found = {name: price(ASKED[name], device) for name in names}
        fields = ("busy_s", "compute_s", "memory_s", "network_s", "launch_s", "latency_s")
        return {name: [np.asarray(getattr(cost, f)).tolist() for f in fields] for name, cost in found.items()}

    there = costs(list(ASKED))
    assert there == costs(list(ASKED)[::-1])
    assert all(there[name] == costs([name])[name] for name in ASKED)
    assert there["head product, bf16"] != there["head product, fp32"] and there["dense"] != there["sparse"]
