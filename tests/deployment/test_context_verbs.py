"""The degree of context parallelism in every verb and command that takes degrees, with as many devices behind it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml

import graphsim as gs
from graphsim.cli import main
from graphsim.export.deployment_files.flags import SGLANG, VLLM

LONG = {"input_tokens": 16384, "output_tokens": 32}
ASKED = ["--hardware", "h100-sxm", "--input", "16384", "--output", "32", "--json"]


def shared(cp: int, model: str = "llama-3.2-1b", **described: Any) -> gs.Deployment:
    degrees = {name: described.pop(name) for name in ("tp", "ep", "dp") if name in described}
    return gs.Deployment(model, "h100-sxm", parallelism=gs.Parallelism(cp=cp, **degrees), **described)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert not main([*words])
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_sweep_s_rows_are_single_simulations_with_a_column_of_their_own() -> None:
    frame = gs.sweep("llama-3.2-1b", "h100-sxm", cp=[1, 2, 4], tp=[1, 2], **LONG)
    assert len(frame) == 6 and "cp" not in gs.sweep("llama-3.2-1b", "h100-sxm")
    for row in frame.to_dict("records"):
        alone = gs.simulate(shared(row["cp"], tp=row["tp"]), **LONG)
        assert row["ttft_s"] == pytest.approx(float(alone.ttft_s), rel=1e-9)
        assert row["memory_bytes"] == pytest.approx(float(alone.memory.total_bytes))


@pytest.mark.slow
def test_ranks_count_as_devices_where_the_best_is_looked_for() -> None:
    found = gs.best("llama-3.2-1b", "h100-sxm", "ttft", cp="1,2,4", tp=2, **LONG)
    assert list(found["cp"]) == [4, 2, 1] and list(found["devices"]) == [8, 4, 2]
    mixed = gs.best([shared(1), shared(4)], goal="ttft", **LONG)
    assert list(mixed["devices"]) == [4, 1]


@pytest.mark.slow
def test_what_ranks_cannot_share_is_a_row_with_a_reason() -> None:
    (reason,) = gs.sweep("mamba-2.8b", "h100-sxm", cp=2)["reason"]
    assert "parallelism.cp = 2 is not allowed: CausalConv passes a state" in reason


@pytest.mark.slow
def test_a_fit_keeps_the_ranks_and_names_them() -> None:
    found = gs.fit(shared(2), batch=4, **LONG)
    alone = gs.fit(shared(1), batch=4, **LONG)
    assert found.devices == 2 and found.to_dict()["degrees"] == [{"tp": 1, "pp": 1, "cp": 2}]
    assert "2 devices with --cp 2" in str(found) and "cp" not in alone.to_dict()["degrees"][0]
    assert 1.9 < found.kv_tokens / alone.kv_tokens < 2.1


@pytest.mark.slow
def test_a_server_keeps_as_many_times_the_tokens_and_reads_prompts_sooner() -> None:
    traffic = gs.Traffic.poisson(rate=1.0, input_tokens=16384, output_tokens=32, requests=30, seed=1)
    one, four, copies = (
        gs.serve(shared(cp, engine=engine), traffic=traffic) for cp, engine in ((1, "vllm"), (4, "vllm"), (4, "sglang"))
    )
    kept, more, copied = (found.rules.kv_blocks * found.rules.block_tokens for found in (one, four, copies))
    assert 3.9 < more / kept < 4.2 and 0.8 < copied / kept < 1.2
    assert four.interval("mean_ttft_ms")[1] < one.interval("mean_ttft_ms")[0]


@pytest.mark.slow
def test_the_commands_take_it_as_they_take_tp(capsys: pytest.CaptureFixture[str]) -> None:
    ran = printed(capsys, "run", "llama-3.2-1b", *ASKED, "--cp", "4")
    assert ran["ttft_s"] == pytest.approx(float(gs.simulate(shared(4), **LONG).ttft_s))
    swept = printed(capsys, "sweep", "llama-3.2-1b", *ASKED, "--cp", "1,4")
    assert [row["cp"] for row in swept] == [1, 4]
    fitted = printed(capsys, "fit", "llama-3.2-1b", *ASKED, "--cp", "2")
    assert fitted["devices"] == 2
    explained = printed(capsys, "explain", "llama-3.2-1b", *ASKED, "--cp", "4", "--against", "cp=1")
    assert "parallelism.cp" in json.dumps(explained)


@pytest.mark.slow
def test_a_fleet_is_sized_over_it() -> None:
    traffic = gs.Traffic.poisson(rate=1.0, input_tokens=8192, output_tokens=16, requests=20, seed=1)
    found = gs.size_fleet(
        "llama-3.2-1b", traffic, {"ttft_s": 5.0}, {"hardware": ["h100-sxm"], "cp": [1, 2], "replicas": [1]}
    )
    assert {(row["cp"], row["devices"]) for row in found.to_dict("records")} == {(1, 1), (2, 2)}


def words(text: str) -> list[str]:
    return shlex.split(text.replace("\\\n", " "))


def value(text: str, flag: str) -> str:
    found = words(text)
    return found[found.index(flag) + 1]


def test_commands_say_it_in_the_engine_s_own_flags() -> None:
    vllm = gs.deployment_file(shared(4, tp=2), "vllm")
    assert (value(vllm, "--tensor-parallel-size"), value(vllm, "--prefill-context-parallel-size")) == ("2", "4")
    assert value(vllm, "--decode-context-parallel-size") == "4"
    sglang = gs.deployment_file(shared(4, tp=2, dp=3), "sglang")
    assert (value(sglang, "--tp-size"), value(sglang, "--attn-cp-size")) == ("8", "4")
    assert value(sglang, "--cp-strategy") == "zigzag" and "--moe-dp-size" not in words(sglang)
    for text, known in ((vllm, VLLM), (sglang, SGLANG)):
        assert {word for word in words(text) if word.startswith("--")} <= set(known)


def test_commands_of_other_models_differ_as_their_caches_and_experts_do() -> None:
    indexed = gs.deployment_file(shared(4, "deepseek-v3.2", tp=8), "vllm")
    assert value(indexed, "--prefill-context-parallel-size") == "4"
    assert "--decode-context-parallel-size" not in words(indexed)
    experts = gs.deployment_file(shared(2, "gpt-oss-20b", tp=2, ep=2), "sglang")
    told = [value(experts, flag) for flag in ("--tp-size", "--moe-dp-size", "--ep-size")]
    assert told == ["4", "2", "2"]
    assert "context" not in gs.deployment_file(shared(1), "vllm") + gs.deployment_file(shared(1), "sglang")


def test_tensorrt_llm_has_no_flag_for_it() -> None:
    with pytest.raises(gs.ConfigError, match="parallelism.cp = 2: trtllm-serve has no context parallelism for prompts"):
        gs.deployment_file(shared(2), "trtllm")


def test_a_manifest_asks_for_all_devices_of_a_server() -> None:
    documents = list(yaml.safe_load_all(gs.deployment_file(shared(4, tp=2), "kubernetes")))
    (container,) = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_flags_of_engines_that_mean_it_are_told_where_to_say_it() -> None:
    with pytest.raises(gs.ConfigError, match=r"gs.Parallelism\(cp=…\)"):
        gs.EngineLimits(prefill_context_parallel_size=4)


def test_drafts_beside_it_are_refused() -> None:
    with pytest.raises(gs.ConfigError, match="parallelism.cp = 2 is not allowed; expected 1, as verifying"):
        gs.simulate(shared(2), speculation=gs.Speculation(draft="ngram", tokens=3, acceptance=0.5))
