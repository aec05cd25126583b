"""Settings by the engines' own flags."""

from __future__ import annotations

import pickle
from math import inf

import pytest

from graphsim.errors import ConfigError
from graphsim.lora.profile import load_profile
from graphsim.serving.engine_flags import OF_ENGINES, OWN
from graphsim.serving.engine_limits import EngineLimits


def settings(engine: str, **given: object) -> dict[str, object]:
    return EngineLimits(**given).settings(load_profile(engine))


@pytest.mark.parametrize(
    ("engine", "given", "meant"),
    [
        ("vllm", {"--max-num-seqs": 64}, {"max_num_seqs": 64}),
        ("vllm-0.8", {"gpu_memory_utilization": 0.8}, {"memory_share": 0.8}),
        ("vllm", {"scheduling_policy": "priority"}, {"policy": "priority"}),
        ("vllm", {"no_enable_prefix_caching": True}, {"prefix_cache": False}),
        ("vllm", {"scheduler_reserve_full_isl": False}, {"admission": "blocks"}),
        ("sglang", {"chunked_prefill_size": 4096}, {"max_num_batched_tokens": 4096}),
        ("sglang", {"chunked_prefill_size": -1}, {"chunked": False}),
        ("sglang", {"max_loras_per_batch": 3, "max_loaded_loras": 9}, {"max_loras": 3, "max_cpu_loras": 9}),
        ("sglang", {"lora_drain_wait_threshold": 3.0}, {"drain_after_s": 3.0}),
        ("sglang", {"lora_drain_wait_threshold": 0.0}, {"drain_after_s": inf}),
        ("sglang-0.5.9", {"enable_mixed_chunk": True}, {"order": "mixed"}),
        ("trtllm", {"capacity_scheduler_policy": "MAX_UTILIZATION"}, {"admission": "blocks", "shortage": "pause"}),
        ("trtllm", {"max_batch_size": 8, "max_num_tokens": 512}, {"max_num_seqs": 8, "max_num_batched_tokens": 512}),
        (
            "slora",
            {"eviction": "lfu", "prefetch": 4, "pinned": [2, 1]},
            {"eviction": "lfu", "prefetch": 4, "pinned": (1, 2)},
        ),
    ],
)
def test_a_flag_means_what_its_engine_means(engine: str, given: dict[str, object], meant: dict[str, object]) -> None:
    assert settings(engine, **given) == meant


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_num_seq": 3}, "did you mean 'max_num_seqs'?"),
        (
            {"tensor_parallel_size": 2},
            "limits.tensor_parallel_size is not a limit of an engine; give gs.Parallelism(tp=",
        ),
        ({"max_num_seqs": 0}, "limits.max_num_seqs = 0 is not allowed"),
        ({"max_num_seqs": "many"}, "limits.max_num_seqs = 'many' is not allowed"),
        ({"gpu_memory_utilization": 90}, "limits.gpu_memory_utilization = 90 is not allowed"),
        ({"enable_prefix_caching": 1}, "expected True or False"),
        ({"scheduling_policy": "lpm"}, "allowed: fcfs, priority"),
        ({"weights": (1, 2)}, "expected three numbers"),
        ({"pinned": ["a"]}, "limits.pinned = 'a' is not allowed"),
        ({"drain_after_s": -1}, "limits.drain_after_s = -1 is not allowed"),
        ({"max_model_len": 0}, "limits.max_model_len = 0 is not allowed"),
        ({"max_loras": 1, "--max-loras": 2}, "limits.max_loras is given twice"),
    ],
)
def test_a_wrong_setting_is_one_sentence(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        EngineLimits(**given)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_flag_of_another_engine_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match="limits.chunked_prefill_size is a flag of sglang, not of engine 'vllm'"):
        settings("vllm", chunked_prefill_size=1)
    with pytest.raises(ConfigError, match="limits.gpu_memory_utilization is a flag of vllm, not of engine 'slora'"):
        settings("slora", gpu_memory_utilization=0.5)


def test_two_flags_that_disagree_are_refused() -> None:
    with pytest.raises(ConfigError, match="limits.max_num_batched_tokens and limits.chunked_prefill_size contradict"):
        settings("sglang", max_num_batched_tokens=1, chunked_prefill_size=2)
    assert settings("sglang", max_num_batched_tokens=2, chunked_prefill_size=2) == {"max_num_batched_tokens": 2}


def test_limits_are_values() -> None:
    limits = EngineLimits(max_num_seqs=64, max_loras=None)
    assert limits == EngineLimits(**{"--max-num-seqs": 64}) and hash(limits) == hash(EngineLimits(max_num_seqs=64))
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert repr(limits.but(pinned=[3])) == "EngineLimits(max_num_seqs=64, pinned=(3,))"
    assert limits.but(max_num_seqs=None) == EngineLimits()
    with pytest.raises(AttributeError):
        limits.max_num_seqs = 3  # type: ignore[attr-defined]


def test_every_flag_stands_for_settings_that_graphsim_has() -> None:
    """Or for one of three that only work through others."""
    indirect = {"largest_captured", "most_prompt_tokens", "conservativeness"}
    words = {"scheduling_policy": "fcfs", "schedule_policy": "lpm", "lora_eviction_policy": "fifo"}
    words["capacity_scheduler_policy"] = "MAX_UTILIZATION"
    for table in OF_ENGINES.values():
        for name, flag in table.items():
            for value in (words.get(name, True), 64, 0.5):
                try:
                    checked = flag.check(name, value)
                except ConfigError:
                    continue
                assert set(flag.settings(checked)) <= set(OWN) | indirect, name
