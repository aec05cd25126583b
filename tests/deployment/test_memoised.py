"""What a deployment remembers of itself, and what it must not."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.arguments import inference_of
from graphsim.deployment.memoised import Memoised
from graphsim.deployment.refusals import require_runs
from graphsim.deployment.scenarios import scenarios_in
from graphsim.files import catalog

asked: list[tuple[str, int]] = []


@dataclass(frozen=True, eq=False)
class Thing(Memoised):
    name: str


def times(thing: Thing, factor: int = 1) -> str:
    asked.append((thing.name, factor))
    return thing.name * factor


def test_a_function_is_asked_once_for_each_object_and_each_part() -> None:
    asked.clear()
    one, other = Thing("a"), Thing("b")
    assert [one.once(times), one.once(times), one.once(times, 2), one.once(times, 2)] == ["a", "a", "aa", "aa"]
    assert other.once(times) == "b"
    assert asked == [("a", 1), ("a", 2), ("b", 1)]


def test_copies_remember_nothing() -> None:
    one = Thing("a")
    one.once(times)
    asked.clear()
    copies = [copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)), replace(one)]  # noqa: S301 - our own
    assert [each.once(times) for each in copies] == ["a"] * 4
    assert len(asked) == 4


def test_a_changed_deployment_answers_for_itself() -> None:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm", lora=gs.LoraConfig(rank=16))
    gs.simulate(deployment)
    too_large = replace(deployment, lora=gs.LoraConfig(rank=1024))
    with pytest.raises(gs.InfeasibleError, match="max_lora_rank"):
        gs.simulate(too_large)
    with pytest.raises(gs.InfeasibleError, match="max_lora_rank"):
        gs.simulate(too_large)
    gs.simulate(deployment)


def test_arrays_are_looked_at_every_time() -> None:
    ranks = gs.LoraConfig(rank=[16, 32])
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm", lora=ranks)
    require_runs(deployment)
    assert isinstance(ranks.rank, np.ndarray)
    ranks.rank[1] = 1024.0
    with pytest.raises(gs.InfeasibleError, match="1024"):
        require_runs(deployment)


def test_lengths_of_a_deployment_meet_those_of_requests_at_every_call() -> None:
    deployment = gs.Deployment("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=[8, 16]))
    assert scenarios_in(deployment) == scenarios_in(deployment, deployment) == 2
    assert len(gs.simulate(deployment, batch=[1, 2]).tpot_s) == 2
    with pytest.raises(gs.ConfigError, match="differ in length: 2, 3"):
        gs.simulate(deployment, batch=[1, 2, 3])


@pytest.mark.parametrize("degrees", [{"tp": [1, 2], "ep": [1, 2, 4]}, {"dp": [2, 4], "shard_group": [1, 2, 4]}])
def test_degrees_of_different_lengths_are_told(degrees: dict[str, list[int]]) -> None:
    with pytest.raises(gs.ConfigError, match="arrays over scenarios differ in length: 2, 3"):
        gs.Parallelism(**degrees)  # type: ignore[arg-type]


def test_names_mean_the_same_deployment_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = catalog.find_file("hardware", "h100-sxm").read_text()
    file = tmp_path / "hardware" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(shipped)
    monkeypatch.setenv("GRAPHSIM_PATH", str(tmp_path))
    first, again = (inference_of("llama-3.1-8b", "mine").deployment for _ in range(2))
    assert first is again
    file.write_text(shipped.replace("80 GiB, ", "40 GiB, ").replace("79.18 GiB, ", "39 GiB, "))
    os.utime(file, ns=(1, 1))
    assert float(inference_of("llama-3.1-8b", "mine").hardware.memory_bytes) == 40 * 2**30
    assert float(first.device.memory_bytes) == 80 * 2**30


def test_a_model_whose_adapter_is_assigned_is_another_deployment() -> None:
    model = gs.load_model("llama-3.1-8b")
    assert inference_of(model, "h100-sxm").deployment.adapter is None
    model.lora_config = gs.LoraConfig(rank=4)
    found = inference_of(model, "h100-sxm").deployment.adapter
    assert found is not None and found.rank == 4


def test_lists_that_change_behind_an_adapter_change_nothing() -> None:
    targets = ["q_proj"]
    lora = gs.LoraConfig(target_modules=targets, blocks_a=targets, modules_to_save=targets)
    targets.append("v_proj")
    assert (lora.target_modules, lora.blocks_a, lora.modules_to_save) == (("q_proj",), ("q_proj",), ("q_proj",))
