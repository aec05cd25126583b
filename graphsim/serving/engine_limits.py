"""Settings of an engine that differ from those of a server started without options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.lora.profile import EngineProfile
from graphsim.serving.engine_flags import ELSEWHERE, OF_ENGINES, OWN, Flag, Settings, all_names
from graphsim.units import short


class EngineLimits:
    """Scheduler settings, named by the engine's own flags or by graphsim's engine-independent names; immutable.

    Under vLLM `EngineLimits(max_num_seqs=64, enable_prefix_caching=False)`, under SGLang
    `EngineLimits(chunked_prefill_size=4096, max_loras_per_batch=16)`. A flag may also be written as on the command
    line, such as `--max-num-seqs` as the key of a mapping of keywords. Names that work with every engine: the fields of
    `Rules` and `AdapterRules`, `kv_tokens`, `memory_share`, `max_lora_rank`, `captured_sizes` and `pads`
    (`graphsim.serving.engine_flags`).
    Raises ConfigError for a name that no engine knows, or a value that its flag does not take.
    """

    __slots__ = ("_given",)
    _given: Mapping[str, Any]

    def __init__(self, **given: Any) -> None:
        found: dict[str, Any] = {}
        for written, value in given.items():
            name = written.lstrip("-").replace("-", "_")
            if name in found:
                raise ConfigError(f"limits.{name} is given twice; leave one out")
            if value is not None:
                found[name] = _checked(name, value)
        object.__setattr__(self, "_given", MappingProxyType(found))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("EngineLimits are immutable; create new ones")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineLimits) and dict(self._given) == dict(other._given)

    def __hash__(self) -> int:
        return hash(frozenset(self._given.items()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (dict(self._given),)

    def __repr__(self) -> str:
        return f"EngineLimits({', '.join(f'{name}={value!r}' for name, value in self._given.items())})"

    @property
    def given(self) -> Mapping[str, Any]:
        """The settings as given, by name."""
        return self._given

    def but(self, **changes: Any) -> EngineLimits:
        """A copy with some settings changed; None removes a setting."""
        return EngineLimits(**{**self._given, **changes})

    def settings(self, engine: EngineProfile) -> Settings:
        """The settings under graphsim's names, for an engine.

        Raises ConfigError for a flag of another engine, and for two flags that contradict each other.
        """
        flags = {**OF_ENGINES[engine.scheduler.flags], **OWN}
        found: Settings = {}
        said: dict[str, str] = {}
        for name, value in self._given.items():
            flag = flags.get(name)
            if flag is None:
                raise ConfigError(_foreign(name, value, engine, flags))
            for setting, meant in flag.settings(value).items():
                if setting in found and found[setting] != meant:
                    raise ConfigError(f"limits.{said[setting]} and limits.{name} contradict each other; leave one out")
                found[setting], said[setting] = meant, name
        return found


def _restored(given: dict[str, Any]) -> EngineLimits:
    return EngineLimits(**given)


def _checked(name: str, value: Any) -> Any:
    """A value, by the first of the flags of that name that takes it."""
    flags = [table[name] for table in (OWN, *OF_ENGINES.values()) if name in table]
    if not flags and name in ELSEWHERE:
        raise ConfigError(f"limits.{name} is not a limit of an engine; give {ELSEWHERE[name]}")
    if not flags:
        raise ConfigError(f"limits.{name} is not a setting of any engine; {choices_text(name, all_names())}")
    return flags[0].check(f"limits.{name}", value)


def _foreign(name: str, value: Any, engine: EngineProfile, flags: Mapping[str, Flag]) -> str:
    """The sentence on which engine the flag belongs to, and this engine's equivalent if there is one."""
    whose = {owner: table[name] for owner, table in OF_ENGINES.items() if name in table}
    own = _counterpart(next(iter(whose.values())).settings(value), value, flags)
    hint = f"this one has {own} for it" if own else choices_text(None, flags)
    return f"limits.{name} is a flag of {', '.join(whose)}, not of engine {short(engine.name)}; {hint}"


def _counterpart(meant: Settings, value: Any, flags: Mapping[str, Flag]) -> str:
    """The first flag that sets the same."""
    for name, flag in flags.items():
        try:
            if flag.settings(flag.check(name, value)).keys() == meant.keys():
                return f"limits.{name}"
        except ConfigError:
            continue
    return ""
