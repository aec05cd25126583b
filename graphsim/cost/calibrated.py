"""The calibrated cost model of a device: its own fitted constants, or its generation's scaled by datasheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, ClassVar

from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.constants import constants_of, with_constants
from graphsim.cost.families.blend import Blend
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.measured import kernel_seconds, latency_seconds, price_of
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.borrowed import record_of
from graphsim.cost.parameters.engines import BASE, KernelTable
from graphsim.cost.parameters.lazily import Lazily
from graphsim.cost.parameters.parts import parts_of
from graphsim.cost.rates import kind_of
from graphsim.cost.recorded_kernels import Kinds, RecordedKernels
from graphsim.cost.residuals import Record
from graphsim.cost.roofline import roofline
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.expr import Expr
from graphsim.symbolic.memo import Memo
from graphsim.units import Num


def calibrated(hardware: Hardware, table: KernelTable = BASE) -> tuple[CostModel, str]:
    """A cost model of an engine's kernels on a device, and its origin.

    The origin is `calibrated`, `fitted on served rows of …` where kernels were not measured but whole models served,
    `scaled from …`, or `roofline`.
    """
    found = Lazily(FAMILIES, lambda family: basis(hardware, family, table))
    if found["gemm"].origin != "calibrated":
        from graphsim.cost.stack import stack_of

        served = stack_of(hardware, table.engine)
        if served is not None:
            return served
    if found["gemm"].parameters is None:
        return roofline, "roofline"

    def parameters_of(family: str) -> Mapping[str, Any]:
        parameters = found[family].parameters or {}
        if family == "mla" and table.engine and parameters and not isinstance(parameters, Blend):
            parameters = FAMILIES["mla"].module.served(parameters, basis(hardware, family).parameters or {})
        return parameters

    records = Lazily(FAMILIES, lambda family: record_of(hardware, family, found[family], table.engine))
    return Prices(hardware, Lazily(FAMILIES, parameters_of), records), found["gemm"].origin


class Prices(Trusted):
    """The calibrated cost model of one device.

    constants: other values of fitted constants, by the names of `constants_of`, which may be symbols
    """

    of_rates: ClassVar[bool] = True

    def __init__(
        self,
        hardware: Hardware,
        parameters: Parameters,
        records: Mapping[str, Record | None] = MappingProxyType({}),
        constants: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._hardware, self._fits, self._records, self._changed = hardware, parameters, records, constants
        self._parameters = Lazily(FAMILIES, self._family) if constants else parameters

    def _family(self, family: str) -> Mapping[str, Any]:
        return with_constants(family, self._fits[family], self._changed)

    @property
    def constants(self) -> dict[str, Any]:
        """The fitted constants by name, `constants.gemm.bfloat16.launch_clocks`; in clocks, bytes, seconds or parts."""
        usual = {name: value for family in FAMILIES for name, value in constants_of(family, self._fits[family]).items()}
        return {name: self._changed.get(name, value) for name, value in usual.items()}

    def with_constants(self, values: Mapping[str, Any]) -> Prices:
        """The same with other values of some constants. Raises ConfigError for a name that is none of them."""
        known = self.constants
        for name in values:
            if name not in known:
                raise ConfigError(f"constants has no '{name}'; {choices_text(name, known)}")
        return Prices(self._hardware, self._fits, self._records, {**self._changed, **values})

    @property
    def symbols(self) -> dict[str, Expr]:
        """The constants that are symbols."""
        return {name: value for name, value in self._changed.items() if isinstance(value, Expr)}

    def structure(self, families: Iterable[str]) -> tuple[Any, ...]:
        """Everything except rates that determines the structure of price formulas, as parts of a key for `Memo`.

        families: those whose fits the prices depend on; the fits of others are not read
        """
        fits = [part for family in families for part in (family, *parts_of(self._fits[family]))]
        changed = [(name, None if isinstance(value, Expr) else value) for name, value in self._changed.items()]
        return (*kind_of(self._hardware), *fits, *changed)

    @cached_property
    def _kinds(self) -> Mapping[str, Kinds]:
        """The recorded kernels of each family."""
        return Lazily(FAMILIES, lambda family: _kinds.get(self.structure([family]), dict[Any, Any]))

    def kernels_on(self, hardware: Hardware) -> RecordedKernels:
        """Seconds of kernels whose sizes may be symbols, on the device with rates that may be symbols too."""
        return RecordedKernels(hardware, self._kernel_of, self._kinds, self.symbols)

    def _kernel_of(self, hardware: Hardware, shape: Any, constants: Mapping[str, Any] = MappingProxyType({})) -> Num:
        parameters = self._parameters
        if constants:
            parameters = {
                shape.family: with_constants(shape.family, self._fits[shape.family], {**self._changed, **constants})
            }
        return kernel_seconds(hardware, parameters, shape)

    @property
    def parameters(self) -> Parameters:
        """The constants."""
        return self._parameters

    @property
    def records(self) -> Mapping[str, Record | None]:
        """By family, the residuals of its kernels (`cost/residuals.py`); None where none are recorded."""
        return self._records

    @property
    def has_records(self) -> bool:
        """Whether residuals are recorded for any family."""
        return any(record is not None for record in self._records.values())

    def __call__(self, op: Op, device: Hardware) -> Cost:
        """The cost of an operation on the device of the constants, or on one with other rates."""
        return self.cost(op, partial(kernel_seconds, device, self._parameters), device)

    def cost(self, op: Op, kernel_s: KernelTime, device: Hardware) -> Cost:
        """The same from a function that returns the seconds of its kernels; numbers may be symbols."""
        return price_of(op, device, self._parameters, kernel_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return Prices, (self._hardware, dict(self._fits), dict(self._records), dict(self._changed))

    def latency_s(self, op: Op, kernel_s: KernelTime, hardware: Hardware | None = None) -> Num:
        """Seconds of an operation whose numbers may be symbols, from a function that gives those of its kernels.

        hardware: the device with other rates, or with symbols for them
        """
        return latency_seconds(op, hardware or self._hardware, self._parameters, kernel_s)

    def kernel_s(self, shape: Any) -> Num:
        """Seconds of one kernel."""
        return kernel_seconds(self._hardware, self._parameters, shape)


_kinds: Memo[Kinds] = Memo(most=512)
