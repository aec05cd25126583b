"""What `gs.fit` says fits does fit by the estimate's own memory, and one more does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import graphsim as gs
from graphsim.analysis.placements import COUNTS
from graphsim.cli import main

ASKED: dict[str, dict[str, Any]] = {
    "small": {"model": "gpt-2", "hardware": "l4"},
    "with adapters": {
        "model": "llama-3.1-8b", "hardware": "l40s", "batch": 8, "lora": gs.LoraConfig(rank=64, max_loras=4)
    },
    "over stages": {
        "model": "llama-3.1-8b", "hardware": "l4", "batch": 4, "input_tokens": 1000,
        "parallelism": gs.Parallelism(tp=2, pp=2),
    },
    "whole prompts": {"model": "llama-3.2-1b", "hardware": "l4", "engine": "reference", "batch": 3},
}  # fmt: skip


def memory(asked: dict[str, Any], **changed: Any) -> Any:
    return gs.simulate(**{**asked, **changed}).memory


@pytest.fixture(scope="module", params=ASKED)
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ASKED[request.param]


@pytest.fixture(scope="module")
def found(asked: dict[str, Any]) -> gs.Fit:
    return gs.fit(**asked)


@pytest.mark.slow
def test_the_memory_is_the_estimates(asked: dict[str, Any], found: gs.Fit) -> None:
    assert found.memory.to_dict() == memory(asked).to_dict()
    assert found.fits and found.remedies == ()


@pytest.mark.slow
def test_the_largest_batch_fits_and_one_more_does_not(asked: dict[str, Any], found: gs.Fit) -> None:
    assert memory(asked, batch=found.max_batch).fits
    assert not memory(asked, batch=found.max_batch + 1).fits


@pytest.mark.slow
def test_the_longest_context_fits_and_one_more_token_does_not(asked: dict[str, Any], found: gs.Fit) -> None:
    prompt = found.context_tokens - 128
    assert memory(asked, input_tokens=prompt).fits
    if found.context_tokens < found.max_positions:
        assert not memory(asked, input_tokens=prompt + 1).fits
    else:
        assert found.context_tokens == gs.load_model(asked["model"]).max_positions


@pytest.mark.slow
def test_so_many_adapters_have_room_and_one_more_has_not(asked: dict[str, Any], found: gs.Fit) -> None:
    adapter = asked.get("lora") or gs.LoraConfig()
    assert memory(asked, lora=replace(adapter, max_loras=found.adapters)).fits
    assert not memory(asked, lora=replace(adapter, max_loras=found.adapters + 1)).fits


@pytest.mark.slow
def test_the_tokens_of_the_cache_are_the_footprints(asked: dict[str, Any], found: gs.Fit) -> None:
    kept = {name: value for name, value in asked.items() if name not in ("batch", "input_tokens", "engine")}
    assert found.kv_tokens == gs.footprint(**kept, engine=asked.get("engine")).kv_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "hardware", "batch"), [("llama-3.1-8b", "l4", 32), ("llama-3.1-70b", "h100-sxm", 16)]
)
def test_the_fewest_devices_hold_it_and_fewer_do_not(model: str, hardware: str, batch: int) -> None:
    found = gs.fit(model, hardware, batch, 2000)
    assert not found.fits and found.devices is not None and found.devices > 1
    for degrees in found.degrees:
        assert gs.simulate(model, hardware, batch, 2000, parallelism=degrees).memory.fits
    for count in (each for each in COUNTS if each < found.devices):
        for tp in (each for each in range(1, count + 1) if count % each == 0):
            try:
                cut = gs.simulate(model, hardware, batch, 2000, parallelism=gs.Parallelism(tp=tp, pp=count // tp))
            except gs.InfeasibleError:
                continue
            assert not cut.memory.fits
    assert any(degrees.pp == 1 for degrees in found.degrees)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "hardware", "changed"),
    [
        ("llama-3.1-8b", "l4", {"batch": 32, "input_tokens": 2000}),
        ("mixtral-8x7b", "h100-sxm", {}),
        ("llama-3.1-8b", "l4", {"lora": gs.LoraConfig(rank=64, max_loras=64, active_adapters=8), "batch": 8}),
    ],
)
def test_every_change_that_would_help_does(model: str, hardware: str, changed: dict[str, Any]) -> None:
    found = gs.fit(model, hardware, **changed)
    assert not found.fits and len(found.remedies) > 1
    for remedy in found.remedies:
        assert remedy.memory.fits, remedy.flags
        requests = remedy.requests
        estimate = gs.simulate(
            remedy.deployment, batch=requests.batch, input_tokens=requests.input_tokens,
            output_tokens=requests.output_tokens,
        )  # fmt: skip
        assert estimate.memory.fits, remedy.flags
    assert all(remedy.flags in found.would_fit for remedy in found.remedies)


def test_arrays_of_scenarios_have_no_single_answer() -> None:
    with pytest.raises(gs.ConfigError, match="one scenario"):
        gs.fit("gpt-2", "l4", batch=[1, 2])


@pytest.mark.slow
def test_the_command_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "llama-3.1-8b", "--hardware", "l4", "--batch", "32", "--input", "2k"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = gs.fit("llama-3.1-8b", "l4", 32, 2000)
    assert document["remedies"] == [remedy.flags for remedy in expected.remedies]
    assert document["devices"] == expected.devices and document["fits"] is False
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"would fit {expected.would_fit}" in printed and "largest batch" in printed
    assert str(expected).splitlines()[0] in printed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "lora"])
def test_what_does_not_fit_says_what_would(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, "mixtral-8x7b", "--hardware", "h100-sxm"]
    assert main(words) == 0
    assert "would fit on 2 devices with --tp 2, or with --precision " in capsys.readouterr().out
    assert main([*words, "--tp", "2"]) == 0
    assert "would fit" not in capsys.readouterr().out
