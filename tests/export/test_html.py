"""The report shows the estimate's numbers, runs without network or errors, and reacts to the pointer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.compare import comparison, strategies_of
from graphsim.display.breakdown import LEAST_INTENSITY, points_of, seconds_by_kind, seconds_by_type
from graphsim.export.html import to_html
from graphsim.export.html_figures import figures_of
from graphsim.export.html_graph import layer_svg
from graphsim.export.layout import place
from graphsim.result import PhaseEstimate

from .browser import CHROMIUM, Browser, Page, opened

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FIGURES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")

COUNTS = """Object.fromEntries([...document.querySelectorAll(".chart")].map(
  (chart) => [chart.id, chart.querySelectorAll(".trace, .points > .point, .legendtoggle").length]))"""
BOX = "document.querySelector('svg.layer').getAttribute('viewBox')"
CUT = (
    "[...document.querySelectorAll('.chart')].filter((c) => c.firstChild.scrollWidth > c.clientWidth).map((c) => c.id)"
)
TIP = "(() => { const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent; })()"
WIDER = "document.documentElement.scrollWidth - innerWidth"


class Values(HTMLParser):
    """Collects data-value by the id of the element or of the row around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[float]] = {}
        self.row = ""

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.row = known.get("id", self.row) if tag in ("tr", "strong") else self.row
        if "data-value" in known:
            self.found.setdefault(known.get("id") or self.row, []).append(float(known["data-value"]))


def values(page: str) -> dict[str, list[float]]:
    parser = Values()
    parser.feed(page)
    return parser.found


@pytest.fixture(scope="module")
def pages(estimates) -> dict[str, str]:
    return {label: to_html(estimates[label]) for label in ("base", "dynamic", "tp2")}


def test_headline_figures_are_the_estimates_to_the_last_digit(estimates, pages):
    for label, page in pages.items():
        found = values(page)
        for name in FIGURES:
            assert found[f"figure-{name}"] == [float(getattr(estimates[label], name))]
        assert found["figure-total_bytes"] == [float(estimates[label].memory.total_bytes)]


def test_base_dynamic_and_merge_are_those_of_the_comparison(estimates, pages):
    found = values(pages["dynamic"])
    frame = comparison(strategies_of(estimates["dynamic"]), 2, 64)
    for name, row in frame.iterrows():
        assert found[f"row-{name}"][0] == row.ttft_s and found[f"row-{name}"][5] == row.overhead
    assert found["row-dynamic"][2] == float(estimates["dynamic"].latency_s)
    assert "is an example" in pages["base"] and "is an example" not in pages["dynamic"]


def test_the_page_holds_all_it_needs(pages):
    for page in pages.values():
        own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
        assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)[a-z]+:""", own)
        assert "{{" not in own
    assert sum(page.count('id="figures"') for page in pages.values()) == len(pages)


def test_the_estimates_of_one_page_are_those_of_its_scenario():
    lora = gs.LoraConfig(rank=np.array([8.0, 64.0]))
    estimate = gs.simulate("gpt-2", "l4", batch=[1, 8], output_tokens=[4, 6], lora=lora, engine="reference")
    for scenario, (batch, tokens, rank) in enumerate([(1, 4, 8), (8, 6, 64)]):
        alone = gs.simulate(
            "gpt-2", "l4", batch=batch, output_tokens=tokens, lora=gs.LoraConfig(rank=rank), engine="reference"
        )
        found = values(to_html(estimate, scenario=scenario))
        assert found["figure-latency_s"][0] == pytest.approx(float(alone.latency_s), rel=1e-9)
        assert found["row-dynamic"][2] == pytest.approx(float(alone.latency_s), rel=1e-9)
        assert found["row-dynamic"][7] == pytest.approx(float(alone.memory.total_bytes), rel=1e-9)
    with pytest.raises(gs.ConfigError, match="scenario = 5"):
        to_html(estimate, scenario=5)


def test_shares_of_the_charts_add_up_to_the_busy_time(estimates):
    for label in ("base", "tp2"):
        frame = estimates[label].decode.to_frame()
        busy = float((frame.latency_s * frame.times)[~frame.once].sum())
        graph = estimates[label].decode.graph
        assert sum(seconds_by_kind(graph).values()) == pytest.approx(busy)
        assert sum(seconds_by_type(graph).values()) == pytest.approx(busy)


def test_a_timeline_shows_every_run_or_folds_what_is_too_much(estimates, monkeypatch):
    from graphsim.export import html_timeline

    phase = estimates["pipeline"].prefill
    frame = phase.to_frame()
    busy = frame[frame.latency_s > 0]

    def bars(figure):
        return {trace["name"]: trace["x"] for trace in figure["data"]}

    whole = bars(html_timeline.timeline(phase.graph, "step", 0))
    assert sum(map(len, whole.values())) == busy.times.sum()
    assert sum(map(sum, whole.values())) == pytest.approx(float((busy.latency_s * busy.times).sum()) * 1e3)
    monkeypatch.setattr(html_timeline, "MOST_BARS", 100)
    folded = bars(html_timeline.timeline(phase.graph, "step", 0))
    assert len(folded.pop("further turns")) == 4
    assert sum(map(len, folded.values())) == len(busy)


def test_points_lie_under_the_roof(estimates):
    for label in ("dynamic", "tp2"):
        hardware = estimates[label].inference.hardware
        for phase in (estimates[label].prefill, estimates[label].decode):
            points = points_of(phase.graph)
            assert {p.entry.name for p in points} == set(phase.to_frame().query("latency_s > 0").name)
            for point in points:
                roof = min(hardware.peak("bf16"), point.intensity * hardware.memory_bytes_per_s)
                assert point.flops_per_s <= roof * (1 + 1e-9) or not point.arithmetic
                assert point.intensity >= LEAST_INTENSITY


def test_the_layer_is_the_one_that_takes_longest_with_all_its_operations(estimates):
    caption, svg = layer_svg(estimates["dynamic"].prefill.graph)
    assert caption.startswith("layers 0 to 31: one of 32 turns")
    assert svg.count('class="node') == 19 and svg.count("q_proj.lora_a") >= 1
    assert '<path class="edge critical' in svg and "1024 × 4096" in svg


def test_the_layer_of_a_pipeline_is_one_on_the_critical_path(estimates):
    for phase in (estimates["pipeline"].prefill, estimates["pipeline"].decode):
        assert '<path class="edge critical' in layer_svg(phase.graph)[1]


def test_hovering_a_merge_says_that_it_is_no_part_of_a_step(estimates):
    svg = layer_svg(estimates["merge"].prefill.graph)[1]
    assert "(LORA_MERGE), once for each of 32" in svg and "before serving, not in every step" in svg


def test_nothing_is_written_beside_an_edge_without_elements():
    lora = gs.LoraConfig(rank=8)
    svg = layer_svg(gs.simulate("gpt-2", "l4", batch=8, lora=lora, engine="vllm").prefill.graph)[1]
    assert "lora_fill" in svg and ">0</text>" not in svg


def test_a_pipelines_timeline_shows_all_stages_and_others_the_first_turns(estimates):
    from graphsim.export.html_timeline import timeline

    assert "range" not in timeline(estimates["pipeline"].prefill.graph, "step", 0)["layout"]["xaxis"]
    start, end = timeline(estimates["base"].prefill.graph, "step", 0)["layout"]["xaxis"]["range"]
    assert start == 0.0 < end < 1e3 * float(estimates["base"].ttft_s) / 10


def test_what_is_said_on_hovering_is_the_scenarios():
    estimate = gs.simulate("gpt-2", "l4", batch=[1, 8], output_tokens=4, engine="reference")
    for scenario, rows in enumerate((512, 4096)):
        drawn = json.dumps(figures_of(estimate, None, scenario))
        assert f"m={rows} n=2304" in drawn and f"m={4608 - rows} n=2304" not in drawn


def test_requests_that_differ_in_their_adapters_are_not_told_to_merge(estimates, pages):
    several = gs.simulate("gpt-2", "l4", batch=8, lora=gs.LoraConfig(rank=8, active_adapters=4), engine="vllm")
    page = to_html(several)
    assert "serves one adapter only" in page and "has paid off" not in page
    assert "engine vllm" in page and "4 adapters" in page
    assert "has paid off" in pages["dynamic"] and "engine reference" in pages["dynamic"]


def test_what_cannot_be_merged_is_compared_without_a_merge():
    page = to_html(gs.simulate("gpt-2", "l4", lora=gs.LoraConfig(rank=8, variant="alora"), engine="peft"))
    assert "It cannot be merged." in page and 'id="row-dynamic"' in page and 'id="row-merge"' not in page


def test_no_two_nodes_of_a_layout_overlap_and_edges_lead_down(estimates):
    body = estimates["tp2"].prefill.graph.nodes["layers_0_31"]["op"].body
    placed = place(dict.fromkeys(body, 150.0), list(body.edges))
    spots = sorted(placed.nodes.values(), key=lambda at: (at[1], at[0]))
    for (x0, y0), (x1, y1) in zip(spots, spots[1:], strict=False):
        assert y0 != y1 or x1 - x0 >= 150.0
    for bends in placed.edges.values():
        assert all(a[1] < b[1] for a, b in zip(bends, bends[1:], strict=False))
    assert place({}, []).nodes == {}


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens the text of a page in a tab."""

    def shown(text: str, **look) -> AbstractContextManager[Page]:
        path = tmp_path / "page.html"
        path.write_bytes(text.encode("utf-8", errors="replace"))
        return opened(browser, path, **look)

    return shown


@needs_chromium
@pytest.mark.parametrize(
    ("label", "width", "dark"), [("dynamic", 1400, False), ("tp2", 400, True)], ids=["wide, light", "narrow, dark"]
)
@pytest.mark.slow
def test_the_page_shows_its_numbers_and_charts_in_a_browser(estimates, pages, show, label, width, dark):
    with show(pages[label], width=width, dark=dark) as page:
        assert page.console == [] and page.requests == []
        assert page.run(WIDER) <= 0 and page.run(CUT) == []
        counts = page.run(COUNTS)
        assert len(counts) == 7 and all(counts.values()), counts
        for name in FIGURES:
            shown = page.run(f"document.getElementById('figure-{name}').dataset.value")
            assert float(shown) == float(getattr(estimates[label], name))
        themes = ("dark", "light") if dark else ("light", "dark")
        assert page.run("document.documentElement.dataset.theme") == themes[0]
        page.click("#theme")
        assert page.run("document.documentElement.dataset.theme") == themes[1]


@needs_chromium
def test_pointer_and_keyboard_explore_the_page(pages, show):
    with show(pages["dynamic"]) as page:
        page.point('[data-node$="q_proj.lora_a"]')
        assert page.run(TIP).startswith("q_proj.lora_a\nLoraA (GEMM_LORA_A)") and "bound by" in page.run(TIP)
        page.point("h1")
        assert page.run(TIP) == ""
        home = page.run(BOX)
        page.wheel("svg.layer", -300)
        assert page.run(BOX) != home
        page.click('[aria-label="Fit"]')
        assert page.run(BOX) == home
        page.click('[aria-label="Zoom in"]')
        assert float(page.run(BOX).split()[2]) < float(home.split()[2])
        page.press("Tab")
        page.press("Tab")
        page.press("Tab")
        assert page.run("document.activeElement.dataset.node").startswith("layers_0_31.")
        assert page.run(TIP) == page.run("document.activeElement.dataset.tip")
        page.click('.tabs button[data-tab="decode"]')
        assert page.run("document.querySelector('#layers .tab:not([hidden])').dataset.tab") == "decode"
        page.point("#chart-roofline .scatterlayer .trace:last-child .point")
        assert "of the step" in page.run("document.querySelector('#chart-roofline .hoverlayer').textContent")
        assert page.console == [] and page.requests == []


@needs_chromium
def test_charts_follow_the_window_and_keep_what_the_reader_zoomed(pages, show):
    ranges = "document.getElementById('chart-decode')._fullLayout.xaxis.range.map((x) => x.toFixed(9)).join()"
    with show(pages["dynamic"], width=1400) as page:
        before = page.run(ranges)
        page.wheel("#chart-decode .nsewdrag", -300)
        page.run("new Promise((done) => setTimeout(done, 300))")
        zoomed = page.run(ranges)
        assert zoomed != before
        page.click("#theme")
        page.look(400)
        assert page.run(ranges) == zoomed and page.run(CUT) == [] and page.run(WIDER) <= 0


def hostile_estimate(estimate: gs.Estimate, graph: nx.DiGraph) -> gs.Estimate:
    from dataclasses import replace

    annotated = gs.annotate(graph, "l4")
    phase = PhaseEstimate(name="prefill", build=lambda: annotated)
    decode = replace(phase, name="decode")
    return replace(estimate, model="<script>alert(1)</script>", prefill=phase, decode=decode, inference=None)


def test_hostile_names_stay_text(estimates, hostile):
    page = to_html(hostile_estimate(estimates["base"], hostile))
    own = re.sub(r"<script>.*?</script>", "", page.split("plotly.js (", 1)[0], flags=re.DOTALL)
    assert "<script>alert" not in own and "&lt;script&gt;alert(1)&lt;/script&gt;" in own
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1]
    json.loads(figures)
    assert "<" not in figures


@needs_chromium
def test_hostile_names_run_nothing_in_a_browser(estimates, hostile, show):
    text = to_html(hostile_estimate(estimates["base"], hostile))
    trap = "<head><script>window.alert = () => console.error('ran')</script>"
    with show(text.replace("<head>", trap)) as page:
        page.point("[data-node]")
        assert page.run(TIP) and page.console == [] and page.requests == []


@needs_chromium
@pytest.mark.slow
def test_a_button_opens_the_page_that_explores_the_deployment(show):
    lora, halves = gs.LoraConfig(rank=8), gs.Parallelism(tp=2)
    deployment = gs.Deployment("gpt-2", "h100-sxm", lora=lora, parallelism=halves, engine="vllm")
    estimate = gs.simulate(deployment, batch=np.array([1, 8]), input_tokens=100, output_tokens=5)
    with show(to_html(estimate, scenario=1, explore=True)) as page:
        page.run("URL.createObjectURL = (blob) => { window.held = blob; return 'blob:held' }; window.open = () => 0")
        page.click("#explore")
        found = page.run("window.held.text()")
        assert page.console == [] and page.requests == []
    assert found == gs.explore(
        deployment, batch=8, input_tokens=100, output_tokens=5, devices=["h100-sxm"], degrees=[2]
    )


def test_what_cannot_be_explored_says_why(monkeypatch):
    def refused(*_, **__):
        raise gs.ConfigError("<not> this one")

    monkeypatch.setattr("graphsim.export.html_explore.explore", refused)
    page = to_html(gs.simulate("gpt-2", "h100-sxm"), explore=True)
    assert "This deployment cannot be explored: &lt;not&gt; this one" in page


def test_a_page_is_written_where_asked(estimates, tmp_path):
    text = to_html(estimates["base"], tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == text.encode("utf-8", errors="replace")
    assert Path(tmp_path / "r.html").stat().st_size < 8e6
