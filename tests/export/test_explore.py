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
from graphsim.cost.rates import with_rates
from graphsim.errors import ConfigError, GraphsimError, InfeasibleError
from tests.export.browser import CHROMIUM, Browser, Page, opened
from tests.symbolic import javascript

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
needs_node = pytest.mark.skipif(javascript.NODE is None, reason="there is no node to run JavaScript")

TIMES = ("ttft_s", "tpot_s", "latency_s", "tokens_per_s", "one_time_s")
MEMORY = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "adapters_bytes", "total_bytes", "max_batch")
CHOICES = {"engine": "engines", "device": "devices", "tp": "degrees", "strategy": "strategies"}
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
    chosen = {name: list(held[many]) for name, many in CHOICES.items()} | held["options"]
    states = [{name: draw.choice(places) for name, places in chosen.items()} for _ in range(count)]
    return [state | {"batch": draw.randrange(1, 900), "input_tokens": draw.randrange(1, 20000)} for state in states]


def compared(page: str, count: int) -> float:
    """The largest relative error of the page in random states; a state that is refused is so in both."""
    states, worst = random_states(page, count), 0.0
    answers = javascript.said(*scripts(page), f"{json.dumps(states)}.map(s => {{ const f = figuresOf(s); "
                                              "return [f, refusedIn(s, f), callOf(s), causesOf(s, f), energyOf(s, f)]; "
                                              "})")  # fmt: skip
    for figures, refused, call, causes, energy in answers:
        try:
            expected = eval(call, {"gs": gs, "with_rates": with_rates})
        except InfeasibleError:
            assert set(refused) - {"batch"}, call
            continue
        assert not set(refused) - {"batch"}, (call, refused)
        assert figures["fits"] == expected.memory.fits
        pairs = [(figures[name], float(getattr(expected, name))) for name in TIMES]
        pairs += [(figures[name], float(getattr(expected.memory, name))) for name in MEMORY]
        pairs += explained(expected, causes)
        pairs += [(energy[name], float(getattr(expected.energy, name))) for name in energy or ()]
        worst = max(worst, *[abs(found - true) / max(abs(true), 1e-30) for found, true in pairs])
    return worst


def explained(expected: gs.Estimate, causes: dict[str, dict[str, float]]) -> list[tuple[float, float]]:
    """The page's causes beside those of gs.explain, on the whole time."""
    pairs = []
    for quantity, parts in causes.items():
        true, whole = gs.explain(expected).causes(quantity), float(getattr(expected, quantity))
        pairs += [(whole + found, whole + true[name]) for name, found in parts.items()]
    return pairs


@needs_node
@pytest.mark.slow
def test_ten_random_states_are_what_simulate_gives(page: str) -> None:
    assert compared(page, 10) < 1e-9


@needs_node
@pytest.mark.slow
def test_random_states_of_every_control_are_what_simulate_gives() -> None:
    page = gs.explore("llama-3.1-8b", "h100-sxm", lora=LORA, devices=["l4"], degrees=(1, 2, 4))
    assert compared(page, 80) < 1e-9


@needs_node
@pytest.mark.slow
def test_engines_prices_and_rates_are_controls() -> None:
    page = gs.explore(
        "llama-3.1-8b", "h100-sxm", lora=LORA, devices=["l4", "h100-pcie"], degrees=(1,), engines=["sglang"],
        price_per_hour={"h100-sxm": 2.5},
    )  # fmt: skip
    held = manifest(page)
    assert held["engines"] == ["vllm", "sglang"] and held["scaled"] == ["bandwidth", "peak", "clock", "launch", "link"]
    assert compared(page, 20) < 1e-9
    start = held["start"] | {"batch": 8}
    asked = "[costOf(s, figuresOf(s)), costOf(o, figuresOf(o)), scalable(o), scalable({ ...s, device: 'h100-pcie' })]"
    cost, none, *scalable = javascript.said(
        *scripts(page), f"const s = {json.dumps(start)}, o = {{ ...s, device: 'l4' }};", asked
    )
    table = gs.best("llama-3.1-8b", "h100-sxm", "cost_per_token", price_per_hour=2.5, batch=8, rank=16,
                    targets=["attn", "ffn"], active_adapters=2, max_loras=4)  # fmt: skip
    assert cost == pytest.approx(table.iloc[0]["cost_per_token"], rel=1e-9)
    assert none is None
    assert scalable == [True, False], "the reference of one is alone in its generation, that of the other the nearest"


@needs_node
@pytest.mark.slow
def test_bands_are_the_intervals_of_simulate() -> None:
    page = gs.explore("llama-3.1-8b", "h100-sxm", devices=[], degrees=(1,), batch=4)
    states = [manifest(page)["start"] | change for change in ({}, {"batch": 64.0}, {"input_tokens": 2048.0})]
    both = manifest(page)["start"] | {"batch": 64.0, "input_tokens": 2048.0}
    names = ["ttft_s", "tpot_s", "latency_s", "tokens_per_s"]
    asked = f"{json.dumps([*states, both])}.map(s => {json.dumps(names)}.map(name => bandOf(s, name)))"
    *known, unknown = javascript.said(*scripts(page), asked)
    for state, bands in zip(states, known, strict=True):
        requests = {name: state[name] for name in ("batch", "input_tokens", "output_tokens")}
        estimate = gs.simulate("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(enabled=False), **requests)
        for name, band in zip(names, bands, strict=True):
            assert band == pytest.approx(estimate.interval(name), rel=1e-9)
    assert unknown == [None] * 4


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
def test_many_formulas_are_compressed_and_give_the_same(
    page: str, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphsim.export.explore.page.MOST_PLAIN", 1000)
    path = tmp_path / "packed.html"
    packed = gs.explore("llama-3.1-8b", "h100-sxm", path, lora=LORA, devices=[], degrees=(1, 2), batch=8)
    assert len(packed) < 0.6 * len(page)
    with opened(browser, path) as shown:
        until(shown, "document.querySelector('#cards strong')")
        figures = shown.run("figuresOf(state)")
        assert not shown.console and not shown.requests
    said = javascript.said(*scripts(page), f"const s = {json.dumps(manifest(page)['start'])};", "figuresOf(s)")
    assert figures == said


@pytest.mark.slow
@needs_chromium
def test_keys_move_a_control_and_the_answer_is_read_out(page: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with opened(browser, path, dark=True) as shown:
        until(shown, "$('told').textContent !== ''")
        before = shown.run("[state.batch, $('told').textContent]")
        shown.run("$('batch').focus()")
        shown.press("Tab")
        assert shown.run("document.activeElement.id") == "batch-range"
        shown.press("ArrowRight")
        until(shown, f"$('told').textContent !== {json.dumps(before[1])}")
        assert shown.run("state.batch") > before[0]
        assert "tokens per second" in shown.run("$('told').textContent")
        shown.run("state.rank = 256, state.max_loras = 1, draw()")
        until(shown, "$('told').textContent.includes('max_loras')")
        assert shown.run("$('max_loras').ariaInvalid") == "true"
        assert not shown.console


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
    assert "does not divide the 32 attention heads" in manifest(page)["refused"]["vllm/h100-sxm/3/base"]
    assert '"vllm/h100-sxm/3/base":{' not in page


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
    with pytest.raises(ConfigError, match="engines = 'vllm' is not allowed"):
        gs.explore("llama-3.1-8b", "h100-sxm", engines="vllm")
    with pytest.raises(ConfigError, match="price_per_hour names 'l4'"):
        gs.explore("llama-3.1-8b", "h100-sxm", devices=[], price_per_hour={"l4": 1.0})
    with pytest.raises(GraphsimError, match="3 does not divide"):
        gs.explore("llama-3.1-8b", "h100-sxm", devices=[], degrees=[3])
    with pytest.raises(ConfigError, match="explore takes single numbers"):
        gs.explore("llama-3.1-8b", "h100-sxm", batch=[1, 2])
