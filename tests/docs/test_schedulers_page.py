"""The handbook's table of schedulers is what the engines' profiles say. GRAPHSIM_UPDATE_DOCS=1 renews it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from graphsim.lora import profile as profiles
from graphsim.lora.profile import EngineProfile, list_engines, load_profile
from graphsim.lora.scheduler import EngineScheduler
from tests.docs.pages import DOCS, ends_with_table

PAGE = DOCS / "schedulers.md"
HEAD = "| engine | rule | value | source |\n|---|---|---|---|\n"
OF_HOST = (
    "chunked_prompts", "mixed_steps", "planned_ahead", "receive_steps", "batch_wait_steps", "batch_wait_share",
)  # fmt: skip
OF_MEMORY = (
    "share", "cache_share", "chunk_tokens", "sequences", "large_device_bytes", "large_chunk_tokens", "large_sequences",
    "block_tokens",
)  # fmt: skip
GROUPS = {
    "scheduler": tuple(key for key in EngineScheduler.__dataclass_fields__ if key != "sources"),
    "host": OF_HOST,
    "memory": OF_MEMORY,
}
"""Fields of a profile that say how steps are filled."""


def own(engine: str) -> dict[str, Any]:
    """What the engine's file itself states."""
    path = Path(profiles.__file__).parent / "engines" / f"{engine}.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def serves(engine: str) -> bool:
    """Whether somebody looked at how the engine fills its steps."""
    return bool(load_profile(engine).scheduler.sources)


def rows_of(engine: str) -> list[str]:
    profile: EngineProfile = load_profile(engine)
    stated = own(engine)
    found = []
    for group, keys in GROUPS.items():
        for key in keys:
            if key in stated.get(group, {}):
                value, source = shown(stated[group][key]["value"]), getattr(profile, group).sources[key]
                found.append(f"| `{engine}` | `{group}.{key}` | {value} | {source} |\n")
    return found


def shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def table() -> str:
    return "".join(row for engine in list_engines() if serves(engine) for row in rows_of(engine))


def test_the_table_of_schedulers_is_what_the_profiles_say() -> None:
    assert ends_with_table(PAGE, HEAD, table()), "GRAPHSIM_UPDATE_DOCS=1 renews it"


def test_every_rule_stands_in_the_table_for_each_family_of_engines() -> None:
    rows = table().splitlines()
    for engine in ("vllm", "sglang", "trtllm", "slora"):
        for rule in ("admission", "policy", "max_loras", "skips", "pads"):
            assert any(row.startswith(f"| `{engine}` | `scheduler.{rule}` |") for row in rows), (engine, rule)
    assert len(rows) > 80
