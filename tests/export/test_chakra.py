"""Chakra traces: the published wire format, the graph's work and order, one file per device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.export.spread import runs_of

pytest.importorskip("google.protobuf")
from graphsim.export.chakra import read_chakra, to_chakra  # noqa: E402
from graphsim.export.chakra_schema import COLLECTIVES, NODE_TYPES, message  # noqa: E402


def wire(content: bytes) -> list[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message, by the encoding guide alone."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while content[at] & 0x80:
            value, shift, at = value | (content[at] & 0x7F) << shift, shift + 7, at + 1
        return value | content[at] << shift, at + 1

    found, at = [], 0
    while at < len(content):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        else:
            size, at = varint(at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = content[at : at + size], at + size
        found.append((key >> 3, value))
    return found


def attributes(node) -> dict:
    return {a.name: getattr(a, a.WhichOneof("value")) for a in node.attr}


@pytest.fixture(scope="module")
def traces(estimates, tmp_path_factory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("chakra")
    return {label: to_chakra(estimates[label], folder / label) for label in ("dynamic", "tp2", "pipeline", "exchange")}


def test_the_bytes_follow_the_published_field_numbers(traces):
    content = traces["dynamic"][0].read_bytes()
    size = content[0] if content[0] < 128 else (content[0] & 127) | content[1] << 7
    start = 1 if content[0] < 128 else 2
    header = wire(content[start : start + size])
    assert header[0] == (1, b"0.0.4") and all(number == 2 for number, _ in header[1:])
    _, nodes = read_chakra(traces["dynamic"][0])
    fields = wire(nodes[5].SerializeToString())
    numbers = {number for number, _ in fields}
    assert {1, 2, 3, 7, 10} <= numbers <= set(range(1, 11))
    plain = {number: value for number, value in fields if number != 10}
    assert plain[1] == 5 and plain[2].decode() == nodes[5].name and plain[3] == NODE_TYPES.index("COMP_NODE")
    first = dict(wire(next(value for number, value in fields if number == 10)))
    assert first == {1: b"is_cpu_op", 27: 0}


def test_every_kind_of_attribute_has_the_published_number():
    fields = {f.name: f.number for f in message("AttributeProto").DESCRIPTOR.fields}
    published = {"double_val": 3, "int32_val": 7, "int64_val": 9, "uint64_val": 13, "uint64_list": 14, "bool_val": 27,
                 "bool_list": 28, "string_val": 29, "bytes_val": 31, "bytes_list": 32, "sfixed64_list": 26}  # fmt: skip
    assert {name: fields[name] for name in published} == published and len(fields) == 32
    assert COLLECTIVES.index("ALL_TO_ALL") == 6 and NODE_TYPES.index("COMM_COLL_NODE") == 7


def test_a_trace_holds_every_run_with_its_work_and_time(estimates, traces):
    runs = [run for run in runs_of(estimates["dynamic"].prefill.graph) if run.latency_s > 0]
    header, nodes = read_chakra(traces["dynamic"][0])
    assert attributes(header)["model"] == "llama-3.1-8b"
    assert [node.name for node in nodes] == [run.name for run in runs]
    for node, run in zip(nodes, runs, strict=True):
        found, work = attributes(node), run.op.work()
        assert found["num_ops"] == round(float(work.flops + work.vector_flops))
        assert found["tensor_size"] == round(float(work.memory_bytes))
        assert found["residency"] == "All_offchip"
        assert found["latency_s"] == run.latency_s and found["is_cpu_op"] is False
        assert abs(node.duration_micros - run.latency_s * 1e6) <= 1


@pytest.mark.parametrize("label", ["dynamic", "tp2", "pipeline"])
def test_dependencies_point_back_and_replaying_them_gives_the_latency(estimates, traces, label):
    ends: dict[int, float] = {}
    _, nodes = read_chakra(traces[label][0])
    for node in nodes:
        before = [*node.data_deps, *node.ctrl_deps]
        assert all(d in ends for d in before) and node.id not in ends
        ends[node.id] = max((ends[d] for d in before), default=0.0) + attributes(node)["latency_s"]
    if label != "pipeline":
        assert max(ends.values()) == pytest.approx(float(estimates[label].ttft_s), rel=1e-9)


def test_every_device_of_a_group_takes_part_in_the_same_collectives(estimates, traces):
    assert [path.suffix for path in traces["tp2"]] == [".et", ".et"]
    mine, other = ([attributes(n) for n in read_chakra(path)[1] if n.type == 7] for path in traces["tp2"])
    assert mine == other and len(mine) == sum(r.latency_s > 0 and r.op.stream == "network" for r in
                                              runs_of(estimates["tp2"].prefill.graph))  # fmt: skip
    gathers = [a for a in mine if a["comm_type"] == COLLECTIVES.index("ALL_GATHER")]
    reduces = [a for a in mine if a["comm_type"] == COLLECTIVES.index("ALL_REDUCE")]
    assert {a["comm_size"] for a in reduces} == {2 * 512 * 4096 * 2, 2 * 512 * 16 * 2}
    assert 2 * 128256 * 2 // 2 in {a["comm_size"] for a in gathers}
    assert not any("pg_name" in a for a in mine)


def test_experts_exchange_tokens_among_all_their_devices(traces):
    assert len(traces["exchange"]) == 4
    for path in traces["exchange"]:
        kinds = {attributes(n)["comm_type"] for n in read_chakra(path)[1] if n.type == 7}
        assert COLLECTIVES.index("ALL_TO_ALL") in kinds


def test_what_one_stage_sends_the_next_receives(traces):
    sends, receives = (
        [attributes(n) for n in read_chakra(path)[1] if n.type == NODE_TYPES.index(kind)]
        for path, kind in zip(traces["pipeline"], ("COMM_SEND_NODE", "COMM_RECV_NODE"), strict=True)
    )
    keys = ("comm_src", "comm_dst", "comm_tag", "comm_size")
    assert sends and [[a[k] for k in keys] for a in sends] == [[a[k] for k in keys] for a in receives]
    assert {(a["comm_src"], a["comm_dst"]) for a in sends} == {(0, 1)}
    _, second = read_chakra(traces["pipeline"][1])
    received = {n.id for n in second if n.type == NODE_TYPES.index("COMM_RECV_NODE")}
    assert any(received & set(n.data_deps) for n in second)


def test_groups_smaller_than_all_devices_are_listed(tmp_path):
    parallelism = gs.Parallelism(tp=2, pp=2)
    estimate = gs.simulate(
        "gpt-2", "h100-sxm", batch=1, input_tokens=32, output_tokens=2, parallelism=parallelism, engine="reference"
    )
    paths = to_chakra(estimate, tmp_path / "t", phase="decode")
    assert [p.name for p in paths] == ["t.0.et", "t.1.et", "t.2.et", "t.3.et", "t.groups.json"]
    groups = json.loads(paths[-1].read_text())
    assert sorted(groups.values()) == [[0, 1], [2, 3]]
    for rank, path in enumerate(paths[:-1]):
        names = {attributes(n).get("pg_name") for n in read_chakra(path)[1] if n.type == 7}
        assert len(names) == 1 and rank in groups[names.pop()]


def test_mistakes_are_explained(estimates, tmp_path, monkeypatch):
    with pytest.raises(gs.ConfigError, match="phase = 'prefil' is not known; did you mean 'prefill'"):
        to_chakra(estimates["base"], tmp_path / "x", phase="prefil")
    with pytest.raises(gs.ConfigError, match="cannot be written"):
        to_chakra(estimates["base"], tmp_path / "no" / "x")
    bad = {b"": "is empty", b"\xff": "not a Chakra", b"\x7fabc": "beyond the end", b"\x03abc": "not a Chakra"}
    for content, reason in bad.items():
        (tmp_path / "bad.et").write_bytes(content)
        with pytest.raises(gs.ConfigError, match=reason):
            read_chakra(tmp_path / "bad.et")
    with pytest.raises(gs.ConfigError, match="cannot be read"):
        read_chakra(tmp_path / "none.et")
    from graphsim.export import chakra_schema

    chakra_schema._messages.cache_clear()
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim-llm\[chakra\]"):
        to_chakra(estimates["base"], tmp_path / "x")
    chakra_schema._messages.cache_clear()
