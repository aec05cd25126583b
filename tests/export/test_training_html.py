"""The page of a training step shows its figures, keeps names as texts, and draws without errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

import graphsim as gs
from graphsim.display.training import MEMORY_PARTS
from graphsim.export.training_html import training_html
from graphsim.training.course import Course
from graphsim.training.plan import plan_of
from tests.training.steps import lora_step, wicked_step

from .browser import CHROMIUM, Browser, opened
from .test_html import CUT, WIDER, values

GIB = 2.0**30


@pytest.fixture(scope="module")
def page() -> str:
    return training_html(lora_step(), plan=plan_of(lora_step(), Course(steps=100), 2.0))


def figures(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_headline_figures_are_those_of_the_estimate(page):
    found, step = values(page), lora_step()
    for name in ("step_s", "tokens_per_s", "mfu", "trainable_parameters"):
        assert found[f"figure-{name}"] == [pytest.approx(float(getattr(step, name)))]
    for name in ("reserved_bytes", "total_bytes"):
        assert found[f"figure-{name}"] == [float(getattr(step.memory, name))]


def test_the_page_holds_all_it_needs_and_every_chart_has_its_place(page):
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:)[a-z]+:""", own)
    assert "{{" not in own
    assert set(re.findall(r'class="chart" id="([^"]+)"', own)) == set(figures(page))


def test_the_timeline_of_the_memory_marks_its_fullest_moment(page):
    memory, chart = lora_step().memory, figures(page)["chart-moments"]
    sizes = [float(size) / GIB for _, size in memory.timeline]
    assert chart["data"][0]["y"] == pytest.approx(sizes)
    assert chart["layout"]["xaxis"]["ticktext"] == [name for name, _ in memory.timeline]
    [note] = chart["layout"]["annotations"]
    assert note["x"] == int(np.argmax(sizes)) and memory.timeline[note["x"]][0] in note["text"]


def test_bars_of_time_and_memory_add_up(page):
    step, charts = lora_step(), figures(page)
    assert sum(bar["x"][0] for bar in charts["chart-times"]["data"]) == pytest.approx(1e3 * float(step.step_s))
    bars = [bar for bar in charts["chart-memory"]["data"] if bar["type"] == "bar"]
    assert sum(bar["x"][0] for bar in bars) * GIB == pytest.approx(float(step.memory.total_bytes))
    assert len(bars) <= len(MEMORY_PARTS)


def test_methods_stand_side_by_side_and_the_run_below_them(page):
    table = page.split("<h2>Full, LoRA, QLoRA</h2>", 1)[1]
    assert [name for name in ("full", "lora", "qlora") if f"<td>{name}</td>" in table] == ["full", "lora", "qlora"]
    assert "<h2>The whole run</h2>" in page and "<td>checkpoints</td>" in page
    assert "<h2>The whole run</h2>" not in gs.to_html(lora_step())


def test_a_layer_is_drawn_forward_and_backward_with_what_is_kept(page):
    assert page.count('<svg class="layer"') == 2
    assert 'class="node trained"' in page and 'class="node kept"' in page
    assert "q_proj.lora_a.wgrad" in page and "gate_proj.wgrad" not in page  # the base is frozen
    assert 'data-node="layers_1_15.q_proj.launch"' not in page


def test_scenarios_are_shown_one_at_a_time_and_what_does_not_fit_is_said_first():
    step = gs.train("llama-3.2-1b", "h100-sxm", seq_len=np.array([64.0, 2.0**20]), method="full")
    page = gs.to_html(step, scenario=1)
    assert values(page)["figure-step_s"] == [pytest.approx(float(step.step_s[1]))]
    assert "The step does not fit: a device would need" in page and "Full, LoRA, QLoRA" not in page
    with pytest.raises(gs.ConfigError, match="scenario = 2 is not allowed"):
        gs.to_html(step, scenario=2)
    with pytest.raises(gs.ConfigError, match="ttft_s applies to served runs"):
        gs.to_html(step, ttft_s=1.0)


@pytest.mark.slow
def test_hostile_names_stay_text():
    own = gs.to_html(wicked_step()).split("plotly.js (", 1)[0]
    assert "<img" not in own and "&lt;img src=x" in own


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


DRAWN = """Object.fromEntries([...document.querySelectorAll(".chart")].map(
  (chart) => [chart.id, chart.querySelectorAll(".trace, .points > .point").length]))"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_draws_without_errors_at_any_width(page, browser, tmp_path, width):
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    browser.events.clear()
    with opened(browser, path, width=width) as shown:
        drawn = shown.run(DRAWN)
        assert all(drawn.values()), drawn
        assert shown.run(WIDER) <= 0 and shown.run(CUT) == []
    assert not [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
