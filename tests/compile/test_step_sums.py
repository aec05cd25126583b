"""A step of sequences that differ is one call of sums over them, however they are dealt out."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.compile import step as step_module
from graphsim.cost.base import annotate
from graphsim.cost.roofline import roofline
from graphsim.graph.schedule import makespan_s
from graphsim.models.phase import Phase, Segment, decode, generation_of, mixed, prefill, prompts_of
from graphsim.ops import Work

LORA = gs.LoraConfig(rank=16)
PROMPTS = [(100, 0), (900, 0)]
CONTEXTS = [17 * i + 3 for i in range(37)]


def pairs(prompts: Sequence[tuple[int, int]]) -> int:
    return sum(q * past + q * (q + 1) // 2 for q, past in prompts)


def sums(prompts: Sequence[tuple[int, int]], contexts: Sequence[int]) -> dict[str, float]:
    """What API callers sum up: new tokens and past of each prompt, context of each generating sequence."""
    return {
        "prompt_tokens": sum(q for q, _ in prompts),
        "prompt_pairs": pairs(prompts),
        "prompts": len(prompts),
        "prompt_rows": sum(q + past for q, past in prompts),
        "generating": len(contexts),
        "cache_rows": sum(context + 1 for context in contexts),
    }


def phase_of(prompts: Sequence[tuple[int, int]], contexts: Sequence[int]) -> Phase:
    """The same step with a segment for each sequence."""
    return mixed(*[prefill(1.0, q, past) for q, past in prompts], *[decode(1.0, context) for context in contexts])


def summed(prompts: Sequence[tuple[int, int]], contexts: Sequence[int]) -> Phase:
    given = sums(prompts, contexts)
    prompt = prompts_of(*[given[n] for n in ("prompts", "prompt_tokens", "prompt_pairs", "prompt_rows")], len(prompts))
    return mixed(prompt, generation_of(given["generating"], given["cache_rows"]))


def graph_of(model: str, phase: Phase, lora: gs.LoraConfig | None = LORA) -> nx.DiGraph:
    return gs.Deployment(model, lora=lora, engine="reference").step([phase])


def test_two_prompts_beside_generating_sequences_with_three_adapters_are_one_call() -> None:
    step = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=LORA, cost="roofline", engine="reference")
    given = sums(PROMPTS, CONTEXTS)
    assert given["prompt_pairs"] == 410_500
    asked = {"adapted_tokens": 640, "distinct_adapters": 3, "rank_rows": 640 * 8}
    found = step(**given, **asked)
    assert found > step(**given | {"prompt_pairs": 250_500}, **asked)  # as two prompts of 500 tokens
    assert found > step(**given, **asked | {"rank_rows": 640 * 4})
    assert found > step(**given, **asked | {"distinct_adapters": 1})
    assert found > step(**given, **asked | {"adapted_tokens": 400, "rank_rows": 400 * 8})
    assert found > step(**given, **asked, prompts_ending=0)


LENGTHS = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 3000)), max_size=5)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-2", "mixtral-8x7b"])
@settings(max_examples=15, deadline=None)
@given(prompts=LENGTHS, contexts=st.lists(st.integers(0, 5000), max_size=6))
def test_the_work_of_sums_is_that_of_a_segment_for_each_sequence(
    model: str, prompts: list[tuple[int, int]], contexts: list[int]
) -> None:
    """Exactly, without a window: whichever sequences there are, in whichever order."""
    alone = gs.total_work(graph_of(model, phase_of(prompts, contexts)))
    for order in (1, -1):
        found = gs.total_work(graph_of(model, summed(prompts[::order], contexts[::order])))
        for field in fields(Work):
            assert getattr(found, field.name) == pytest.approx(getattr(alone, field.name), rel=1e-12), field.name


def test_the_price_of_sums_is_that_of_a_segment_for_each_sequence_where_it_is_linear() -> None:
    """Generation reads memory in all its kernels; of kernels that start in no time, one takes as long as 37."""
    device = replace(gs.load_hardware("h100-sxm"), launch_s=0.0)
    phase = replace(phase_of([], CONTEXTS), all_logits=True)  # every row is one of the head's, none has to be picked
    alone = makespan_s(annotate(graph_of("llama-3.1-8b", phase), device, roofline))
    step = gs.compile_step("llama-3.1-8b", device, lora=LORA, cost="roofline", engine="reference")
    assert step(**{n: v for n, v in sums([], CONTEXTS).items() if not n.startswith("prompt")}) == pytest.approx(
        alone, rel=1e-9
    )


@pytest.mark.parametrize("window", [0, 1, 100, 1024, 10**6])
@given(count=st.integers(1, 40), each=st.integers(1, 2000), past=st.integers(0, 3000))
def test_sums_of_equal_sequences_are_exact_with_any_window(window: int, count: int, each: int, past: int) -> None:
    equal = Segment(sequences=float(count), new_tokens=float(each), past_tokens=float(past))
    alike = sums([(each, past)] * count, [past] * count)
    names = ("prompts", "prompt_tokens", "prompt_pairs", "prompt_rows")
    (segment,) = prompts_of(*[float(alike[n]) for n in names], count).segments
    (generating,) = generation_of(float(count), float(alike["cache_rows"])).segments
    one = Segment(sequences=float(count), new_tokens=1.0, past_tokens=float(past), decode=True)
    for found, expected in ((segment, equal), (generating, one)):
        for name in ("pairs", "kv_tokens", "kept_tokens"):
            assert getattr(found, name)(window) == pytest.approx(getattr(expected, name)(window), rel=1e-12), name
        assert found.tokens == expected.tokens
        assert found.past_tokens == pytest.approx(past, rel=1e-12, abs=1e-9)


@given(prompts=LENGTHS.filter(bool), contexts=st.lists(st.integers(0, 5000), min_size=1), window=st.integers(1, 6000))
def test_sums_within_a_window_are_never_below_what_is_attended(
    prompts: list[tuple[int, int]], contexts: list[int], window: int
) -> None:
    generating = summed(prompts, contexts).segments[1]
    each = [decode(1.0, context).segments[0] for context in contexts]
    for name in ("pairs", "kv_tokens"):
        assert getattr(generating, name)(window) >= sum(getattr(one, name)(window) for one in each) - 1e-6
        assert getattr(generating, name)(window) <= sum(getattr(one, name)() for one in each) + 1e-6


@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b", "gemma-2-9b"])
def test_sums_give_what_the_convenience_arguments_give(model: str, cost: str) -> None:
    step = gs.compile_step(model, "h100-sxm", lora=LORA, cost=cost, precision="bf16", engine="reference")
    for count, each, past, batch, context in ((1, 500, 0, 0, 0), (3, 512, 1000, 8, 777), (0, 1, 0, 64, 4096)):
        convenient = step(
            each if count else 0, prefill_sequences=count, past_tokens=past, decode_batch=batch, context=context
        )
        given = sums([(each, past)] * count, [context] * batch)
        assert step(**given) == pytest.approx(convenient, rel=1e-12)
        del given["prompt_rows"]  # as the pairs of equal prompts say
        assert step(**given) == pytest.approx(convenient, rel=1e-12)


def test_what_is_not_given_follows_from_what_is() -> None:
    step = gs.compile_step(
        "gemma-2-9b", "h100-sxm", lora=gs.LoraConfig(rank=8, active_adapters=2, adapter_share=0.5), engine="reference"
    )
    assert step(prompt_tokens=500) == step(500) == step(prompt_tokens=500, prompts=1, prompts_ending=1)
    assert step(prompt_tokens=500, prompts=4) == step(125, prefill_sequences=4)
    assert step(generating=8) == step(decode_batch=8, context=0)
    assert step(generating=8, cache_rows=800) == pytest.approx(
        step(generating=8, cache_rows=800, adapted_tokens=4, distinct_adapters=2, rank_rows=32), rel=1e-12
    )
    assert step() == 0.0


def test_an_adapters_sums_are_those_of_a_configuration_with_them() -> None:
    for share, rank, active in ((0.25, 4, 1), (1.0, 16, 3), (0.0, 16, 1)):
        configured = gs.LoraConfig(rank=rank, adapter_share=share, active_adapters=active)
        one = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=configured, engine="reference")
        other = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=LORA, engine="reference")
        for asked in ({"generating": 64, "cache_rows": 6400}, {"prompt_tokens": 64, "generating": 0}):
            rows = 64 * share
            found = other(**asked, adapted_tokens=rows, distinct_adapters=min(active, rows), rank_rows=rows * rank)
            assert found == pytest.approx(one(**asked), rel=1e-12)


@pytest.mark.parametrize("engine", ["vllm", "slora", "reference"])
def test_engines_that_pad_ranks_pad_to_the_configurations_largest(engine: str) -> None:
    """A step's mean rank changes its time only where kernels run at the true rank."""
    lora = gs.LoraConfig(rank=64, rank_pattern={"q_proj": 64})
    step = gs.compile_step("llama-3.1-8b", "h100-sxm", lora=replace(lora, rank_pattern={}), engine=engine)
    asked = {"generating": 256, "cache_rows": 25_600, "adapted_tokens": 256}
    low, high = (step(**asked, rank_rows=256.0 * rank) for rank in (8, 64))
    assert high == pytest.approx(step(**asked), rel=1e-12)
    assert low == high if engine == "vllm" else low < high


def test_arrays_over_steps_may_hold_steps_of_every_kind() -> None:
    step = gs.compile_step("gemma-2-9b", "h100-sxm", lora=LORA, engine="reference")
    new, batch = np.array([0.0, 0.0, 300.0, 512.0]), np.array([0.0, 4.0, 0.0, 32.0])
    found = step(prompt_tokens=new, generating=batch, cache_rows=batch * 1000, rank_rows=8.0 * (new + batch))
    for i in range(4):
        tokens = float(new[i] + batch[i])
        one = step(
            prompt_tokens=float(new[i]), generating=float(batch[i]), cache_rows=float(batch[i] * 1000),
            rank_rows=8.0 * tokens,
        )  # fmt: skip
        assert np.asarray(found)[i] == pytest.approx(one, rel=1e-12)
    grid = step(prompt_tokens=new[:, None], generating=batch[None, :])
    assert np.shape(grid) == (4, 4)
    assert np.asarray(grid)[2, 3] == pytest.approx(step(prompt_tokens=300, generating=32), rel=1e-9)


ALONE = (
    "prompt_pairs", "prompt_rows", "prompts", "prompts_ending", "prefill_sequences", "past_tokens", "context",
    "cache_rows",
)  # fmt: skip
"""Details of something whose amount is another argument."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"prompt_tokens": [100, 900]},
            "prompt_tokens = .* is a list.*sums over one step's sequences, or a numpy array",
        ),
        ({"decode_batch": (1, 2)}, "decode_batch = .* is a list"),
        ({"prompt_tokens": 100, "prefill_tokens": 100}, "prefill_tokens and prompt_tokens are two spellings"),
        ({"generating": 3, "context": 100}, "context and generating are two spellings of one thing; give either"),
        ({"generating": 1, "adapters": 1, "distinct_adapters": 1}, "adapters and distinct_adapters are two spellings"),
        ({"prompt_tokens": 10, "prompts": 11}, "prompts = 11.0 is not allowed; expected from 1 to prompt_tokens"),
        ({"prompt_tokens": 10, "prompts": 0}, "prompts = 0.0"),
        ({"prompt_tokens": 10, "prompt_pairs": 54}, "prompt_pairs = 54.0 is not allowed; expected at least"),
        ({"prompt_tokens": 10, "prompt_rows": 9}, "prompt_rows = 9.0"),
        ({"prompt_tokens": 10, "prompt_rows": 1e9}, "prompt_rows = 1000000000.0 is not allowed.* to prompt_pairs"),
        ({"prompt_tokens": 0, "prompt_pairs": 10}, "prompt_pairs = 10.0"),
        ({"prompt_tokens": 10, "prompts_ending": 2}, "prompts_ending = 2.0"),
        ({"generating": 10, "cache_rows": 9}, "cache_rows = 9.0"),
        ({"generating": 0, "cache_rows": 9}, "cache_rows = 9.0 .*0 for none"),
        ({"generating": np.array([4, 0]), "cache_rows": 40}, "cache_rows = 40.0"),
        ({"generating": 10, "adapted_tokens": 2, "distinct_adapters": 3}, "distinct_adapters = 3.0 is not allowed"),
        ({"decode_batch": 8, "adapters": 9}, "adapters = 9.0 is not allowed; expected at most one for each adapted"),
        ({"generating": 10, "adapted_tokens": 11}, "adapted_tokens = 11.0 is not allowed; expected at most all tokens"),
        ({"generating": 10, "rank_rows": 161}, "rank_rows = 161.0 is not allowed.*max_lora_rank"),
        ({"generating": np.array([1.0, -1.0])}, "generating = array"),
        ({"generating": float("inf")}, "generating = inf"),
        ({"generating": True}, "generating = True"),
        ({"generating": np.ma.array([1.0, 2.0], mask=[True, False])}, "generating = masked_array"),
        (
            {"prompt_tokens": np.array([1, 2]), "generating": np.array([1, 2, 3])},
            r"prompt_tokens of shape \(2,\) and generating of shape \(3,\) do not broadcast",
        ),
        ({"generating": np.array([4, 8]), "adapted_tokens": np.array([1, 2, 3])}, "adapted_tokens of shape .* do not"),
        *(({name: 3}, f"{name} is given without") for name in ALONE),
    ],
)
def test_what_no_step_can_hold_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.compile_step("gpt-2", "l4", lora=LORA, engine="reference")(**arguments)


@pytest.mark.parametrize("name", ["adapters", "distinct_adapters", "adapted_tokens", "rank_rows"])
def test_adapters_need_a_lora_config(name: str) -> None:
    with pytest.raises(gs.ConfigError, match="without a dynamic LoraConfig"):
        gs.compile_step("gpt-2", "l4", engine="reference")(generating=4, **{name: 1})


def test_a_step_is_the_same_in_another_process() -> None:
    step = gs.compile_step(
        "llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=24, rank_pattern={"q_proj": 8}), engine="reference"
    )
    pickled = pickle.dumps(step)
    assert pickle.loads(pickled) is pickle.loads(pickled)
    code = (
        "import pickle, sys; step = pickle.loads(sys.stdin.buffer.read());"
        "print(repr(float(step(prompt_tokens=700, prompts=2, generating=5, cache_rows=900, rank_rows=9000))))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True)
    expected = step(prompt_tokens=700, prompts=2, generating=5, cache_rows=900, rank_rows=9000)
    assert float(done.stdout) == pytest.approx(expected, rel=1e-15)


def test_a_structure_is_compiled_once_whatever_its_adapters_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(step_module.StepFormulas):
        def __init__(self, inference: Any) -> None:
            made.append(inference)
            super().__init__(inference)

    monkeypatch.setattr(step_module, "StepFormulas", Counted)
    targets = ("q_proj", "down_proj")
    steps = [
        gs.compile_step(
            "llama-3.2-1b",
            "l4",
            lora=gs.LoraConfig(rank=rank, target_modules=targets, active_adapters=n),
            engine="reference",
        )
        for rank, n in ((4, 1), (64, 1), (4, 5), (4, 1))
    ]
    assert len(made) == 1
    assert steps[0](8) == steps[3](8) < steps[2](8) and steps[0](8) < steps[1](8)


def test_a_pass_that_cannot_be_recorded_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "mixed", lambda *phases: mixed(*sorted(phases, key=lambda phase: phase.tokens)))
    with pytest.raises(gs.ConfigError, match=r"cannot record this deployment: test_step_sums.py:\d+: a branch depends"):
        gs.compile_step("gpt-2", "a10g", gs.Parallelism(tp=2), engine="reference")
