"""A mistake in a model of blocks is one sentence: which block and node, what is wrong, what is expected."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from functools import cache, reduce
from operator import getitem
from typing import Any

import pytest

import graphsim as gs
import graphsim.models.yaml
from graphsim.models.yaml.nodes import KINDS
from tests.models.yaml.everything import LAYERS, document


def said_of(data: dict[str, Any]) -> str:
    with pytest.raises(gs.ConfigError) as caught:
        gs.load_model(data)
    return str(caught.value)


MODEL: dict[str, tuple[dict[str, Any], str]] = {
    "unknown stem": ({"stem": "embedings"}, "stem = 'embedings' is not known; did you mean 'embeddings'"),
    "unknown head": ({"head": "x"}, "head = 'x' is not known"),
    "a layer as a stem": (
        {"stem": "grouping"},
        r"blocks.grouping[0].inputs has nothing to name: a stem takes no input",
    ),
    "a layer as a head": ({"head": "grouping"}, "a head has one gemm with head: true"),
    "tied embeddings": ({"tied_embeddings": True}, "tied_embeddings = True has no effect with head; leave it out"),
    "bias of the usual head": ({"head_bias": True}, "head_bias = True has no effect with head; leave it out"),
    "final norm": ({"final_norm": False}, "final_norm = False has no effect with head"),
    "a norm that nothing has": ({"norm": "layer"}, "norm = 'layer' has no effect with blocks"),
    "positions": ({"learned_positions": True}, "learned_positions = True has no effect with stem"),
    "embedding norm": ({"embedding_norm": "rms"}, "embedding_norm = 'rms' has no effect with stem"),
    "names of usual ends": (
        {"names": {"embedding": "wte", "head": "lm_head"}},
        "names.head = 'lm_head' has no effect with head",
    ),
    "no streams": ({"streams": 0}, "streams = 0 is not allowed"),
    "streams": ({"streams": 2}, "yields 64 elements per token; expected hidden_size * streams = 128"),
    "streams of usual parts": ({"streams": 2, "head": None}, "streams = 2 needs blocks for stem, head and all layers"),
}
"""What is changed in a model of the block `grouping`, and what is said."""


@pytest.mark.parametrize(("changed", "message"), MODEL.values(), ids=MODEL)
def test_a_mistake_of_the_model_is_explained(changed: dict[str, Any], message: str) -> None:
    assert message in said_of({**document("grouping"), **changed})


NODES: list[tuple[str, str, dict[str, Any], str]] = [
    ("attending", "attend", {"sinkss": True}, "sinkss is not a known key; did you mean 'sinks'"),
    ("attending", "attend", {"cross": True, "kept": True}, "kept = True contradicts cross"),
    ("attending", "attend", {"kept": True, "cached": False}, "cached = False contradicts kept"),
    ("attending", "attend", {"causal": True}, "causal = True has no effect with a cache"),
    ("attending", "attend", {"cross": True}, "window = 16 is not simulated with cross: true"),
    ("attending", "attend", {"shares_kv": True}, "needs one input: queries"),
    ("attending", "scaled", {"inputs": ["o_proj", "q_norm"], "reads": "-tokens"}, "reads = (0 - tokens) is negative"),
    ("attending", "q_turned", {"unchecked": False, "reads": "tokens"}, "node 'q_turned' expects 15 elements"),
    ("attending", "angles", {"elems": None}, "blocks.attending[3].elems is missing, expected a number or arithmetic"),
    ("attending", "angles", {"inputs": "norm"}, "inputs = 'norm' is not allowed, since value takes none; drop it"),
    ("attending", "k_turned", {"inputs": ["qkv", "qkv.k"]}, "names 'qkv' and a part of it; expected one of them"),
    ("attending", "sum", {"inputs": ["input"]}, "blocks.attending[9].inputs: an add needs two inputs or more"),
    ("attending", "sum", {"learned": 3}, "learned is not a known key"),
    ("biased", "attend", {"biased": False}, "attention needs three inputs: queries, keys, values"),
    ("latent", "cache", {"width": 21}, "node 'cache' expects 315 elements"),
    ("latent", "attend", {"inputs": ["q"]}, "queries, and keys and values together or apart"),
    ("crossing", "attend", {"value_dim": 4}, "value_dim = 4 differs from head_dim = 8"),
    ("seeing", "fixed", {"window": 3}, "window = 3 has no effect with queries, rows or pairs"),
    ("seeing", "fixed", {"rows": "11 * sequences"}, "node 'fixed' expects"),
    ("scanning", "conv", {"taps": 0}, "taps = 0 is not allowed"),
    ("scanning", "scan", {"reads": None}, "blocks.scanning[2].reads is missing"),
    ("routing", "route", {"chosen": 9}, "chosen = 9 exceeds experts = 8; allowed: 1 to 8"),
    ("routing", "up", {"fuses": "gate"}, "fuses = 'gate' is not allowed"),
    ("routing", "up", {"fuses": [1]}, "fuses = [1] is not allowed; expected names"),
    ("routing", "up", {"targets": ["feed"]}, "targets = ['feed'] names 'feed', which is not known"),
    ("grouping", "headed", {"bias": True}, "bias = True has no effect with heads; leave it out"),
    ("grouping", "headed", {"module": "x"}, "module = 'x' has no effect with heads; leave it out"),
    ("grouping", "grouped", {"groups": 5}, "groups = 5 does not divide n = 64"),
    ("grouping", "pooled", {"head": True}, "head = True belongs to the block that the model names as its head"),
    ("grouping", "told", {"launches": 0}, "launches = 0 is not allowed"),
    ("grouping", "told", {"note": "x" * 300}, "note has 300 letters; allowed: at most 200"),
    ("grouping", "told", {"idle": True}, "inputs = ['grouped', 'pooled'] is not allowed, since no row passes it"),
    ("resting", "mlp", {"inputs": "unused_proj"}, "names 'unused_proj', which no row passes"),
    ("resting", "mlp", {"idle": True}, "idle is not a known key"),
]  # fmt: skip
"""Block, node, what is changed in it, and what is said."""


@pytest.mark.parametrize(("block", "node", "changed", "message"), NODES, ids=[f"{b}.{n} {c}" for b, n, c, _ in NODES])
def test_a_mistake_in_a_node_is_explained(block: str, node: str, changed: dict[str, Any], message: str) -> None:
    data = document(block)
    next(entry for entry in data["blocks"][block] if entry["name"] == node).update(changed)
    assert message in said_of(data)


def test_two_programs_must_hold_the_same_weights() -> None:
    data = document("twice")
    data["blocks"]["twice"]["decode"][2]["n"] = 65
    said = "blocks.twice: prompt has 4096 weights of 'first_proj', decode 4160; expected the same, idle: true where no"
    assert said in said_of(data)
    data = document("twice")
    data["blocks"]["twice"]["decode"][1]["weights"] = 6
    assert "prompt has 5 weights outside of modules, decode 6" in said_of(data)


def test_each_program_is_checked_by_itself() -> None:
    data = document("twice")
    data["blocks"]["twice"]["decode"][0]["k"] = 63
    assert "blocks.twice.decode: node 'x_proj' expects 189 elements, its inputs input bring 192" in said_of(data)
    del data["blocks"]["twice"]["decode"]
    assert "blocks.twice.decode is not allowed; expected a list of nodes, at least one" in said_of(data)
    data["blocks"]["twice"]["train"] = []
    assert "blocks.twice.train is not a known key" in said_of(data)


def test_a_mistake_that_only_a_step_that_generates_shows_is_found() -> None:
    data = document("grouping")
    told = next(node for node in data["blocks"]["grouping"] if node["name"] == "told")
    told["flops"] = "tokens - 4"
    assert "blocks.grouping: node 'told': flops = (tokens - 4) is negative or not finite" in said_of(data)


def test_the_head_has_one_product_that_yields_all_logits() -> None:
    data = document("grouping")
    decoder = next(node for node in data["blocks"]["logits"] if node["name"] == "decoder")
    decoder["n"] = 127
    said = said_of(data)
    assert "the head's gemm 'decoder' has n = 127; expected vocab_size = 128" in said
    decoder.update(n=128)
    data["blocks"]["logits"][2]["head"] = True
    assert "a head has one gemm with head: true, which yields the logits, found dense, decoder" in said_of(data)


def test_the_last_node_is_one_that_rows_pass() -> None:
    data = document("resting")
    nodes = data["blocks"]["resting"]
    nodes.append({"name": "late", "op": "norm", "idle": True})
    assert "the last node 'late' is one that no row passes" in said_of(data)


def test_every_kind_of_node_is_in_the_document_that_the_laws_hold_for() -> None:
    blocks = document()["blocks"].values()
    programs = [program for block in blocks for program in (block.values() if isinstance(block, dict) else [block])]
    ready = {"self_attention", "latent_attention", "mamba", "mamba2", "moe"}
    assert {node["op"] for program in programs for node in program} | ready == set(KINDS)


def test_every_kind_of_node_is_explained_where_model_files_are() -> None:
    lines = graphsim.models.yaml.__doc__.partition("**Blocks.**")[2].splitlines()  # type: ignore[union-attr]
    said = {word.strip(",") for line in lines if line.startswith("    ") and line[4] != " " for word in line.split()}
    assert set(KINDS) <= said


JUNK = (None, -1, 3.5, 10**400, "x", "tokens", [], {"a": 1})


NAMES = (*LAYERS, "twice")
Path = tuple[Any, ...]
"""Keys and places in lists, from the document down to a value."""


def places(data: Any, path: Path = (), kind: Path = ()) -> Iterator[tuple[Path, Path]]:
    """Where each value is, and what kind of place that is: keys, and for a node of a list its operation."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        named = key if isinstance(data, dict) and kind != ("blocks",) else None  # what blocks are called tells nothing
        here = (*kind, value.get("op") if isinstance(data, list) and isinstance(value, dict) else named)
        yield (*path, key), here
        if isinstance(value, dict | list):
            yield from places(value, (*path, key), here)


@cache
def junk_in_turn() -> dict[str, list[tuple[Path, Any]]]:
    """By document, what is put where: each kind of place, such as the width of a norm, with each kind of junk."""
    found = [(name, path, kind) for name in NAMES for path, kind in places(document(name))]
    times, met = Counter(kind for *_, kind in found), Counter[Path]()
    put: dict[str, list[tuple[Path, Any]]] = {name: [] for name in NAMES}
    for name, path, kind in found:
        turns = min(times[kind], len(JUNK))
        put[name] += [(path, junk) for junk in JUNK[met[kind] % turns :: turns]]
        met[kind] += 1
    return put


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_junk_anywhere_is_a_sentence_or_a_model(name: str) -> None:
    """In every place; where there are several of one kind, in all the documents, they take the junk in turn."""
    data = copy.deepcopy(document(name))
    for path, junk in junk_in_turn()[name]:
        inside = reduce(getitem, path[:-1], data)
        kept, inside[path[-1]] = inside[path[-1]], junk
        check_what_is_said_of(data)
        inside[path[-1]] = kept


def check_what_is_said_of(data: dict[str, Any]) -> None:
    """One sentence, or else it is a model."""
    try:
        model = gs.load_model(data)
    except gs.ConfigError as error:
        assert "\n" not in str(error) and len(str(error)) < 4000
    else:
        assert model.num_parameters > 0
