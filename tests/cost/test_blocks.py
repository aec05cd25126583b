"""Which families' fits the price of an operation depends on: what a trace is known by, and all that is read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

import graphsim as gs
from graphsim.cost.blocks import BLOCKS, block_of, families_behind
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.measured import kernel_seconds, price_of
from graphsim.ops.classes import op_classes
from graphsim.ops.type_guards import is_all_reduce, is_collective, is_expert_gemm, is_launch

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "llama-2-7b": {"tp": 4}, "deepseek-v3": {"ep": 8}, "deepseek-v3.2": {"tp": 8}, "flan-t5-large": {},
    "qwen3-next-80b-a3b": {"tp": 4}, "mixtral-8x7b": {"tp": 2, "pp": 2}, "whisper-large-v3": {},
    "deepseek-v4-flash": {"tp": 8},
}  # fmt: skip
"""Models and degrees whose operations name every family between them."""


class Noted(Mapping[str, Any]):
    """Fits that note which families are read."""

    def __init__(self, fits: Mapping[str, Any]) -> None:
        self.fits, self.read = fits, set[str]()

    def __getitem__(self, family: str) -> Any:
        self.read.add(family)
        return self.fits[family]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fits)

    def __len__(self) -> int:
        return len(self.fits)


def ops_of(model: str) -> list[Any]:
    """The operations of a prompt and of a decode step."""
    deployment = gs.Deployment(
        model, "h200-sxm", parallelism=gs.Parallelism(**DEPLOYMENTS[model]), engine="vllm-deepep", precision="bf16"
    )
    graphs = deployment.prefill(4, 100), deployment.decode(4, 100, input_tokens=50)
    return [op for graph in graphs for _, op, _ in gs.graph.walk(graph)]


@pytest.mark.slow
def test_a_price_reads_no_fits_but_those_that_are_told() -> None:
    device = gs.load_hardware("h200-sxm")
    price = gs.Deployment("gpt-2", device, engine="vllm-deepep").price
    assert isinstance(price, Prices)
    named = set[str]()
    for model in DEPLOYMENTS:
        for op in {id(op): op for op in ops_of(model)}.values():
            noted = Noted(price.parameters)
            price_of(op, device, noted, partial(kernel_seconds, device, noted))
            named |= {op.family} - {""}
            assert noted.read <= set(families_behind([op])), (model, type(op).__name__)
    assert named == set(BLOCKS)


def test_every_family_that_an_operation_names_has_a_block_and_every_block_a_family() -> None:
    named = {kind.family for kind in op_classes().values() if kind.__module__.startswith("graphsim.")} - {""}
    assert named == set(BLOCKS) and set(BLOCKS) <= set(FAMILIES)
    assert all(callable(block_of(family).measured_s) for family in BLOCKS)
    assert families_behind([]) == ["gemm"]


def test_types_tell_the_classes_that_they_are_asked_for() -> None:
    kinds = op_classes()
    guards: dict[str, Callable[[object], bool]] = {
        "Collective": is_collective,
        "ExpertGemm": is_expert_gemm,
        "Launch": is_launch,
    }
    for name, guard in guards.items():
        for kind in kinds.values():
            assert guard(object.__new__(kind)) == issubclass(kind, kinds[name]), (name, kind)
    assert [name for name, kind in kinds.items() if is_all_reduce(object.__new__(kind))] == ["AllReduce"]
