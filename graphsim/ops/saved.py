"""What autograd saves of an operation from the forward to the backward pass.

Rules as PyTorch's eager operations follow them in Hugging Face's code (torch 2.14, transformers 5.24, peft 0.21),
counted with `torch.autograd.graph.saved_tensors_hooks`; each operation states its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saved:
    """Bytes that one operation keeps, its own weights excluded, per device.

    inputs: of the values that it takes; several operations that keep the same value share its memory
    result: of the value that it makes, which operations that take it may keep as well
    own: of values that only this operation has: statistics, copies in another format
    """

    inputs: Num = 0.0
    result: Num = 0.0
    own: Num = 0.0

    @property
    def bytes(self) -> Num:
        """All three; an upper bound where other operations keep the same values."""
        return self.inputs + self.result + self.own

    def __add__(self, other: Saved) -> Saved:
        return Saved(inputs=self.inputs + other.inputs, result=self.result + other.result, own=self.own + other.own)
