"""A simulated run beside a measured one: the sentences name what was made to differ, and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.bench_files import FIGURES, BenchRun, figures_of
from graphsim.serving.fit_targets import targets_of, told_apart
from graphsim.serving.measured import compare_measured, where_they_part
from graphsim.serving.run_pair import Requests
from graphsim.traffic.formats.answered import Answered
from tests.traffic.formats import files

COUNT = 200


class Run:
    """A run of requests that come every half second, as figures and as a table; times in seconds."""

    def __init__(
        self, request_s: float = 0.02, token_s: float = 2e-5, step_s: float = 0.01, queue_s: float = 0.0,
        lump: int = 1, cold_s: float = 0.0, rate: float = 2.0, tokens: int = 100,
    ) -> None:  # fmt: skip
        start_s, place = np.arange(COUNT) / rate, np.arange(COUNT)
        inputs = 200.0 + 1800.0 * np.random.default_rng(3).random(COUNT).round(2)
        ttft_s = request_s + token_s * inputs + np.where(place < 10, cold_s, 0.0) + queue_s * (place % 5 == 4)
        outputs = np.full(COUNT, float(tokens))
        e2e_s = ttft_s + step_s * (tokens - 1)
        gaps_s = np.full((tokens - 1) // lump * COUNT, step_s * lump)
        self.answered = Answered(
            start_s=start_s, input_tokens=inputs, output_tokens=outputs, ttft_s=ttft_s, e2e_s=e2e_s,
            tpot_s=(e2e_s - ttft_s) / (tokens - 1), gaps_s=gaps_s,
        )  # fmt: skip
        self.requests = pd.DataFrame({"arrival_s": start_s, "input_tokens": inputs, "ttft_s": ttft_s, "e2e_s": e2e_s})

    def summary(self) -> dict[str, float]:
        return figures_of(self.answered)

    def measured(self, rate: float = 2.0) -> BenchRun:
        return BenchRun(path=Path("b.json"), figures=self.summary(), answered=self.answered, request_rate=rate)


def parted(simulated: Run, measured: Run, rate: float = 2.0) -> list[str]:
    return list(where_they_part(simulated, measured.measured(rate)))


def test_each_figure_has_a_row_with_its_error() -> None:
    frame = compare_measured(Run(step_s=0.008), Run().measured()).set_index("metric")
    assert list(frame.columns) == ["measured", "predicted", "error"]
    assert frame.loc["mean_tpot_ms"].tolist() == pytest.approx([10.0, 8.0, -0.2])
    assert frame.loc["failed", "error"] != frame.loc["failed", "error"]


def test_a_file_and_a_dict_of_figures_will_do(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(files.VLLM))
    frame = compare_measured({"mean_ttft_ms": 100.0, "request_rate": "inf"}, path).set_index("metric")
    assert frame.loc["mean_ttft_ms", "error"] == pytest.approx(-0.5)
    assert np.isnan(frame.loc["mean_tpot_ms", "predicted"])
    assert where_they_part({"mean_ttft_ms": 200.0}, path)


def test_runs_alike_are_said_to_agree() -> None:
    (only,) = parted(Run(step_s=0.0102), Run())
    assert only == "The runs agree within 10%; most apart: mean TPOT 10 ms measured, 10.2 ms predicted (+2%)."


def test_slow_steps_are_told_by_their_factor() -> None:
    (only,) = [line for line in parted(Run(step_s=0.008), Run()) if "TPOT" in line or "ITL" in line]
    assert only.startswith("Engine steps: median ITL 10 ms measured, 8 ms predicted (-20%)")
    assert "longer than simulated, by a factor of 1.25" in only


def test_a_slow_front_end_is_told_from_slow_prompts() -> None:
    (front,) = parted(Run(request_s=0.005), Run())
    assert front.startswith(
        "First tokens without a queue: median TTFT 43.3 ms measured, 28.3 ms predicted (-35%), 15 ms more"
    )
    assert "+15.0 ms a request (front end: request_s) and +0.0 ms for each 1,000 prompt tokens" in front
    (prompts,) = parted(Run(token_s=1e-5), Run())
    assert "0.0 ms a request" in prompts and "+10.0 ms for each 1,000 prompt tokens" in prompts


def test_without_single_requests_the_front_end_is_a_suspect() -> None:
    (front,) = where_they_part(Run(request_s=0.005).summary(), Run().measured())
    assert "request_s and token_s" in front and "or the prompts' own steps" in front


def test_a_queue_that_only_one_has_is_named() -> None:
    queue, *_ = parted(Run(), Run(queue_s=1.0))
    assert queue.startswith("Queueing: mean TTFT") and "only the measured server had a queue" in queue
    other, *_ = parted(Run(queue_s=1.0), Run())
    assert "only the simulated server had a queue" in other


def test_a_queue_behind_slow_steps_is_blamed_on_the_steps() -> None:
    found = parted(Run(step_s=0.008, queue_s=0.3), Run(queue_s=1.0))
    assert any(line.startswith("Engine steps") for line in found)
    assert any("the steps' error is the first suspect" in line for line in found)


def test_tokens_in_lumps_are_compared_by_tpot() -> None:
    found = parted(Run(), Run(lump=3))
    assert "several tokens at once (mean gap 30 ms, mean TPOT 10 ms)" in found[0]
    assert not any(line.startswith("Engine steps") for line in found)


def test_a_server_that_was_not_warm_is_told() -> None:
    found = parted(Run(), Run(cold_s=2.0))
    assert any("The first 20 requests waited" in line and "without a warm-up" in line for line in found)


def test_an_overloaded_server_is_told_by_what_was_offered() -> None:
    found = parted(Run(), Run(rate=1.0))
    assert found[0].startswith("Only the measured server is overloaded") and "minutes of queue" in found[0]
    both = parted(Run(rate=1.1), Run(rate=1.0))
    assert both[0].startswith("Both are overloaded (") and "of 2 requests/s" in both[0]


def test_runs_that_serve_in_the_same_order_are_told_from_others() -> None:
    same = parted(Run(step_s=0.008, queue_s=0.5), Run(queue_s=0.6))
    assert any("the order of requests is right, the speed is off" in line for line in same)
    other = Run(queue_s=0.6)
    other.requests["e2e_s"] = np.roll(other.requests["e2e_s"].to_numpy(), 2)
    assert any("not served in the same order" in line for line in parted(other, Run(queue_s=0.6)))


def test_other_traffic_is_told_before_anything_else() -> None:
    found = parted(Run(tokens=50), Run())
    assert found[0] == "Not the same lengths: answers have 100 tokens on average as measured, 50 simulated."
    figures = Run().summary() | {"completed": 190.0}
    assert where_they_part(figures, Run().measured())[0].startswith(
        "Not the same requests: completed 200 measured, 190"
    )


def test_nothing_predicted_is_an_error() -> None:
    with pytest.raises(ConfigError, match="holds no figure to compare"):
        compare_measured({"speed": 3}, Run().measured())


@pytest.mark.parametrize("missing", ["mean_ttft_ms", "median_itl_ms", "completed", "duration", "mean_e2el_ms"])
def test_missing_figures_do_no_harm(missing: str) -> None:
    for figures in (Run(step_s=0.02).summary(), {"mean_tpot_ms": 3.0}):
        measured = Run().measured()
        kept = {name: value for name, value in measured.figures.items() if name != missing}
        bench = BenchRun(path=Path("b.json"), figures=kept, request_rate=2.0)
        assert all(isinstance(line, str) for line in where_they_part(figures, bench))


FIGURE = st.one_of(st.just(0.0), st.floats(1e-6, 1e9))


@pytest.mark.slow
@given(
    there=st.dictionaries(st.sampled_from(FIGURES), FIGURE, min_size=1),
    here=st.dictionaries(st.sampled_from(FIGURES), FIGURE, min_size=1),
    rate=st.sampled_from([math.inf, 1e-3, 2.0, 1e6]),
)
def test_whatever_figures_there_are_there_is_a_sentence_or_none(
    there: dict[str, float], here: dict[str, float], rate: float
) -> None:
    bench = BenchRun(path=Path("b.json"), figures=there, request_rate=rate)
    assert len(compare_measured(here, bench)) == len(there)
    for line in where_they_part(here, bench):
        assert line.endswith((".", ")")) and "nan" not in line and "inf" not in line.split()


@pytest.mark.slow
@given(figures=st.dictionaries(st.sampled_from(FIGURES), FIGURE, min_size=1))
def test_whatever_figures_there_are_a_fit_looks_at_those_that_tell(figures: dict[str, float]) -> None:
    assert {"request_s", "step_factor"} <= set(told_apart([BenchRun(path=Path("b.json"), figures=figures)]))
    assert all(figures[target.metric] > 0 for target in targets_of(0, figures, 3.0))


def test_prompts_alike_or_too_few_tell_no_line() -> None:
    def requests(count: int, spread: float) -> Requests:
        tokens = 1000.0 + spread * np.arange(count)
        ttft_s = 0.01 + 1e-5 * tokens
        return Requests(start_s=np.arange(count) * 1.0, input_tokens=tokens, ttft_s=ttft_s, e2e_s=ttft_s)

    assert requests(100, 0.0).line() is None and requests(5, 100.0).line() is None
    assert requests(100, 100.0).line() == pytest.approx((10.0, 10.0))
