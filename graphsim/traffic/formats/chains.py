"""Prompts with common beginnings as chains of numbered segments, from hashes, token ids or conversations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from graphsim.traffic.formats.found import Chain
from graphsim.traffic.table import NOBODY, Floats, Ints


def of_blocks(numbers: dict[Hashable, int], hashes: Sequence[Hashable], block_tokens: int, tokens: int) -> Chain:
    """The chain of a prompt given by hashes of its blocks; blocks after the end of the prompt are dropped.

    numbers: segment ids of the hashes so far, to which new ones are added
    hashes: hash of each block
    block_tokens: tokens per block
    tokens: tokens of the prompt
    """
    blocks = hashes[: -(-tokens // block_tokens)]
    ends = [min(block_tokens * (place + 1), tokens) for place in range(len(blocks))]
    return [numbers.setdefault(block, len(numbers)) for block in blocks], ends


def of_conversations(after: Ints, input_tokens: Floats, output_tokens: Floats) -> tuple[list[Chain], int]:
    """Chains of prompts that repeat earlier turns of their conversation, and the number of such prompts.

    A prompt repeats the earlier turns if it is at least as long as the preceding prompt and its answer together;
    otherwise it starts a new conversation.
    """
    segment: list[int] = []
    repeats = 0
    for row, leader in enumerate(after.tolist()):
        goes_on = leader != NOBODY and input_tokens[row] >= input_tokens[leader] + output_tokens[leader]
        segment.append(segment[leader] if goes_on else row)
        repeats += goes_on
    return [([part], [int(tokens)]) for part, tokens in zip(segment, input_tokens.tolist(), strict=True)], repeats


class TokenTree:
    """A radix tree of prompts given by their token ids; its edges are common parts of prompts."""

    def __init__(self) -> None:
        self._tokens: list[Ints] = [np.empty(0, dtype=np.int64)]
        self._children: list[dict[int, int]] = [{}]
        self._parent: list[int] = [NOBODY]

    def add(self, tokens: Ints) -> int:
        """Add a prompt and return the node at its end, which remains valid while the tree grows."""
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
        """The segments from the root to a node, and their ends, up to the given number of tokens."""
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
        """Split the edge of a node after `at` tokens and return the new node above it."""
        edge, parent = self._tokens[node], self._parent[node]
        upper = self._grown(parent, edge[:at])
        self._tokens[node], self._parent[node] = edge[at:], upper
        self._children[upper][int(edge[at])] = node
        return upper


def _common(one: Ints, other: Ints) -> int:
    shorter = min(len(one), len(other))
    differs: np.ndarray[Any, Any] = one[:shorter] != other[:shorter]
    return int(differs.argmax()) if differs.any() else shorter
