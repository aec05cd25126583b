"""Commands and manifests that start a deployment: the engines' own flags, quoted, as the deployment was simulated."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

import graphsim as gs
from graphsim.cli import main
from graphsim.export.deployment_files import FORMATS
from graphsim.export.deployment_files.flags import SGLANG, SPECULATIVE_CONFIG, TRTLLM, TRTLLM_CONFIG, VLLM
from graphsim.serving.engine_flags import OF_ENGINES

DENSE = gs.Deployment("llama-3.1-70b", "h100-sxm", parallelism=gs.Parallelism(tp=4))
EXPERTS = gs.Deployment("deepseek-v3", "h200-sxm", parallelism=gs.Parallelism(ep=8))
LORA = gs.LoraConfig(rank=20, max_loras=6, target_modules=["attn", "ffn"])
ENGINES = ("vllm", "sglang", "trtllm")
KNOWN = {"vllm": VLLM, "sglang": SGLANG, "trtllm": TRTLLM}
DRAFTS = {
    "model": gs.Speculation(draft="llama-3.1-8b", tokens=3, acceptance=0.7),
    "ngram": gs.Speculation(draft="ngram", tokens=4, acceptance=0.3),
    "none": None,
}


def words(text: str) -> list[str]:
    """The arguments of the command, as a shell reads it."""
    return shlex.split(text.split("END_OF_CONFIG\n")[-1].replace("\\\n", " "))


def config(text: str) -> dict[str, Any]:
    """What the command's configuration file holds."""
    return yaml.safe_load(text.split("END_OF_CONFIG'\n", 1)[1].split("END_OF_CONFIG\n")[0])


def flags(text: str) -> set[str]:
    return {word for word in words(text) if word.startswith("--")}


def value(text: str, flag: str) -> str:
    found = words(text)
    return found[found.index(flag) + 1]


@pytest.mark.parametrize(("engine", "draft"), list(product(ENGINES, DRAFTS)))
def test_every_flag_is_the_engines_own(engine: str, draft: str) -> None:
    lora = replace(DENSE, lora=LORA)
    texts = [
        gs.deployment_file(DENSE, engine, speculation=DRAFTS[draft]),
        gs.deployment_file(lora, engine, adapters={"a": "/adapters/a"}, speculation=DRAFTS[draft]),
        gs.deployment_file(EXPERTS, engine),
    ]
    for text in texts:
        assert flags(text) <= KNOWN[engine].keys(), text
        if engine == "vllm" and "--speculative-config" in text:
            assert json.loads(value(text, "--speculative-config")).keys() <= SPECULATIVE_CONFIG.keys()
        if engine == "trtllm" and "END_OF_CONFIG" in text:
            for name, inner in config(text).items():
                places = [f"{name}.{key}" for key in inner] if isinstance(inner, dict) else [name]
                assert set(places) <= TRTLLM_CONFIG.keys()


def test_every_setting_that_an_engine_has_a_flag_for_is_written() -> None:
    """Those of `EngineLimits`, with a value that its flag takes; the table of sources knows each of them."""
    some = {
        "scheduling_policy": "priority", "schedule_policy": "fcfs", "capacity_scheduler_policy": "MAX_UTILIZATION",
        "lora_eviction_policy": "fifo", "gpu_memory_utilization": 0.8, "mem_fraction_static": 0.8,
        "free_gpu_memory_fraction": 0.8, "schedule_conservativeness": 0.5, "batch_wait_max_tokens_ratio": 0.5,
        "lora_drain_wait_threshold": 3.0, "kv_offloading_backend": "native", "hicache_write_policy": "write_back",
    }  # fmt: skip
    said = {"max_loras_per_batch"}  # by lora=
    for engine in ENGINES:
        for name, flag in OF_ENGINES[engine].items():
            given = some.get(name, 16)
            try:
                flag.check(name, given)
            except gs.ConfigError:
                given = True
            text = gs.deployment_file(DENSE, engine, limits=gs.EngineLimits(**{name: given}))
            if name in said:
                continue
            if engine != "trtllm":
                assert f"--{name.replace('_', '-')}" in flags(text) & KNOWN[engine].keys(), name
            elif f"--{name}" not in flags(text):
                assert any(
                    key.rpartition(".")[2] in (name, name.removeprefix("cuda_graph_")) for key in _places(text)
                ), name


def test_tiers_of_the_cache_are_asked_for_as_each_engine_has_them() -> None:
    def told(engine: str, **limits: Any) -> str:
        return gs.deployment_file(DENSE, engine, limits=gs.EngineLimits(**limits))

    assert value(told("vllm", kv_host=32 * 2**30), "--kv-offloading-size") == "32"
    text = told("sglang", kv_host_ratio=3)
    assert "--enable-hierarchical-cache" in flags(text) and value(text, "--hicache-ratio") == "3"
    assert config(told("trtllm", host_cache_size="64 GB"))["kv_cache_config"] == {"host_cache_size": 64e9}
    with pytest.raises(gs.ConfigError, match="limits.kv_disk = .* has no flag of vllm"):
        told("vllm", kv_disk="1 TB")


def _places(text: str) -> set[str]:
    found = set()
    for name, inner in config(text).items():
        found |= {f"{name}.{key}" for key in inner} if isinstance(inner, dict) else {name}
    assert found <= TRTLLM_CONFIG.keys()
    return found


def test_sources_are_told_of_every_flag() -> None:
    for table in (*KNOWN.values(), SPECULATIVE_CONFIG, TRTLLM_CONFIG):
        assert all(len(source) > 20 and any(char.isdigit() for char in source) for source in table.values())


def test_degrees_are_those_of_the_deployment() -> None:
    assert value(gs.deployment_file(DENSE, "vllm"), "--tensor-parallel-size") == "4"
    assert value(gs.deployment_file(DENSE, "sglang"), "--tp-size") == "4"
    assert value(gs.deployment_file(DENSE, "trtllm"), "--tp_size") == "4"
    vllm, sglang, trtllm = (gs.deployment_file(EXPERTS, engine) for engine in ENGINES)
    assert (value(vllm, "--data-parallel-size"), "--enable-expert-parallel" in vllm) == ("8", True)
    assert "--tensor-parallel-size" not in vllm
    assert [value(sglang, flag) for flag in ("--tp-size", "--dp-size", "--ep-size")] == ["8", "8", "8"]
    assert "--enable-dp-attention" in sglang
    assert [value(trtllm, flag) for flag in ("--tp_size", "--ep_size")] == ["8", "8"]
    assert config(trtllm)["enable_attention_dp"] is True


def test_adapters_have_the_slots_and_the_rank_that_were_simulated() -> None:
    served = replace(DENSE, lora=LORA)
    text = gs.deployment_file(served, "vllm", adapters={"sql": "/adapters/sql", "chat": "org/chat"})
    assert [value(text, flag) for flag in ("--max-loras", "--max-lora-rank")] == ["6", "32"]  # a rank that vLLM takes
    found = words(text)
    assert found[found.index("--lora-modules") + 1 :][:2] == ["sql=/adapters/sql", "chat=org/chat"]
    text = gs.deployment_file(served, "sglang")
    assert [value(text, flag) for flag in ("--max-loras-per-batch", "--max-lora-rank")] == ["6", "20"]
    assert value(text, "--lora-target-modules") == "all"
    text = gs.deployment_file(served, "trtllm", adapters={"sql": "/adapters/sql"})
    assert config(text)["lora_config"]["max_loras"] == 6


def test_drafts_are_named_in_each_engines_words() -> None:
    text = gs.deployment_file(DENSE, "vllm", speculation=DRAFTS["model"])
    assert json.loads(value(text, "--speculative-config")) == {
        "method": "draft_model", "model": "meta-llama/Llama-3.1-8B", "num_speculative_tokens": 3,
    }  # fmt: skip
    text = gs.deployment_file(DENSE, "sglang", speculation=DRAFTS["model"])
    assert value(text, "--speculative-algorithm") == "STANDALONE"
    assert value(text, "--speculative-num-draft-tokens") == "4"  # SGLang counts the verified rows
    mtp = gs.Speculation(draft="mtp", tokens=1, acceptance=0.9)
    assert value(gs.deployment_file(EXPERTS, "sglang", speculation=mtp), "--speculative-algorithm") == "NEXTN"
    assert config(gs.deployment_file(EXPERTS, "trtllm", speculation=mtp))["speculative_config"] == {
        "decoding_type": "MTP", "num_nextn_predict_layers": 1,
    }  # fmt: skip
    none = gs.Speculation(draft="ngram", tokens=0, acceptance=0.5)
    assert gs.deployment_file(DENSE, "vllm", speculation=none) == gs.deployment_file(DENSE, "vllm")


def test_formats_are_those_of_the_checkpoint_or_said() -> None:
    assert "--quantization" not in gs.deployment_file(DENSE, "vllm")
    narrow = replace(DENSE, precision=gs.load_precision("fp8,kv=fp8"))
    assert value(gs.deployment_file(narrow, "vllm"), "--quantization") == "fp8"
    assert value(gs.deployment_file(narrow, "sglang"), "--kv-cache-dtype") == "fp8_e4m3"
    own = gs.deployment_file(narrow, "vllm", model_id="org/Llama-3.1-70B-FP8")
    assert "--quantization" not in own and "org/Llama-3.1-70B-FP8" in own
    assert "--quantization" not in gs.deployment_file(EXPERTS, "vllm")  # published in fp8
    with pytest.raises(gs.ConfigError, match="give model_id="):
        gs.deployment_file(replace(DENSE, precision=gs.load_precision("nvfp4")), "vllm")
    with pytest.raises(gs.ConfigError, match="does not quantise a checkpoint"):
        gs.deployment_file(narrow, "trtllm")


def test_manifests_are_documents_that_say_the_same() -> None:
    text = gs.deployment_file(replace(DENSE, lora=LORA), "kubernetes", replicas=3, port=9000, name="chat")
    assert "&" not in text and "*" not in text
    made, service = yaml.safe_load_all(text)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert made["kind"] == "Deployment" and service["kind"] == "Service"
    assert made["spec"]["replicas"] == 3
    assert container["command"] == words(gs.deployment_file(replace(DENSE, lora=LORA), "vllm", port=9000))
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"] == 9000
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    copies = replace(DENSE, parallelism=gs.Parallelism(tp=4, dp=2))
    assert next(yaml.safe_load_all(gs.deployment_file(copies, "kubernetes")))["spec"]["replicas"] == 2


def test_a_configuration_file_goes_into_a_config_map() -> None:
    served = replace(EXPERTS, engine="trtllm")
    held, made, _ = yaml.safe_load_all(gs.deployment_file(served, "kubernetes", image="registry/trtllm:1"))
    assert yaml.safe_load(held["data"]["config.yaml"]) == config(gs.deployment_file(served, "trtllm"))
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[-2] == "--config" and command[-1].endswith("/config.yaml")


def test_names_are_quoted_and_never_read_as_shell_or_yaml() -> None:
    odd = 'org/it\'s $(rm -rf x); `y` "z": - #'
    text = gs.deployment_file(DENSE, "vllm", model_id=odd)
    assert words(text)[2] == odd
    made = next(yaml.safe_load_all(gs.deployment_file(DENSE, "kubernetes", model_id=odd)))
    assert made["spec"]["template"]["spec"]["containers"][0]["command"][2] == odd
    served = replace(DENSE, lora=LORA)
    assert f"{odd}={odd}" in words(gs.deployment_file(served, "sglang", adapters={odd: odd}))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"format": "helm"}, "format = 'helm' is not known"),
        ({"format": "sglang", "engine": "vllm"}, "format = 'sglang' is not allowed for engine 'vllm'"),
        ({"engine": "peft", "format": "kubernetes"}, "has no command to start"),
        ({"model_id": "a\nb"}, "expected a name or a path in one line"),
        ({"model_id": "--host"}, "reads like a flag"),
        ({"adapters": {"a": "/x"}}, "the deployment has no LoraConfig"),
        ({"lora": LORA, "adapters": {"a=b": "/x"}}, "expected one without '='"),
        ({"lora": replace(LORA, strategy="merge")}, "lora.strategy = merge has no flag"),
        ({"lora": LORA, "format": "trtllm"}, "give adapters="),
        ({"replicas": 0}, "replicas = 0 is not allowed"),
        ({"port": 70000}, "port = 70000 is not allowed"),
        ({"format": "kubernetes", "name": "Not A Label"}, "name = 'Not A Label' is not allowed"),
        ({"limits": gs.EngineLimits(chunked_prefill_size=512)}, "chunked_prefill_size is a flag of sglang"),
        ({"limits": gs.EngineLimits(kv_tokens=512)}, "limits.kv_tokens = 512 has no flag of vllm"),
        ({"parallelism": gs.Parallelism(tp=4, ep=2)}, "parallelism.ep = 2 with tp = 4 has no flag"),
        ({"format": "kubernetes", "parallelism": gs.Parallelism(tp=8, pp=2)}, "16 devices spans several nodes"),
        ({"format": "kubernetes", "hardware": "mi300x"}, "image is missing"),
        ({"speculation": "ngram"}, "is not a Speculation"),
        ({"rows": {"model": "llama-3.1-8b"}}, "the row has no column hardware, engine, tp"),
        ({"rows": 3}, "deployment = 3 is neither a Deployment nor a row"),
    ],
)
def test_what_no_engine_has_a_flag_for_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    names = ("engine", "lora", "parallelism", "hardware")
    model = "mixtral-8x7b" if "parallelism" in given else "llama-3.1-8b"
    described = {"hardware": "h100-sxm"} | {name: given.pop(name) for name in names if name in given}
    rows = given.pop("rows", None)
    deployment = gs.Deployment(model, **described) if rows is None else rows
    with pytest.raises(gs.ConfigError) as raised:
        gs.deployment_file(deployment, **{"format": "vllm", **given})
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_winner_of_a_search_is_started_as_it_was_simulated() -> None:
    table = gs.best(
        "llama-3.1-8b", "h100-sxm", "tokens_per_s", tp=[1, 2], precision=["bf16", "fp8"], batch=8, rank=8,
        engine="sglang",
    )  # fmt: skip
    started_as(gs.deployment_file(table.iloc[0]), table.iloc[0])


def test_a_row_of_a_table_is_started_as_it_was_simulated() -> None:
    table = gs.sweep("llama-3.1-8b", "h100-sxm", tp=2, precision="fp8", rank=8, engine="sglang")
    started_as(gs.deployment_file(table.iloc[0]), table.iloc[0])
    started_as(gs.deployment_file(table.to_dict("records")[0]), table.iloc[0])


def started_as(text: str, row: Any) -> None:
    """The command says what the row does."""
    assert words(text)[:3] == ["python", "-m", "sglang.launch_server"]
    assert ("--quantization" in text) == (row["precision"] == "fp8")
    assert ("--tp-size" in text) == (row["tp"] > 1)
    assert value(text, "--max-lora-rank") == "8"


def test_the_command_line_prints_and_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["export", "llama-3.1-8b", "--hardware", "h100-sxm", "--lora", "rank=16,max_loras=4"]
    command = [*base, "--format", "vllm", "--max-num-seqs", "64", "--adapter", "a=/x"]
    assert main(command) in (0, None)
    printed = capsys.readouterr().out
    assert value(printed, "--max-num-seqs") == "64" and "a=/x" in words(printed)
    assert main([*command, "--to", str(tmp_path / "start.sh")]) in (0, None)
    assert (tmp_path / "start.sh").read_text() == printed
    capsys.readouterr()
    assert main([*command, "--json"]) in (0, None)
    assert json.loads(capsys.readouterr().out)["text"] == printed
    for wrong in (["--replicas", "2", "--to", str(tmp_path / "x.dot")], ["--max-num-seqs", "4", "--to", "x.dot"], []):
        assert main([*base, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_all_formats_are_listed() -> None:
    assert (*ENGINES, "kubernetes") == FORMATS
