"""The configuration of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from graphsim.brief import settings_text
from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.files.present import shown
from graphsim.lora.adapter_file import read_file
from graphsim.lora.adapter_weights import AdapterTensors
from graphsim.lora.checks import checked_layers, checked_names, checked_rows, checked_stretches
from graphsim.lora.matching import MAX_RANK, Matching, matched
from graphsim.lora.options import checked
from graphsim.lora.popularity import Shares, expected_distinct, grouped
from graphsim.lora.schemes import SCHEMES
from graphsim.lora.variant import Variant
from graphsim.lora.variants import known
from graphsim.ops.formats import FORMATS
from graphsim.symbolic.guard import Figure, Guard, require
from graphsim.units import Num, checked_number, require_known, short

STRATEGIES = ("dynamic", "merge")
BIASES = ("none", "all", "targets")
_LISTED = (
    "target_modules", "exclude_modules", "target_parameters", "modules_to_save", "layers_pattern", "blocks_a",
    "blocks_b",
)  # fmt: skip
"""Fields that are names; an adapter keeps its own tuples, which cannot be modified from outside."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraConfig:
    """An adapter (or several with the same configuration) and how it is served.

    enabled: False runs the base model
    rank: of the factors A and B
    target_modules: module types (`attn`, `ffn`), operation names (`qkv`, `out proj`, `query`, …), names and
        suffixes as in PEFT, or one string: `all-linear` or a regular expression for the whole module path; None for
        PEFT's default by the `model_type` of a config.json
    strategy: `dynamic` applies the factors to every token, `merge` adds them to the weights once
    variant: `lora`, `rslora`, `dora`, `vera`, `alora`, `qa-lora`, `bd-lora`, or another of PEFT's methods, such as
        `ia3` or `oft`: a file in `graphsim/lora/variants`
    options: further settings of a variant, under PEFT's names: `{"oft_block_size": 64}`
    group_size: number of inputs that QA-LoRA pools
    blocks: number of blocks of BD-LoRA's block-diagonal factor
    blocks_a, blocks_b: parts of module names whose A or B is block-diagonal, by default according to how tensor
        parallelism shards their base; blocks_strict: whether every module must match one of them
    invocation_tokens: prompt tokens of each sequence after aLoRA's invocation, to which alone the adapter applies
    bias: whether the second factor has a bias
    trained_biases: the model's own biases that are trained: `none`, `all`, or those of the `targets`
    trainable_token_indices: rows of the embedding that are trained, or of each table by name
    ensure_weight_tying: apply the adapter of an embedding also to a head that shares its weights, and vice versa
    layer_replication: ranges of the model's layers (first, end), which replace its own; their weights are shared,
        adapters are not
    alpha: scaling is alpha / rank; it does not affect the cost
    rank_pattern: other ranks for modules whose path matches; the first match counts, as in PEFT
    exclude_modules: targets to leave out, written as target_modules
    target_parameters: parameters with adapters that are not modules, by name or suffix, such as a stack of experts
    modules_to_save: modules trained in full, which therefore have no adapter
    layers_to_transform: indices of the only layers with adapters
    layers_pattern: name of the list they index
    active_adapters: distinct adapters among the requests of one step; by default the length of `shares`, or one
    shares: distribution of the adapted tokens over adapters: a share, count or rate for each; uniform if empty. Reads
        of expert adapters depend on it
    adapter_share: share of all tokens that have an adapter
    max_loras, max_lora_rank: slots and rank that an engine reserves (0: the active adapters, the largest rank used)
    lora_dtype: number format of the factors
    fully_sharded_loras: shard both factors over the tensor-parallel group, at the price of collectives
    tp_scheme: how factors are sharded over that group, a name in `graphsim.lora.schemes`; "" for the engine's default
    mixed_ranks: ranks of the adapters in a batch, instead of `rank`, where they differ; tokens are spread evenly
    shared_outer_factors: experts share the factor on the residual-stream side: A of gate and up, B of down
    tensors: of the adapter's file, which are checked against the model
    notes: what a reader left out
    left_out: fields of PEFT's file that say so, which engines may refuse
    """

    enabled: bool = True
    rank: Num = 16
    target_modules: tuple[str, ...] | list[str] | str | None = ("attn", "ffn")
    strategy: str = "dynamic"
    variant: str = "lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    group_size: Num = 16
    blocks: Num = 1
    blocks_a: tuple[str, ...] | list[str] | None = None
    blocks_b: tuple[str, ...] | list[str] | None = None
    blocks_strict: bool = True
    invocation_tokens: Num = 0
    bias: bool = False
    trained_biases: str = "none"
    trainable_token_indices: tuple[int, ...] | list[int] | Mapping[str, Any] = ()
    ensure_weight_tying: bool = False
    layer_replication: tuple[tuple[int, int], ...] | list[Any] = ()
    alpha: float | None = None
    rank_pattern: Mapping[str, Num] = field(default_factory=dict)
    exclude_modules: tuple[str, ...] | list[str] | str = ()
    target_parameters: tuple[str, ...] | list[str] = ()
    modules_to_save: tuple[str, ...] | list[str] = ()
    layers_to_transform: tuple[int, ...] | list[int] | int | None = None
    layers_pattern: tuple[str, ...] | list[str] | str | None = None
    matching: Matching = Matching.NAMES
    active_adapters: Num = cast("Num", None)
    shares: tuple[float, ...] | list[float] = ()
    adapter_share: Num = 1.0
    max_loras: Num = 0
    max_lora_rank: Num = 0
    lora_dtype: str = "bf16"
    fully_sharded_loras: bool = False
    tp_scheme: str = ""
    mixed_ranks: tuple[int, ...] | list[int] = ()
    shared_outer_factors: bool = False
    tensors: AdapterTensors | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return settings_text(
            self, always=("rank", "target_modules", "strategy"), hidden=("tensors", "notes", "matching")
        )

    @classmethod
    def from_peft(cls, ref: str | Path | Mapping[str, Any]) -> LoraConfig:
        """The adapter of a PEFT folder, its `adapter_config.json`, or the data of one, under PEFT's matching rules.

        Raises ConfigError naming the file, the field, what was found and what is allowed.
        """
        from graphsim.lora.peft import read_adapter

        return cls(**read_adapter(ref))

    @classmethod
    def from_yaml(cls, path: str | Path) -> LoraConfig:
        """The adapter of a YAML file with these fields. Raises ConfigError naming the file, the field and the value."""
        names = {name for name in cls.__dataclass_fields__ if name not in ("matching", "tensors", "notes", "left_out")}
        try:
            return cls(**read_file(path, names))
        except ConfigError as error:
            raise ConfigError(str(error) if shown(path) in str(error) else f"{shown(path)}: {error}") from None

    def among(self, shares: Shares, requests: Num) -> LoraConfig:
        """The same configuration with the expected number of distinct adapters in a step of requests drawn from a pool.

        shares: popularity of each adapter, from `graphsim.lora.popularity`
        requests: number of requests of one step, such as the batch
        """
        distinct = expected_distinct(shares, requests, 1.0 - np.asarray(self.adapter_share))
        return replace(self, active_adapters=distinct, shares=tuple(map(float, shares)))

    def __post_init__(self) -> None:
        """Raise ConfigError naming the field, the value and what is allowed."""
        self._check_flags()
        self._check_scheme()
        for name in _LISTED:
            object.__setattr__(self, name, checked_names(name, getattr(self, name)))
        self._check_beside()
        if self.target_modules is not None and not (
            self.target_modules or self.target_parameters or self.trainable_token_indices
        ):
            raise ConfigError("lora.target_modules is empty; name at least one module, or use 'all-linear'")
        if not isinstance(self.rank_pattern, Mapping):
            found = short(self.rank_pattern)
            raise ConfigError(f"lora.rank_pattern = {found} is not a mapping of module names to ranks")
        checked_names("rank_pattern", list(self.rank_pattern))
        for name in ("rank_pattern", "modules_to_save"):
            for pattern in getattr(self, name):
                matched(pattern, "", name)
        ranks = {
            name: checked_number(f"lora.rank_pattern.{name}", rank, 0, self.kind.most)
            for name, rank in self.rank_pattern.items()
        }
        object.__setattr__(self, "rank_pattern", ranks)
        if self.alpha is not None:
            object.__setattr__(self, "alpha", checked_number("lora.alpha", self.alpha, 0, 1e9, whole=False))
        self._mix()
        self._share_out()
        whole = {"rank": self.kind.most} if not self.mixed_ranks else {}  # the mean of several ranks need not be whole
        for name, most in (whole | {"max_lora_rank": MAX_RANK, "max_loras": 10**6}).items():
            object.__setattr__(self, name, checked_number(f"lora.{name}", getattr(self, name), 0, most))
        for name, least in (("group_size", 1), ("blocks", 1), ("invocation_tokens", 0)):
            object.__setattr__(self, name, checked_number(f"lora.{name}", getattr(self, name), least, 10**9))
        for name, most in (("active_adapters", 10**6), ("adapter_share", 1)):
            object.__setattr__(self, name, checked_number(f"lora.{name}", getattr(self, name), 0, most, whole=False))
        object.__setattr__(self, "layers_to_transform", checked_layers(self.layers_to_transform))

    def _check_flags(self) -> None:
        for name in (
            "enabled",
            "fully_sharded_loras",
            "bias",
            "shared_outer_factors",
            "blocks_strict",
            "ensure_weight_tying",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"lora.{name} = {short(getattr(self, name))} is not allowed; expected True or False")
        for name, allowed in (("variant", known()), ("strategy", STRATEGIES), ("lora_dtype", FORMATS)):
            object.__setattr__(self, name, as_allowed(getattr(self, name), allowed))
        require_known("lora.variant", self.variant, list(known()))
        object.__setattr__(self, "options", checked(self.kind.options, self.options, self.variant))
        require_known("lora.strategy", self.strategy, STRATEGIES)
        self.kind.check(self)
        require_known("lora.lora_dtype", self.lora_dtype, FORMATS)

    def _check_beside(self) -> None:
        """Check what is trained in addition to the factors, and the layers to which this applies."""
        if self.trained_biases not in BIASES:
            found = self.trained_biases
            raise ConfigError(f"lora.trained_biases = {found!r} is not known; {choices_text(found, BIASES)}")
        object.__setattr__(self, "trainable_token_indices", checked_rows(self.trainable_token_indices))
        object.__setattr__(self, "layer_replication", checked_stretches(self.layer_replication))

    def _mix(self) -> None:
        """Set the rank to the mean of mixed ranks for work and traffic; kernels that pad use the largest rank."""
        if not isinstance(self.mixed_ranks, list | tuple):
            raise ConfigError(f"lora.mixed_ranks = {short(self.mixed_ranks)} is not allowed; expected a list of ranks")
        ranks = tuple(checked_number("lora.mixed_ranks", rank, 0, MAX_RANK, one=True) for rank in self.mixed_ranks)
        object.__setattr__(self, "mixed_ranks", ranks)
        if ranks:
            object.__setattr__(self, "rank", sum(ranks) / len(ranks))

    def _share_out(self) -> None:
        """Scale shares to add up to 1; without shares and without a count, one adapter is active."""
        if not isinstance(self.shares, list | tuple):
            raise ConfigError(f"lora.shares = {short(self.shares)} is not allowed; expected a list of numbers")
        values = [checked_number("lora.shares", share, 0, 1e12, whole=False, one=True) for share in self.shares]
        total = float(sum(values))
        if values and not total:
            raise ConfigError(f"lora.shares = {short(self.shares)} are not allowed; expected one above 0")
        object.__setattr__(self, "shares", tuple(float(value) / total for value in values))
        named = sum(value > 0 for value in values)
        if self.active_adapters is None:
            object.__setattr__(self, "active_adapters", max(named, 1))
        active = checked_number("lora.active_adapters", self.active_adapters, 0, 10**6, whole=False)
        require_named(active, named)

    def _check_scheme(self) -> None:
        if self.tp_scheme not in ("", *SCHEMES):
            raise ConfigError(
                f"lora.tp_scheme = {self.tp_scheme!r} is not known; {choices_text(self.tp_scheme, SCHEMES)}"
            )
        if self.fully_sharded_loras and self.tp_scheme not in ("", "fully-sharded"):
            raise ConfigError(
                f"lora.tp_scheme = '{self.tp_scheme}' is not allowed with fully_sharded_loras; choose one of them"
            )

    @property
    def spread(self) -> tuple[tuple[float, float], ...]:
        """The shares, grouped: how many adapters have the same share, and that share."""
        return grouped(self.shares)

    @property
    def kind(self) -> Variant:
        """The definition of its variant."""
        return known()[self.variant]

    @property
    def chosen_scheme(self) -> str:
        """How factors are sharded over a tensor-parallel group; "" if the engine decides."""
        return "fully-sharded" if self.fully_sharded_loras else self.tp_scheme

    @property
    def largest_rank(self) -> Num:
        """The largest rank that any module may have."""
        largest = np.maximum(self.rank, max(self.mixed_ranks)) if self.mixed_ranks else self.rank
        for rank in self.rank_pattern.values():
            largest = np.maximum(largest, rank)
        return largest

    @property
    def adapted(self) -> Num:
        """Number of adapters that kernels run: 0 if none is active, none has a rank, or no token has one.

        Engines run a request without an adapter, or with one that changes nothing, on the base model alone.
        """
        return self.active_adapters * np.minimum(self.largest_rank, 1.0) * np.greater(self.adapter_share, 0.0)

    @property
    def slots(self) -> Num:
        """Number of adapters that an engine reserves memory for; 0 if no rank is used or reserved."""
        ranked = np.minimum(np.maximum(self.max_lora_rank, self.largest_rank), 1.0)
        return np.maximum(self.max_loras, self.active_adapters) * ranked


def require_named(active: Num, named: int) -> None:
    """Raise ConfigError for more active adapters than `shares` has entries, if it has any; for a symbol, a guard is
    stored.
    """
    words = f" is not allowed with lora.shares of {named} adapters; allowed: at most {named}"
    sentence = ("lora.active_adapters = ", Figure(value=active, exact=True), words)
    if named:
        broken = np.greater(active, named * (1.0 + 1e-9))
        require(Guard(rule="shares", about="lora.active_adapters", broken=broken, sentence=sentence))
