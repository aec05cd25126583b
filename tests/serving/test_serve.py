"""`gs.serve`: what it takes, what it refuses in one sentence, and that its figures are those of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.serving.serve import serving_of


def traffic(**given: Any) -> gs.Traffic:
    return gs.Traffic.poisson(**{"rate": 5.0, "requests": 60, "input_tokens": 64, "output_tokens": 16, **given})


@pytest.fixture(scope="module")
def deployment() -> gs.Deployment:
    return gs.Deployment("gpt-2", "l4", lora=gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=2))


@pytest.mark.slow
def test_a_deployment_stands_for_its_parts() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["attn"], max_loras=2)
    asked = traffic(adapters=3)
    apart = gs.serve("gpt-2", "l4", asked, lora=lora, engine="vllm-0.11")
    whole = gs.serve(gs.Deployment("gpt-2", "l4", lora=lora, engine="vllm-0.11"), asked)
    assert whole.summary() == apart.summary()
    assert whole.engine == "vllm-0.11" and whole.model == "gpt-2" and whole.hardware == "l4"
    assert whole.summary()["completed"] == 60 and len(whole.requests) == 60
    assert whole.adapter_names == ("adapter-0", "adapter-1", "adapter-2")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(deployment: gs.Deployment) -> None:
    one, other, third = (gs.serve(deployment, traffic(adapters=4, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.log.finished_s, other.log.finished_s)
    assert not np.array_equal(one.log.finished_s, third.log.finished_s)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"view_age_s": -1.0}, "view_age_s = -1.0 is not allowed"),
        ({"scaling": 4}, "scaling = 4 is not a Scaling"),
        ({"replicas": 0}, "replicas = 0 is not allowed"),
        ({"prefill_replicas": -1}, "prefill_replicas = -1 is not allowed"),
        ({"prefill_replicas": 1, "view_age_s": 2.0}, "view_age_s is not simulated together with prefill_replicas"),
        ({"speculation": object()}, "is not a Speculation"),
        ({"router": "luck"}, "router = 'luck' is not known; allowed: adapter-affinity, dynamo"),
        ({"limits": {"max_num_seqs": 4}}, "is not an EngineLimits"),
        ({"strategy": "magic"}, "magic"),
        ({"host": {"luck": 1.0}}, "constant 'luck' is not known"),
        ({"limits": gs.EngineLimits(chunked_prefill_size=512)}, "chunked_prefill_size is a flag of sglang"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(deployment: gs.Deployment, given: dict[str, Any], words: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        gs.serve(deployment, traffic(adapters=2), **given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_traffic_is_asked_for(deployment: gs.Deployment) -> None:
    with pytest.raises(gs.ConfigError, match="serve: traffic is missing"):
        gs.serve("gpt-2", "l4")
    with pytest.raises(gs.ConfigError, match="traffic = 5 is not a Traffic"):
        gs.serve("gpt-2", "l4", 5)  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match="traffic is given twice"):
        gs.serve(deployment, traffic(), traffic())


@pytest.mark.slow
def test_adapters_without_a_config_are_common_ones() -> None:
    served = gs.serve("gpt-2", "l4", traffic(adapters=2))
    assert any("rank 16 on attention and MLP" in note for note in served.notes)
    assert any(note.startswith("max_loras = 1, as engine vllm starts") for note in served.notes)
    ranked = serving_of("gpt-2", "l4", traffic(adapters=2, ranks="8/32"))
    assert ranked.deployment.lora is not None and ranked.deployment.lora.rank == 32


def test_a_rank_beyond_the_slots_is_refused() -> None:
    lora = gs.LoraConfig(rank=8, max_lora_rank=16, max_loras=2)
    with pytest.raises(gs.ConfigError, match=r"rank 64 does not fit in slots of max_lora_rank 16; allowed: up to 16"):
        gs.serve("gpt-2", "l4", traffic(adapters=2, ranks="8/64"), lora=lora)
    with pytest.raises(gs.ConfigError, match=r"rank 32 does not fit in slots of max_lora_rank 16"):
        gs.serve("gpt-2", "l4", traffic(adapters=2, ranks=32), lora=gs.LoraConfig(rank=32), limits=gs.EngineLimits(
            max_lora_rank=16
        ))  # fmt: skip


@pytest.mark.slow
def test_more_slots_than_adapters_is_a_note_and_none_at_all_another(deployment: gs.Deployment) -> None:
    many = replace(deployment, lora=replace(deployment.lora, max_loras=4))  # type: ignore[type-var]
    assert any(
        "4 slots are more than the 2 registered adapters" in n for n in gs.serve(many, traffic(adapters=2)).notes
    )
    assert any("no request of this traffic has an adapter" in note for note in gs.serve(many, traffic()).notes)


@pytest.mark.slow
def test_prompts_beyond_the_model_are_refused_or_noted(deployment: gs.Deployment) -> None:
    with pytest.raises(gs.ConfigError, match=r"every request has 5,016 tokens or more.*'gpt-2' has 1,024 positions"):
        gs.serve(deployment, traffic(input_tokens=5000))
    served = gs.serve(deployment, traffic(input_tokens=[64, 64, 64, 2000]))
    assert any("are longer than max_model_len = 1,024 tokens" in note for note in served.notes)
    assert set(served.requests["status"].astype(str)) == {"finished", "too long"}


def test_no_adapters_is_the_base_model(deployment: gs.Deployment) -> None:
    """Slots take memory, but their kernels are not run for a batch without adapters, or cost what the engine says."""
    base = gs.serve(replace(deployment, lora=None), traffic())
    again = gs.serve("gpt-2", "l4", traffic())
    assert base.summary() == again.summary()


@pytest.mark.slow
def test_limits_change_the_rules(deployment: gs.Deployment) -> None:
    served = gs.serve(deployment, traffic(adapters=2), limits=gs.EngineLimits(max_num_seqs=3, max_loras=1))
    assert served.rules.max_num_seqs == 3 and served.rules.adapters.max_loras == 1
    assert served.steps["batch"].max() <= 3


@pytest.mark.slow
def test_constants_of_the_host_move_the_run() -> None:
    usual = gs.serve("gpt-2", "l4", traffic())
    later = gs.serve("gpt-2", "l4", traffic(), host={"request_s": 0.5})
    slower = gs.serve("gpt-2", "l4", traffic(), host={"step_factor": 2.0})
    assert later.summary()["median_ttft_ms"] == pytest.approx(usual.summary()["median_ttft_ms"] + 500.0, rel=0.05)
    assert slower.summary()["mean_itl_ms"] > 1.8 * usual.summary()["mean_itl_ms"]


@pytest.mark.slow
def test_an_interval_repeats_the_run_with_longer_steps() -> None:
    served = gs.serve("gpt-2", "l40s", traffic())
    low, high = served.interval("mean_tpot_ms")
    assert low < served.summary()["mean_tpot_ms"] < high


@pytest.mark.slow
def test_progress_and_an_interruption_give_what_was_simulated_so_far() -> None:
    calls: list[tuple[float, int]] = []

    def progress(seconds: float, ended: int) -> None:
        calls.append((seconds, ended))
        if ended:
            raise KeyboardInterrupt

    served = gs.serve("gpt-2", "l4", traffic(requests=50_000), progress=progress)
    assert served.log.interrupted and calls[-1][1] > 0
    assert 0 < served.summary()["completed"] < 50_000 and served.log.end_s >= calls[-1][0]


@pytest.mark.slow
def test_rows_go_to_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    served = gs.serve("gpt-2", "l4", traffic(), rows=tmp_path / "rows")
    rows = pd.read_parquet(tmp_path / "rows" / "requests.parquet")
    assert len(rows) == 60 and np.allclose(rows["e2e_s"], served.requests["e2e_s"])
