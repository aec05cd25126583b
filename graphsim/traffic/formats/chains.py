"""Prompts that begin alike, as chains of numbered segments: from hashes, token ids or conversations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from graphsim.traffic.formats.found import Chain
from graphsim.traffic.table import NOBODY, Floats, Ints


def of_blocks(numbers: dict[Hashable, int], hashes: Sequence[Hashable], block_tokens: int, tokens: int) -> Chain:
    """The chain of a prompt whose blocks of this many tokens have these hashes; what lies behind the prompt is dropped.

    numbers: of the hashes met so far, which grows
    """
    blocks = hashes[: -(-tokens // block_tokens)]
    ends = [min(block_tokens * (place + 1), tokens) for place in range(len(blocks))]
    return [numbers.setdefault(block, len(numbers)) for block in blocks], ends


def of_conversations(after: Ints, input_tokens: Floats, output_tokens: Floats) -> tuple[list[Chain], int]:
    """Chains of prompts that repeat what was said before, and how many do.

    A prompt does where it is as long as the one it follows together with its answer; else it starts a new conversation.
    """
    segment: list[int] = []
    repeats = 0
    for row, leader in enumerate(after.tolist()):
        goes_on = leader != NOBODY and input_tokens[row] >= input_tokens[leader] + output_tokens[leader]
        segment.append(segment[leader] if goes_on else row)
        repeats += goes_on
    return [([part], [int(tokens)]) for part, tokens in zip(segment, input_tokens.tolist(), strict=True)], repeats


class TokenTree:
    """Prompts given by their token ids, in a tree whose edges are what prompts have in common."""

    def __init__(self) -> None:
        self._tokens: list[Ints] = [np.empty(0, dtype=np.int64)]
        self._children: list[dict[int, int]] = [{}]
        self._parent: list[int] = [NOBODY]

    def add(self, tokens: Ints) -> int:
        """The node at which a prompt ends; it stays valid while the tree grows."""
        node, place = 0, 0
        while place < len(tokens):
            child = self._children[node].get(int(tokens[place]))
            if child is None:
                return self._grown(node, tokens[place:])
            edge = self._tokens[child]
            common = _common(edge, tokens[place:])
            if common < len(edge):
                child = self._split(child, common)
            node, place = child, place + common
        return node

    def chain(self, node: int, tokens: int) -> Chain:
        """Segments from the beginning to a node, as far as a prompt of this many tokens has them, and where they
        end.
        """
        nodes: list[int] = []
        while node > 0:
            nodes.append(node)
            node = self._parent[node]
        nodes.reverse()
        ends = np.cumsum([len(self._tokens[part]) for part in nodes]).tolist()
        held = sum(end < tokens for end in ends) + 1
        return nodes[:held], [min(end, tokens) for end in ends[:held]]

    def _grown(self, parent: int, tokens: Ints) -> int:
        self._tokens.append(tokens)
        self._children.append({})
        self._parent.append(parent)
        self._children[parent][int(tokens[0])] = len(self._tokens) - 1
        return len(self._tokens) - 1

    def _split(self, node: int, at: int) -> int:
        """A new node above this one that holds the first tokens of its edge."""
        edge, parent = self._tokens[node], self._parent[node]
        upper = self._grown(parent, edge[:at])
        self._tokens[node], self._parent[node] = edge[at:], upper
        self._children[upper][int(edge[at])] = node
        return upper


def _common(one: Ints, other: Ints) -> int:
    shorter = min(len(one), len(other))
    differs: np.ndarray[Any, Any] = one[:shorter] != other[:shorter]
    return int(differs.argmax()) if differs.any() else shorter
