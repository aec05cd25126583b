"""Differences between a simulated and a measured run: rules from figures to sentences.

Steps show in ITL and TPOT, the front end in TTFT while nothing queues, the queue in how far mean and p99 of TTFT lie
beyond the median. Below capacity an open loop's throughput is what was offered, and carries no information on the
server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from graphsim.serving.run_pair import CLOSE, RunPair, has_queue

SAME_TRAFFIC = 0.05
ORDERLY, DISORDERLY = 0.95, 0.7
KEEPS_UP = 0.95
"""Share of the offered requests from which on a server counts as keeping up."""


def parting_sentences(pair: RunPair) -> list[str]:
    """The differences of the two runs, causes before consequences; or that they agree if no mean is far off."""
    found = [sentence for rule in RULES for sentence in rule(pair)]
    names = ("mean_ttft_ms", "mean_tpot_ms", "median_itl_ms", "mean_e2el_ms", "output_throughput")
    checked = [name for name in names if pair.knows(name)]
    if checked and not any(map(pair.parts, checked)):
        worst = max(checked, key=lambda name: abs(pair.error(name)))
        found.append(f"The runs agree within {CLOSE:.0%}; most apart: {pair.both(worst)}.")
    return found


def _traffic(pair: RunPair) -> Iterator[str]:
    """Whether both runs had the same requests."""
    if pair.parts("completed", 0.0):
        yield f"Not the same requests: {pair.both('completed')}; simulate the traffic that was measured first."
    for name, word in (("total_input_tokens", "prompts"), ("total_output_tokens", "answers")):
        there, here = (
            figures.get(name, math.nan) / (figures.get("completed") or math.nan)
            for figures in (pair.measured, pair.predicted)
        )
        if there and abs(here / there - 1.0) > SAME_TRAFFIC:
            yield f"Not the same lengths: {word} have {there:.0f} tokens on average as measured, {here:.0f} simulated."


def _capacity(pair: RunPair) -> Iterator[str]:
    """Whether one of them could not keep up with what was offered."""
    there, here = pair.kept_up(pair.measured), pair.kept_up(pair.predicted)
    served = f"{there:.0%} of {pair.request_rate:.3g} requests/s answered in time as measured, {here:.0%} as simulated"
    if there < KEEPS_UP and here < KEEPS_UP:
        yield (
            f"Both are overloaded ({served}); TTFT then grows with the length of the run, so compare "
            "throughput and TPOT."
        )
    elif there < KEEPS_UP <= here or here < KEEPS_UP <= there:
        who = "measured" if there < here else "simulated"
        yield (
            f"Only the {who} server is overloaded ({served}): "
            "near capacity a few per cent of step time become minutes of queue."
        )


def _steps(pair: RunPair) -> Iterator[str]:
    """Steps that generate, and those that hold prompts as well."""
    if pair.is_lumpy:
        gap, token = pair.measured["mean_itl_ms"], pair.measured["mean_tpot_ms"]
        yield (
            f"The measured client got several tokens at once (mean gap {gap:.3g} ms, mean TPOT {token:.3g} ms): "
            "compare TPOT, not ITL."
        )
    if pair.steps_part and pair.predicted[pair.step] > 0:
        slow = "longer" if pair.error(pair.step) < 0 else "less"
        factor = pair.measured[pair.step] / pair.predicted[pair.step]
        yield f"Engine steps: {pair.both(pair.step)}; they take {slow} than simulated, by a factor of {factor:.2f}."
    elif pair.parts("mean_tpot_ms"):
        yield (
            f"Steps that only generate agree ({pair.both(pair.step)}), yet {pair.both('mean_tpot_ms')}: what parts is "
            "the time of steps that hold prompts beside them, or how many of these there are."
        )


def _first_tokens(pair: RunPair) -> Iterator[str]:
    """The front end if nothing queues, otherwise the queue."""
    there, here = has_queue(pair.measured), has_queue(pair.predicted)
    if not there and not here and pair.parts("median_ttft_ms"):
        more = pair.measured["median_ttft_ms"] - pair.predicted["median_ttft_ms"]
        off = f"{abs(more):.3g} ms {'more' if more > 0 else 'less'} than simulated"
        yield f"First tokens without a queue: {pair.both('median_ttft_ms')}, {off}: {_front_cause(pair)}."
    if (there or here) and pair.parts("mean_ttft_ms"):
        medians = f", {pair.both('median_ttft_ms')}" if pair.knows("median_ttft_ms") else ""
        yield f"Queueing: {pair.both('mean_ttft_ms')}{medians}; {_queue_cause(pair, there, here)}."


def _queue_cause(pair: RunPair, there: bool, here: bool) -> str:
    if pair.steps_part:
        return "the steps' error is the first suspect, as a queue multiplies it"
    if there != here:
        who = "measured" if there else "simulated"
        return f"only the {who} server had a queue: look at KV capacity, adapter slots and max_num_seqs"
    return "steps agree, so look at what lets requests in: KV capacity, prefix cache, adapter slots and loads"


def _front_cause(pair: RunPair) -> str:
    """Whether it is per request or per prompt token, if both runs have enough requests to tell."""
    lines = [None if own is None else own.line() for own in (pair.there, pair.here)]
    if lines[0] is None or lines[1] is None:
        return "the front end (HTTP, tokenising, streaming: request_s and token_s) or the prompts' own steps"
    request, thousand = (there - here for there, here in zip(lines[0], lines[1], strict=True))
    return (
        f"{request:+.1f} ms a request (front end: request_s) and {thousand:+.1f} ms for each 1,000 prompt tokens "
        "(token_s, or the prompts' own steps)"
    )


def _beginning(pair: RunPair) -> Iterator[str]:
    """First requests that waited far longer than later ones, in the measured run only."""
    there = None if pair.there is None else pair.there.beginning()
    here = None if pair.here is None else pair.here.beginning()
    if there is None:
        return
    count, first, rest = there
    simulated = here[1] / here[2] if here is not None else 1.0
    if first > 2.0 * rest and first > 1.5 * simulated * rest:
        yield (
            f"The first {count} requests waited {first:.3g} s on average for their first token, later ones {rest:.3g} "
            "s, which the simulated run does not show: a server without a warm-up (compilation, graph capture, "
            "first loads of adapters); measure again after a warm-up."
        )


def _throughput(pair: RunPair) -> Iterator[str]:
    """Throughput of an overloaded server or a closed loop; below capacity it carries no information."""
    name = next((name for name in ("output_throughput", "request_throughput") if pair.knows(name)), None)
    if name is None or not pair.parts(name):
        return
    flight = pair.measured.get("request_throughput", math.nan) * pair.measured.get("mean_e2el_ms", math.nan) / 1e3
    held = "" if math.isnan(flight) else f" with {flight:.3g} requests in flight on average"
    if min(pair.kept_up(pair.measured), pair.kept_up(pair.predicted)) >= KEEPS_UP:
        yield f"Throughput: {pair.both(name)}{held}, although both keep up: lengths, rates or the runs' ends differ."
    else:
        yield f"Throughput: {pair.both(name)}{held}; it follows from the steps and from how many requests they hold."


def _order(pair: RunPair) -> Iterator[str]:
    """Whether the same requests are slow in both, if there is a difference to explain."""
    told = f"Request by request the end-to-end latencies correlate by {pair.order:.3f}"
    if pair.parts("mean_e2el_ms") and pair.order > ORDERLY:
        yield f"{told}: the order of requests is right, the speed is off."
    elif pair.order < DISORDERLY:
        yield (
            f"{told}: requests are not served in the same order or not held back by the same limits (policy, "
            "max_num_seqs, KV capacity, adapter slots)."
        )


RULES: tuple[Callable[[RunPair], Iterator[str]], ...] = (
    _traffic, _capacity, _steps, _first_tokens, _beginning, _throughput, _order,
)  # fmt: skip
