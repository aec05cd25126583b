"""Figures and tables of a run, against what a dozen requests saw by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.serving.figures import grouped, statistics, weighted_statistics
from graphsim.serving.goodput import Limits
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import REFUSED, STATUSES, TIMED_OUT, UNFINISHED, empty_log
from graphsim.serving.service import Service
from graphsim.traffic.table import request_table

from .hand_made import hand_made

DONE = [0, 1, 2, 3, 8, 9, 10, 11]
VLLM_KEYS = {
    "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
    "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "max_output_tokens_per_s",
    "max_concurrent_requests",
}  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Service:
    return hand_made()


def test_the_summary_has_the_keys_of_vllms_result_file(service):
    kinds = ("mean", "median", "std", "p90", "p95", "p99")
    latencies = {f"{kind}_{name}_ms" for kind in kinds for name in ("ttft", "tpot", "itl", "e2el")}
    assert set(service.summary()) == VLLM_KEYS | latencies
    assert {"p50_ttft_ms", "p99.9_itl_ms"} <= set(service.summary((50, 99.9)))
    assert "p99_ttft_ms" not in service.summary((50,))


def test_counts_and_throughputs_are_those_of_answered_requests(service):
    found = service.summary()
    assert (found["num_prompts"], found["completed"], found["failed"]) == (12, 8, 3)
    assert found["duration"] == 10.0 and found["request_throughput"] == pytest.approx(0.8)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (64, 32)
    assert found["output_throughput"] == pytest.approx(3.2)
    assert found["total_token_throughput"] == pytest.approx(9.6)
    assert found["max_concurrent_requests"] == 4 and found["request_rate"] == 1.2


def test_latencies_follow_vllms_definitions(service):
    found = service.summary()
    assert found["mean_ttft_ms"] == pytest.approx(762.5)  # 0.5 three times, 0.6, 1.0 four times
    assert found["median_ttft_ms"] == pytest.approx(800.0)
    assert found["p90_ttft_ms"] == pytest.approx(1000.0)
    assert found["mean_e2el_ms"] == pytest.approx(1606.25)
    assert found["p90_e2el_ms"] == pytest.approx(2225.0)  # 2.0 + 0.3 of the way to 2.75
    assert found["mean_tpot_ms"] == pytest.approx(1937.5 / 7)  # six of 0.25, one of 0.4375; that of one token is none
    assert found["mean_itl_ms"] == pytest.approx(7250.0 / 26)
    assert found["median_itl_ms"] == pytest.approx(250.0)
    assert found["p99_itl_ms"] == pytest.approx(1e3 * (0.25 + 0.75 * 0.75))  # place 24.75 of 0 to 25


def test_what_nobody_could_tell_is_nan_and_no_division_fails():
    table = request_table([0.0, 1.0], [8, 8], [4, 4])
    none = Service(table=table, log=empty_log(2), rules=Rules(kv_blocks=10))
    found = none.summary()
    assert found["completed"] == found["failed"] == 0
    assert np.isnan(found["mean_ttft_ms"]) and np.isnan(found["request_throughput"])
    assert len(none.requests) == 2 and none.steps.empty and none.adapters.requests.sum() == 0
    [warning] = none.warnings
    assert warning.startswith("2 of 2 requests had no answer") and "0 of 2 requests" in repr(none)


def test_rows_of_requests_are_the_log(service):
    frame = service.requests
    assert list(frame.columns[:13]) == [
        "adapter", "replica", "arrival_s", "sent_s", "admitted_s", "first_token_s", "finished_s", "input_tokens",
        "output_tokens", "ttft_s", "tpot_s", "e2e_s", "preemptions",
    ]  # fmt: skip
    assert frame.adapter[3] == "green" and frame.adapter.isna().sum() == 2
    assert frame.arrival_s[4] == 3.6 and np.isnan(frame.sent_s[4])
    assert list(frame.status[4:8]) == ["refused", "timed out", "too long", "unfinished"]
    assert frame.ttft_s[3] == pytest.approx(0.6) and np.isnan(frame.tpot_s[3]) and frame.tpot_s[11] == 0.4375
    assert list(np.flatnonzero(frame.e2e_s.notna())) == DONE
    assert frame.group[11] == "batch" and frame.preemptions[11] == 1 and frame.load_stall_s[1] == 0.2
    parts = [service.request_rows(slice(i, i + 5)) for i in (0, 5, 10)]
    assert [list(part.index) for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_in_a_closed_loop_requests_arrive_when_they_are_sent(service):
    never = np.full(12, np.nan)
    closed = hand_made(table=replace(service.table, arrival_s=never))
    assert closed.requests.arrival_s.tolist()[:4] == [0.0, 2.0, 2.0, 3.4]


def test_adapters_have_their_requests_loads_and_waits(service):
    frame = service.adapters.set_index("adapter")
    assert frame.requests.to_dict() == {"red": 5, "blue": 3, "green": 1, "(base model)": 2}
    assert frame.completed.to_dict() == {"red": 4, "blue": 2, "green": 1, "(base model)": 1}
    assert frame.loads.to_dict() == {"red": 2, "blue": 1, "green": 1, "(base model)": 0}
    assert frame.hits.to_dict() == {"red": 3, "blue": 1, "green": 0, "(base model)": 0}
    assert frame.disk_loads.to_dict() == {"red": 1, "blue": 1, "green": 0, "(base model)": 0}
    assert (
        frame.switches.sum() == 0
        and frame.load_s["red"] == pytest.approx(0.2)
        and frame.load_stall_s["red"] == pytest.approx(0.4)
    )
    assert frame.longest_wait_s["green"] == pytest.approx(0.1)
    assert frame.longest_wait_s["blue"] == pytest.approx(2.0)  # the one that was given up
    assert frame.p50_ttft_s["red"] == pytest.approx(1.0) and frame.mean_ttft_s["blue"] == pytest.approx(0.75)
    assert frame.tokens_per_s["green"] == pytest.approx(1 / 0.6)


def test_switches_of_merged_weights_count_like_loads(service):
    merged = hand_made(log=replace(service.log, loads=[], switches=[(0.0, 0.5, 0), (2.0, 0.7, -1), (3.5, 0.5, 2)]))
    frame = merged.adapters.set_index("adapter")
    assert frame.switches.to_dict() == {"red": 1, "blue": 0, "green": 1, "(base model)": 1}
    assert frame.hits["red"] == 4 and frame.load_s["(base model)"] == pytest.approx(0.7)
    # a switch has the load in it that it begins with
    loaded_first = replace(merged, log=replace(merged.log, loads=[(0.0, 0.2, 0, 1), (6.0, 0.1, 0, 0)]))
    frame = loaded_first.adapters.set_index("adapter")
    assert frame.loads["red"] == 2 and frame.hits["red"] == 3 and frame.load_s["red"] == pytest.approx(0.6)


def test_fairness_is_jains_index_over_adapters(service):
    # by 8.9, when the last request came: of red 50 of 464 tokens asked, of blue 26 of 41, of green all
    shares = [11 + 13 * 3, 13 + 13, 9]
    shares = [shares[0] / (11 + 13 * 3 + 408), shares[1] / (13 + 13 + 15), 1.0]
    assert service.fairness == pytest.approx(sum(shares) ** 2 / (3 * sum(v * v for v in shares)))


def test_steps_state_batch_tokens_and_cache(service):
    frame = service.steps
    assert frame.steps.sum() == 19 and frame.time_s[1] == 0.25 and frame.kv_use.max() == 1.0
    assert frame.tokens[6] == 32 and frame.tokens[7] == 4 and frame.adapters.max() == 2


def test_goodput_counts_what_met_all_limits(service):
    assert service.goodput(ttft_s=0.75) == pytest.approx((0.4, 4 / 11))  # the one cut off might have met it
    assert service.goodput(e2e_s=1.0 + 1e-9) == pytest.approx((0.3, 3 / 12))  # it was under way for 1.1 s
    assert service.goodput(tpot_s=0.3) == pytest.approx((0.7, 7 / 11))  # one token has a TPOT of 0
    assert service.goodput(ttft_s=0.75, tpot_s=0.3, e2e_s=1.2) == pytest.approx((0.3, 3 / 11))


def test_classes_are_judged_by_their_own_limits(service):
    assert service.goodput() == pytest.approx((0.6, 6 / 11))  # 0, 1, 2 by TTFT; 8, 9, 10 by E2E
    assert service.summary()["request_goodput"] == pytest.approx(0.6)
    frame = service.groups.set_index("group")
    assert frame.good_share["interactive"] == pytest.approx(3 / 7)
    assert frame.good_share["batch"] == pytest.approx(3 / 4)
    assert frame.requests.to_dict() == {"interactive": 7, "batch": 4}


def test_a_goodput_without_limits_or_with_a_wrong_one_is_explained(service):
    with pytest.raises(gs.ConfigError, match="goodput needs a limit"):
        hand_made(classes=()).goodput()
    assert hand_made(classes=()).summary()["request_goodput"] is None
    for wrong in (0, -1, "fast", True):
        with pytest.raises(gs.ConfigError, match="ttft_s = "):
            service.goodput(ttft_s=wrong)
    with pytest.raises(gs.ConfigError, match="percentiles = 101"):
        service.summary((101,))


def test_utilisation_is_over_the_time_in_which_requests_came(service):
    used = service.utilisation
    assert used.busy == pytest.approx((1.0 + 2.0 + 2.75) / 8.9)
    assert used.kv_peak == 1.0 and used.running_peak == 1.0
    assert used.running == pytest.approx((0.5 * (1 + 1 + 2 + 2 + 1 + 1 + 4 + 3 + 1) + 1.0 * 4 + 0.25) / 4 / 8.9)
    assert used.waiting == pytest.approx((0.5 * 3 + 1.0 + 0.5 + 0.5) / 8.9)
    assert used.slots == pytest.approx((1.0 + 0.5) / 8.9)  # two adapters in the step while somebody waits


def loaded(kv: float, waits: list[float], rate: float = 1.0) -> Service:
    """A run with steps of 0.01 s that fill so much of the cache, in which requests wait so long."""
    count = len(waits)
    sent = np.arange(count) / rate
    log = empty_log(count)
    log.sent_s = log.received_s = sent
    log.admitted_s = sent + np.array(waits)
    log.first_token_s = log.admitted_s + 0.01
    log.finished_s = log.admitted_s + 0.02
    log.status[:] = 1
    log.end_s = float(log.finished_s.max())
    log.runs = [(0.0, log.end_s, round(log.end_s / 0.01), 4, 0, 0, 0, round(100 * kv), 1, 0.0)]
    return Service(table=request_table(sent, [8] * count, [2] * count), log=log, rules=Rules(kv_blocks=100))


def test_a_queue_that_grows_and_a_full_cache_are_warned_of():
    calm = loaded(0.5, [0.01] * 40)
    assert calm.utilisation.busy == pytest.approx(1.0) and calm.warnings == ()
    full = loaded(0.9, [0.01] * 40).warnings
    assert len(full) == 1 and "near saturation: the load is 90% of what fills the server (its KV cache" in full[0]
    growing = loaded(0.5, list(np.linspace(0.0, 20.0, 40))).warnings
    assert len(growing) == 1 and growing[0].startswith("the queue grows")
    staying = loaded(0.5, [0.01] * 40)
    staying.log.finished_s[30:] += 5.0
    assert len(staying.warnings) == 1 and staying.warnings[0].startswith("the server falls behind")
    few = loaded(0.01, [0.4] * 20)
    few.log.finished_s[15:] += 0.6  # twice as many, but less than one at a time among twenty is chance
    assert few.utilisation.late_open > 2 * few.utilisation.early_open and few.warnings == ()
    bounded = replace(loaded(0.5, list(np.linspace(0.0, 20.0, 40))), open_loop=False)
    assert bounded.warnings == ()  # a closed loop's queue ends at its clients


def test_requests_without_an_answer_are_told_of():
    answered = loaded(0.5, [0.01] * 40)
    answered.log.status[:3] = STATUSES.index(TIMED_OUT)
    answered.log.status[3:5] = STATUSES.index(REFUSED)
    answered.log.status[5:6] = STATUSES.index(UNFINISHED)
    told = answered.warnings
    assert told[0].startswith("3 of 40 requests took longer") and told[1].startswith("2 of 40 requests found no")
    assert told[2].startswith("1 of 40 requests had no answer") and len(told) == 3


def test_a_run_of_centuries_has_its_fullest_second_in_little_memory():
    near = loaded(0.5, [0.01] * 40, rate=2.0)
    far = loaded(0.5, [0.01] * 40, rate=1e-9)
    assert far.summary()["max_output_tokens_per_s"] == pytest.approx(2.0)
    assert far.summary()["max_concurrent_requests"] == 1
    assert near.summary()["max_output_tokens_per_s"] == pytest.approx(4.0)


def test_an_interrupted_run_says_so(service):
    stopped = replace(service, log=replace(service.log, interrupted=True))
    assert stopped.warnings[0].startswith("interrupted after 10 simulated seconds")


def test_an_interval_is_the_run_repeated_with_other_steps(service):
    def again(factor: float) -> Service:
        log = service.log
        return replace(service, log=replace(log, first_token_s=log.sent_s + factor * (log.first_token_s - log.sent_s)))

    known = replace(service, again=again, step_factors=lambda coverage: (1 - coverage / 4, 1 + coverage / 2))
    assert known.interval("mean_ttft_ms", 0.8) == pytest.approx((0.8 * 762.5, 1.4 * 762.5))
    with pytest.raises(gs.ConfigError, match="interval of 'mean_ttft' is not known; did you mean 'mean_ttft_ms'"):
        known.interval("mean_ttft")
    with pytest.raises(gs.ConfigError, match="no residuals are recorded"):
        service.interval("mean_ttft_ms")


def test_a_run_shows_itself_and_escapes_names(service):
    assert "8 of 12 requests in 10 s, 0.8 requests/s" in repr(service)
    page = hand_made(model="<b>x</b>", notes=("a <note>",))._repr_html_()
    assert "<b>x" not in page and "&lt;b&gt;x" in page and "a &lt;note&gt;" in page and "p99" in page


def test_everything_is_plain_values(service):
    import json

    found = json.loads(json.dumps(service.to_dict(), allow_nan=False))
    assert found["summary"]["completed"] == 8 and found["adapters"][0]["adapter"] == "red"


def test_adapters_and_classes_without_names_are_numbered():
    bare = hand_made(adapter_names=(), classes=(Limits(name="all"),))
    assert list(bare.adapters.adapter)[:3] == ["adapter-0", "adapter-1", "adapter-2"]
    assert list(bare.groups.group) == ["all", "class 1"]
    with pytest.raises(gs.ConfigError, match="adapter 'red' is named twice"):
        hand_made(adapter_names=("red", "blue", "red"))


numbers = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 6)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(numbers, st.lists(st.floats(0, 100), max_size=3))
def test_weighted_statistics_are_those_of_the_list_spelled_out(pairs, shares):
    values, counts = np.array(pairs).T
    spelled = np.repeat(values, counts.astype(int))
    found, expected = weighted_statistics(values, counts, shares), statistics(spelled, shares)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-6, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), min_size=1, max_size=30), st.floats(0, 100))
def test_grouped_percentiles_are_those_of_each_group_alone(pairs, share):
    values, group = np.array([v for v, _ in pairs]), np.array([g for _, g in pairs])
    found = grouped(values, group, 5, (share,))
    for i in range(5):
        alone = statistics(values[group == i], (share,))
        for name, figures in found.items():
            assert figures[i] == pytest.approx(alone[name], abs=1e-9, nan_ok=True)
