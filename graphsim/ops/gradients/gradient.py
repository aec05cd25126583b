"""Base of the operations of a backward pass: they own no weights, and nothing is saved for them."""

from __future__ import annotations

from graphsim.ops.saved import Saved
from graphsim.units import Num


class Gradient:
    """Weights that it reads belong to the operation whose gradient it computes."""

    __slots__ = ()

    @property
    def parameters(self) -> Num:
        """No parameters of its own."""
        return 0.0

    @property
    def weight_storage_bytes(self) -> Num:
        """No weights of its own."""
        return 0.0

    @property
    def adapter_rank(self) -> Num:
        """No rank of its own."""
        return 0.0

    @property
    def buffers(self) -> tuple[Num, ...]:
        """No buffers of its own."""
        return ()

    @property
    def saved(self) -> Saved:
        """Nothing: it has no gradient itself."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Nothing: it has no gradient itself."""
        return Saved()
