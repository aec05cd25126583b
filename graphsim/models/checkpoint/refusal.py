"""Differences between a structure and its checkpoint as sentences, with those of many layers merged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from graphsim.errors import ConfigError
from graphsim.models.checkpoint.report import CheckpointReport, Difference
from graphsim.models.config import ModelConfig
from graphsim.units import short

SHOWN = 4
"""Maximum number of sentences in an error."""

GO_ON = "load_model(path, check=False), or --no-check on the command line of one model, goes by the config alone"


def sentences(differences: Iterable[Difference]) -> list[str]:
    """One sentence for each kind of difference: `model.layers.0.mlp.gate is missing … (and 31 more like it)`."""
    kinds: dict[str, list[Difference]] = {}
    for difference in differences:
        kinds.setdefault(re.sub(r"\d+", "#", difference.text), []).append(difference)
    return [
        found[0].text + (f" (and {len(found) - 1} more like it)" if len(found) > 1 else "") for found in kinds.values()
    ]


def checked(config: ModelConfig, report: CheckpointReport) -> ModelConfig:
    """The model, with the report's notes added. Raises ConfigError naming the modules that differ."""
    if report.differences:
        found = sentences(report.differences)
        more = f"; and {len(found) - SHOWN} more differences" if len(found) > SHOWN else ""
        raise ConfigError(
            f"{report.source}: the checkpoint is not what its config describes: "
            f"{'; '.join(short_sentence(text) for text in found[:SHOWN])}{more}. {GO_ON}"
        )
    return replace(config, notes=(*config.notes, *report.notes))


def short_sentence(text: str) -> str:
    """The sentence, truncated if names from a broken file make it too long."""
    return text if len(text) <= 300 else short(text[:300])
