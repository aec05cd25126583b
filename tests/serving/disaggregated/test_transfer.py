"""What a transfer takes: bytes of both layouts, links, descriptors, and how much of it hides behind the prompt."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

import graphsim as gs
from graphsim.serving.disaggregated.hand_off import HAND_OFFS, HandOff
from graphsim.serving.disaggregated.layout import layout_of, link_bytes
from graphsim.serving.disaggregated.links import Links
from graphsim.serving.disaggregated.transfer import FREE, Transfer, TransferPlan, read_transfer, way_between
from tests.serving.disaggregated.pools import TOKEN_BYTES, layout, way


def deployment(model: str = "llama-3.1-8b", hardware: str = "h100-sxm", tp: int = 1, pp: int = 1) -> gs.Deployment:
    return gs.Deployment(model, hardware, parallelism=gs.Parallelism(tp=tp, pp=pp), engine="vllm")


def between(
    prefill: gs.Deployment, decode: gs.Deployment, given: Transfer, workers: tuple[int, int] = (1, 1)
) -> TransferPlan:
    return way_between(
        prefill, decode, (layout_of(prefill), layout_of(decode)), HandOff(), given, workers=workers, block_tokens=16,
        chunk_tokens=8192,
    )  # fmt: skip


def test_the_cache_of_a_prompt_has_the_bytes_of_its_heads() -> None:
    whole = layout_of(deployment())
    assert whole.bytes(4096) == 4096 * 32 * 2 * 8 * 128 * 2  # layers, keys and values, heads, width, bf16
    assert whole.buffers == 64 and whole.devices == 1
    halves = layout_of(deployment(tp=2))
    assert halves.bytes(4096) == whole.bytes(4096) and halves.fullest(4096) == whole.bytes(4096) / 2
    copies = layout_of(deployment(tp=16))  # eight heads of keys and values on sixteen devices
    assert copies.bytes(4096) == 2 * whole.bytes(4096)


@pytest.mark.slow
def test_latent_attention_keeps_a_copy_on_every_device_and_one_buffer_a_layer() -> None:
    one, two = (layout_of(deployment("deepseek-v2-lite", tp=tp)) for tp in (1, 2))
    assert two.bytes(1024) == 2 * one.bytes(1024) and two.fullest(1024) == one.fullest(1024)
    assert one.buffers == 27


def test_stages_keep_their_own_layers() -> None:
    one, two = layout_of(deployment()), layout_of(deployment(pp=2))
    assert two.devices == 2 and two.bytes(1024) == one.bytes(1024) and two.buffers == 32


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_more_devices_on_either_side_carry_no_more_each(ranks: int) -> None:
    tokens, whole = 1600, 1600 * TOKEN_BYTES
    few, many = layout(1), layout(ranks, TOKEN_BYTES / ranks)
    assert link_bytes(many, many, tokens) == pytest.approx(whole / ranks)
    assert link_bytes(few, many, tokens) == pytest.approx(whole)  # all leaves one device
    assert link_bytes(many, few, tokens) == pytest.approx(whole)  # all comes to one device


def test_parts_leave_while_the_rest_is_computed() -> None:
    tokens, computed_s = 8192, 1.0
    kinds = [replace(HAND_OFFS["trtllm"], overlap=overlap) for overlap in ("none", "chunks", "layers")]
    for rate in (1e8, 1e9, 1e10):
        left = [way(kind, rate, chunk=2048).left_s(tokens, computed_s) for kind in kinds]
        assert left == sorted(left, reverse=True) and left[-1] > 0.0
    whole = way(kinds[0], 1e9).seconds(tokens)
    fast, slow = (way(kinds[1], rate, chunk=2048) for rate in (1e10, 1e8))
    assert fast.left_s(tokens, computed_s) == pytest.approx(fast.wire_s(tokens) / 4)  # only the last part is left
    assert slow.left_s(tokens, computed_s) == pytest.approx(slow.wire_s(tokens) - 0.75)  # busy since the first part
    assert whole == pytest.approx(8192 * TOKEN_BYTES / 1e9)


@pytest.mark.parametrize(("kind", "count"), [("blocks", 64 * 512), ("layers", 64), ("one", 1)])
def test_descriptors_are_posted_one_by_one(kind: str, count: int) -> None:
    found = replace(way(HandOff(descriptors=kind)), descriptor_s=1e-6)
    assert found.descriptors(8192) == count and found.seconds(8192) == pytest.approx(count * 1e-6)


def test_one_transfer_at_a_time_has_a_link() -> None:
    links = Links(way=way(HandOff(), 1e9), senders=[0.0, 0.0], receivers=[0.0, 0.0])
    each = 1000 * TOKEN_BYTES / 1e9
    ends = [links.send(row, row % 2, 0, 1000, 0.0, 0.0) for row in range(3)]
    assert ends == pytest.approx([each, 2 * each, 3 * each])
    assert links.send(3, 1, 1, 1000, 0.0, 0.0) == pytest.approx(3 * each)  # its sender is busy
    assert links.send(4, 0, 1, 0, 0.5, 0.0) == 0.5 and len(links.sent) == 4


@pytest.mark.slow
def test_the_nearest_link_that_holds_all_workers_is_taken() -> None:
    one, other = deployment(tp=4), deployment(hardware="h200-sxm", tp=4)
    assert between(one, one, Transfer()).link == "NVLink 4"
    assert between(one, one, Transfer(), (2, 1)).link == "InfiniBand NDR"
    assert between(one, other, Transfer()).link == "InfiniBand NDR"
    assert between(one, one, Transfer(link="InfiniBand NDR")).bytes_per_s == pytest.approx(0.92 * 50e9)
    assert between(one, one, FREE).seconds(8192) == 0.0
    alone = deployment(hardware="a10")
    assert between(alone, alone, Transfer()).bytes_per_s < 63e9  # no link between devices but the host's


def test_what_is_said_of_a_transfer_is_read() -> None:
    found = read_transfer("link=NVLink 4, bandwidth=25 GB/s, setup=2 ms, descriptor=4 us, overlap=layers")
    assert found == Transfer(link="NVLink 4", bytes_per_s=25e9, setup_s=2e-3, descriptor_s=4e-6, overlap="layers")
    assert read_transfer("bandwidth=inf").bytes_per_s == inf


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("speed=3", "'speed=3' is not understood; expected NAME=VALUE, allowed: bandwidth, descriptor"),
        ("bandwidth", "'bandwidth' is not understood"),
        ("bandwidth=fast", "'fast' is not a quantity"),
        ("bandwidth=0", "bytes_per_s = 0.0 is not allowed"),
        ("setup=-1 ms", "setup_s = -0.001 is not allowed"),
        ("overlap=some", "overlap = 'some' is not known; allowed: chunks, layers, none"),
    ],
)
def test_what_says_nothing_is_one_sentence(spec: str, words: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        read_transfer(spec)
    assert words in str(caught.value) and "\n" not in str(caught.value)
