"""A mistake in a model file is explained in one sentence: file, key, value, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from graphsim.errors import ConfigError
from graphsim.files.reading import MAX_FILE_BYTES
from graphsim.models.loading import load_model
from graphsim.models.yaml import read_model
from tests.models.yaml_files import BLOCK, GOOD, MOE, RICH, read

REPLACED: dict[str, dict[str, str]] = {
    "hidden_size: 64": {
        "": "hidden_size is missing",
        "hidden_size: -1": "hidden_size = -1 is not allowed; expected a whole number from 1",
        "hidden_size: 0": "hidden_size = 0 is not allowed",
        "hidden_size: 64.5": r"hidden_size = 64\.5 is not allowed",
        "hidden_size: .nan": "hidden_size = nan is not allowed",
        "hidden_size: .inf": "hidden_size = inf is not allowed",
        "hidden_size: 1e30": "hidden_size = .* is not allowed",
        f"hidden_size: {'9' * 30}": "hidden_size = 9+ is not allowed",
        "hidden_size: true": "hidden_size = True is not allowed",
        "hidden_size: wide": "hidden_size = 'wide' is not allowed",
        "hidden_size: [64]": r"hidden_size = \[64\] is not allowed",
        "hiden_size: 64": "hiden_size is not a known key; did you mean 'hidden_size'",
    },
    "vocab_size: 100": {
        "vocab_size: 0": "vocab_size = 0 is not allowed",
    },
    "layers: 4": {
        "": "layers is missing",
        "layers: 0": "layers = 0 is not allowed",
        "layers: 1000000000": "layers = 1000000000 is not allowed",
        "layers: []": r"layers = \[\] is empty",
        "layers: {repeat: 4}": "layers = .* is not allowed",
        "layers: [4]": r"layers\[0\] = 4 is not a mapping",
        "layers: [{repeat: 0}]": r"layers\[0\]\.repeat = 0 is not allowed",
        "layers: [{repeat: 9000}, {repeat: 9000}]": "more than 10,000 in all",
        "layers: [{repeats: 4}]": r"layers\[0\]\.repeats is not a known key; did you mean 'repeat'",
        "layers: [{pattern: []}]": r"layers\[0\]\.pattern = \[\] is empty",
        "layers: [{pattern: 3}]": r"layers\[0\]\.pattern = 3 is not allowed",
        "layers: [{pattern: [7]}]": r"layers\[0\]\.pattern\[0\] = 7 is not a mapping",
        "layers: [{attention: {kv_heads: 3}}]": r"layers\[0\]\.attention\.kv_heads = 3 does not divide heads = 8",
        "layers: [{pattern: [{mlp: {gate: 1}}]}]": r"layers\[0\]\.pattern\[0\]\.mlp\.gate is not a known key",
        "layers: [{block: own}]": r"layers\[0\]\.block = 'own' is not known",
    },
    "attention: {heads: 8, kv_heads: 2}": {
        "": r"attention\.heads is missing",
        "attention: 8": "attention = 8 is not a mapping",
    },
    "kv_heads: 2": {
        "kv_heads: 3": r"attention\.kv_heads = 3 does not divide heads = 8; allowed: a divisor of 8",
        "kv_heads: 16": r"attention\.kv_heads = 16 does not divide heads = 8",
        "window: -1": r"attention\.window = -1 is not allowed",
        "windw: 4": r"attention\.windw is not a known key; did you mean 'window'",
        "rope: 3": r"attention\.rope = 3 is not allowed; expected true or false",
        "qk_norm: heads": r"attention\.qk_norm = 'heads' is not allowed; did you mean 'head'",
        "names: {query: q}": r"attention\.names\.query is not a known key",
        "names: [q]": r"attention\.names = \['q'\] is not a mapping",
    },
    "heads: 8, kv_heads: 2": {
        "heads: 7": r"attention\.head_dim is missing; heads = 7 does not divide hidden_size = 64",
    },
    "mlp: {intermediate_size: 96}": {
        "mlp: {}": r"mlp\.intermediate_size is missing",
    },
    "intermediate_size: 96": {
        "intermediate_size: 96, gated: maybe": r"mlp\.gated = 'maybe' is not allowed",
    },
}
"""What is replaced in GOOD, by what, and what the message says."""

ADDED: dict[str, str] = {
    "norm: rmsnorm": "norm = 'rmsnorm' is not allowed; did you mean 'rms'",
    "norm_placement: before": "norm_placement = 'before' is not allowed",
    "residual: paralel": "residual = 'paralel' is not allowed; did you mean 'parallel'",
    "learned_positions: true": "learned_positions = True needs max_positions",
    "max_positions: -5": "max_positions = -5 is not allowed",
    "names: {layer: model.layers.}": r"names\.layer = 'model\.layers\.' is not allowed",
    "names: {layers: x}": r"names\.layers is not a known key; did you mean 'layer'",
    "precision: fp7": "precision = 'fp7' is not known",
    "parameters: many": "parameters = 'many' is not allowed",
    "aliases: [1]": r"aliases = \[1\] is not allowed; expected a list of strings",
    "name: 7": "name = 7 is not allowed; expected a string",
    "fields: {a: b, b: a}": r"fields\.a = 'b' refers to itself: a -> b -> a",
    "fields: {a: a}": "refers to itself: a -> a",
    "fields: {a: nothing}": r"fields\.a: 'nothing' uses the unknown name 'nothing'",
    "fields: {a: 1 / 0}": r"fields\.a = '1 / 0' has no finite value",
    "fields: {heads: 3}": r"fields\.heads is not a usable name",
    "fields: {tokens: 3}": r"fields\.tokens is not a usable name",
    "fields: {two words: 3}": r"fields\.two words is not a usable name",
    "fields: {3: 3}": r"fields\.3 is not a usable name",
    "fields: {a: }": r"fields\.a is empty",
    "fields: {a: '__import__(1)'}": "function '__import__' is not known",
    "fields: {a: [1]}": "expected a number or arithmetic",
    "blocks: {b: [{name: x, op: norm}]}": r"blocks\.b is used by no layer",
    "blocks: 3": "blocks = 3 is not a mapping",
}
"""What is added to GOOD, and what the message says."""

IN_BLOCKS: dict[str, dict[str, str]] = {
    "block: own": {
        "block: ow": r"layers\[0\]\.block = 'ow' is not known; did you mean 'own'",
    },
    "op: activation": {
        "op: activaton": r"blocks\.own\[1\]\.op = 'activaton' is not allowed; did you mean",
        "op: activation, steps: -1": "steps = -1 is not allowed",
        "op: activation, elems: tokens": "node 'down' expects",
        "op: norm, kind: rsm": "kind = 'rsm' is not allowed; did you mean 'rms'",
        "op: rope, heads: 4": r"blocks\.own\[1\]\.head_dim is missing",
        "op: rope, heads: 4, head_dim: 7": "expects 420 elements",
        "op: attention, heads: 4, head_dim: 8": "attention needs three inputs",
        "op: attention, heads: 4, kv_heads: 3, head_dim: 8": "kv_heads = 3 does not divide heads = 4",
        "op: self_attention": r"attention\.heads is missing",
        "op: compute, flops: tokens *": "is not arithmetic",
        "op: compute, weights: -1": "weights = -1 is not allowed",
    },
    ", op: activation": {
        "": r"blocks\.own\[1\]\.op is missing",
    },
    "{name: act, op": {
        "{op": r"blocks\.own\[1\]\.name is missing",
    },
    "name: act": {
        "name: up": r"blocks\.own\[1\]\.name = 'up' is not allowed",
        "name: input": r"blocks\.own\[1\]\.name = 'input' is not allowed",
        "name: a.b": r"blocks\.own\[1\]\.name = 'a\.b' is not allowed",
        "name: 5": r"blocks\.own\[1\]\.name = 5 is not allowed",
    },
    "inputs: [down, input]": {
        "inputs: [down, inptu]": "names 'inptu', which is not an earlier node; did you mean 'input'",
        "inputs: [down, out]": "names 'out', which is not an earlier node",
        "inputs: [down, up.x]": r"names 'up\.x', which 'up' does not have",
        "inputs: {}": r"blocks\.own\[3\]\.inputs = \{\} is not allowed",
        "inputs: []": r"inputs = \[\] is not allowed",
        "inputs: [down, 3]": "inputs = .* is not allowed",
        "inputs: down": "an add needs two inputs or more",
        "inputs: [act, input]": "expects 1920 elements|no later node takes the result of 'down'",
    },
    "op: gemm, n: inner": {
        "op: gemm, n: iner": r"blocks\.own\[0\]\.n: 'iner' uses the unknown name 'iner'; did",
        "op: gemm": r"blocks\.own\[0\]\.n is missing",
    },
    "n: inner": {
        "n: inner / 3": r"blocks\.own\[0\]\.n = 'inner / 3' is not allowed \(42\.6667\)",
        "n: -inner": r"n = '-inner' is not allowed \(-128\)",
        "n: inner / 0": r"n = 'inner / 0' is not allowed \(inf\)",
        "n: inner ** 9": "plain exponent",
        "n: inner ** 8": r"n = 'inner \*\* 8' is not allowed",
        "n: tokens": "n = 'tokens' changes from step to step",
        "n: 2 * tokens": "uses the unknown name 'tokens'",
        "n: inner(": "is not arithmetic",
        "n: os.system": "is not allowed in arithmetic",
        "n: inner, m: tokens / 0": "is negative or not finite",
        "n: inner, m: tokens - 1000": "is negative or not finite",
        "n: inner, m: tokns": "uses the unknown name 'tokns'; did you mean 'tokens'",
        "n: inner, split: colum": "split = 'colum' is not allowed; did you mean 'column'",
        "n: inner, targets: [att]": "names 'att', which is not known; did you mean 'attn'",
        "n: inner, parts: {a: 3}": "n = 'inner' differs from the sum of its parts, 3",
        "n: inner, parts: {a: {wide: 3}}": r"parts\.a\.wide is not a known key",
        "n: inner, head_dim: 3": r"blocks\.own\[0\]\.head_dim is not a known key",
    },
    "n: hidden_size, k: inner": {
        "n: hidden_size, k: hidden_size": "node 'down' expects 960 elements",
        "n: 32, k: inner": "expects|yields",
    },
    "    - {name: out, op: add, inputs: [down, input]}\n": {
        "    - {name: out, op: gemm, n: 3, k: hidden_size}\n": "yields 3 elements per token; expected hidden_size = 64",
    },
    "[{repeat: 3, block: own}]": {
        "[{repeat: 3, block: own, mlp: {intermediat: 3}}]": "is not a known key",
        "[{repeat: 3, block: own, norm: rms}]": r"layers\[0\]\.norm is not a known key",
        "[{repeat: 3, block: [own]}]": r"layers\[0\]\.block = \['own'\] is not allowed",
    },
}
"""The same in BLOCK."""

OF_EXPERTS: dict[str, dict[str, str]] = {
    "experts_per_token: 2": {
        "experts_per_token: 9": r"moe\.experts_per_token = 9 exceeds experts = 8",
        "experts_per_toke: 2": "did you mean 'experts_per_token'",
    },
    "layers: 4": {
        "layers: 4\nmlp: {intermediate_size: 96}": "mlp is used by no layer; drop it, or use it",
        "layers: 4\nfeed_forward: moes": "feed_forward = 'moes' is not allowed; did you mean 'moe'",
    },
    "experts: 8": {
        "experts: 0": r"moe\.experts = 0 is not allowed",
    },
    "intermediate_size: 16": {
        "intermediate_size: 16, skew: -1": r"moe\.skew = -1 is not allowed",
        "intermediate_size: 16, skew: much": r"moe\.skew",
        "intermediate_size: 16, names: {gate: x}": r"moe\.names\.gate is not a known key",
    },
}
"""The same in MOE."""


def cases(text: str, replaced: Mapping[str, Mapping[str, str]]) -> list[object]:
    """Each changed text with its message; whatever is to be replaced has to be there."""
    assert all(old in text for old in replaced)
    return [
        pytest.param(text.replace(old, new), message, id=new or f"no {old}")
        for old, changes in replaced.items()
        for new, message in changes.items()
    ]


ALL = [
    *cases(GOOD, REPLACED),
    *(pytest.param(f"{GOOD}{line}\n", message, id=line) for line, message in ADDED.items()),
    *cases(BLOCK, IN_BLOCKS),
    *cases(MOE, OF_EXPERTS),
]


@pytest.mark.parametrize(("text", "message"), ALL)
def test_a_mistake_is_named_with_file_key_value_and_what_is_allowed(text: str, message: str) -> None:
    explain(text, message)


@pytest.mark.parametrize(
    "blocks", ["own: 3", "own: []", "own: [3]", "own: [[]]", "own: null", "3: [{name: x, op: norm}]"]
)
def test_a_block_that_is_no_list_of_nodes_is_explained(blocks):
    explain(re.sub(r"  own:\n(    - .*\n)+", f"  {blocks}\n", BLOCK), "blocks|block = 'own' is not known")


def explain(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    said = str(caught.value)
    assert said.startswith("own.yaml: ")
    assert "\n" not in said and len(said) < 3000


def test_all_problems_of_a_file_are_reported_at_once():
    text = GOOD.replace("vocab_size: 100", "vocab_size: -1").replace("kv_heads: 2", "kv_heads: 3") + "extra: 1\n"
    with pytest.raises(ConfigError) as caught:
        read(text)
    for piece in ("vocab_size = -1", "kv_heads = 3", "extra is not a known key"):
        assert piece in str(caught.value)


def _write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("   \n", "the file is empty"),
        (b"\xff\xfe\x00\x01binary", "not a text file|cannot be read as text"),
        ("x" * (MAX_FILE_BYTES + 1), "at most"),
        ("[1, 2]", "expected a mapping"),
        ("just text", "expected a mapping"),
        (GOOD + "vocab_size: 200\n", "'vocab_size' is given twice"),
        (GOOD.replace("kv_heads: 2", "kv_heads: 2, kv_heads: 4"), "'kv_heads' is given twice"),
        (GOOD + "a: [1,\n", "not valid YAML"),
        (GOOD + "a: &x 1\nb: *x\n", "aliases are not allowed"),
        (GOOD + "a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_model_is_explained(tmp_path, content, message):
    path = _write(tmp_path / "own.yaml", content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))


JUNK = (
    *(
        None,
        -1,
        0,
        3.5,
        10**400,
        float("nan"),
        float("inf"),
        True,
        "",
        "x",
        "tokens",
        "1/0",
        "a" * 5000,
        b"\0",
        object(),
    ),
    *([], {}, [[]], [None], [{}], {"a": 1}, {1: 2}, {None: None}, ["input", "input"]),
)


def _places(data: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in nested data."""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [place for key, value in children for place in _places(value, (*path, key))]


def _replaced(data: object, path: tuple[object, ...], value: object) -> object:
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)  # type: ignore[call-overload]
    copy[path[0]] = _replaced(copy[path[0]], path[1:], value)  # type: ignore[index]
    return copy


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20] if not callable(junk) else "object")
def test_junk_anywhere_in_a_file_is_a_config_error_or_a_model(junk):
    data = yaml.safe_load(RICH)
    for place in _places(data):
        try:
            model = read_model(_replaced(data, place, junk), "own.yaml", "own")
        except ConfigError as error:
            said = str(error)
            assert said.startswith("own.yaml: ") and "\n" not in said and len(said) < 4000, (place, said)
        else:
            assert model.num_parameters > 0
