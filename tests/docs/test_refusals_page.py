"""The handbook's table of refusals is what the engines' profiles say. GRAPHSIM_UPDATE_DOCS=1 renews it."""

from __future__ import annotations

from pathlib import Path

import yaml

from graphsim.lora import profile as profiles
from graphsim.lora.limits import RULES, Limit
from graphsim.lora.profile import list_engines, load_profile
from tests.docs.pages import DOCS, ends_with_table

PAGE = DOCS / "refusals.md"
HEAD = "| engine | refuses | in its own words | source |\n|---|---|---|---|\n"


def own_rules(engine: str) -> list[Limit]:
    """The rules that the engine's file itself states."""
    path = Path(profiles.__file__).parent / "engines" / f"{engine}.yaml"
    stated = yaml.safe_load(path.read_text(encoding="utf-8")).get("limits", {})
    return [limit for limit in load_profile(engine).limits.rules if stated.get(limit.rule)]


def words(limit: Limit) -> str:
    own = [limit.says] if limit.says else []
    own += [said for _, said in limit.words if said not in own]
    return "<br>".join(own) if own else f"*{limit.told()}*"


def subject(limit: Limit) -> str:
    named = ", ".join(f"{size:g}" for size in limit.offered) or ", ".join(limit.architectures)
    extra = {"max_lora_rank": f" ({named})", "kernels": f" ({named})", "device": f" ({named})", "bf16": f" ({named})"}
    allowed = f", but {' and '.join(limit.but)}" if limit.but else ""
    learned = ", where these are learned" if limit.models == "learned" else ""
    return RULES[limit.rule][0] + extra.get(limit.rule, "") + allowed + learned


def table() -> str:
    rows = [
        f"| `{engine}` | {subject(limit)} | {words(limit)} | {limit.source} |\n"
        for engine in list_engines()
        for limit in own_rules(engine)
    ]
    return "".join(rows)


def test_the_table_of_refusals_is_what_the_profiles_say() -> None:
    assert ends_with_table(PAGE, HEAD, table()), "GRAPHSIM_UPDATE_DOCS=1 renews it"


def test_every_rule_stands_in_the_table_once_for_each_engine_that_states_it() -> None:
    rows = table().splitlines()
    assert len(rows) == sum(len(own_rules(engine)) for engine in list_engines()) > 40
    assert {rule for rule in RULES if not any(RULES[rule][0] in row for row in rows)} == set()
