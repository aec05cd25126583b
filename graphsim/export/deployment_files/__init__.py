"""Files that start a simulated deployment: an engine's command as a shell script, or a Kubernetes manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, choices_text
from graphsim.export.deployment_files.commands import command_of
from graphsim.export.deployment_files.described import ENGINES, described
from graphsim.export.deployment_files.kubernetes import manifest
from graphsim.export.deployment_files.shell import script
from graphsim.files.written import write_text
from graphsim.lora.config import LoraConfig
from graphsim.serving.engine_limits import EngineLimits
from graphsim.speculation.speculation import Speculation, checked_speculation
from graphsim.units import short

KUBERNETES = "kubernetes"
FORMATS = (*ENGINES, KUBERNETES)


def deployment_file(
    deployment: Deployment | Mapping[str, Any],
    format: str | None = None,
    path: str | Path | None = None,
    *,
    limits: EngineLimits | None = None,
    speculation: Speculation | None = None,
    model_id: str | None = None,
    draft_id: str | None = None,
    adapters: Mapping[str, str] | None = None,
    replicas: int = 1,
    port: int = 8000,
    image: str | None = None,
    name: str | None = None,
) -> str:
    """The script or manifest that starts a deployment as simulated; also written to `path` if given.

    deployment: a `Deployment`, or a row of a table from `sweep`, `best` and the like
    format: `vllm` (`vllm serve`), `sglang` (`python -m sglang.launch_server`) or `trtllm` (`trtllm-serve`) for a shell
        script of that engine; `kubernetes` for a manifest of a Deployment and a Service; by default that of the
        deployment's engine
    path: the file to write, None for none
    limits: the engine's settings, as given to `serve`
    speculation: the draft, as given to `serve`
    model_id: Hugging Face id or path of the model to load, by default the first id that the catalog lists
    draft_id: the same for the draft
    adapters: paths of registered adapters by name
    replicas: number of identical servers in a manifest
    port: port that each server listens on
    image: container image
    name: name of the manifest's objects
    Every flag is one of the engine's own (`graphsim.export.deployment_files.flags`), and every argument is quoted.
    Raises ConfigError for a setting that the engine has no flag for, naming it.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format = {short(format)} is not known; {choices_text(format, FORMATS)}")
    found = deployment if isinstance(deployment, Deployment) else _of_row(deployment)
    launch = described(
        found, engine=None if format == KUBERNETES else format, limits=limits,
        speculation=checked_speculation(speculation), model_id=model_id, draft_id=draft_id, adapters=adapters,
        replicas=replicas, port=port, name=name,
    )  # fmt: skip
    arguments, config = command_of(launch)
    text = manifest(launch, arguments, config, image) if format == KUBERNETES else script(arguments, config)
    if path is not None:
        write_text(path, text)
    return text


NEEDED = ("model", "hardware", "engine", "tp")
"""Columns that a row must have; other columns of a sweep are read if present."""


def _of_row(row: Any) -> Deployment:
    """The deployment of a row of a table. Raises ConfigError for missing columns."""
    if not hasattr(row, "keys"):
        raise ConfigError(f"deployment = {short(row)} is neither a Deployment nor a row of a table")
    told = {str(key): row[key] for key in row.keys()}  # noqa: SIM118 - of a pandas Series, too
    missing = [name for name in NEEDED if name not in told]
    if missing:
        raise ConfigError(f"deployment: the row has no column {', '.join(missing)}, which says what to start")
    degrees: dict[str, Any] = {name: int(told[name]) for name in ("tp", "pp", "ep", "cp", "dp") if name in told}
    lora = None
    if told.get("strategy", "base") != "base":
        numbers = ("rank", "active_adapters", "max_loras", "max_lora_rank")
        fields: dict[str, Any] = {name: int(told[name]) for name in numbers if name in told}
        targets = str(told.get("targets", "attn+ffn"))
        fields["target_modules"] = targets if targets == "all-linear" else targets.split("+")
        lora = LoraConfig(strategy=str(told["strategy"]), **fields)
    precision = told.get("precision")
    return Deployment(
        str(told["model"]), str(told["hardware"]), parallelism=Parallelism(**degrees), lora=lora,
        precision=None if precision in (None, "none", "None") else str(precision), engine=str(told["engine"]),
    )  # fmt: skip
