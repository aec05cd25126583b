"""Weights that an adapter trains in addition to its factors, and their cost: modules, rows of the embedding, biases.

As in PEFT 0.21 (`utils/other.py`, `tuners/trainable_tokens/layer.py`, `tuners/tuners_utils.py`): a module that is
saved, or tuned whole, is a copy that runs in place of the model's own; a table with trained rows is rewritten in every
forward pass, and once more for an output head that shares it; biases are trained in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphsim.graph import Step
from graphsim.lora.config import LoraConfig
from graphsim.ops import Embedding, Gemm, Norm, Op
from graphsim.ops.adapter_weights import BuiltWeights, HeldWeights
from graphsim.ops.formats import FORMATS
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The weights of one adapter in a graph that are trained in addition to its factors.

    tied: whether the head shares the embedding's weights
    """

    lora: LoraConfig
    tied: bool

    def is_copied(self, op: Op, path: str) -> bool:
        """Whether a module is trained in full; PEFT compares the end of its name, or of that of a block around it."""
        names = self.lora.modules_to_save
        if not path or not names:
            return False
        if self._tying_copies and (_is_table(op) or _is_head(op)):
            return _is_table(op)
        parts = path.split(".")
        around = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return any(block.endswith(name) for block in around for name in names)

    @property
    def _tying_copies(self) -> bool:
        """Whether the embedding and the head share one copy."""
        lora = self.lora
        return lora.ensure_weight_tying and self.tied and any(map(names_end, lora.modules_to_save))

    def rows(self, op: Op, path: str) -> int:
        """How many rows of a table are trained."""
        rows = self._rows(op, path)
        return 0 if rows is None or (_is_head(op) and self._follows_the_table) else rows

    def _rows(self, op: Op, path: str) -> int | None:
        """How many rows of a table are trained, also if another module uses the table."""
        given = self.lora.trainable_token_indices
        if _is_head(op) and self._follows_the_table:
            return 1
        if not isinstance(given, Mapping):
            return len(given) if given and _is_table(op) else None
        found = [len(rows) for name, rows in given.items() if path and path.endswith(name)]
        return found[0] if found else None

    @property
    def _follows_the_table(self) -> bool:
        """Whether a head that shares the embedding's weights shares its trained rows, too."""
        given = self.lora.trainable_token_indices
        if not self.tied or not given:
            return False
        if not isinstance(given, Mapping):
            return True
        named = [tuple(rows) for name, rows in given.items() if names_end(name)]
        embeds = any(name.rpartition(".")[2] != "lm_head" for name in given)
        return embeds and (len(set(named)) == 1 or self.lora.ensure_weight_tying)

    def ahead(self, name: str, op: Op, path: str, reached: bool) -> Iterator[Step]:
        """The steps of the additional weights of a module."""
        if not path:
            return
        copied = self.is_copied(op, path) or (self.lora.kind.copies and reached)
        if copied:
            yield f"{name}.lora_saved", self._held(op, "lora_saved", *_whole(op)), []
        if self._rows(op, path) is not None:
            yield f"{name}.lora_tokens", self._written(op, float(self.rows(op, path))), []
        biases = _biases(op) if self._trains_biases(reached) and not copied else 0.0
        if biases:
            yield f"{name}.lora_biases", self._held(op, "lora_biases", biases, 0.0), []

    def _trains_biases(self, reached: bool) -> bool:
        return self.lora.trained_biases == "all" or (self.lora.trained_biases == "targets" and reached)

    def _held(self, op: Op, part: str, elems: Num, stored: Num) -> HeldWeights:
        return HeldWeights(
            role=f"{op.role}.{part}", elems=elems * self._live, stored_bytes=stored * self._live,
            activations=op.activations, layer=op.layer,
        )  # fmt: skip

    @property
    def _live(self) -> Num:
        return np.minimum(self.lora.largest_rank, 1.0)

    def _written(self, op: Op, rows: float) -> BuiltWeights:
        """The table with its trained rows replaced."""
        sizes: dict[str, Any] = {"n": op.width, "k": op.entries} if isinstance(op, Embedding) else {}
        entries, width = (sizes["k"], sizes["n"]) if sizes else (op.n, op.k)  # type: ignore[attr-defined]
        table = entries * width
        present = np.minimum(self.lora.active_adapters, 1.0) * np.greater(self.lora.adapter_share, 0.0)
        return BuiltWeights(
            role=f"{op.role}.lora_tokens", elems=table, held=rows * width * self._live, rank=self._live,
            copies=present, read_elems=table, write_elems=table, made=op.activations,
            as_factors=False, factors=FORMATS[self.lora.lora_dtype], activations=op.activations, layer=op.layer,
        )  # fmt: skip


def names_end(name: str) -> bool:
    """Whether PEFT regards a name as that of an embedding or a head (`EMBEDDING_LAYER_NAMES`)."""
    return name.rpartition(".")[2] in ("embed_tokens", "lm_head")


def _is_table(op: Op) -> bool:
    return isinstance(op, Embedding) and not op.whole


def _is_head(op: Op) -> bool:
    return isinstance(op, Gemm) and op.head


def _whole(op: Op) -> tuple[Num, Num]:
    """Weights of a module and their bytes, even if it shares them with another one."""
    own = replace(op, shared=False) if isinstance(op, Gemm) else op
    return own.parameters, own.weight_storage_bytes


def _biases(op: Op) -> Num:
    if isinstance(op, Norm):
        return op.width if op.vectors == 2.0 else 0.0  # noqa: PLR2004 - a scale and a shift
    return getattr(op, "n", getattr(op, "channels", 0.0)) if getattr(op, "bias", False) else 0.0
