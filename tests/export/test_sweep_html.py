"""The page of a table: sorting, filtering, the front, and the winner's explanation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.sweeps.best import pareto
from tests.export.browser import CHROMIUM, Browser, opened

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
ASKED: dict[str, Any] = {"batch": [1, 8, 64], "tp": [1, 2], "rank": [16], "strategy": ["base", "dynamic"]}


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return gs.best("llama-3.1-8b", ["h100-sxm", "l4"], "tokens_per_s_per_gpu", **ASKED)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def data(page: str) -> Any:
    return json.loads(re.search(r"^const TABLE=(.*);$", page, re.M)[1])  # type: ignore[index]


@pytest.mark.slow
def test_the_winner_is_explained_as_gs_explain_does(found: pd.DataFrame) -> None:
    first = found.iloc[0]
    page = gs.to_html(found)
    lora = gs.LoraConfig(rank=16) if first["strategy"] == "dynamic" else gs.LoraConfig(enabled=False)
    estimate = gs.simulate(
        first["model"], first["hardware"], batch=first["batch"], parallelism=gs.Parallelism(tp=first["tp"]), lora=lora
    )
    assert all(finding.replace("'", "&#x27;") in page for finding in gs.explain(estimate).findings)


@pytest.mark.slow
def test_a_winner_that_the_table_does_not_tell_fully_is_not_explained(found: pd.DataFrame) -> None:
    page = gs.to_html(found.assign(ttft_s=2.0 * found["ttft_s"]))
    assert "It is not explained here: the table does not record everything" in page


@pytest.mark.slow
def test_rows_stand_in_the_page_as_they_are(found: pd.DataFrame) -> None:
    held = data(gs.to_html(found))
    assert len(held["rows"]) == len(found)
    place = list(held["columns"]).index("latency_s")
    assert [row[place] for row in held["rows"]] == found["latency_s"].tolist()


@needs_chromium
@pytest.mark.slow
def test_it_sorts_filters_and_marks_the_front(found: pd.DataFrame, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "best.html"
    gs.to_html(found, path)
    with opened(browser, path, width=390, dark=True) as shown:
        front = pareto(found, "latency_s", "tokens_per_s_per_gpu")
        assert shown.run("document.querySelectorAll('tr.front').length") == len(front)
        shown.run("[...document.querySelectorAll('#head button')].find(b => b.textContent === 'latency').click()")
        cells = (
            "[...document.querySelectorAll('#body tr')].map(r => r.children[varied.indexOf('latency_s')].textContent)"
        )
        fastest = found.sort_values("latency_s").iloc[0]["latency_s"]
        assert shown.run(cells)[0] == f"{1e3 * fastest:.3g} ms"
        shown.run("(s => { s.value = 'l4'; s.dispatchEvent(new Event('input')); })($('filters').children[0])")
        assert shown.run("document.querySelectorAll('#body tr').length") == (found["hardware"] == "l4").sum()
        assert shown.run("document.documentElement.scrollWidth <= innerWidth")
        shown.point("#front circle")
        assert "batch" in shown.run("$('tip').textContent")
        assert not shown.console and not shown.requests


def test_texts_are_escaped() -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    frame = pd.DataFrame({"model": [bad, "b"], "latency_s": [1.0, 2.0], "tokens_per_s": [3.0, float("nan")]})
    page = gs.to_html(frame)
    assert "<img" not in page and data(page)["rows"] == [[bad, 1.0, 3.0], ["b", 2.0, None]]


def test_what_is_no_table_for_a_page_is_said() -> None:
    with pytest.raises(ConfigError, match="a table of 1 to 20,000 rows, found 0"):
        gs.to_html(pd.DataFrame({"latency_s": []}))
    with pytest.raises(ConfigError, match="the page of a table has no limits"):
        gs.to_html(pd.DataFrame({"latency_s": [1.0]}), ttft_s=1.0)
