"""Attention to keys that an indexer selected or that were pooled, and the indexer's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.ops.attention import Attention
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexScores(Attention):
    """A score for every query and key by a few narrow heads, and the best keys of each query.

    method: of the attention that sees them, as in `SparseAttention`
    """

    family: ClassVar[str] = "sparse"
    indexes: ClassVar[bool] = True

    method: str = "dsa"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseAttention(Attention):
    """Attention whose queries each gather a few cache rows.

    method: which kernels run it: `dsa` (chosen latents, DeepSeek-V3.2), `dsa_shared` (chosen by an earlier layer),
        `csa`, `hca`, `window` (chosen, all or no pooled entries after a window, DeepSeek-V4), `msa` (chosen blocks of
        keys, MiniMax-M3)
    slots: keys that a query sees at most; 0 where no selection bounds them
    latent_width, latent_values: elements of a query and of a result as the kernel reads the cache's latents, where
        those differ from head_dim and value_dim; 0 where they do not
    """

    family: ClassVar[str] = "sparse"

    method: str = "dsa"
    slots: Num = 0
    latent_width: int = 0
    latent_values: int = 0
