"""Deployments that an engine refuses, as data of its profile: one rule each, with the engine's own message and its
source.

Which deployments violate a rule is computed in `graphsim.deployment.refusals`. A message is a template, in which the
names in braces are replaced by the offending values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphsim.errors import choices_text
from graphsim.files.reading import Fields
from graphsim.units import Num

RULES: Mapping[str, tuple[str, str]] = {
    "rank": (
        "an adapter's rank above max_lora_rank",
        "rank {rank} is above the reserved max_lora_rank {max_lora_rank}",
    ),
    "max_lora_rank": (
        "a max_lora_rank that the engine does not offer",
        "max_lora_rank {max_lora_rank} is none of {offered}",
    ),
    "slots": (
        "more adapters in one step than slots",
        "{adapters} adapters do not fit into {slots} slots",
    ),
    "modules_to_save": (
        "modules trained in full",
        "modules trained in full have no place in a slot",
    ),
    "bias": (
        "a bias in the second factor",
        "slots hold no biases",
    ),
    "left_out": (
        "layers replicated, rows of the embedding or biases trained",
        "slots hold nothing of {parts}",
    ),
    "variant": (
        "a variant that is not plain LoRA's two GEMMs",
        "its kernels run only the two GEMMs of a plain adapter",
    ),
    "experts": (
        "adapters on experts",
        "it has no adapters on experts, such as {module}",
    ),
    "fully_sharded": (
        "factors cut over ranks that do not divide",
        "{rank} is not divisible by {tp}",
    ),
    "fully_sharded_experts": (
        "factors of experts sharded over ranks and experts distributed",
        "experts' factors are sharded over ranks or distributed, not both",
    ),
    "kernels": (
        "adapter kernels on a device that has none",
        "its adapter kernels do not run on {architecture}",
    ),
    "device": (
        "a device that the engine does not start on",
        "it does not start on {architecture}",
    ),
    "bf16": (
        "bf16 on a device without it",
        "{architecture} has no bf16",
    ),
    "blocks": (
        "a shard that cuts through quantised blocks",
        "{size} is not divisible by the quantisation's block of {block}",
    ),
    "packed": (
        "projections of one kernel in several formats",
        "{modules} are one weight, so that their formats must be one",
    ),
    "heads": (
        "attention heads that do not divide over the group",
        "{heads} is not divisible by {tp}",
    ),
    "width": (
        "an MLP or expert whose width does not divide over the group",
        "{width} is not divisible by {ways}",
    ),
    "encoder_decoders": (
        "models with an encoder that the decoder attends to",
        "it runs no encoder-decoder of the kind {kind}",
    ),
    "context": (
        "context-parallel ranks, of all models or of those that its kernels do not know",
        "it has no context parallelism that cuts prompts",
    ),
    "positions": (
        "more tokens than the model has positions",
        "{tokens} tokens are more than the {positions} positions of the model",
    ),
}  # fmt: skip
"""Every rule that an engine may have: what it forbids, and the message if an engine has none of its own."""

POSITIONS = ("all", "learned")
"""Models that a `positions` rule counts for: all, or those with learned positions, which have no row for one more
token.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One rule of an engine.

    rule: a name of RULES
    says: the engine's own message, a template, "" where it has none
    offered: numbers that it accepts
    but: names that it accepts
    architectures: device architectures that it refuses
    words: its messages for single kinds of what the rule forbids, by kind, where these differ
    base_counts: whether requests without an adapter take a slot
    models: the models whose positions count, one of
        POSITIONS
    """

    rule: str
    says: str = ""
    source: str = field(default="", compare=False)
    offered: tuple[float, ...] = ()
    but: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    base_counts: bool = False
    models: str = "all"

    def told(self, kind: str = "") -> str:
        """The message template for a kind of violation: the engine's own, or the rule's."""
        return dict(self.words).get(kind) or self.says or RULES[self.rule][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The rules that an engine has, by name."""

    rules: tuple[Limit, ...] = ()

    def get(self, rule: str) -> Limit | None:
        """The rule of that name; None if the engine does not have it."""
        return next((limit for limit in self.rules if limit.rule == rule), None)

    def reserved(self, rank: Num) -> Num:
        """The rank of the buffers for adapters of `rank`: the smallest one offered that is large enough, 0 for none.

        Above the largest offered rank, the rank itself, which the rule `max_lora_rank` then refuses.
        """
        limit = self.get("max_lora_rank")
        found = rank
        for offered in reversed(limit.offered if limit else ()):
            found = np.where(np.less_equal(rank, offered), offered, found)[()]
        return np.where(np.greater(rank, 0.0), found, 0.0)[()]


def read_limits(fields: Fields, kept: Limits) -> Limits:
    """The limits that a profile states, added to those of its base; a rule set to null is removed.

    Problems are noted in `fields`.
    """
    rules = {limit.rule: limit for limit in kept.rules}
    for rule in fields.keys():  # noqa: SIM118 - Fields is not a mapping
        if rule not in RULES:
            fields.problem(rule, f"is not a rule; {choices_text(rule, RULES)}")
        if fields.raw(rule) is None:
            rules.pop(rule, None)
        elif rule in RULES:
            rules[rule] = _limit(rule, fields.mapping(rule))
    return Limits(rules=tuple(sorted(rules.values(), key=lambda limit: list(RULES).index(limit.rule))))


def _limit(rule: str, fields: Fields) -> Limit:
    words = fields.mapping("words")
    return Limit(
        rule=rule,
        says=fields.text("says", ""),
        source=fields.text("source"),
        offered=tuple(sorted(_listed(fields, "offered", int))),
        but=tuple(_listed(fields, "but", str)),
        architectures=tuple(_listed(fields, "architectures", str)),
        words=tuple((kind, str(words.text(kind))) for kind in words.keys()),  # noqa: SIM118
        base_counts=fields.flag("base_counts", False),
        models=fields.text("models", "all", POSITIONS),
    )


def _listed(fields: Fields, key: str, kind: type) -> list[Any]:
    entries = list(fields.sequence(key, most=1000))
    if not all(isinstance(entry, kind) and not isinstance(entry, bool) for entry in entries):
        fields.problem(key, f"is not allowed; expected a list of {'names' if kind is str else 'whole numbers'}")
        return []
    return entries
