"""A model file says what a person means, and a mistake in it is explained in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from graphsim.errors import ConfigError
from graphsim.files.reading import MAX_FILE_BYTES
from graphsim.models.config import ModelConfig
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.block import Block
from graphsim.models.layers.mlp import Mlp
from graphsim.models.loading import load_model
from graphsim.models.yaml import read_model

GOOD = """
hidden_size: 64
vocab_size: 100
layers: 4
attention: {heads: 8, kv_heads: 2}
mlp: {intermediate_size: 96}
"""

BLOCK = """
hidden_size: 64
vocab_size: 100
fields: {inner: 2 * hidden_size}
blocks:
  own:
    - {name: up, op: gemm, n: inner, k: hidden_size}
    - {name: act, op: activation}
    - {name: down, op: gemm, n: hidden_size, k: inner}
    - {name: out, op: add, inputs: [down, input]}
layers: [{repeat: 3, block: own}]
"""


def read(text: str) -> ModelConfig:
    return read_model(yaml.safe_load(text), "own.yaml", "own")


def parts_of(model: ModelConfig, layer: int) -> tuple[SelfAttention, Mlp]:
    block = model.layers[layer]
    assert isinstance(block, Block)
    attention, mlp = (residual.branches[0].layer for residual in block.parts)
    assert isinstance(attention, SelfAttention) and isinstance(mlp, Mlp)
    return attention, mlp


def test_five_keys_describe_a_model():
    model = read(GOOD)
    attention, mlp = parts_of(model, 0)
    assert (model.name, model.num_layers, model.vocab_size) == ("own", 4, 100)
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (8, 2, 8)
    assert (mlp.intermediate, mlp.gated) == (96, True)
    assert len(set(model.layers)) == 1


def test_groups_and_patterns_override_the_sections_key_by_key():
    model = read(
        GOOD.replace(
            "layers: 4",
            """layers:
  - {repeat: 1, mlp: {intermediate_size: 48}}
  - repeat: 2
    attention: {kv_heads: 4}
    pattern:
      - attention: {window: 16}
      - attention: {window: 0, kv_heads: 1}
        mlp: {gated: false}
  - {}
""",
        )
    )
    found = [
        (a.heads, a.kv_heads, a.window, m.intermediate, m.gated) for a, m in (parts_of(model, i) for i in range(6))
    ]
    assert found == [
        (8, 2, 0, 48, True),
        (8, 4, 16, 96, True),
        (8, 1, 0, 96, False),
        (8, 4, 16, 96, True),
        (8, 1, 0, 96, False),
        (8, 2, 0, 96, True),
    ]


def test_a_section_may_be_given_by_the_layers_alone():
    model = read(
        """
hidden_size: 64
vocab_size: 100
layers: [{repeat: 2, attention: {heads: 4}, mlp: {intermediate_size: 8}}]
"""
    )
    assert parts_of(model, 1)[0].heads == 4


@pytest.mark.parametrize(("placement", "norms"), [("pre", 2), ("post", 2), ("both", 4)])
def test_norms_stand_where_the_placement_says(placement, norms):
    plain = 2 * 100 * 64 + 4 * (2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96) + 64
    assert read(GOOD + f"norm_placement: {placement}\n").num_parameters == plain + 4 * norms * 64


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("tied_embeddings: true", -100 * 64),
        ("head_bias: true", 100),
        ("norm: layer", 64 * 9),
        ("final_norm: false", -64),
        ("embedding_norm: layer", 128),
        ("residual: parallel", -4 * 64),
        ("residual: parallel_two_norms", 0),
        ("max_positions: 50\nlearned_positions: true", 50 * 64),
    ],
)
def test_each_switch_adds_its_own_weights(line, more):
    assert read(GOOD + line).num_parameters == read(GOOD).num_parameters + more


@pytest.mark.parametrize(
    ("section", "more"),
    [
        ("attention: {heads: 8, kv_heads: 2, bias: true}", 64 + 2 * 16 + 64),
        ("attention: {heads: 8, kv_heads: 2, qkv_bias: true}", 64 + 2 * 16),
        ("attention: {heads: 8, kv_heads: 2, qk_norm: head}", 8 + 8),
        ("attention: {heads: 8, kv_heads: 2, qk_norm: full}", 64 + 16),
        ("attention: {heads: 8, kv_heads: 2, sinks: true}", 8),
        ("attention: {heads: 8, kv_heads: 2, gated: true}", 64 * 64),
        ("attention: {heads: 8, kv_heads: 2, names: {qkv: attn.qkv}}", 0),
        ("attention: {heads: 8, kv_heads: 2, head_dim: 16}", 64 * 16 * (8 + 2 + 2 + 8) - 64 * 8 * (8 + 2 + 2 + 8)),
        ("attention: {heads: 8, kv_heads: 8}", 2 * 64 * 48),
    ],
)
def test_each_attention_key_adds_its_own_weights(section, more):
    changed = GOOD.replace("attention: {heads: 8, kv_heads: 2}", section)
    assert read(changed).num_parameters == read(GOOD).num_parameters + 4 * more


MOE = GOOD.replace("mlp: {intermediate_size: 96}", "moe: {experts: 8, experts_per_token: 2, intermediate_size: 16}")


def test_a_mixture_of_experts_replaces_the_mlp_but_where_the_mlp_is_asked_for():
    router, experts, dense = 64 * 8, 8 * 3 * 64 * 16, 3 * 64 * 96
    rest = read(GOOD).num_parameters - 4 * dense
    assert read(MOE).num_parameters == rest + 4 * (router + experts)
    mixed = MOE.replace("layers: 4", "layers: [{feed_forward: mlp}, {repeat: 2}, {moe: {experts: 4}}]")
    mixed += "mlp: {intermediate_size: 96}\n"
    assert read(mixed).num_parameters == rest + dense + 2 * (router + experts) + (router + experts) // 2


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("shared_experts: 2", 3 * 64 * 32),
        ("shared_intermediate_size: 40", 3 * 64 * 40),
        ("shared_experts: 1, shared_gate: true", 3 * 64 * 16 + 64),
        ("correction: true", 8),
        ("router_bias: true", 8),
        ("bias: true", 8 * (2 * 16 + 64)),
        ("gated: false", -8 * 64 * 16),
        ("skew: 0.8", 0),
    ],
)
def test_each_key_of_the_experts_adds_its_own_weights(key, more):
    changed = MOE.replace("experts_per_token: 2", f"experts_per_token: 2, {key}")
    assert read(changed).num_parameters == read(MOE).num_parameters + 4 * more


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("experts_per_token: 2", "experts_per_token: 9", r"moe\.experts_per_token = 9 exceeds experts = 8"),
        ("experts_per_token: 2", "experts_per_toke: 2", "did you mean 'experts_per_token'"),
        (
            "layers: 4",
            "layers: 4\nmlp: {intermediate_size: 96}",
            "mlp is used by no layer; drop it, or use it",
        ),
        ("experts: 8", "experts: 0", r"moe\.experts = 0 is not allowed"),
        ("intermediate_size: 16", "intermediate_size: 16, skew: -1", r"moe\.skew = -1 is not allowed"),
        ("intermediate_size: 16", "intermediate_size: 16, skew: much", r"moe\.skew"),
        ("intermediate_size: 16", "intermediate_size: 16, names: {gate: x}", r"moe\.names\.gate is not a known key"),
        ("layers: 4", "layers: 4\nfeed_forward: moes", "feed_forward = 'moes' is not allowed; did you mean 'moe'"),
    ],
)
def test_a_mistake_about_experts_is_named(old, new, message):
    assert old in MOE
    explain(MOE.replace(old, new), message)


def test_fields_may_refer_to_each_other_and_be_overridden_by_a_group():
    model = read(BLOCK.replace("[{repeat: 3, block: own}]", "[{block: own}, {block: own, fields: {inner: 16}}]"))
    assert model.num_parameters == 2 * 100 * 64 + 64 + 2 * 64 * 128 + 2 * 64 * 16


def test_a_block_named_by_the_model_is_every_layers():
    text = BLOCK.replace("layers: [{repeat: 3, block: own}]", "layers: 3\nblock: own")
    assert read(text).layers == read(BLOCK).layers


def test_equal_layers_are_equal_descriptions():
    assert len(set(read(BLOCK).layers)) == 1
    assert read(BLOCK).layers == read(BLOCK.replace("2 * hidden_size", "hidden_size + 64")).layers


BAD = [
    # (what is replaced, by what, what the message says)
    ("hidden_size: 64", "", "hidden_size is missing"),
    ("hidden_size: 64", "hidden_size: -1", r"hidden_size = -1 is not allowed; expected a whole number from 1"),
    ("hidden_size: 64", "hidden_size: 0", "hidden_size = 0 is not allowed"),
    ("hidden_size: 64", "hidden_size: 64.5", r"hidden_size = 64\.5 is not allowed"),
    ("hidden_size: 64", "hidden_size: .nan", "hidden_size = nan is not allowed"),
    ("hidden_size: 64", "hidden_size: .inf", "hidden_size = inf is not allowed"),
    ("hidden_size: 64", "hidden_size: 1e30", "hidden_size = .* is not allowed"),
    ("hidden_size: 64", f"hidden_size: {'9' * 30}", "hidden_size = 9+ is not allowed"),
    ("hidden_size: 64", "hidden_size: true", "hidden_size = True is not allowed"),
    ("hidden_size: 64", "hidden_size: wide", "hidden_size = 'wide' is not allowed"),
    ("hidden_size: 64", "hidden_size: [64]", r"hidden_size = \[64\] is not allowed"),
    ("hidden_size: 64", "hiden_size: 64", "hiden_size is not a known key; did you mean 'hidden_size'"),
    ("vocab_size: 100", "vocab_size: 0", "vocab_size = 0 is not allowed"),
    ("layers: 4", "", "layers is missing"),
    ("layers: 4", "layers: 0", "layers = 0 is not allowed"),
    ("layers: 4", "layers: 1000000000", "layers = 1000000000 is not allowed"),
    ("layers: 4", "layers: []", r"layers = \[\] is empty"),
    ("layers: 4", "layers: {repeat: 4}", "layers = .* is not allowed"),
    ("layers: 4", "layers: [4]", r"layers\[0\] = 4 is not a mapping"),
    ("layers: 4", "layers: [{repeat: 0}]", r"layers\[0\]\.repeat = 0 is not allowed"),
    ("layers: 4", "layers: [{repeat: 9000}, {repeat: 9000}]", "more than 10000 in all"),
    ("layers: 4", "layers: [{repeats: 4}]", r"layers\[0\]\.repeats is not a known key; did you mean 'repeat'"),
    ("layers: 4", "layers: [{pattern: []}]", r"layers\[0\]\.pattern = \[\] is empty"),
    ("layers: 4", "layers: [{pattern: 3}]", r"layers\[0\]\.pattern = 3 is not allowed"),
    ("layers: 4", "layers: [{pattern: [7]}]", r"layers\[0\]\.pattern\[0\] = 7 is not a mapping"),
    (
        "layers: 4",
        "layers: [{attention: {kv_heads: 3}}]",
        r"layers\[0\]\.attention\.kv_heads = 3 does not divide heads = 8",
    ),
    (
        "layers: 4",
        "layers: [{pattern: [{mlp: {gate: 1}}]}]",
        r"layers\[0\]\.pattern\[0\]\.mlp\.gate is not a known key",
    ),
    ("layers: 4", "layers: [{block: own}]", r"layers\[0\]\.block = 'own' is not known"),
    ("attention: {heads: 8, kv_heads: 2}", "", r"attention\.heads is missing"),
    ("attention: {heads: 8, kv_heads: 2}", "attention: 8", "attention = 8 is not a mapping"),
    ("kv_heads: 2", "kv_heads: 3", r"attention\.kv_heads = 3 does not divide heads = 8; allowed: a divisor of 8"),
    ("kv_heads: 2", "kv_heads: 16", r"attention\.kv_heads = 16 does not divide heads = 8"),
    (
        "heads: 8, kv_heads: 2",
        "heads: 7",
        r"attention\.head_dim is missing; heads = 7 does not divide hidden_size = 64",
    ),
    ("kv_heads: 2", "window: -1", r"attention\.window = -1 is not allowed"),
    ("kv_heads: 2", "windw: 4", r"attention\.windw is not a known key; did you mean 'window'"),
    ("kv_heads: 2", "rope: 3", r"attention\.rope = 3 is not allowed; expected true or false"),
    ("kv_heads: 2", "qk_norm: heads", r"attention\.qk_norm = 'heads' is not allowed; did you mean 'head'"),
    ("kv_heads: 2", "names: {query: q}", r"attention\.names\.query is not a known key"),
    ("kv_heads: 2", "names: [q]", r"attention\.names = \['q'\] is not a mapping"),
    ("mlp: {intermediate_size: 96}", "mlp: {}", r"mlp\.intermediate_size is missing"),
    ("intermediate_size: 96", "intermediate_size: 96, gated: maybe", r"mlp\.gated = 'maybe' is not allowed"),
    ("layers: 4", "layers: 4\nnorm: rmsnorm", "norm = 'rmsnorm' is not allowed; did you mean 'rms'"),
    ("layers: 4", "layers: 4\nnorm_placement: before", "norm_placement = 'before' is not allowed"),
    ("layers: 4", "layers: 4\nresidual: paralel", "residual = 'paralel' is not allowed; did you mean 'parallel'"),
    ("layers: 4", "layers: 4\nlearned_positions: true", "learned_positions = True needs max_positions"),
    ("layers: 4", "layers: 4\nmax_positions: -5", "max_positions = -5 is not allowed"),
    ("layers: 4", "layers: 4\nnames: {layer: model.layers.}", r"names\.layer = 'model\.layers\.' is not allowed"),
    ("layers: 4", "layers: 4\nnames: {layers: x}", r"names\.layers is not a known key; did you mean 'layer'"),
    ("layers: 4", "layers: 4\nprecision: fp7", "precision = 'fp7' is not known"),
    ("layers: 4", "layers: 4\nparameters: many", "parameters = 'many' is not allowed"),
    ("layers: 4", "layers: 4\naliases: [1]", r"aliases = \[1\] is not allowed; expected a list of strings"),
    ("layers: 4", "layers: 4\nname: 7", "name = 7 is not allowed; expected a string"),
    ("layers: 4", "layers: 4\nfields: {a: b, b: a}", r"fields\.a = 'b' refers to itself: a -> b -> a"),
    ("layers: 4", "layers: 4\nfields: {a: a}", "refers to itself: a -> a"),
    ("layers: 4", "layers: 4\nfields: {a: nothing}", r"fields\.a: 'nothing' uses the unknown name 'nothing'"),
    ("layers: 4", "layers: 4\nfields: {a: 1 / 0}", r"fields\.a = '1 / 0' has no finite value"),
    ("layers: 4", "layers: 4\nfields: {heads: 3}", r"fields\.heads is not a usable name"),
    ("layers: 4", "layers: 4\nfields: {tokens: 3}", r"fields\.tokens is not a usable name"),
    ("layers: 4", "layers: 4\nfields: {two words: 3}", r"fields\.two words is not a usable name"),
    ("layers: 4", "layers: 4\nfields: {3: 3}", r"fields\.3 is not a usable name"),
    ("layers: 4", "layers: 4\nfields: {a: }", r"fields\.a is empty"),
    ("layers: 4", "layers: 4\nfields: {a: '__import__(1)'}", "function '__import__' is not known"),
    ("layers: 4", "layers: 4\nfields: {a: [1]}", "expected a number or arithmetic"),
    ("layers: 4", "layers: 4\nblocks: {b: [{name: x, op: norm}]}", r"blocks\.b is used by no layer"),
    ("layers: 4", "layers: 4\nblocks: 3", "blocks = 3 is not a mapping"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[new or f"no {old}" for old, new, _ in BAD])
def test_a_mistake_is_named_with_file_key_value_and_what_is_allowed(old, new, message):
    assert old in GOOD
    explain(GOOD.replace(old, new), message)


BAD_BLOCKS = [
    ("block: own", "block: ow", r"layers\[0\]\.block = 'ow' is not known; did you mean 'own'"),
    ("op: activation", "op: activaton", r"blocks\.own\[1\]\.op = 'activaton' is not allowed; did you mean"),
    (", op: activation", "", r"blocks\.own\[1\]\.op is missing"),
    ("{name: act, op", "{op", r"blocks\.own\[1\]\.name is missing"),
    ("name: act", "name: up", r"blocks\.own\[1\]\.name = 'up' is not allowed"),
    ("name: act", "name: input", r"blocks\.own\[1\]\.name = 'input' is not allowed"),
    ("name: act", "name: a.b", r"blocks\.own\[1\]\.name = 'a\.b' is not allowed"),
    ("name: act", "name: 5", r"blocks\.own\[1\]\.name = 5 is not allowed"),
    ("inputs: [down, input]", "inputs: [down, inptu]", "names 'inptu', which is no earlier node; did you mean 'input'"),
    ("inputs: [down, input]", "inputs: [down, out]", "names 'out', which is no earlier node"),
    ("inputs: [down, input]", "inputs: [down, up.x]", r"names 'up\.x', which 'up' does not have"),
    ("inputs: [down, input]", "inputs: {}", r"blocks\.own\[3\]\.inputs = \{\} is not allowed"),
    ("inputs: [down, input]", "inputs: []", r"inputs = \[\] is not allowed"),
    ("inputs: [down, input]", "inputs: [down, 3]", "inputs = .* is not allowed"),
    ("inputs: [down, input]", "inputs: down", "an add needs two inputs or more"),
    ("inputs: [down, input]", "inputs: [act, input]", "expects 1920 elements|no later node takes the result of 'down'"),
    ("op: gemm, n: inner", "op: gemm, n: iner", r"blocks\.own\[0\]\.n: 'iner' uses the unknown name 'iner'; did"),
    ("op: gemm, n: inner", "op: gemm", r"blocks\.own\[0\]\.n is missing"),
    ("n: inner", "n: inner / 3", r"blocks\.own\[0\]\.n = 'inner / 3' is not allowed \(42\.6667\)"),
    ("n: inner", "n: -inner", r"n = '-inner' is not allowed \(-128\)"),
    ("n: inner", "n: inner / 0", r"n = 'inner / 0' is not allowed \(inf\)"),
    ("n: inner", "n: inner ** 9", "plain exponent"),
    ("n: inner", "n: inner ** 8", r"n = 'inner \*\* 8' is not allowed"),
    ("n: inner", "n: tokens", "n = 'tokens' changes from step to step"),
    ("n: inner", "n: 2 * tokens", "uses the unknown name 'tokens'"),
    ("n: inner", "n: inner(", "is not arithmetic"),
    ("n: inner", "n: os.system", "is not allowed in arithmetic"),
    ("n: inner", "n: inner, m: tokens / 0", "is negative or not finite"),
    ("n: inner", "n: inner, m: tokens - 1000", "is negative or not finite"),
    ("n: inner", "n: inner, m: tokns", "uses the unknown name 'tokns'; did you mean 'tokens'"),
    ("n: inner", "n: inner, split: colum", "split = 'colum' is not allowed; did you mean 'column'"),
    ("n: inner", "n: inner, targets: [att]", "names 'att', which is not known; did you mean 'attn'"),
    ("n: inner", "n: inner, parts: {a: 3}", r"n = 'inner' differs from the sum of its parts, 3"),
    ("n: inner", "n: inner, parts: {a: {wide: 3}}", r"parts\.a\.wide is not a known key"),
    ("n: inner", "n: inner, heads: 3", r"blocks\.own\[0\]\.heads is not a known key"),
    ("n: hidden_size, k: inner", "n: hidden_size, k: hidden_size", "node 'down' expects 960 elements"),
    ("n: hidden_size, k: inner", "n: 32, k: inner", "expects|yields"),
    ("    - {name: out, op: add, inputs: [down, input]}\n", "    - {name: out, op: gemm, n: 3, k: hidden_size}\n",
     "yields 3 elements per token; expected hidden_size = 64"),
    ("op: activation", "op: activation, steps: -1", "steps = -1 is not allowed"),
    ("op: activation", "op: activation, elems: tokens", "node 'down' expects"),
    ("op: activation", "op: norm, kind: rsm", "kind = 'rsm' is not allowed; did you mean 'rms'"),
    ("op: activation", "op: rope, heads: 4", r"blocks\.own\[1\]\.head_dim is missing"),
    ("op: activation", "op: rope, heads: 4, head_dim: 7", "expects 420 elements"),
    ("op: activation", "op: attention, heads: 4, head_dim: 8", "attention needs three inputs"),
    ("op: activation", "op: attention, heads: 4, kv_heads: 3, head_dim: 8", "kv_heads = 3 does not divide heads = 4"),
    ("op: activation", "op: self_attention", r"attention\.heads is missing"),
    ("op: activation", "op: compute, flops: tokens *", "is not arithmetic"),
    ("op: activation", "op: compute, weights: -1", "weights = -1 is not allowed"),
    ("[{repeat: 3, block: own}]", "[{repeat: 3, block: own, mlp: {intermediat: 3}}]", "is not a known key"),
    ("[{repeat: 3, block: own}]", "[{repeat: 3, block: own, norm: rms}]", r"layers\[0\]\.norm is not a known key"),
    ("[{repeat: 3, block: own}]", "[{repeat: 3, block: [own]}]", r"layers\[0\]\.block = \['own'\] is not allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD_BLOCKS, ids=[new or f"no {old}" for old, new, _ in BAD_BLOCKS])
def test_a_mistake_in_a_block_is_named_with_its_node(old, new, message):
    assert old in BLOCK
    explain(BLOCK.replace(old, new), message)


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
RICH = """
hidden_size: 8
vocab_size: 10
max_positions: 16
learned_positions: true
norm: rms
names: {layer: "model.layers.{}."}
attention: {heads: 4, kv_heads: 2, names: {q: q}}
mlp: {intermediate_size: 12}
fields: {inner: 2 * hidden_size, twice: 2 * inner}
blocks:
  own:
    - {name: qkv, op: gemm, k: 8, split: column, targets: [attn], parts: {q: {width: 8, units: 4}, k: 4, v: 4}}
    - {name: att, op: attention, inputs: [qkv.q, qkv.k, qkv.v], heads: heads, kv_heads: 2, head_dim: 2}
    - {name: any, op: compute, inputs: att, elems: tokens * twice, weights: 3, flops: pairs, state: sequences}
    - {name: out, op: gemm, n: 8, k: twice, m: tokens, bias: true}
    - {name: mlp, op: mlp, inputs: [out], intermediate_size: 6}
    - {name: sum, op: add, inputs: [mlp, input]}
layers:
  - {repeat: 1, mlp: {gated: false}}
  - {repeat: 2, pattern: [{block: own}, {attention: {window: 4}}]}
"""


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
