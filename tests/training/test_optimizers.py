"""What optimizers keep, move and compute, by the shape of what they update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.ops.update import UpdateWeights
from graphsim.training.optimizers import ALIASES, Optimizer, list_optimizers, load_optimizer

N, K = 4096, 14336
COUNT = N * K


def refused(ref: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        load_optimizer(ref)
    return str(raised.value)


@pytest.mark.parametrize("name", list_optimizers())
def test_every_figure_has_a_source(name: str) -> None:
    assert len(load_optimizer(name).source) > 20


@pytest.mark.parametrize("name", list_optimizers())
def test_arrays_equal_scalars(name: str) -> None:
    found = load_optimizer(name)
    n, k = np.array([64.0, 512.0, 4096.0]), np.array([64.0, 4096.0, 512.0])
    for each in (found.held_bytes, found.traffic_bytes, found.decomposition_flops):
        together = np.broadcast_to(each(n, k), n.shape)
        assert together == pytest.approx([float(each(float(a), float(b))) for a, b in zip(n, k, strict=True)])


@pytest.mark.parametrize("name", list_optimizers())
def test_nothing_trained_is_nothing_kept_moved_or_computed(name: str) -> None:
    found = load_optimizer(name)
    assert float(found.held_bytes(0.0, 4096.0)) in (0.0, found.factor_bytes * 0 * 4096.0)
    assert float(found.traffic_bytes(0.0, 4096.0)) == 0.0
    assert sum(float(each.flops) for each in found.products(0.0, 4096.0)) == 0.0


@pytest.mark.parametrize("name", list_optimizers())
def test_16_bit_weights_never_have_wider_states_than_fp32_ones(name: str) -> None:
    found = load_optimizer(name)
    assert float(found.held_bytes(N, K, fp32=False)) <= float(found.held_bytes(N, K, fp32=True))


def test_adamw_keeps_two_moments_in_its_weights_format() -> None:
    for name in ("adamw_foreach", "adamw_fused"):
        assert load_optimizer(name).held_bytes(N, K) == 8 * COUNT
        assert load_optimizer(name).held_bytes(N, K, fp32=False) == 4 * COUNT
    assert load_optimizer("adamw_fused").traffic_bytes(N, K) == 28 * COUNT  # reads w, g, m, v, writes w, m, v
    assert load_optimizer("adamw_foreach").temporary_bytes == 2.0


def test_8_bit_states_have_a_maximum_for_each_256_and_leave_small_tensors_wide() -> None:
    found = load_optimizer("adamw_8bit")
    assert found.held_bytes(N, K) == COUNT * 2 * (1 + 4 / 256)
    assert found.held_bytes(4095) == 4095 * 8 and found.held_bytes(4096) == 4096 * 2 * (1 + 4 / 256)
    assert found.held_bytes(32000, N, table=True) == 32000 * N * 8
    assert load_optimizer("paged_adamw_8bit").pageable and not found.pageable


def test_adafactor_keeps_a_row_and_a_column() -> None:
    found = load_optimizer("adafactor")
    assert found.held_bytes(N, K) == 4 * (N + K)
    assert found.held_bytes(N) == 4 * N


def test_galore_keeps_a_projection_and_moments_of_its_rank() -> None:
    """arXiv 2403.03507, section 4.2: m r for the projection, 2 n r for the moments, m <= n."""
    found = load_optimizer("galore:128")
    assert found.held_bytes(N, K) == 4 * (N * 128 + 2 * K * 128)
    assert found.held_bytes(K, N) == found.held_bytes(N, K)
    assert found.held_bytes(128256, N, table=True) == load_optimizer("adamw_fused").held_bytes(128256, N)
    project, back = found.products(N, K)
    assert project.flops == back.flops == 2 * 128 * N * K
    assert float(found.decomposition_flops(N, K)) == pytest.approx((6 * K * N**2 + 20 * N**3) / 200)
    assert float(load_optimizer("apollo:128").held_bytes(N, K)) == 4 * 2 * K * 128  # its projection is drawn again
    assert load_optimizer("apollo").decomposition_flops(N, K) == 0.0


def test_a_rank_beyond_the_matrix_projects_nothing() -> None:
    assert load_optimizer("galore:512").held_bytes(256, 1024) == load_optimizer("adamw_fused").held_bytes(256, 1024)


def test_muon_orthogonalises_on_the_smaller_side() -> None:
    found = load_optimizer("muon")
    flops = sum(float(each.flops) for each in found.products(N, K))
    assert flops == 5 * (4 * N**2 * K + 2 * N**3)
    assert flops == sum(float(each.flops) for each in found.products(K, N))
    assert found.held_bytes(N, K) == 4 * COUNT and found.held_bytes(N, K, fp32=False) == 2 * COUNT
    assert found.products(N) == () and found.products(128256, N, table=True) == ()
    assert found.held_bytes(N) == 8 * N  # AdamW's


def test_an_optimizer_that_takes_one_tensor_after_another_launches_kernels_for_each() -> None:
    groups = UpdateWeights(elems=1e6, moved_bytes=10.0, tensors=360.0, kernels=2.0)
    each = UpdateWeights(elems=1e6, moved_bytes=10.0, tensors=360.0, kernels=0.0, tensor_kernels=1.0)
    assert (groups.launches, each.launches) == (20.0, 360.0)
    assert UpdateWeights(elems=0.0, moved_bytes=10.0, tensors=0.0, tensor_kernels=1.0).launches == 0.0
    assert all(load_optimizer(name).kernels + load_optimizer(name).tensor_kernels >= 1 for name in list_optimizers())


def test_adamw_is_the_recipes_own() -> None:
    assert load_optimizer("adamw", "adamw_foreach").name == "adamw_foreach"
    assert load_optimizer("lora+", "adamw_8bit").name == "adamw_8bit"
    assert load_optimizer("adamw", "muon").name == "adamw_fused"
    assert load_optimizer("adamw").name == "adamw_fused"


def test_trainers_names_are_known() -> None:
    for alias, name in ALIASES.items():
        assert load_optimizer(alias, name if name != "adamw" else "adamw_foreach").name in list_optimizers()
    assert load_optimizer("adamw_bnb_8bit") == load_optimizer("ADAMW-8bit")


def test_a_mapping_changes_a_known_one() -> None:
    found = load_optimizer({"name": "galore", "rank": 32, "refresh_steps": 50})
    assert isinstance(found, Optimizer) and (found.rank, found.refresh_steps, found.shape) == (32, 50, "projected")
    assert load_optimizer(found) is found


@pytest.mark.parametrize(
    ("ref", "part"),
    [
        ("adamww", "did you mean 'adamw'?"),
        ("sgd:3", "a rank from 1 behind it only for galore"),
        ("galore:0", "galore"),
        (7, "expected a name"),
        ({"name": "muon", "ranks": 3}, "did you mean 'rank'?"),
        ("", "expected a name"),
        ({"name": "sgd", "state_bytes": -1}, "state_bytes = -1 is not allowed"),
    ],
)
def test_what_is_no_optimizer_is_answered_in_a_sentence(ref: Any, part: str) -> None:
    assert part in refused(ref)
