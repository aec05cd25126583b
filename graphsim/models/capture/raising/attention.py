"""Nodes of attention and of the cache that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from graphsim.models.capture.raising.block import Block, Claim
from graphsim.models.capture.raising.elementwise import norm
from graphsim.models.capture.raising.held import AttentionSource, is_of_another_layer, reads_alone, seen_of
from graphsim.models.capture.raising.node import Node, StepSize, count
from graphsim.models.capture.raising.paths import absorb, path, together
from graphsim.models.capture.raising.rope import claim_rope
from graphsim.models.capture.raising.rows import is_fusable
from graphsim.models.capture.rows import Row, RowInput


def claim_attention(block: Block) -> None:
    """Claim each attention with its caches, the rotary embeddings of queries and keys, and the plain rows between."""
    caches = [row for row in block.used if row.kind == "kv_cache"]
    found = [seen_of(block, row) for row in block.used if row.kind == "attention"]
    own = {id(seen.cache) for seen in found if seen.cache is not None and reads_alone(block, seen)}
    for seen in found:
        if seen.cache is not None and id(seen.cache) not in own:
            seen.behind, seen.cache = [seen.cache], None
        _claim_around(block, seen)
        block.claim([seen.row], _attention, seen=seen)
    for row in caches:
        for taken in row.inputs:
            absorb(block, path(block, taken).rows, [row.name])
        block.claim([row], _cache, own=id(row) in own)


def _claim_around(block: Block, seen: AttentionSource) -> None:
    row, cache = seen.row, seen.cache
    query, key, value = row.inputs[:3]
    sizes = _sizes(block, seen)
    keys = list(cache.inputs[:1]) if cache is not None else [t for c in seen.behind for t in c.inputs] or [key]
    readers = {row.name, *(c.name for c in [cache, *seen.behind] if c is not None)}
    readers |= {inner.name for taken in (key, value) for inner in path(block, taken).rows}
    before = [_before_norm(block, taken, readers) for taken in (query, *keys)]
    claim_rope(block, before[0], before[1:], readers=readers, sizes=sizes)
    for top, heads in ((query, sizes["heads"]), (keys[0], sizes["kv_heads"])):
        _note_norm(block, top, heads, sizes["head_dim"])
    for taken in (query, key, value):
        absorb(block, path(block, taken).rows, [row.name])


def _before_norm(block: Block, top: RowInput, readers: set[str]) -> RowInput:
    """The input of a norm right before attention, whose rows are added to the readers; `top` if there is none."""
    leaves = path(block, top).leaves
    claim = block.claimed.get(leaves[0].source) if len(leaves) == 1 else None
    if claim is None or claim.emit is not norm:
        return top
    taken = block.outside(claim.rows)
    readers |= {row.name for row in claim.rows}
    return taken[0] if len(taken) == 1 else top


def _note_norm(block: Block, top: RowInput, heads: Any, width: Any) -> None:
    """Record the numbers of heads and their width for a per-head norm between a projection and attention."""
    waiting, seen = [top.source], set[str]()
    while waiting:
        row = block.by_name.get(waiting.pop())
        if row is None or row.name in seen or not (is_fusable(row) or row.name in block.claimed):
            continue
        seen.add(row.name)
        claim = block.claimed.get(row.name)
        if claim is not None and claim.emit is norm:
            claim.facts["heads"] = heads if row.out[-1] == width else 0
        elif row.kind not in ("attention", "kv_cache"):
            waiting += [taken.source for taken in row.inputs]


def _sizes(block: Block, seen: AttentionSource) -> dict[str, Any]:
    """Numbers of heads and queries of an attention, and the widths of its heads."""
    row = seen.row
    query = row.inputs[0]
    head_dim = query.shape[-1]
    sequences = 1 if block.symbols.each else block.symbols.batch
    heads = row.attributes.get("heads") or _whole_number(
        count(query.shape) / (head_dim * row.attributes["queries"] * sequences)
    )
    tokens = sympy.simplify(count(query.shape) / (heads * head_dim))
    stored = seen.cache.inputs[0] if seen.cache is not None else None
    if stored is not None:
        kv_heads = _whole_number(count(stored.shape) / (tokens * head_dim)) or heads
    else:
        value = row.inputs[2]  # keys may be complex numbers, which halves their count
        distinct = sum((_distinct(block, leaf) for leaf in path(block, value).leaves), start=sympy.Integer(0))
        own = row.attributes.get("kv_heads") or heads
        kv_heads = own if seen.behind else min(own, _whole_number(distinct * own / count(value.shape)) or own)
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "tokens": tokens, "plain": not seen.behind}


def _distinct(block: Block, leaf: RowInput) -> Any:
    """Number of elements of a value, without repetitions of heads."""
    seen, whole = count(leaf.shape), block.whole.get(leaf.source)
    return whole if whole is not None and block.less(whole, seen) else seen


def _whole_number(size: Any) -> int:
    value = sympy.simplify(size)
    return int(value) if value.is_Integer else 0


def _cache(block: Block, claim: Claim) -> None:
    """Add a separate cache node if operations other than attention read it; keys that equal values are stored once."""
    row = claim.rows[0]
    if claim.facts["own"]:
        return
    nodes = [tuple(block.take(path(block, taken).leaves)[0]) for taken in row.inputs]
    inputs = tuple(dict.fromkeys(name for names in nodes for name in names))
    distinct = list(dict(zip(nodes, row.inputs, strict=True)).values())
    widths = [one.shape[-1] * (one.shape[1] if len(one.shape) == 4 else 1) for one in distinct]
    key = distinct[0].shape
    heads = int(key[1]) if len(key) == 4 and len({one.shape[1] for one in distinct}) == 1 else 1
    fields: dict[str, Any] = {"kv_heads": heads, "width": int(sum(widths) // heads)}
    if row.attributes.get("window"):
        fields["window"] = int(row.attributes["window"])
    elems = sympy.expand(sum((count(out) for out in row.outputs), start=sympy.Integer(0)))
    block.add(Node(name=block.unique("kv_cache"), op="kv_cache", inputs=inputs, elems=elems, fields=fields), [row.name])


def _attention(block: Block, claim: Claim) -> None:
    """Add a softmax attention node, including the cache if that holds the keys and values unchanged."""
    seen: AttentionSource = claim.facts["seen"]
    row, cache = seen.row, seen.cache
    query, key, value = row.inputs[:3]
    sizes = _sizes(block, seen)
    fields: dict[str, Any] = {
        "heads": int(sizes["heads"]), "kv_heads": int(sizes["kv_heads"]), "head_dim": int(query.shape[-1]),
        "value_dim": int(value.shape[-1]),
    }  # fmt: skip
    window = _window(block, seen)
    if window:
        fields["window"] = window
    fields |= {flag: True for flag in ("soft_cap", "sinks") if row.attributes.get(flag)}
    added = [taken for taken in row.inputs[3:] if block.flows(taken)]
    tables = [taken for taken in row.inputs[3:] if not fields.get("sinks") and _is_parameter(block, taken)]
    if added or tables or row.attributes.get("biased"):
        fields["biased"] = True
    if cache is not None:
        taken: Sequence[Sequence[RowInput]] = ([query], [cache.inputs[0]], [cache.inputs[1]])
    else:
        taken, more = _without_cache(block, seen)
        fields |= more
    inputs = tuple(together(block, list(values)) for values in taken)
    inputs += (together(block, added),) if added else ()
    weights = tuple(block.weights_of([row])) if row.attributes.get("sinks") else ()
    node = Node(name=block.unique("attention"), op="attention", inputs=inputs, elems=count(row.out), fields=fields,
                weights=weights)  # fmt: skip
    block.spent.update(weights)
    block.add(node, [row.name])


def _window(block: Block, seen: AttentionSource) -> int:
    """Window of keys that a query sees, 0 for all: from the call, the cache or an attribute of enclosing modules."""
    row, cache = seen.row, seen.cache
    given = row.attributes.get("window") or (cache.attributes.get("window") if cache is not None else 0)
    if given or "window" in row.attributes:
        return int(given or 0)
    parts = row.module.split(".")
    for end in range(len(parts), 0, -1):
        module = block.model.get_submodule(".".join(parts[:end]))
        if getattr(module, "attention_type", "") == "local":
            return int(getattr(block.model.config, "window_size", 0))
        if isinstance(own := getattr(module, "sliding_window", None), int):
            return own
    return 0


def _is_parameter(block: Block, taken: RowInput) -> bool:
    return taken.source.partition(":")[2] in block.parameters


def _without_cache(block: Block, seen: AttentionSource) -> tuple[list[list[RowInput]], dict[str, Any]]:
    """Inputs and fields of an attention that has no cache of its own."""
    query, key, value = seen.row.inputs[:3]
    if seen.behind:
        _note_expansion(block, key)
        return [[query], [key, value]], {"kept": True}
    if all(is_of_another_layer(block, leaf) for leaf in path(block, key).leaves):
        return [[query]], {"shares_kv": True}
    free: dict[str, Any] = {"cached": False}
    if block.symbols.each:
        return [[query], [key], [value]], free | _spans(seen.row, _sizes(block, seen))
    if seen.row.attributes.get("causal") and seen.row.attributes["queries"] != 1:
        if block.keeps_nothing:
            return [[query], [key], [value]], {}
        free["causal"] = True
    return [[query], [key], [value]], free


def _note_expansion(block: Block, key: RowInput) -> None:
    rows = (block.by_name.get(leaf.source) for leaf in path(block, key).leaves)
    name = next((row.module.rpartition(".")[2] for row in rows if row is not None and row.kind == "linear"), "")
    if name:
        block.notes.append(
            f"{name} expands all that the latent cache holds in every step, as the modelling code has it; "
            "engines absorb it into queries and results at decode"
        )


def _spans(row: Row, sizes: dict[str, Any]) -> dict[str, Any]:
    """Queries, keys and query-key pairs of a tower's attention within whole images, within windows or to other rows."""
    queries, key = row.attributes["queries"], row.inputs[1].shape
    sequences = sympy.simplify(sizes["tokens"] / queries)
    keys = row.attributes.get("keys") or key[-2]
    pairs = queries * (queries + 1) / sympy.Integer(2) if row.attributes.get("causal") else queries * keys
    pairs = row.attributes.get("pairs", pairs)
    return {
        "queries": StepSize(sizes["tokens"]), "rows": StepSize(sequences * keys), "pairs": StepSize(sequences * pairs),
    }  # fmt: skip
