"""The page of a served run shows its figures, runs without network or errors, and keeps names as texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

import graphsim as gs
from graphsim.export.serving_figures import figures_of, worst_first
from graphsim.export.serving_html import serving_html
from graphsim.export.serving_series import series_of
from graphsim.export.serving_trace import serving_trace
from graphsim.serving.goodput import Limits
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import empty_log
from graphsim.serving.service import Service
from graphsim.traffic.table import request_table
from tests.serving.hand_made import hand_made

from .browser import CHROMIUM, Browser, opened
from .conftest import HOSTILE
from .test_html import COUNTS, CUT, WIDER, values

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def service() -> Service:
    return hand_made()


@pytest.fixture(scope="module")
def page(service) -> str:
    return serving_html(service)


def figures(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_headline_figures_are_those_of_the_summary(service, page):
    found, summary = values(page), service.summary()
    for name in ("completed", "request_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms"):
        assert found[f"figure-{name}"] == [float(summary[name])]
    assert found["figure-good_share"] == [service.goodput().share]
    assert found["figure-loads"] == [4.0] and found["figure-preemptions"] == [1.0]
    strict = values(serving_html(service, ttft_s=0.75, tpot_s=0.3))
    assert strict["figure-good_share"] == [service.goodput(ttft_s=0.75, tpot_s=0.3).share]


def test_the_page_holds_all_it_needs(page):
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)[a-z]+:""", own)
    assert "{{" not in own
    places = set(re.findall(r'class="chart" id="([^"]+)"', own))
    assert places == set(figures(page))


def test_the_time_to_first_token_is_told_apart(page):
    # of 762.5 ms: 12.5 in the queue (0.1 s of one in eight), 150 in loads, the rest in prompts' steps
    assert "Of the 762.5 ms to the first token on average, 12.5 ms" in page
    assert "150 ms while adapters were loaded, 600 ms in the prompt" in page


def test_series_add_up_to_the_run(service):
    series = series_of(service, 20)
    assert series.width_s == 0.5 and len(series.at_s) == 20
    assert series.sent.sum() * 0.5 == 11 and series.answered.sum() * 0.5 == 8
    assert series.tokens_per_s.sum() * 0.5 == pytest.approx(32)
    assert series.loads.sum() * 0.5 == pytest.approx(0.7)
    assert series.kv_peak.max() == 100.0 and series.running_peak.max() == 4
    assert series.ttft_median_s[0] == pytest.approx(0.5) and np.isnan(series.ttft_median_s[1])


def test_charts_show_the_values(service):
    found = figures_of(service, service.classes)
    clock = found["chart-clock"]
    axes = [name for name in clock["layout"] if name.startswith("yaxis")]
    assert len(axes) == 7 and {trace["yaxis"] for trace in clock["data"]} == {"y", *(f"y{i}" for i in range(2, 8))}
    spans = [clock["layout"][name]["domain"] for name in axes]
    assert all(low > high for (low, _), (_, high) in zip(spans, spans[1:], strict=False))  # none above another
    ttft = found["chart-ttft_s"]
    assert [trace["name"] for trace in ttft["data"]] == ["interactive", "batch"]
    assert ttft["data"][1]["x"] == [1000.0] * len(ttft["data"][1]["x"])
    assert [shape["x0"] for shape in ttft["layout"]["shapes"]] == [pytest.approx(550.0)]
    assert found["chart-popular"]["data"][0]["x"] == [5, 3, 1]


def test_adapters_that_were_never_answered_come_first(service):
    frame = worst_first(service.adapters)
    assert list(frame.adapter) == ["red", "blue", "green"]
    starving = service.adapters.assign(p99_ttft_s=[1.0, float("nan"), 0.6, 0.5])
    assert list(worst_first(starving).adapter) == ["blue", "red", "green"]


def test_a_run_of_nothing_has_a_page_too():
    table = request_table([0.0], [8], [4])
    page = serving_html(Service(table=table, log=empty_log(1), rules=Rules(kv_blocks=10)))
    assert "No request was answered" in page and "Adapters that suffered" not in page


@pytest.mark.slow
def test_the_public_verbs_draw_served_runs(service, page, tmp_path):
    assert gs.to_html(service, tmp_path / "page.html") == page == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "33.3%" not in page and "25.0%" in gs.to_html(service, e2e_s=1.0 + 1e-9)
    assert gs.to_trace(service, start_s=9.0) == serving_trace(service, start_s=9.0)
    estimate = gs.simulate("gpt-2", "l4", engine="reference")
    with pytest.raises(gs.ConfigError, match="ttft_s applies to served runs"):
        gs.to_html(estimate, ttft_s=1.0)
    with pytest.raises(gs.ConfigError, match="start_s applies to served runs"):
        gs.to_trace(estimate, start_s=1.0)


def test_limits_are_explained(service):
    with pytest.raises(gs.ConfigError, match="ttft_s = -1"):
        serving_html(service, ttft_s=-1)


def hostile_service() -> Service:
    classes = (Limits(name=HOSTILE[-2]), Limits(name="'\"><img src=x onerror=alert(1)>", ttft_s=0.1))
    names = (HOSTILE[3], HOSTILE[-3], HOSTILE[-1])
    settings = {"</script><script>alert(1)</script>": "<b>"}
    return hand_made(adapter_names=names, classes=classes, model=HOSTILE[-2], settings=settings, notes=(HOSTILE[-2],))


def test_hostile_names_stay_text():
    page = serving_html(hostile_service())
    own = page.split("plotly.js (", 1)[0]
    assert "<script>alert" not in own and "<img" not in own and "&lt;script&gt;alert(1)&lt;/script&gt;" in own
    assert "<script>alert(1)" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert figures(page)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@needs_chromium
@pytest.mark.slow
def test_the_page_shows_its_charts_in_a_browser(browser, page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with opened(browser, path, width=1280) as shown:
        assert shown.console == [] and shown.requests == []
        assert shown.run(WIDER) <= 0 and shown.run(CUT) == []
        counts = shown.run(COUNTS)
        assert len(counts) == 6 and all(counts.values()), counts
        colours = "[...new Set([...document.querySelectorAll('#chart-clock .ygrid')].map((e) => e.style.stroke))]"
        before = shown.run(colours)
        assert len(before) == 1  # all panels in the theme's colour
        shown.look(400, dark=True)
        assert shown.run(WIDER) <= 0 and shown.run(CUT) == []
        assert shown.run(colours) != before and len(shown.run(colours)) == 1


@needs_chromium
@pytest.mark.slow
def test_hostile_names_run_nothing_in_a_browser(browser, tmp_path):
    trap = "<head><script>window.alert = () => console.error('ran')</script>"
    path = tmp_path / "page.html"
    text = serving_html(hostile_service()).replace("<head>", trap)
    path.write_bytes(text.encode("utf-8", errors="replace"))
    with opened(browser, path) as shown:
        shown.point("#chart-worst .point")
        shown.point("#chart-ttft_s .xy")
        assert shown.console == [] and shown.requests == []
