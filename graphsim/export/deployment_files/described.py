"""A server to start: a deployment with the names and settings that a start-up command needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError, choices_text
from graphsim.files import catalog
from graphsim.files.reading import load_mapping
from graphsim.lora.config import LoraConfig
from graphsim.serving.engine_limits import EngineLimits
from graphsim.speculation.drafts import Draft, check_target, draft_of
from graphsim.speculation.speculation import MTP, NGRAM, Speculation
from graphsim.units import checked_number, short

ENGINES = ("vllm", "sglang", "trtllm")
"""Engines whose commands can be written, by the `flags` of their scheduler."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Launch:
    """A server to start, and the number of its replicas.

    engine: engine whose flags are written, one of ENGINES
    model: Hugging Face id or path that the engine loads
    online: whether the checkpoint has another format than the deployment, so that the engine quantises it on loading
    drafting: the draft, None for none
    draft: id or path that the draft is loaded from, "" if it is part of the model or there is none
    adapters: paths of registered adapters by name
    host: address that the server listens on
    port: port that it listens on
    replicas: number of identical servers
    """

    deployment: Deployment
    engine: str
    model: str
    online: bool
    limits: EngineLimits
    speculation: Speculation | None
    drafting: Draft | None
    draft: str
    adapters: Mapping[str, str] = field(default_factory=dict)
    host: str = "0.0.0.0"  # noqa: S104 - a server behind a service listens on all interfaces
    port: int = 8000
    replicas: int = 1
    name: str = "server"

    @property
    def tp(self) -> int:
        """Tensor-parallel degree of attention."""
        return int(self.deployment.parallelism.tp)

    @property
    def pp(self) -> int:
        """Number of pipeline stages."""
        return int(self.deployment.parallelism.pp)

    @property
    def cp(self) -> int:
        """Context-parallel degree: ranks that split the tokens of a prompt."""
        return int(self.deployment.parallelism.cp)

    @property
    def attention_replicas(self) -> int:
        """Data-parallel replicas of attention that share one set of experts."""
        return int(self.deployment.parallelism.attention_replicas)

    @property
    def devices(self) -> int:
        """Number of devices of one server."""
        return self.tp * self.pp * self.cp * self.attention_replicas

    @property
    def expert_parallel(self) -> bool:
        """Whether experts are distributed over devices, not sharded."""
        return int(self.deployment.parallelism.ep) > 1

    @property
    def lora(self) -> LoraConfig | None:
        """The adapters that are served, None for none."""
        return self.deployment.adapter

    @property
    def slots(self) -> int:
        """Largest number of adapters in a step."""
        lora = self.lora
        if lora is None:
            return 0
        usual = self.deployment.engine.scheduler.max_loras if self.deployment.engine else 1
        return int(np.max(lora.max_loras)) or max(int(usual), int(np.ceil(np.max(lora.active_adapters))))

    @property
    def rank(self) -> int:
        """The largest adapter rank that is served."""
        return 0 if self.lora is None else int(np.max(self.lora.largest_rank))

    @property
    def drafted(self) -> int:
        """Tokens drafted per step; 0 without speculation."""
        return 0 if self.speculation is None else int(self.speculation.tokens)

    @property
    def draft_tp(self) -> int | None:
        """Tensor-parallel degree of the draft, if it differs from the model's."""
        return None if self.speculation is None else self.speculation.draft_tp


def described(
    deployment: Deployment, *, engine: str | None, limits: EngineLimits | None, speculation: Speculation | None,
    model_id: str | None, draft_id: str | None, adapters: Mapping[str, str] | None, replicas: int, port: int,
    name: str | None,
) -> Launch:  # fmt: skip
    """The checked `Launch` of a deployment; the other arguments are those of `deployment_file`.

    engine: engine whose command is requested, None for the deployment's own
    Raises ConfigError for arrays, an engine without a start-up command, and formats that no checkpoint has.
    """
    deployment = deployment.under(DEFAULT_ENGINE if engine is None else engine)
    own = deployment.engine.scheduler.flags if deployment.engine is not None else ""
    if own not in ENGINES:
        raise ConfigError(f"engine '{deployment.engine_name}' has no command to start; {choices_text(own, ENGINES)}")
    if engine is not None and own != engine:
        raise ConfigError(f"format = {engine!r} is not allowed for engine '{deployment.engine_name}'; use {own!r}")
    _check_numbers(deployment)
    _check_adapter(deployment.adapter)
    limits = limits or EngineLimits()
    if deployment.engine is not None:
        limits.settings(deployment.engine)
    drafting = None
    if speculation is not None and not speculation.never:
        if np.ndim(speculation.tokens):
            raise ConfigError("speculation.tokens holds several scenarios; a command starts one")
        check_target(deployment)
        drafting = draft_of(speculation, deployment)
    model = _printable("model_id", model_id) if model_id else _id_of(deployment)
    online = model_id is None and deployment.precision.weights != _published(deployment)
    if online and deployment.precision.weights.name != "fp8":
        raise ConfigError(
            f"precision = {deployment.precision.name} is not what '{deployment.model.name}' is published in, and "
            "engines can quantise a checkpoint only to fp8 while loading it; give model_id= of a "
            "checkpoint in that format"
        )
    found = {_adapter_name(key): _printable("adapters", where) for key, where in (adapters or {}).items()}
    if found and deployment.adapter is None:
        raise ConfigError("adapters are given, but the deployment has no LoraConfig; give lora=gs.LoraConfig(rank=…)")
    return Launch(
        deployment=deployment, engine=own, model=model, online=online, limits=limits,
        speculation=speculation if drafting else None, drafting=drafting,
        draft=_draft_id(speculation, draft_id) if drafting else "", adapters=found,
        replicas=_replicas(deployment, replicas), port=checked_number("port", port, 1, 65535, one=True),
        name=_name(name or deployment.model.name, given=name is not None),
    )  # fmt: skip


def _check_numbers(deployment: Deployment) -> None:
    degrees = deployment.parallelism
    for name in ("tp", "pp", "ep", "cp", "dp"):
        if np.ndim(getattr(degrees, name)):
            raise ConfigError(f"parallelism.{name} holds several scenarios; a command starts one deployment")
    spread = degrees.tp * degrees.attention_replicas
    if degrees.ep > 1 and degrees.ep != spread:
        raise ConfigError(
            f"parallelism.ep = {int(degrees.ep)} with tp = {int(degrees.tp)} has no flag: engines distribute experts "
            f"over all devices of a server; expected ep = 1 or {int(spread)}"
        )


def _check_adapter(lora: LoraConfig | None) -> None:
    if lora is None:
        return
    if lora.strategy == "merge":
        raise ConfigError(
            "lora.strategy = merge has no flag: merge the adapter into a checkpoint, and write the command of that "
            "model without an adapter"
        )
    if np.ndim(lora.rank) or np.ndim(lora.max_loras):
        raise ConfigError("lora holds several scenarios; a command starts one deployment")


def _published(deployment: Deployment) -> Any:
    """The format of the checkpoint's weights; bf16 if it names none."""
    precision = deployment.model.precision
    return deployment.precision.activations if precision is None else precision.weights


def _id_of(deployment: Deployment) -> str:
    """The first id under which the model is published; its name if no file of the catalog lists an id."""
    path = catalog.held(catalog.MODELS, deployment.model.name)
    listed = load_mapping(Path(path)).get("ids") if path is not None else None
    return str(listed[0]) if isinstance(listed, list) and listed else deployment.model.name


def _draft_id(speculation: Speculation | None, given: str | None) -> str:
    if given:
        return _printable("draft_id", given)
    if speculation is None or speculation.draft in (MTP, NGRAM):
        return ""
    if isinstance(speculation.draft, str | Path):
        path = catalog.held(catalog.MODELS, str(speculation.draft))
        listed = load_mapping(Path(path)).get("ids") if path is not None else None
        found = str(listed[0]) if isinstance(listed, list) and listed else str(speculation.draft)
        return _printable("speculation.draft", found)
    raise ConfigError(
        "speculation.draft is neither a name nor a path; give draft_id= of the checkpoint that the engine loads"
    )


def _printable(what: str, text: Any) -> str:
    if not isinstance(text, str | Path) or not str(text).strip() or _UNPRINTABLE.search(str(text)):
        raise ConfigError(f"{what} = {short(text)} is not allowed; expected a name or a path in one line")
    if str(text).startswith("-"):
        raise ConfigError(f"{what} = {short(text)} is not allowed: it reads like a flag")
    return str(text)


def _adapter_name(text: Any) -> str:
    name = _printable("adapters", text)
    if "=" in name:
        raise ConfigError(f"adapters: the name {short(name)} is not allowed; expected one without '='")
    return name


def _replicas(deployment: Deployment, replicas: int) -> int:
    found: int = checked_number("replicas", replicas, 1, 10_000, one=True)
    return found * int(deployment.parallelism.dp)


def _name(text: str, *, given: bool) -> str:
    """A name that Kubernetes accepts (RFC 1123 label)."""
    if given and not _NAME.fullmatch(text):
        raise ConfigError(
            f"name = {short(text)} is not allowed; expected up to 63 characters of a-z, 0-9 and -, without "
            f"- at either end"
        )
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return plain or "server"
