"""Recipes: how a training framework runs a step: facts about its code and defaults, one YAML file each, with
sources.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.files.reading import Fields, load_mapping
from graphsim.hardware import ARCHITECTURES
from graphsim.lora.sources import inherited, place, read_flags, read_numbers, read_references, read_sources
from graphsim.lora.sources import with_documents as named_in_full
from graphsim.passes.backward_rules import RECOMPUTED
from graphsim.training.fields import note_source, read_by_name, read_changes, read_names, read_part
from graphsim.training.optimizers import list_optimizers
from graphsim.units import Num, short

RECOMPUTE = ("none", "full", "selective")
ATTENTION = ("flash", "unfused")
SHARDING = ("ddp", "zero1", "zero2", "zero3", "fsdp1", "fsdp2", "shard_grad_op", "distributed_optimizer")
CHECKPOINTS = ("reentrant", "non_reentrant")
FUSABLE = ("norm", "rope", "activation", "lora", "loss")
ADAPTER_FORMATS = ("fp32", "bf16", "given")
WEIGHTS = ("given", "fp32")
GRADIENTS = ("weights", "fp32", "bf16")
OFFLOADED = ("optimizer", "parameters", "activations")
WRAPPERS = ("lora", "bitsandbytes")
KINDS = (
    "RMSNorm", "LayerNorm", "Rope", "GatedActivation", "Activation", "Add", "Embedding", "LoraInput", "LoraDropout",
    "LoraResult", "DoraNorm", "DoraScale", "VectorScale", "ColumnScale", "GatherRows", "CombineRows", "ExpertBias",
    "ExpertCast",
)  # fmt: skip
SUFFIXES = (".yaml", ".yml")
ALIASES = {
    "hf-transformers": "transformers", "trainer": "transformers", "torchtune-lora": "torchtune",
    "nemo": "megatron-bridge", "megatron": "megatron-lm", "automodel": "nemo-automodel", 
    "llamafactory": "llama-factory", "foundry": "llm-foundry", "llmfoundry": "llm-foundry",
}  # fmt: skip
"""Further names of recipes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The kernels of one kind of operation that a framework runs as several kernels, per direction.

    kind: class of the operation; norms by whether they learn a shift (`RMSNorm`, `LayerNorm`), activations by whether
        they are gated (`GatedActivation`, `Activation`); `LoraInput` for casts of an adapter's input, `LoraDropout` for
        dropout on it where lora_dropout is above 0, `LoraResult` for scale, sum and casts after an adapter,
        `ColumnScale` for scaling its columns; the backward entry is for their gradients. `GatherRows` and `CombineRows`
        move routed rows to experts and back, `ExpertBias` adds an expert's bias after its GEMM, `ExpertCast` converts
        inputs of experts' GEMMs to fewer than 16 bits
    forward_kernels, backward_kernels: launches per call
    forward_bytes, backward_bytes: bytes moved by all of them per
        element of the result (of the input for `LoraInput` and `LoraDropout`)
    trained_kernels, trained_bytes: additional ones in the backward pass where the operation's own weight is trained
    forward_temporary, backward_temporary: bytes per element that are allocated only while it runs
    """

    kind: str
    forward_kernels: float = 1.0
    forward_bytes: float = 0.0
    backward_kernels: float = 1.0
    backward_bytes: float = 0.0
    forward_temporary: float = 0.0
    backward_temporary: float = 0.0
    trained_kernels: float = 0.0
    trained_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Cross-entropy after the head, in bytes per logit (token x vocabulary entry).

    kept_bytes: saved from the forward pass to the head's backward pass
    peak_bytes: allocated at the head's backward
        pass in total
    after_bytes: still allocated while the layers run backward
    moved_bytes: traffic of both directions; kernels:
        launches of both directions
    chunks: number of parts in which the head and the loss run one after another, each allocated alone (1 = whole); 0 =
        the loss never holds logits beyond its own chunk (Liger's fused linear cross-entropy)
    """

    kept_bytes: float = 6.0
    peak_bytes: float = 14.0
    after_bytes: float = 0.0
    moved_bytes: float = 34.0
    kernels: float = 10.0
    chunks: float = 1.0

    @property
    def forward_bytes(self) -> float:
        """Bytes per logit allocated at once in the forward pass without gradients: what is saved, and its fp32 copy."""
        return min(self.peak_bytes, self.kept_bytes + 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a training framework does, each field with its source.

    adapter_format: format of LoRA's factors: `fp32` (PEFT's default), `bf16`, or `given` (the adapter's lora_dtype)
    autocast: whether GEMMs run in 16 bits regardless of their inputs' format
    lora_dropout: dropout of the adapter, if its own configuration states none
    hidden_dropout, attention_dropout: whether the framework applies dropout to hidden values and to attention scores
    packs_projections: whether q, k, v (and gate, up) run as one GEMM, which is then also the adapter's target
    fused: the operations of FUSABLE that are one kernel; others have as many as `chains` states
    attention: `flash`, or `unfused` with scores in memory
    input_requires_grad: whether the embeddings' output requires a gradient even if nothing below it is trained
    recompute: the default of RECOMPUTE
    recomputed: what `selective` recomputes, out of `backward_rules.RECOMPUTED`
    offload: what is in host memory by default, out of OFFLOADED (`activations`: the layers' saved inputs)
    checkpoint: the kind of checkpointing (with `reentrant`, a layer's input requires a gradient)
    upcasts: whether unquantised weights are converted to fp32 if the base is quantised
        (`prepare_model_for_kbit_training`), and with them the residual stream; upcasts_tables: whether embeddings and
        head are too
    residual_bytes: bytes per element of the residual stream (4 in fp32)
    optimizer: the default, a name of `graphsim.training.optimizers`
    optimizer_in_backward: whether each layer is updated in the backward pass and its gradients are freed at once
    weight_format: format of trained weights of the base: `given` by the model, or `fp32` with 16-bit copies
    master_weights: whether trained 16-bit weights have an fp32 copy
    gradient_format: format in which gradients are
        stored
    keeps_gradients: whether gradients stay allocated between steps
    clips: whether their norm is clipped
    defers_reduction: whether FSDP reduces gradients in the last micro-batch only and keeps them whole until then
    sharding: default of SHARDING over data-parallel devices
    under_fsdp: fields with other values where FSDP shards weights over several devices: `weight_format`, `upcasts`,
        `gradient_format`, `keeps_gradients`
    overlap: share of a data-parallel collective that overlaps with compute
    units_in_flight: units gathered at once
        (FSDP)
    tensor_overlap: share of tensor-parallel collectives that overlaps with GEMMs, in chunks (userbuffers)
    attention_speed: speed of its attention kernels relative to the measured ones, by architecture, where they are older
    expert_speed: speed of its grouped GEMMs of experts relative to plain ones of each expert's shape, by architecture
    exchange_overlap: share of the exchanges of experts' rows that overlaps with another micro-batch's compute
    contention: factor by which compute slows down while it overlaps collectives (1 = none)
    launch_s: host time in seconds per kernel of the forward pass
    backward_launch_s: the same in autograd's backward
        pass
    wrapper_s: additional host time in seconds per wrapped module, by wrapper (`lora`, `bitsandbytes`)
    framework_bytes: bytes per device that it allocates in addition to the model's tensors
    loss: cross-entropy
    chains: kernels of operations that are not fused
    sources: the source of each field
    """

    name: str
    title: str = ""
    adapter_format: str = "fp32"
    autocast: bool = False
    lora_dropout: float = 0.0
    hidden_dropout: bool = False
    attention_dropout: bool = False
    packs_projections: bool = False
    fused: tuple[str, ...] = ()
    attention: str = "flash"
    input_requires_grad: bool = False
    recompute: str = "none"
    recomputed: tuple[str, ...] = ("attention",)
    offload: tuple[str, ...] = ()
    checkpoint: str = "non_reentrant"
    upcasts: bool = False
    upcasts_tables: bool = True
    residual_bytes: float = 2.0
    optimizer: str = "adamw_foreach"
    optimizer_in_backward: bool = False
    weight_format: str = "given"
    master_weights: bool = False
    gradient_format: str = "weights"
    keeps_gradients: bool = False
    defers_reduction: bool = False
    clips: bool = True
    sharding: str = "ddp"
    under_fsdp: Mapping[str, Any] = field(default_factory=dict, compare=False)
    overlap: float = 0.9
    tensor_overlap: float = 0.0
    units_in_flight: float = 2.0
    contention: float = 1.0
    launch_s: float = 6e-6
    backward_launch_s: float = 4e-6
    attention_speed: Mapping[str, float] = field(default_factory=dict, compare=False)
    expert_speed: Mapping[str, float] = field(default_factory=dict, compare=False)
    exchange_overlap: float = 0.0
    wrapper_s: Mapping[str, float] = field(default_factory=dict, compare=False)
    framework_bytes: float = 0.0
    loss: Loss = Loss()
    chains: tuple[Chain, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def chain(self, kind: str) -> Chain:
        """The chain of a kind; one kernel per direction if the recipe has none."""
        return next((chain for chain in self.chains if chain.kind == kind), Chain(kind=kind))

    def shared(self, sharding: str, devices: Num) -> Recipe:
        """The recipe for weights that are sharded in this way over data-parallel devices."""
        over_several = sharding.startswith("fsdp") and bool(np.any(np.greater(devices, 1)))
        return replace(self, **self.under_fsdp) if over_several and self.under_fsdp else self


def list_recipes() -> list[str]:
    """Names of the recipes that come with graphsim."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_recipe(ref: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    """The recipe that `ref` names: a name, a YAML path or a mapping, whose `inherits` names a recipe that it modifies.

    Raises ConfigError naming the file, the field, what was found and what is allowed.
    """
    if isinstance(ref, Recipe):
        return ref
    if isinstance(ref, Mapping):
        return _read(Fields(ref, "the recipe given as a mapping"), str(ref.get("name", "custom")))
    if not isinstance(ref, str | Path) or not str(ref).strip():
        raise ConfigError(f"recipe = {short(ref)} is not allowed; expected a name, a path or a mapping")
    return _from_file(*_version(_path_of(ref)))


def _folder() -> Path:
    return Path(__file__).parent / "recipes"


def _path_of(ref: str | Path) -> Path:
    """The file that a name or a path stands for."""
    path = Path(ref)
    if path.suffix not in SUFFIXES:
        name = str(ref).strip().lower().replace("_", "-").replace(" ", "-")
        name = ALIASES.get(name, name)
        if name not in list_recipes():
            raise ConfigError(f"recipe = {short(str(ref))} is not known; {choices_text(name, list_recipes())}")
        return _folder() / f"{name}.yaml"
    if not os.path.isfile(path):  # noqa: PTH113 - never raises
        raise ConfigError(f"recipe = {short(str(ref))}: there is no such file")
    return path.absolute()


def _version(path: Path) -> tuple[Path, int]:
    return path, path.stat().st_mtime_ns


@lru_cache(maxsize=64)
def _from_file(path: Path, _modified: int, above: tuple[Path, ...] = ()) -> Recipe:
    """The recipe of a file.

    above: the files that inherit from it, directly or through others
    """
    return _read(Fields(load_mapping(path), str(path)), path.stem, (*above, path))


def _inherited(given: str, above: tuple[Path, ...]) -> Recipe:
    """The recipe named under `inherits`. Raises ConfigError if it inherits from itself."""
    path = _path_of(given)
    if path in above:
        circle = " -> ".join(each.stem for each in (*above[above.index(path) :], path))
        raise ConfigError(f"{above[-1]}: inherits = {given!r} is not allowed: {circle} is a circle; leave one out")
    return _from_file(*_version(path), above)


def _read(fields: Fields, name: str, above: tuple[Path, ...] = ()) -> Recipe:
    given = fields.text("inherits", None)
    base = _inherited(given, above) if isinstance(given, str) else Recipe(name="")
    fields.text("name", None)
    found: dict[str, Any] = {"name": name, "title": fields.text("title", base.title or name)}
    own: dict[str, str] = {}
    for key, choices in _CHOICES.items():
        at, where = place(fields, key, own)
        found[key] = at.text(where, getattr(base, key), choices)
    found |= read_numbers(fields, _NUMBERS, base, own) | read_flags(fields, _FLAGS, base, own)
    for key, choices in _LISTS.items():
        found[key] = read_names(fields, key, getattr(base, key), choices, own)
    found["wrapper_s"] = read_by_name(fields, "wrapper_s", base.wrapper_s, WRAPPERS, own, kind="s")
    found["attention_speed"] = read_by_name(fields, "attention_speed", base.attention_speed, ARCHITECTURES, own)
    found["expert_speed"] = read_by_name(fields, "expert_speed", base.expert_speed, ARCHITECTURES, own)
    found["under_fsdp"] = {**base.under_fsdp, **read_changes(fields, "under_fsdp", _UNDER_FSDP, own)}
    found["loss"] = read_part(fields, "loss", base.loss, _LOSS, own)
    found["chains"] = _chains(fields, base.chains, own)
    stated = {key: text for key, text in own.items() if text} | read_sources(fields, Recipe.__dataclass_fields__)
    found["sources"] = {
        **inherited(base.sources, base.name, fields), **named_in_full(stated, read_references(fields)),
    }  # fmt: skip
    fields.finish()
    return Recipe(**found)


def _chains(fields: Fields, base: tuple[Chain, ...], sources: dict[str, str]) -> tuple[Chain, ...]:
    """Chains by kind, over those of the base."""
    found = {chain.kind: chain for chain in base}
    nested = fields.mapping("chains")
    note_source(nested, "chains", sources)
    for kind in KINDS:
        if nested.raw(kind) is not None:
            found[kind] = read_part(nested, kind, found.get(kind, Chain(kind=kind)), _CHAIN, {})
    return tuple(found.values())


_CHOICES = {
    "adapter_format": ADAPTER_FORMATS, "attention": ATTENTION, "recompute": RECOMPUTE, "checkpoint": CHECKPOINTS,
    "optimizer": tuple(list_optimizers()), "gradient_format": GRADIENTS, "sharding": SHARDING,
    "weight_format": WEIGHTS,
}  # fmt: skip
_UNDER_FSDP = {"weight_format": WEIGHTS, "gradient_format": GRADIENTS, "upcasts": (), "keeps_gradients": ()}
_FLAGS = (
    "autocast", "hidden_dropout", "attention_dropout", "packs_projections", "input_requires_grad", "master_weights",
    "keeps_gradients", "defers_reduction", "clips", "upcasts", "upcasts_tables", "optimizer_in_backward",
)  # fmt: skip
_LISTS = {"fused": FUSABLE, "offload": OFFLOADED, "recomputed": RECOMPUTED}
_NUMBERS = {
    "lora_dropout": ("", 0.0, 0.999), "residual_bytes": ("", 1.0, 8.0), "overlap": ("", 0.0, 1.0),
    "tensor_overlap": ("", 0.0, 1.0), "exchange_overlap": ("", 0.0, 1.0),
    "units_in_flight": ("", 1.0, 1e3), "contention": ("", 1.0, 10.0), "launch_s": ("s", 0.0, 0.01),
    "backward_launch_s": ("s", 0.0, 0.01), "framework_bytes": ("bytes", 0.0, 1e12),
}  # fmt: skip
_LOSS = {
    "kept_bytes": ("", 0.0, 100.0), "peak_bytes": ("", 0.0, 100.0), "after_bytes": ("", 0.0, 100.0),
    "moved_bytes": ("", 0.0, 1e3), "kernels": ("", 0.0, 1e4), "chunks": ("", 0.0, 1e4),
}  # fmt: skip
_CHAIN = {
    name: ("", 0.0, 1e4 if name.endswith("kernels") else 1e3) for name in Chain.__dataclass_fields__ if name != "kind"
}  # fmt: skip
