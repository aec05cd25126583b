"""The page of `gs.explore`: its formulas against `gs.simulate`, in node; and the page itself in a browser."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.errors import ConfigError, InfeasibleError
from tests.export.browser import CHROMIUM, Browser, Page, opened
from tests.symbolic import javascript

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
needs_node = pytest.mark.skipif(javascript.NODE is None, reason="there is no node to run JavaScript")

TIMES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s")
MEMORY = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "adapters_bytes", "total_bytes", "max_batch")
LORA = gs.LoraConfig(rank=16, target_modules=["attn", "ffn"], active_adapters=2, max_loras=4)


@pytest.fixture(scope="module")
def page() -> str:
    return gs.explore("llama-3.1-8b", "h100-sxm", lora=LORA, devices=[], degrees=(1, 2), batch=8)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def manifest(page: str) -> Any:
    return json.loads(re.search(r"^const PAGE=(.*);$", page, re.M)[1])  # type: ignore[index]


def scripts(page: str) -> list[str]:
    """The page's formulas and what reads them, without what needs a document."""
    formulas, rest = re.findall(r"<script>\n(.*?)\n</script>", page, re.S)
    return [formulas, rest[: rest.index("// Numbers as texts")]]


def until(shown: Page, condition: str) -> None:
    """Wait, up to a minute, for what the page does by and by."""
    wait = (
        "setInterval(() => { if (" + condition + " || performance.now() > end) { clearInterval(timer); done(); } }, 20)"
    )
    shown.run(f"new Promise(done => {{ const end = performance.now() + 60000, timer = {wait}; }})")


def random_states(page: str, count: int) -> list[dict[str, Any]]:
    draw, held = random.Random(5), manifest(page)
    chosen = {"device": list(held["devices"]), "tp": held["degrees"], "strategy": held["strategies"], **held["options"]}
    states = [{name: draw.choice(places) for name, places in chosen.items()} for _ in range(count)]
    return [state | {"batch": draw.randrange(1, 900), "input_tokens": draw.randrange(1, 20000)} for state in states]


def compared(page: str, count: int) -> float:
    """The largest relative error of the page in random states; a state that is refused is so in both."""
    states, worst = random_states(page, count), 0.0
    answers = javascript.said(*scripts(page), f"{json.dumps(states)}.map(s => {{ const f = figuresOf(s); "
                                              "return [f, refusedIn(s, f), callOf(s)]; })")  # fmt: skip
    for figures, refused, call in answers:
        try:
            expected = eval(call, {"gs": gs})
        except InfeasibleError:
            assert set(refused) - {"batch"}, call
            continue
        assert not set(refused) - {"batch"}, (call, refused)
        assert figures["fits"] == expected.memory.fits
        pairs = [(figures[name], float(getattr(expected, name))) for name in TIMES]
        pairs += [(figures[name], float(getattr(expected.memory, name))) for name in MEMORY]
        worst = max(worst, *[abs(found - true) / max(abs(true), 1e-30) for found, true in pairs])
    return worst


@needs_node
@pytest.mark.slow
def test_ten_random_states_are_what_simulate_gives(page: str) -> None:
    assert compared(page, 10) < 1e-9


@needs_node
@pytest.mark.slow
def test_three_hundred_random_states_are_what_simulate_gives() -> None:
    page = gs.explore("llama-3.1-8b", "h100-sxm", lora=LORA, devices=["l4"], degrees=(1, 2, 4))
    assert compared(page, 300) < 1e-9


@needs_node
@pytest.mark.slow
def test_a_hundred_thousand_tokens_are_added_up_in_few_evaluations(page: str) -> None:
    state = manifest(page)["start"] | {"output_tokens": 100_000, "input_tokens": 1000}
    counted = (
        "(() => { const form = FORMULAS[keyOf(s)]; let n = 0; const x = inputsOf(s); for (const sum of form.growing) {"
        " const [v, p] = sum.parts(...sum.inputs.map(name => x[name]));"
        " total(c => { n++; return v(c); }, p, sum.nodes, s.input_tokens, s.output_tokens); } return n; })()"
    )
    assert 0 < javascript.said(*scripts(page), f"const s = {json.dumps(state)};", counted) < 1000


@pytest.mark.slow
def test_the_page_is_one_file_without_addresses(page: str) -> None:
    assert not re.findall(r"(?:src|href)=\"(?!data:)|https?://(?!www\.w3\.org/2000/svg)", page)
    assert len(page.encode()) < 400_000


@pytest.mark.slow
@needs_chromium
def test_the_page_opens_moves_and_reopens(page: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with opened(browser, path) as shown:
        before = shown.run("document.querySelector('#cards strong').textContent")
        shown.run("$('batch').value = 300, $('batch').dispatchEvent(new Event('change'))")
        until(shown, "location.hash.includes('batch=300')")
        assert shown.run("document.querySelector('#cards strong').textContent") != before
        assert shown.run("$('call').textContent").count("batch=300")
        shown.run("state.batch = 4, location.hash = '#batch=32&tp=2&device=nowhere&over=rank'")
        until(shown, "state.batch === 32")
        assert shown.run("[state.batch, state.tp, state.device, view.over]") == [32, 2, "h100-sxm", "rank"]
        assert not shown.console and not shown.requests


@pytest.mark.slow
@needs_chromium
def test_a_pinned_state_is_compared_and_a_refusal_stands_at_its_control(
    page: str, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with opened(browser, path, width=390) as shown:
        shown.click("#pin")
        shown.run("state.batch = 64, draw()")
        assert "64" in shown.run("$('compare-table').textContent")
        shown.run("state.batch = 100000, state.active_adapters = 8, draw()")
        assert "does not fit in memory" in shown.run("$('why-batch').textContent")
        assert "slots" in shown.run("$('why-max_loras').textContent")
        assert shown.run("document.documentElement.scrollWidth <= innerWidth")
        unnamed = "[...document.querySelectorAll('input,select,button')].filter(e => !e.labels?.length &&"
        assert shown.run(f"{unnamed} !e.ariaLabel && !e.textContent).length") == 0
        assert not shown.console


@pytest.mark.slow
def test_a_degree_that_the_model_refuses_is_left_out_with_the_sentence() -> None:
    page = gs.explore("llama-3.1-8b", "h100-sxm", devices=[], degrees=(1, 3))
    assert "does not divide the 32 attention heads" in manifest(page)["refused"]["h100-sxm/3/base"]
    assert '"h100-sxm/3/base":{' not in page


@pytest.mark.slow
def test_names_are_escaped_in_markup_and_scripts() -> None:
    model = gs.load_model("gpt-2")
    model.name = "</script><img src=x onerror=alert(1)>"
    page = gs.explore(model, "h100-sxm", devices=[], degrees=(1,))
    assert "</script><img" not in page and "<img" not in page
    assert manifest(page)["model"] == model.name


def test_what_is_not_allowed_is_said() -> None:
    with pytest.raises(ConfigError, match="devices = 'some' is not allowed"):
        gs.explore("llama-3.1-8b", "h100-sxm", devices="some")
    with pytest.raises(ConfigError, match=r"degrees = \[0\] is not allowed"):
        gs.explore("llama-3.1-8b", "h100-sxm", degrees=[0])
    with pytest.raises(ConfigError, match="explore takes single numbers"):
        gs.explore("llama-3.1-8b", "h100-sxm", batch=[1, 2])
