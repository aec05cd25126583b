"""Conversations and shared prefixes: prompts that grow with each turn, and prompts with a common beginning.

The prompt of a turn consists of the shared prefix, all earlier messages and answers, and the new message. The text of
the conversation is one segment that grows with each turn, so that a chain has two entries for any number of turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.brief import settings_text
from graphsim.errors import ConfigError
from graphsim.traffic.draws import Draws
from graphsim.traffic.lengths import LONGEST, Spread, draw_lengths, mean_of, read_length, read_spread
from graphsim.traffic.popularity import ROUND_ROBIN, Drift, read_popularity, shares
from graphsim.traffic.table import NOBODY, Floats, Ints, Prefixes
from graphsim.units import amount_text, checked_number, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations of several turns, and prefixes that prompts share.

    turns: number of turns of a conversation, in any form that a length may have
    think_s: seconds between an answer and the next message: a number or a distribution such as `exponential:mean=20`
    shared_prefix_tokens: tokens of the shared text before each prompt: one number, or one per group
    prefix_groups: number of different shared prefixes
    prompts_per_group: number of different prompts per group, which are sent repeatedly with the same lengths; None if
        every prompt is unique (both are `shared_prefix` of inference-perf)
    popularity: of the groups, or of the prompts if they are repeated, in the same form as for adapters
    The traffic's input_tokens are the tokens of each new message, in addition to the prefix.
    """

    turns: Any = 1
    think_s: Any = 0.0
    shared_prefix_tokens: Any = 0
    prefix_groups: int = 1
    prompts_per_group: int | None = None
    popularity: Any = "uniform"

    def __repr__(self) -> str:
        return settings_text(self)

    def __post_init__(self) -> None:
        """Raise ConfigError for turns below 1, negative pauses or prefixes, and inconsistent groups."""
        object.__setattr__(self, "turns", read_length("Sessions: turns", self.turns))
        if isinstance(self.think_s, str):
            object.__setattr__(self, "think_s", read_spread("Sessions: think_s", self.think_s, least=0.0))
        elif not isinstance(self.think_s, Spread):
            checked_number("Sessions: think_s", self.think_s, 0.0, whole=False, one=True)
        checked_number("Sessions: prefix_groups", self.prefix_groups, 1, 10**6, one=True)
        if self.prompts_per_group is not None:
            checked_number("Sessions: prompts_per_group", self.prompts_per_group, 1, 10**6, one=True)
            if self.turns != 1:
                raise ConfigError("Sessions: prompts_per_group repeats prompts, so turns stays at 1; found both")
        self._check_prefixes()
        if isinstance(self.popularity, Drift):
            raise ConfigError("Sessions: popularity does not drift; expected uniform, zipf:1.2, … or a share of each")
        object.__setattr__(self, "popularity", read_popularity(self.popularity))
        if self.popularity not in ROUND_ROBIN:
            shares(self.popularity, self.texts, self.kind)

    def _check_prefixes(self) -> None:
        given = self.shared_prefix_tokens
        listed = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
        for each in given if listed else [given]:
            checked_number("Sessions: shared_prefix_tokens", each, 0, LONGEST, one=True)
        if listed and len(given) != self.prefix_groups:
            found = f"{len(given)} shared_prefix_tokens for {self.prefix_groups} prefix_groups"
            raise ConfigError(f"Sessions: {found}; expected one number, or one each")
        if listed:
            object.__setattr__(self, "shared_prefix_tokens", tuple(int(each) for each in given))

    @property
    def kind(self) -> str:
        """What `popularity` refers to: `prefix_groups` or `prompts`."""
        return "prefix_groups" if self.prompts_per_group is None else "prompts"

    @property
    def texts(self) -> int:
        """Number of different beginnings: groups, or prompts if they are repeated."""
        return self.prefix_groups * (self.prompts_per_group or 1)

    @property
    def prefix_tokens(self) -> Ints:
        """Tokens of the shared prefix of each group."""
        return np.broadcast_to(np.asarray(self.shared_prefix_tokens, dtype=np.int64), (self.prefix_groups,))

    @property
    def mean_turns(self) -> float | None:
        """Mean number of turns, where it is known without drawing."""
        return mean_of(self.turns)

    def turns_of(self, requests: int, draws: Draws) -> Ints:
        """Number of turns of each conversation, `requests` in total; the last conversation may be cut short."""
        found = np.zeros(0, dtype=np.int64)
        while found.sum() < requests:
            missing = int(requests - found.sum())
            batch = max(int(missing / (self.mean_turns or 1.0) * 1.05) + 16, 16)
            found = np.concatenate([found, draw_lengths("Sessions: turns", self.turns, min(batch, missing), draws)])
        ends = np.cumsum(found)
        count = int(np.searchsorted(ends, requests)) + 1
        found = found[:count]
        found[-1] -= ends[count - 1] - requests
        return found

    def texts_of(self, conversations: int, draws: Draws) -> Ints:
        """Index of the beginning of each conversation."""
        if self.popularity in ROUND_ROBIN:
            return np.arange(conversations) % self.texts
        return draws.choice(shares(self.popularity, self.texts, self.kind), conversations)

    def pauses(self, count: int, draws: Draws) -> Floats:
        """Seconds between an answer and the next message, one for each of `count` pauses."""
        if isinstance(self.think_s, Spread):
            return self.think_s.values(count, draws)
        return np.full(count, float(self.think_s))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chats:
    """Rows of conversations, one conversation after another: conversation, turn and beginning of each row."""

    conversation: Ints
    turn: Ints
    text: Ints

    @property
    def after(self) -> Ints:
        """The row of the preceding turn."""
        return np.where(self.turn > 0, np.arange(len(self.turn)) - 1, NOBODY)


def chats_of(sessions: Sessions, turns: Ints, draws: Draws) -> Chats:
    """The rows of this many conversations."""
    conversation = np.repeat(np.arange(len(turns)), turns)
    turn = np.arange(len(conversation)) - np.repeat(np.cumsum(turns) - turns, turns)
    return Chats(conversation=conversation, turn=turn, text=sessions.texts_of(len(turns), draws)[conversation])


def grown(sessions: Sessions, chats: Chats, messages: Ints, answers: Ints) -> Ints:
    """Tokens of each prompt: the prefix, earlier messages and answers, and the new message."""
    said = np.cumsum(messages + answers) - messages - answers
    begins = said[np.flatnonzero(chats.turn == 0)]
    group = chats.text // (sessions.prompts_per_group or 1)
    prompts: Ints = sessions.prefix_tokens[group] + said - begins[chats.conversation] + messages
    return prompts


def prefixes_of(sessions: Sessions, chats: Chats, prompt_tokens: Ints) -> Prefixes | None:
    """The common parts of prompts; None if there are none.

    A repeated prompt is shared except for its last token, which must always be computed, so that its answer is not
    shared.
    """
    group = chats.text // (sessions.prompts_per_group or 1)
    prefix = sessions.prefix_tokens[group]
    repeated = sessions.prompts_per_group is not None
    own = (np.bincount(chats.conversation) > 1)[chats.conversation] | repeated
    shared = prefix > 0
    if not shared.any() and not own.any():
        return None
    text = chats.text if repeated else chats.conversation
    last = prompt_tokens - repeated
    kept = np.stack([shared, own & (last > prefix)], axis=1)
    start = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    segment, end = np.stack([group, sessions.prefix_groups + text], axis=1), np.stack([prefix, last], axis=1)
    return Prefixes(start=start, segment=segment[kept], end=end[kept])


def read_sessions(given: Any) -> Sessions | None:
    """The sessions given by a user, or None. Raises ConfigError for anything else."""
    if given is None or isinstance(given, Sessions):
        return given
    raise ConfigError(f"Traffic: sessions = {short(given)} is not allowed; expected Sessions(turns=…, …)")


def turns_text(sessions: Sessions) -> str:
    """The conversations as readable text."""
    parts = []
    if sessions.turns != 1:
        parts.append(
            "conversations of " + (f"{amount_text(sessions.mean_turns)} turns" if sessions.mean_turns else "some turns")
        )
    if np.any(sessions.prefix_tokens):
        parts.append(f"{sessions.prefix_groups} shared prefixes of {amount_text(sessions.prefix_tokens.mean())} tokens")
    if sessions.prompts_per_group is not None:
        parts.append(f"{sessions.texts} prompts repeated")
    return ", ".join(parts)
