"""Reading the nodes of attention."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.custom.attention import (
    AttentionNode,
    CrossAttentionNode,
    KeptAttentionNode,
    KvCacheNode,
    RopeNode,
    UncachedAttentionNode,
)
from graphsim.models.yaml.names import size, whole
from graphsim.models.yaml.nodes.reading import Kind, NodeEntry, Setting
from graphsim.models.yaml.overrides import says_nothing

_FREE = ("causal", "queries", "rows", "pairs")
"""Keys of attention without a KV cache."""

_WAYS = ("cross", "kept", "shares_kv")
"""Other sources of keys and values than the step's own tokens."""

_TAKES = {
    "": "attention needs three inputs: queries, keys, values",
    "cross": "attention needs three inputs: queries, keys, values",
    "kept": "attention to a cache needs two or three inputs: queries, and keys and values together or apart",
    "uncached": "attention needs two or three inputs: queries, and keys and values together or apart",
    "shares_kv": "attention with an earlier layer's keys and values needs one input: queries",
}


def _rope(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    heads = whole(fields, "heads", setting.known)
    return RopeNode(
        **entry.given,
        heads=heads,
        kv_heads=whole(fields, "kv_heads", setting.known, default=heads if len(entry.inputs) > 1 else 0, least=0),
        head_dim=whole(fields, "head_dim", setting.known),
    )


def _kv_cache(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return KvCacheNode(
        **entry.given,
        kv_heads=whole(fields, "kv_heads", setting.known),
        width=whole(fields, "width", setting.known),
        window=whole(fields, "window", setting.known, default=0, least=0),
    )


def _attention(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    way, cached = _way(fields), fields.flag("cached", True)
    attention = _described(fields, setting, way)
    _check_inputs(fields, entry, way if cached else "uncached", attention.biased)
    causal = fields.flag("causal", False)
    queries, rows, pairs = (size(fields, key, setting.known) for key in _FREE[1:])
    if not cached:
        if queries or rows or pairs:
            says_nothing(fields, ("causal", "window"), "queries, rows or pairs")
        return UncachedAttentionNode(
            **entry.given, attention=attention, causal=causal, queries=queries, rows=rows, pairs=pairs
        )
    says_nothing(fields, _FREE, "a cache (cached: true)")
    if way == "cross":
        return _cross(fields, entry, attention)
    return (KeptAttentionNode if way == "kept" else AttentionNode)(**entry.given, attention=attention)


def _way(fields: Fields) -> str:
    """The attention's source of keys and values among `_WAYS`; "" for the step's own tokens."""
    given = [key for key in _WAYS if fields.flag(key, False)]
    for key in given[1:]:
        fields.problem(key, f"contradicts {given[0]}; give one of {', '.join(_WAYS)}")
    if given and not fields.flag("cached", True):
        fields.problem("cached", f"contradicts {given[0]}, which reads a cache; leave one of them out")
    return given[0] if given else ""


def _described(fields: Fields, setting: Setting, way: str) -> SelfAttention:
    known = setting.known
    heads = whole(fields, "heads", known)
    kv_heads = whole(fields, "kv_heads", known, default=heads)
    if heads % kv_heads:
        fields.problem("kv_heads", f"does not divide heads = {heads}; allowed: a divisor of {heads}")
    return SelfAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=whole(fields, "head_dim", known),
        value_dim=whole(fields, "value_dim", known, default=0, least=0),
        window=whole(fields, "window", known, default=0, least=0),
        sinks=fields.flag("sinks", False),
        soft_cap=fields.flag("soft_cap", False),
        biased=fields.flag("biased", False),
        shares_kv=way == "shares_kv",
    )


def _check_inputs(fields: Fields, entry: NodeEntry, way: str, biased: bool) -> None:
    """Note a problem unless the number of inputs is right for the source of keys and values.

    fields: fields of the node
    entry: name and inputs of the node
    way: source of keys and values, as given by `_way`
    biased: whether a table of position biases may be the last input
    """
    least, most = {"kept": (2, 3), "uncached": (2, 3), "shares_kv": (1, 1)}.get(way, (3, 3))
    if not least <= len(entry.inputs) <= most + biased:
        further = ", and the biases if an earlier node makes them" if biased else ""
        fields.problems.append(f"{fields.name('inputs')}: {_TAKES[way]}{further}")


def _cross(fields: Fields, entry: NodeEntry, own: SelfAttention) -> custom.Node:
    for key in ("window", "sinks", "biased"):
        if fields.raw(key):
            fields.problem(key, "is not simulated with cross: true")
    if own.values != own.head_dim:
        fields.problem("value_dim", f"differs from head_dim = {own.head_dim}, which is not simulated with cross: true")
    cross = CrossAttention(heads=own.heads, kv_heads=own.kv_heads, head_dim=own.head_dim, soft_cap=own.soft_cap)
    return CrossAttentionNode(**entry.given, attention=cross)


KINDS = {
    "rope": Kind(read=_rope, most=2, takes="one or two inputs: queries, and keys if there are any"),
    "kv_cache": Kind(read=_kv_cache),
    "attention": Kind(read=_attention),
}
