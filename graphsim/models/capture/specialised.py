"""A check that the sizes of a step remained symbolic, which loops over tokens prevent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

from graphsim.errors import ConfigError

SIZES = ((3, 5, 7, 11), (131, 17, 263, 67), (19, 4099, 2, 521), (1021, 2053, 4099, 8209))
"""Values of up to four sizes with which an equation is tested: primes, from a few tokens to long contexts."""
SMALLEST = 8
"""Lower bounds up to this value do not indicate a loop: they come from convolution taps or comparisons with 1."""
LOOP = "a loop over tokens or chunks needs a kernel of its own"


def fail_if_specialised(env: Any, symbols: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError if the recording so far is valid only for some values of a size.

    env: the ShapeEnv of the fake tensors
    symbols: the symbol of each size by name, such as batch and length: a sympy symbol or a SymInt
    where: what ran, for the message: a step, or the path of a module

    A size that was fixed to a number, or tied to another size, is among the environment's replacements. A fixed formula
    of sizes, such as a number of chunks, is among its guards; guards that hold for all sizes are ignored. A loop that
    compares instead of counting leaves a size with an upper bound of at most twice its lower bound.
    """
    own = {_symbol(size): name for name, size in symbols.items()}
    names = {symbol: sympy.Symbol(name) for symbol, name in own.items()}
    for symbol, name in own.items():
        now, bounds = env.replace(symbol), env.bound_sympy(symbol)
        if now != symbol:
            raise ConfigError(_sentence(where, name, now.subs(names), env.replacements_slocs.get(symbol)))
        if bounds.lower > SMALLEST and bounds.upper <= 2 * bounds.lower:
            raise ConfigError(f"{where}: {name} is held between {bounds.lower} and {bounds.upper}; {LOOP}")
    for guard in env.guards:
        if isinstance(guard.expr, sympy.Eq) and guard.expr.free_symbols & own.keys() and not _always(guard.expr):
            left, right = (side.subs(names) for side in guard.expr.args)
            raise ConfigError(_sentence(where, str(left), right, guard.sloc))


def _always(equation: Any) -> bool:
    """Whether an equation also holds for other sizes, all different from each other."""
    symbols = sorted(equation.free_symbols, key=str)
    return all(
        bool(equation.subs({symbol: primes[i % len(primes)] for i, symbol in enumerate(symbols)})) for primes in SIZES
    )


def _symbol(size: Any) -> Any:
    return size.node._expr if hasattr(size, "node") else size


def _sentence(where: str, name: str, value: Any, place: Any) -> str:
    reason = LOOP if value.is_number else "sizes that differ between runs must not be tied to each other"
    return f"{where}: {name} became {value}{_line(place)}, so what was captured holds for no other value; {reason}"


def _line(place: Any) -> str:
    """The origin of a guard: file, line and function of the first frame outside torch's own bookkeeping."""
    frame = getattr(place, "framework_loc", None)
    if frame is None or isinstance(frame, str):
        return f" ({frame})" if frame else ""
    path = frame.filename.replace("\\", "/").rpartition("site-packages/")[2]
    return f" ({path}, line {frame.lineno}, in {frame.name})"
