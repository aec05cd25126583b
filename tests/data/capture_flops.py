"""Matrix flops of one step of a PyTorch model as torch's own counter has them, told apart by what is multiplied."""

from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

KINDS = ("weights", "products", "grouped", "convolution", "positions")
"""By a weight; of two things that depend on the tokens, as attention and scans have; of chosen experts, grouped;
convolutions; of two things that depend on no token, as the angles of rotary positions."""

CONSTANT, WEIGHT, TOKENS = range(3)
"""What a tensor depends on: on nothing that is learnt or given, on weights, on the tokens."""

CHOOSING = {"index", "index_select", "gather"}
"""Operations that take rows of their first operand: of a weight they are a weight, whoever chose them."""


def grouped_flops(rows: Any, weight: Any, *_: object, out_shape: Any = None, **__: object) -> int:
    """Of `aten._grouped_mm`, which torch's counter leaves out: every row meets one expert's matrix."""
    return 2 * int(rows[0]) * int(rows[-1]) * int(out_shape[-1])


GROUPED = {torch.ops.aten._grouped_mm: grouped_flops}
CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten._convolution}


class StepFlops(FlopCounterMode):
    """Torch's counter with a formula for grouped products; `kinds` adds up to its total."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(display=False, custom_mapping=GROUPED)
        self.kinds: Counter[str] = Counter()
        self.operations = 0
        self._kept: list[torch.Tensor] = []
        self._hangs_on = {_place(each): WEIGHT for each in model.parameters()}
        self._hangs_on |= {_place(each): CONSTANT for each in model.buffers() if _place(each) not in self._hangs_on}

    def _count_flops(self, packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before = self.get_total_flops()
        result = super()._count_flops(packet, out, args, kwargs)
        self.operations += 1
        operands = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        kinds = [self._hangs_on.get(_place(each), TOKENS) for each in operands]
        if counted := self.get_total_flops() - before:
            self.kinds[_kind(packet, kinds, [each.dim() for each in operands])] += counted
        made = max(kinds, default=CONSTANT)
        if packet.__name__ in CHOOSING and kinds[0] == WEIGHT and operands[0].dim() > 2:
            made = WEIGHT
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self._kept.append(each)  # no other tensor takes its place
                self._hangs_on[_place(each)] = made
        return result


def _place(tensor: torch.Tensor) -> int:
    """Where a tensor and its views lie."""
    return tensor.untyped_storage()._cdata


def _kind(packet: Any, kinds: list[int], dims: list[int]) -> str:
    if packet in GROUPED:
        return "grouped"
    if packet in CONVOLUTIONS:
        return "convolution"
    factors = kinds[1:3] if packet.__name__ in ("addmm", "baddbmm") else kinds[:2]
    if WEIGHT in factors:
        return "weights"
    return "products" if TOKENS in factors else "positions"
