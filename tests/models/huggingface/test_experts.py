"""Mixtures of experts: how many are hit, how they are dealt out, what is exchanged."""

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import total_work, validate, walk
from graphsim.models.huggingface import from_config
from graphsim.ops import ExchangeTokens, ExpertGemm, expected_experts
from tests.paths import hf_configs

CONFIGS = hf_configs()
NAMES = ("default:mixtral", "default:deepseek_v3")


def expert_weights(graph) -> float:
    return sum(float(op.parameters) * times for _, op, times in walk(graph) if isinstance(op, ExpertGemm))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_tokens_are_exchanged_there_and_back_in_every_expert_layer(name: str, phase: str) -> None:
    config = from_config(CONFIGS[name], name)
    graph = gs.build_graph(config, phase, batch=16, input_tokens=128, parallelism=gs.Parallelism(ep=8))
    validate(graph)
    exchanges = sum(times for _, op, times in walk(graph) if isinstance(op, ExchangeTokens))
    expert_layers = sum(times for _, op, times in walk(graph) if isinstance(op, ExpertGemm)) / 2
    assert exchanges == 2 * expert_layers > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "parallelism", [{"ep": 8}, {"tp": 8}, {"tp": 8, "ep": 8}, {"tp": 8, "ep": 2}, {"tp": 2, "ep": 8}]
)
def test_expert_weights_over_all_ranks_equal_the_whole(name: str, parallelism: dict[str, int]) -> None:
    config = from_config(CONFIGS[name], name)
    degrees = gs.Parallelism(**parallelism)
    graph = gs.build_graph(config, "decode", batch=64, input_tokens=16, parallelism=degrees)
    validate(graph)
    whole = expert_weights(gs.build_graph(config, "decode", batch=64, input_tokens=16))
    assert expert_weights(graph) * float(degrees.devices) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("parallelism", [{"ep": 8}, {"tp": 4, "ep": 4}, {"tp": 4, "ep": 2}, {"tp": 2, "ep": 8}])
def test_expert_flops_over_all_ranks_equal_the_whole(parallelism: dict[str, int]) -> None:
    config = from_config(CONFIGS["default:mixtral"], "mixtral")
    degrees = gs.Parallelism(**parallelism)

    def flops(graph) -> float:
        return sum(float(op.work().flops) * times for _, op, times in walk(graph) if isinstance(op, ExpertGemm))

    graph = gs.build_graph(config, "prefill", batch=8, input_tokens=64, parallelism=degrees)
    whole = flops(gs.build_graph(config, "prefill", batch=8, input_tokens=64))
    assert flops(graph) * float(degrees.devices) == pytest.approx(whole, rel=1e-12)


def test_expected_experts_agree_with_drawing_them() -> None:
    rng = np.random.default_rng(0)
    tokens, experts, chosen = 20, 64, 6
    draws = [len({e for _ in range(tokens) for e in rng.choice(experts, chosen, replace=False)}) for _ in range(400)]
    assert expected_experts(tokens, experts, chosen) == pytest.approx(np.mean(draws), rel=0.01)


def test_skewed_routing_hits_fewer_experts_and_never_more_than_there_are() -> None:
    tokens = np.array([1.0, 8.0, 64.0, 10_000.0])
    uniform, skewed = expected_experts(tokens, 64, 6), expected_experts(tokens, 64, 6, skew=1.0)
    assert np.all(skewed <= uniform + 1e-9) and np.all(uniform <= 64) and np.all(np.diff(skewed) > 0)
    assert expected_experts(1.0, 64, 6) == pytest.approx(6)


def test_a_decode_step_reads_only_the_experts_that_are_hit() -> None:
    config = from_config(CONFIGS["default:mixtral"], "mixtral")
    one = total_work(gs.build_graph(config, "decode", batch=1, input_tokens=16)).weight_bytes
    assert one < 0.35 * config.num_parameters * 2
    many = total_work(gs.build_graph(config, "decode", batch=256, input_tokens=16)).weight_bytes
    assert many == pytest.approx(config.num_parameters * 2, rel=0.01)


@pytest.mark.parametrize(("name", "ep", "said"), [("default:llama", 2, "no experts"), ("default:mixtral", 3, "divide")])
def test_impossible_expert_parallelism_is_explained(name: str, ep: int, said: str) -> None:
    config = from_config(CONFIGS[name], name)
    with pytest.raises(gs.ConfigError, match=said):
        gs.build_graph(config, parallelism=gs.Parallelism(ep=ep))
