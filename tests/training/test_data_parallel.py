"""Data parallelism: bytes by TRAINING's table, what overlap hides, what devices keep; graphs and recursion agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphsim as gs
from graphsim.cost.calibrated import calibrated
from graphsim.graph.schedule import makespan_s
from graphsim.ops import AllGather, AllReduce, Collective, ReduceScatter
from graphsim.training.collective_timeline import micro_batch_s, timeline, times_of
from graphsim.training.data_parallel import steps_of
from graphsim.training.held import Held, HeldBytes, HeldUnit
from graphsim.training.overlap import Beside, chunked_s, slowed_s
from graphsim.training.sharing import RULES, groups_of, resident, rule_of

GB = 1e9
LAYERS = 8
SHARED = ("zero3", "fsdp1", "fsdp2")


def unit(name: str, times: int, frozen: float, trained: float, seconds: float, tensors: float = 1.0) -> HeldUnit:
    held = Held(
        frozen_bytes=frozen, trained_bytes=trained, gathered_bytes=trained, gradient_bytes=2 * trained,
        reduced_bytes=trained, state_bytes=6 * trained, tensors=tensors,
    )  # fmt: skip
    return HeldUnit(name=name, times=times, shared=held, forward_s=seconds, backward_s=2 * seconds)


def layers_only(frozen: float, trained: float, seconds: float = 0.01) -> HeldBytes:
    return HeldBytes(units=(unit("layers", LAYERS, frozen, trained, seconds),))


def model(frozen: float, trained: float, tensors: float) -> HeldBytes:
    """Layers between a stem and a head: a part of each layer is trained and the rest is frozen, or all is trained."""
    ends = (0.5 * GB, 0.0, 0.0) if frozen else (0.0, 0.5 * GB, 1.0)
    return HeldBytes(
        units=(
            unit("stem", 1, *ends[:2], 0.001, ends[2]),
            unit("layers", LAYERS, frozen, trained, 0.01, tensors),
            unit("head", 1, *ends[:2], 0.01, ends[2]),
        )
    )


FULL = model(0.0, 0.4 * GB, 1.0)
LORA = model(0.4 * GB, 2e6, 14.0)


def at(bytes_per_s: float, start_s: float = 0.0) -> Callable[[Collective], float]:
    return lambda op: op.work().message_bytes / bytes_per_s + start_s * np.minimum(op.work().message_bytes, 1.0)


@pytest.mark.parametrize("sharding, times", [
    ("ddp", 2.0), ("zero1", 2.0), ("distributed_optimizer", 2.0), ("zero2", 1.0 * 4 + 1.0), ("zero3", 3.0 * 4),
    ("fsdp2", 3.0 * 4), ("fsdp1", 3.0 * 4), ("shard_grad_op", 2.0 * 4),
])  # fmt: skip
def test_all_that_is_trained_travels_as_often_as_the_papers_say(sharding, times):
    """In units of the parameters, with 4 micro-batches: ZeRO (arXiv 1910.02054), section 7."""
    held = layers_only(0.0, 1.0 * GB)
    steps = steps_of(held, sharding, gs.Parallelism(dp=8))
    assert float(steps.sent_bytes(4.0)) == pytest.approx(times * LAYERS * GB * 7 / 8)


@pytest.mark.parametrize("sharding, times", [
    ("fsdp1", 2.0 * 4 + 1.0), ("fsdp2", 2.0 * 4 + 1.0), ("shard_grad_op", 1.0 * 4 + 1.0), ("zero2", 1.0 * 4 + 1.0),
    ("zero3", 3.0 * 4),
])  # fmt: skip
def test_reductions_that_are_deferred_travel_once_and_deepspeeds_never_are(sharding, times):
    """Weights are gathered in each of 4 micro-batches; torch's no_sync is for what FSDP shares."""
    steps = steps_of(layers_only(0.0, 1.0 * GB), sharding, gs.Parallelism(dp=8), defers=True)
    assert float(steps.sent_bytes(4.0)) == pytest.approx(times * LAYERS * GB * 7 / 8)


@pytest.mark.parametrize("sharding", list(RULES))
def test_a_frozen_base_is_gathered_where_it_is_shared_and_never_reduced(sharding):
    """Twice for each micro-batch, once where it stays whole; of what is trained nothing here."""
    rule = rule_of(sharding)
    steps = steps_of(layers_only(1.0 * GB, 0.0), sharding, gs.Parallelism(dp=8))
    gathers = (1 + rule.regathers) * 4 if rule.weights else 0
    assert float(steps.sent_bytes(4.0)) == pytest.approx(gathers * LAYERS * GB * 7 / 8)
    assert all(float(sent.message_bytes) == 0.0 for each in steps.units for sent in each.reduce)


def test_packed_four_bit_weights_travel_packed():
    sent = [
        float(steps_of(layers_only(size * 1e9, 0.0), "fsdp2", gs.Parallelism(dp=8)).sent_bytes())
        for size in (2.0, 0.5159)
    ]
    assert sent[1] / sent[0] == pytest.approx(0.5159 / 2.0)


def test_hybrid_sharding_gathers_in_its_group_and_sums_shares_over_groups():
    plain = gs.Parallelism(dp=32, tp=2)
    hybrid = gs.Parallelism(dp=32, tp=2, shard_group=8)
    held = layers_only(0.0, 1.0 * GB)
    (whole,), (steps,) = (steps_of(held, "fsdp2", degrees).units for degrees in (plain, hybrid))
    (gather, _), (scatter, across, *_) = ([s.op for s in steps.forward], [s.op for s in steps.reduce])
    assert (gather.group, gather.stride) == (8, 2) and isinstance(scatter, ReduceScatter) and scatter.group == 8
    assert isinstance(across, AllReduce) and (across.group, across.stride) == (4, 16)
    assert across.elems == pytest.approx(scatter.elems / 8)
    assert whole.forward[0].op.group == 32 and float(whole.reduce[1].message_bytes) == 0.0


def test_context_parallel_ranks_and_replicas_of_the_attention_hold_the_same_weights():
    degrees = gs.Parallelism(tp=2, ep=8, dp=3, cp=2)
    dense, experts = groups_of(degrees), groups_of(degrees, experts=True)
    assert (dense.all, dense.stride) == (3 * 2 * 4, 2)
    assert (experts.all, experts.stride) == (3 * 2, 8)


def test_a_layer_with_experts_sums_their_gradients_over_their_own_replicas():
    held = Held(trained_bytes=GB, gathered_bytes=GB, gradient_bytes=GB, reduced_bytes=GB)
    layer = HeldBytes(units=(HeldUnit(name="layers", times=4, shared=held, experts=held),))
    (steps,) = steps_of(layer, "ddp", gs.Parallelism(ep=8, dp=2)).units
    assert [sent.op.group for sent in steps.reduce] == [16, 2]


@pytest.mark.parametrize("sharding", SHARED)
def test_adapters_of_a_frozen_base_are_units_of_their_own_only_where_flat_parameters_ask_for_it(sharding):
    steps = next(each for each in steps_of(LORA, sharding, gs.Parallelism(dp=4)).units if each.unit.name == "layers")
    launches = sum(float(sent.times) for sent in steps.forward if float(sent.message_bytes))
    assert launches == (15 if sharding == "fsdp1" else 1)
    sent = sum(float(s.message_bytes) for s in steps.forward)
    assert sent == pytest.approx((0.4 * GB + 2e6) * 3 / 4)


@pytest.mark.parametrize("held", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("sharding", list(RULES))
@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_the_recursion_ends_when_the_graph_does(held, sharding, in_flight):
    steps = steps_of(held, sharding, gs.Parallelism(dp=8), in_flight)
    for rate in (200e9, 20e9, 4e9):
        for beside in (Beside(), Beside(overlap=0.9, contention=1.1)):
            for last in (True, False):
                alone = micro_batch_s(steps, at(rate), last=last, beside=beside)
                graph = timeline(steps, at(rate), last=last, beside=beside)
                assert float(alone) == pytest.approx(float(makespan_s(graph)), rel=1e-12)


def test_with_a_fast_network_the_first_gather_and_the_last_reduction_are_exposed():
    """exposed = first gather + sum of what takes longer than the compute beside it + last reduction."""
    held, price = layers_only(0.0, 1.0 * GB), at(1e12)
    steps = steps_of(held, "fsdp2", gs.Parallelism(dp=8))
    each = GB * 7 / 8 / 1e12
    assert float(times_of(steps, price).exposed_s) == pytest.approx(3 * each)  # forward's first, backward's first, last
    slow = times_of(steps, at(20e9))
    gather = GB * 7 / 8 / 20e9
    assert float(slow.step_s) == pytest.approx(LAYERS * 3 * gather + 0.02, rel=0.01)  # the network is never idle


def test_nothing_fetched_ahead_exposes_every_gather():
    steps = steps_of(layers_only(1.0 * GB, 0.0), "zero3", gs.Parallelism(dp=8), 1)
    assert float(times_of(steps, at(100e9)).exposed_s) == pytest.approx(2 * LAYERS * GB * 7 / 8 / 100e9)


@pytest.mark.parametrize("sharding", list(RULES))
def test_more_whole_units_faster_links_and_fewer_devices_never_slow_a_step_down(sharding):
    for held in (FULL, LORA):
        flight = [
            float(times_of(steps_of(held, sharding, gs.Parallelism(dp=8), n), at(30e9), 3.0).step_s)
            for n in (1, 2, 3, 6)
        ]
        assert all(later <= earlier * (1 + 1e-12) for earlier, later in zip(flight, flight[1:], strict=False))
        rates = [
            float(times_of(steps_of(held, sharding, gs.Parallelism(dp=8)), at(rate)).step_s)
            for rate in (1e9, 1e10, 1e11, 1e13)
        ]
        assert rates == sorted(rates, reverse=True)
        devices = times_of(steps_of(held, sharding, gs.Parallelism(dp=[1, 2, 4, 64])), at(30e9), 2.0)
        assert np.all(np.diff(devices.step_s) >= -1e-12) and abs(float(np.ravel(devices.exposed_s)[0])) < 1e-12


def test_gradients_of_earlier_micro_batches_travel_only_where_they_are_shared():
    for sharding, extra in (("ddp", 0), ("zero1", 0), ("distributed_optimizer", 0), ("zero2", 3), ("fsdp2", 3)):
        steps = steps_of(layers_only(0.0, GB), sharding, gs.Parallelism(dp=8))
        reduced = sum(float(s.message_bytes) for s in steps.units[0].reduce) * LAYERS
        more = float(steps.sent_bytes(4.0) - steps.sent_bytes(1.0))
        gathered = sum(float(s.message_bytes) for s in (*steps.units[0].forward, *steps.units[0].backward)) * LAYERS
        assert more == pytest.approx(extra * reduced + 3 * gathered)


def test_small_gradients_share_a_bucket_and_large_ones_are_cut():
    """DDP collects 25 MiB whatever the layers: 2 MB of adapters in each are one in all, 400 MB are many."""
    degrees = gs.Parallelism(dp=8)
    for held, wanted in ((LORA, 1.0), (FULL, (8 * 0.4 + 1.0) * GB / (25 * 2**20))):
        units = steps_of(held, "ddp", degrees).units
        launches = sum(
            float(sent.times) * each.unit.times
            for each in units
            for sent in each.reduce
            if sent.op.group > 1 and float(sent.message_bytes)
        )
        assert launches == pytest.approx(wanted)


def test_updated_weights_are_gathered_behind_the_optimizer_or_under_the_next_forward():
    price = at(20e9)
    shown, hidden = (
        times_of(steps_of(FULL, name, gs.Parallelism(dp=8)), price) for name in ("zero1", "distributed_optimizer")
    )
    whole = FULL.shared.gathered_bytes * 7 / 8 / 20e9
    assert float(shown.update_s) == pytest.approx(whole)
    assert float(hidden.update_s) == pytest.approx(
        max(whole - 0.091, whole / np.ceil(FULL.shared.gathered_bytes / 160e6))
    )


def test_shares_of_a_device_add_up_to_what_the_papers_give():
    """Bytes for each parameter in mixed precision with Adam, 2 + 2 + 12 of which devices share 0, 12, 14, 16."""
    held = HeldBytes(
        units=(
            HeldUnit(
                name="layers",
                times=LAYERS,
                shared=Held(
                    trained_bytes=2.0, gathered_bytes=2.0, gradient_bytes=2.0, reduced_bytes=2.0, state_bytes=12.0
                ),
            ),
        )
    )
    n = 8
    for sharding, wanted in (
        ("ddp", 16.0),
        ("zero1", 4 + 12 / n),
        ("zero2", 2 + 14 / n),
        ("zero3", 16 / n),
        ("fsdp2", 16 / n),
        ("distributed_optimizer", 4 + 12 / n),
    ):
        kept = resident(held, sharding, gs.Parallelism(dp=n))
        total = kept.weights_bytes + kept.gradients_bytes + kept.states_bytes
        assert float(total) == pytest.approx(LAYERS * wanted), sharding
        assert float(kept.gathered_bytes) == (4.0 if rule_of(sharding).weights else 0.0)
        alone = resident(held, sharding, gs.Parallelism(dp=1))
        assert float(alone.weights_bytes + alone.gradients_bytes + alone.states_bytes) == LAYERS * 16.0
        assert float(alone.gathered_bytes) == 0.0 == float(alone.bucket_bytes)


def test_weights_that_are_not_gathered_again_stay_whole_from_forward_to_backward():
    """FSDP's SHARD_GRAD_OP saves a gather for the memory of the model."""
    degrees = gs.Parallelism(dp=4)
    kept, again = (resident(FULL, name, degrees).gathered_bytes for name in ("shard_grad_op", "fsdp2"))
    assert float(kept) == pytest.approx(FULL.shared.gathered_bytes) and again < 0.5 * kept


def test_over_nodes_a_dense_group_is_faster_than_one_with_tensor_parallel_ranks_between():
    hardware = gs.load_hardware("h100-sxm")
    price = calibrated(hardware)[0]
    seconds = {}
    for tp in (1, 8):
        steps = steps_of(layers_only(2.0 * GB / tp, 0.0), "fsdp2", gs.Parallelism(tp=tp, dp=32 // tp))
        seconds[tp] = float(steps.units[0].forward[0].seconds(lambda op: price(op, hardware).latency_s))
    assert seconds[8] == pytest.approx(seconds[1], rel=0.25)  # an eighth of the bytes over an eighth of the NICs


def test_compute_beside_communication_is_slower_by_what_runs_together():
    assert slowed_s(1.0, 0.5, Beside(contention=1.2)) == pytest.approx(1.1)
    assert slowed_s(1.0, 5.0, Beside(contention=1.2)) == pytest.approx(1.2)
    assert slowed_s(1.0, 0.5, Beside(overlap=0.8)) == pytest.approx(1.1)
    assert slowed_s(1.0, 0.0, Beside(overlap=0.8, contention=2.0)) == 1.0


def test_of_chunked_products_and_collectives_one_chunk_is_exposed():
    assert chunked_s(8.0, 4.0, 1.0) == 12.0 and chunked_s(8.0, 4.0, 4.0) == pytest.approx(9.0)
    many = chunked_s(8.0, 4.0, np.array([1.0, 2.0, 4.0, 64.0]))
    assert np.all(np.diff(many) < 0) and many[-1] > 8.0


def test_an_unknown_sharding_is_refused():
    with pytest.raises(gs.ConfigError, match="did you mean 'zero3'"):
        steps_of(FULL, "zero-3", gs.Parallelism(dp=2))


def test_what_is_gathered_is_an_all_gather_and_what_is_summed_whole_an_all_reduce():
    kinds = {type(s.op) for each in steps_of(FULL, "fsdp2", gs.Parallelism(dp=8)).units for s in each.forward}
    assert kinds == {AllGather}
    assert {type(s.op) for each in steps_of(FULL, "ddp", gs.Parallelism(dp=8)).units for s in each.reduce} == {
        AllReduce
    }
