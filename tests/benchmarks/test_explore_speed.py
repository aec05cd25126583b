"""How long a page of `gs.explore` takes to answer a move, with all of its curve; reported, no time is asserted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from tests.export.browser import CHROMIUM, Browser, opened

pytest.importorskip("pytest_benchmark")

Benchmark = Callable[..., Any]
MOVED = ("rank", "batch", "input_tokens", "active_adapters", "output_tokens", "max_loras", "bandwidth")
TURNS = 5
"""Times that a move is made; the shortest one is what an idle core takes."""

MOVE = """(turns => [...Array(turns)].map((_, turn) => %s.flatMap(name => PAGE.options[name].map(place => {
    const before = { ...state };
    kept.clear();
    draw(); advance(Infinity);
    state[name] = place;
    const begun = performance.now();
    draw();
    const shown = performance.now() - begun;
    advance(Infinity);
    const all = performance.now() - begun;
    Object.assign(state, before);
    return [shown, all];
}))))(%d)"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.slow
def test_a_move(benchmark: Benchmark, tmp_path: Path) -> None:
    lora = gs.LoraConfig(rank=16, active_adapters=4, max_loras=8)
    page = gs.explore("llama-3.1-8b", "h100-sxm", tmp_path / "page.html", lora=lora, devices=[], degrees=(1, 2))
    browser = Browser(tmp_path / "profile")
    try:
        with opened(browser, tmp_path / "page.html") as shown:
            found = np.array(shown.run(MOVE % (list(MOVED), TURNS))).min(axis=0)
            paint = shown.run("performance.getEntriesByType('paint')[0].startTime")
            benchmark.extra_info |= {  # type: ignore[attr-defined]
                "figures_p95_ms": round(float(np.quantile(found[:, 0], 0.95)), 2),
                "with_curve_p95_ms": round(float(np.quantile(found[:, 1], 0.95)), 2),
                "with_curve_median_ms": round(float(np.median(found[:, 1])), 2),
                "first_paint_ms": paint, "page_kb": round(len(page.encode()) / 1e3),
            }  # fmt: skip
            benchmark(lambda: shown.run("state.batch = 1 + state.batch % 500, draw(), advance(Infinity)"))
            assert found.shape == (len(found), 2) and (found[:, 1] >= found[:, 0]).all()
            print(benchmark.extra_info)  # type: ignore[attr-defined]
    finally:
        browser.close()
