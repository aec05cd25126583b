"""Every file of variants keeps the laws, and the laws tell a careless one what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.lora import variants
from graphsim.lora.variant import Site, Variant
from graphsim.lora.variants import known
from graphsim.ops import LoraGemm, Op
from tests.lora.variant_laws import (
    LAWS,
    Law,
    all_parts_agree,
    each_part_takes_what_the_one_before_it_gives,
    each_variant,
    its_graphs_are_valid,
)

Chain = Iterator[tuple[str, Op]]


CHECKED = ("dora", "oft")
"""Variants whose graphs of every kind of group are checked every time: a step behind the addition, and one ahead."""


def laws_and_variants() -> Iterator[Any]:
    for law in LAWS:
        for variant in each_variant():
            costly = law is its_graphs_are_valid and variant not in CHECKED
            named = variant if isinstance(variant, str) else variant.values[0]
            slow = costly or not isinstance(variant, str)
            yield pytest.param(named, law, marks=pytest.mark.slow if slow else (), id=f"{named}-{law.__name__}")


@pytest.mark.parametrize(("variant", "law"), list(laws_and_variants()))
def test_every_variant_keeps_every_law(variant: str, law: Law) -> None:
    broken = list(law(variant))
    assert not broken, "\n".join([f"variant '{variant}':", *broken])


def without_b(site: Site) -> Chain:
    yield "lora_a", site.a


def nothing(site: Site) -> Chain:
    yield from ()


def too_wide(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_b", replace(site.b, k=site.b.k * 2)


def too_many_rows(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_r", replace(site.between("lora_r"), m=site.op.m)
    yield "lora_b", site.b


def half_of_the_inputs(site: Site) -> Chain:
    yield "lora_a", replace(site.a, k=site.a.k / 2)
    yield "lora_b", site.b


def from_scratch(site: Site) -> Chain:
    a = site.a
    yield "lora_a", a
    yield "lora_r", LoraGemm(role=f"{site.op.role}.lora_r", m=a.m, n=a.n, k=a.n)
    yield "lora_b", site.b


def under_another_role(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_r", replace(site.between("lora_r"), role="lora_r")
    yield "lora_b", site.b


def twice(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_a", site.between("lora_a")
    yield "lora_b", site.b


def as_the_addition(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_add", site.b


def with_one_between(site: Site) -> Chain:
    yield "lora_a", site.a
    yield "lora_r", site.between("lora_r")
    yield "lora_b", site.b


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A variant with this chain, which is known by the name that comes back."""

    def add(chain: Callable[[Site], Chain], fused: bool = False) -> str:
        class Careless(Variant):
            __slots__ = ()

            def chain(self, site: Site) -> Chain:
                return chain(site)

        found = {**known(), "careless": Careless(name="careless", fused=fused)}
        monkeypatch.setattr(variants, "_found", lambda folders: found)
        return "careless"

    return add


@pytest.mark.parametrize(
    ("law", "chain", "said"),
    [
        (each_part_takes_what_the_one_before_it_gives, without_b,
         "llama-3.1-8b: 'q_proj.lora_a' has 512 values, but 262144 are added to the linear's"),
        (each_part_takes_what_the_one_before_it_gives, nothing,
         "gpt-2: the linear's input has 49152 values, but 147456 are added to the linear's"),
        (each_part_takes_what_the_one_before_it_gives, too_wide,
         "llama-3.1-8b: 'q_proj.lora_b' takes 1024 values, but 'q_proj.lora_a' has 512"),
        (each_part_takes_what_the_one_before_it_gives, too_many_rows,
         "gpt-2: 'c_attn.lora_r' takes 1024 values, but 'c_attn.lora_a' has 512"),
        (each_part_takes_what_the_one_before_it_gives, half_of_the_inputs,
         "gpt-2: 'c_attn.lora_a' takes 24576 values, but the linear's input has 49152"),
        (all_parts_agree, from_scratch, "llama-3.1-8b: 'q_proj.lora_r' has adapters = 1.0, expected 3.0"),
        (all_parts_agree, from_scratch, "gemma-2-9b: '1.q_proj.lora_r' has layer = 0, expected 1"),
        (all_parts_agree, under_another_role, "gpt-2: 'c_attn.lora_r' has role = lora_r, expected c_attn.lora_r"),
        (its_graphs_are_valid, too_wide,
         "gpt-2, decode, engine reference, tp = 2: node 'layers_0_11.c_attn.lora_b' expects 32 elements, "
         "its inputs c_attn.lora_a bring 16"),
    ],
)  # fmt: skip
def test_a_law_says_what_a_careless_variant_lacks(
    law: Law, chain: Callable[[Site], Chain], said: str, careless: Callable[..., str]
) -> None:
    assert said in list(law(careless(chain)))


@pytest.mark.parametrize(
    ("chain", "fused", "said"),
    [
        (
            twice,
            False,
            "the chain of 'careless' names a part 'lora_a', which is already used; expected a name",
        ),
        (
            as_the_addition,
            False,
            "which is already used; .* lora_add, lora_scale, lora_override and lora_overridden",
        ),
        (with_one_between, True, "'careless' has fused=True and a chain of lora_a, lora_r, lora_b; .* fused=False"),
        (without_b, True, "has fused=True and a chain of lora_a; fused kernels run lora_a, lora_b only"),
    ],
)
def test_a_chain_of_which_a_part_would_be_lost_is_refused(
    chain: Callable[[Site], Chain], fused: bool, said: str, careless: Callable[..., str]
) -> None:
    lora = gs.LoraConfig(variant=careless(chain, fused))
    with pytest.raises(gs.ConfigError, match=said):
        gs.build_graph("gpt-2", lora=lora)
