"""The report shows the estimate's numbers, runs without network or errors, and reacts to the pointer."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.compare import comparison, strategies_of
from graphsim.export.breakdown import LEAST_INTENSITY, points_of, seconds_by_kind, seconds_by_type
from graphsim.export.html import to_html
from graphsim.export.html_graph import layer_svg
from graphsim.export.layout import place
from graphsim.result import PhaseEstimate

from .browser import CHROMIUM, open_page

pytest.importorskip("plotly")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FIGURES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s")

POKE = """
<script>addEventListener("load", () => setTimeout(() => {
  const node = document.querySelector('[data-node$="q_proj.lora_a"]') || document.querySelector("[data-node]");
  const tip = document.getElementById("tip"), svg = node.closest("svg"), found = { chart: {} };
  node.dispatchEvent(new PointerEvent("pointermove", { clientX: 300, clientY: 300, bubbles: true }));
  found.tip = tip.hidden ? "" : tip.textContent;
  node.dispatchEvent(new PointerEvent("pointerleave"));
  found.hides = tip.hidden;
  const before = svg.getAttribute("viewBox");
  svg.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, clientX: 400, clientY: 400, cancelable: true }));
  found.zooms = svg.getAttribute("viewBox") !== before;
  document.querySelector('.tabs button[data-tab="decode"]').click();
  found.tab = [...document.getElementById("layers").children].find((tab) => !tab.hidden).dataset.tab;
  found.theme = document.documentElement.dataset.theme;
  document.getElementById("theme").click();
  found.toggled = document.documentElement.dataset.theme;
  for (const chart of document.querySelectorAll(".chart")) {
    found.chart[chart.id] = chart.querySelectorAll(".trace, .points > .point, .legendtoggle").length;
  }
  const roof = document.getElementById("chart-roofline");
  Plotly.Fx.hover(roof, [{ curveNumber: roof.data.length - 1, pointNumber: 0 }]);
  found.hover = [...roof.querySelectorAll(".hoverlayer text")].map((text) => text.textContent).join(" ");
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  const out = document.createElement("script");
  out.type = "application/json"; out.id = "found";
  out.textContent = JSON.stringify(found).replaceAll("<", "\\\\u003c");
  document.body.append(out);
}, 300));</script>
"""


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
        assert found[f"row-{name}"][0] == row.ttft_s and found[f"row-{name}"][4] == row.overhead
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
    estimate = gs.simulate("gpt-2", "l4", batch=[1, 8], output_tokens=[4, 6], lora=lora)
    for scenario, (batch, tokens, rank) in enumerate([(1, 4, 8), (8, 6, 64)]):
        alone = gs.simulate("gpt-2", "l4", batch=batch, output_tokens=tokens, lora=gs.LoraConfig(rank=rank))
        found = values(to_html(estimate, scenario=scenario))
        assert found["figure-latency_s"][0] == pytest.approx(float(alone.latency_s), rel=1e-9)
        assert found["row-dynamic"][2] == pytest.approx(float(alone.latency_s), rel=1e-9)
        assert found["row-dynamic"][6] == pytest.approx(float(alone.memory.total_bytes), rel=1e-9)
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
    from graphsim.export import html_figures

    phase = estimates["pipeline"].prefill
    frame = phase.to_frame()
    busy = frame[frame.latency_s > 0]

    def bars(figure):
        return {trace["name"]: trace["x"] for trace in figure["data"]}

    whole = bars(html_figures.timeline(phase, 0))
    assert sum(map(len, whole.values())) == busy.times.sum()
    assert sum(map(sum, whole.values())) == pytest.approx(float((busy.latency_s * busy.times).sum()) * 1e3)
    monkeypatch.setattr(html_figures, "MOST_BARS", 100)
    folded = bars(html_figures.timeline(phase, 0))
    assert len(folded.pop("further turns")) == 4
    assert sum(map(len, folded.values())) == len(busy)


def test_points_lie_under_the_roof(estimates):
    for label in ("dynamic", "tp2"):
        hardware = estimates[label].run.hardware
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


def test_no_two_nodes_of_a_layout_overlap_and_edges_lead_down(estimates):
    body = estimates["tp2"].prefill.graph.nodes["layers_0_31"]["op"].body
    placed = place(dict.fromkeys(body, 150.0), list(body.edges))
    spots = sorted(placed.nodes.values(), key=lambda at: (at[1], at[0]))
    for (x0, y0), (x1, y1) in zip(spots, spots[1:], strict=False):
        assert y0 != y1 or x1 - x0 >= 150.0
    for bends in placed.edges.values():
        assert all(a[1] < b[1] for a, b in zip(bends, bends[1:], strict=False))
    assert place({}, []).nodes == {}


@needs_chromium
@pytest.mark.parametrize(
    ("label", "width", "dark"), [("dynamic", 1280, False), ("tp2", 520, True)], ids=["wide, light", "narrow, dark"]
)
def test_the_page_runs_in_a_browser(estimates, pages, tmp_path, label, width, dark):
    page = tmp_path / "page.html"
    page.write_text(pages[label].replace("</body>", POKE + "</body>"), encoding="utf-8")
    opened = open_page(page, tmp_path / "profile", width=width, dark=dark)
    assert opened.console == [] and opened.requests == []
    found = json.loads(re.search(r'id="found">(.*?)</script>', opened.dom, re.DOTALL)[1])
    assert found["tip"].startswith("q_proj.lora_a\nLoraA (GEMM_LORA_A)") and "bound by" in found["tip"]
    assert found["hides"] and found["zooms"] and found["tab"] == "decode"
    assert (found["theme"], found["toggled"]) == (("dark", "light") if dark else ("light", "dark"))
    assert len(found["chart"]) == 7 and all(found["chart"].values()), found["chart"]
    assert "of the step" in found["hover"]
    assert found["overflow"] <= 0
    assert all(values(opened.dom)[f"figure-{name}"] == [float(getattr(estimates[label], name))] for name in FIGURES)


def hostile_estimate(estimate: gs.Estimate, graph: nx.DiGraph) -> gs.Estimate:
    from dataclasses import replace

    annotated = gs.annotate(graph, "l4")
    phase = PhaseEstimate(name="prefill", build=lambda: annotated)
    decode = replace(phase, name="decode")
    return replace(estimate, model="<script>alert(1)</script>", prefill=phase, decode=decode, run=None)


def test_hostile_names_stay_text(estimates, hostile):
    page = to_html(hostile_estimate(estimates["base"], hostile))
    own = re.sub(r"<script>.*?</script>", "", page.split("plotly.js", 1)[0], flags=re.DOTALL)
    assert "<script>alert" not in own and "&lt;script&gt;alert(1)&lt;/script&gt;" in own
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1]
    json.loads(figures)
    assert "<" not in figures


@needs_chromium
def test_hostile_names_run_nothing_in_a_browser(estimates, hostile, tmp_path):
    page = tmp_path / "hostile.html"
    text = to_html(hostile_estimate(estimates["base"], hostile)).replace("</body>", POKE + "</body>")
    trap = "<head><script>window.alert = () => console.error('ran')</script>"
    page.write_bytes(text.replace("<head>", trap).encode("utf-8", errors="replace"))
    opened = open_page(page, tmp_path / "profile")
    assert opened.console == []
    assert 'id="found"' in opened.dom


def test_a_missing_package_names_the_extra(estimates, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim\[html\]"):
        to_html(estimates["base"])


def test_a_page_is_written_where_asked(estimates, tmp_path):
    text = to_html(estimates["base"], tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == text.encode("utf-8", errors="replace")
    assert Path(tmp_path / "r.html").stat().st_size < 8e6
