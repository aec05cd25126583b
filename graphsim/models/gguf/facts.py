"""What the header of a GGUF file says of its model, as readers of architectures ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.gguf import GgufFile
from graphsim.units import short

Config = dict[str, Any]


class Facts:
    """What a file says of its model: metadata below the architecture's name, and which tensors there are."""

    def __init__(self, file: GgufFile, architecture: str, where: str) -> None:
        self.file, self.architecture, self.where = file, architecture, where
        self.tensors = file.stored.tensors

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `<architecture>.<key>`; of values for each layer, the largest."""
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        return max(value) if isinstance(value, list) and value else value

    def need(self, key: str) -> Any:
        """A whole number that the file must state."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(
                f"{self.where}: {self.architecture}.{key} = {short(value)} is not allowed; expected a whole number"
            )
        return value

    def kinds(self, tensor: str, having: str, lacking: str) -> list[str]:
        """What each layer is, by whether it has a tensor."""
        return [having if f"blk.{i}.{tensor}" in self.tensors else lacking for i in range(min(self.layers, 2_000))]

    def places(self, tensor: str) -> tuple[int, int]:
        """The first layer that has a tensor, and the layers from one of them to the next; beyond all where none has."""
        having = [i for i in range(min(self.layers, 2_000)) if f"blk.{i}.{tensor}" in self.tensors]
        if len(having) > 1:
            return having[0], having[1] - having[0]
        first = having[0] if having else self.layers
        return first, max(self.layers, first + 1)

    def windows(self) -> list[str] | None:
        """Which layers see a window only, where the file says it layer by layer."""
        pattern = self.file.metadata.get(f"{self.architecture}.attention.sliding_window_pattern")
        if not isinstance(pattern, list):
            return None
        return ["sliding_attention" if slides else "full_attention" for slides in pattern[: self.layers]]

    @property
    def layers(self) -> int:
        """Layers, those that draft further tokens left out."""
        return int(self.need("block_count")) - int(self.get("nextn_predict_layers") or 0)

    def has(self, name: str) -> bool:
        """Whether there is a tensor: outside of layers, or in any of them."""
        return name in self.tensors or any(f"blk.{i}.{name}" in self.tensors for i in range(min(self.layers, 2_000)))

    def width(self, name: str, dimension: int = 0) -> int | None:
        """One dimension of a tensor; None if there is no such tensor."""
        names = (name, *(f"blk.{i}.{name}" for i in range(min(self.layers, 2_000))))
        found = next((self.tensors[own] for own in names if own in self.tensors), None)
        return None if found is None or not found.shape else found.shape[dimension]


Reader = Callable[[Facts], Config]
"""An architecture: from what a file says to the keys of its family's config."""


def experts_of(facts: Facts, **names: str) -> Config:
    """The keys of a mixture, under the family's own names."""
    keys = {
        "experts": "expert_count", "chosen": "expert_used_count", "width": "expert_feed_forward_length",
        "shared": "expert_shared_count", "shared_width": "expert_shared_feed_forward_length",
        "dense": "leading_dense_block_count",
    }  # fmt: skip
    return {name: facts.get(keys[role]) for role, name in names.items()}
