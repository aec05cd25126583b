"""The header of a GGUF file, as queried by readers of architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.gguf import GgufFile
from graphsim.units import short

Config = dict[str, Any]


class Facts:
    """A file's description of its model: metadata under the architecture's name, and its tensors."""

    def __init__(self, file: GgufFile, architecture: str, where: str) -> None:
        self.file, self.architecture, self.where = file, architecture, where
        self.tensors = file.stored.tensors

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `<architecture>.<key>`; the largest if there is one per layer."""
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        return max(value) if isinstance(value, list) and value else value

    def need(self, key: str) -> Any:
        """An integer that the file must state."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(
                f"{self.where}: {self.architecture}.{key} = {short(value)} is not allowed; expected a whole number"
            )
        return value

    def kinds(self, tensor: str, having: str, lacking: str) -> list[str]:
        """The kind of each layer: `having` if it has a tensor, else `lacking`."""
        return [having if f"blk.{i}.{tensor}" in self.tensors else lacking for i in range(min(self.layers, 2_000))]

    def places(self, tensor: str) -> tuple[int, int]:
        """The first layer with a tensor and the interval between such layers; past the last layer if there are none."""
        having = [i for i in range(min(self.layers, 2_000)) if f"blk.{i}.{tensor}" in self.tensors]
        if len(having) > 1:
            return having[0], having[1] - having[0]
        first = having[0] if having else self.layers
        return first, max(self.layers, first + 1)

    def windows(self) -> list[str] | None:
        """The kind of attention of each layer, full or sliding; None if the file does not state it per layer."""
        pattern = self.file.metadata.get(f"{self.architecture}.attention.sliding_window_pattern")
        if not isinstance(pattern, list):
            return None
        return ["sliding_attention" if slides else "full_attention" for slides in pattern[: self.layers]]

    @property
    def layers(self) -> int:
        """Number of layers, without those that draft further tokens."""
        return int(self.need("block_count")) - int(self.get("nextn_predict_layers") or 0)

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name, outside the layers or in any of them."""
        return name in self.tensors or any(f"blk.{i}.{name}" in self.tensors for i in range(min(self.layers, 2_000)))

    def width(self, name: str, dimension: int = 0) -> int | None:
        """The size of one dimension of a tensor; None if there is no such tensor."""
        names = (name, *(f"blk.{i}.{name}" for i in range(min(self.layers, 2_000))))
        found = next((self.tensors[own] for own in names if own in self.tensors), None)
        return None if found is None or not found.shape else found.shape[dimension]


Reader = Callable[[Facts], Config]
"""Reader of an architecture: returns the keys of its family's config."""


def experts_of(facts: Facts, **names: str) -> Config:
    """The keys of an MoE model, under the family's own names."""
    keys = {
        "experts": "expert_count", "chosen": "expert_used_count", "width": "expert_feed_forward_length",
        "shared": "expert_shared_count", "shared_width": "expert_shared_feed_forward_length",
        "dense": "leading_dense_block_count",
    }  # fmt: skip
    return {name: facts.get(keys[role]) for role, name in names.items()}
