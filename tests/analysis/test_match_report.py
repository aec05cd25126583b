"""The report of matched modules names every module that gets an adapter, and counts what the graph counts."""

from __future__ import annotations

import json

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.lora.variants import known

MODELS = ("llama-3.1-8b", "mixtral-8x7b", "gpt-2", "qwen2.5-7b")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("targets", ["all-linear", ("attn",)])
def test_parameters_add_up_to_the_adapters(model: str, targets: object) -> None:
    lora = gs.LoraConfig(rank=8, target_modules=targets)  # type: ignore[arg-type]
    report = gs.match_report(model, lora)
    assert report.parameters.sum() == gs.lora_parameters(model, lora)
    assert (report.parameters.gt(0) == report.matched).all()


def test_rows_are_paths_with_the_sizes_of_grouped_query_attention() -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"], layers_to_transform=[3])
    report = gs.match_report("llama-3.1-8b", lora).set_index("module")
    hit = report[report.matched]
    assert list(hit.index) == ["model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.v_proj"]
    assert list(hit.out_features) == [4096, 1024]
    assert len(report) == 32 * 7 + 2  # seven projections each, the embedding and the output head


def test_a_rank_pattern_shows_in_its_rows() -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj"], rank_pattern={r"layers\.0\.self_attn\.q_proj": 64})
    ranks = gs.match_report("llama-3.1-8b", lora).query("matched")["rank"]
    assert list(ranks) == [64] + [16] * 31


def test_unknown_targets_raise_here_too() -> None:
    with pytest.raises(gs.ConfigError, match="'q_prj'.* matches no module .* did you mean 'q_proj'"):
        gs.match_report("llama-3.1-8b", gs.LoraConfig(target_modules=["q_prj"]))


def test_the_command_lists_modules_that_are_alike_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["lora", "llama-3.1-8b", "--hardware", "l4", "--lora", "rank=16,targets=q_proj+v_proj", "--modules"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "64 of 226 modules reached, 6,815,744 parameters" in printed
    assert main([*asked, "--json"]) == 0
    assert sum(row["matched"] for row in json.loads(capsys.readouterr().out)) == 64


@pytest.mark.parametrize("variant", known())
@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b"])
def test_parameters_are_what_the_variant_trains(model: str, variant: str) -> None:
    lora = gs.LoraConfig(rank=8, target_modules="all-linear", variant=variant)
    report = gs.match_report(model, lora)
    assert report.parameters.sum() == gs.lora_parameters(model, lora) > 0
    assert (report.parameters.gt(0) == report.matched).all()
    bank = 256 * 256 if variant == "vblora" else 0  # of vectors, which is no module's own
    layers = report[report.module.str.contains(r"layers\.(?:0|31)\.")].parameters
    assert layers.sum() * 16 == report.parameters.sum() - bank


def test_variants_that_train_something_else_show_other_parameters() -> None:
    def first_row(variant: str) -> int:
        lora = gs.LoraConfig(rank=8, target_modules=["q_proj"], variant=variant, group_size=16)
        return int(gs.match_report("llama-3.1-8b", lora).query("matched").parameters.iloc[0])

    factors = 8 * (4096 + 4096)
    assert first_row("lora") == factors
    assert first_row("dora") == factors + 4096
    assert first_row("vera") == 8 + 4096
    assert first_row("qa-lora") == 8 * (4096 // 16 + 4096)


def test_a_deployment_brings_its_own_adapter() -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj"])
    for deployment in (
        gs.Deployment("llama-3.1-8b", lora=lora, engine="reference"),
        gs.Deployment("llama-3.1-8b", "l4", lora=lora, engine="reference"),
    ):
        assert gs.lora_parameters(deployment) == gs.lora_parameters("llama-3.1-8b", lora)
        assert gs.match_report(deployment).equals(gs.match_report("llama-3.1-8b", lora))
    for verb in (gs.lora_parameters, gs.match_report):
        with pytest.raises(gs.ConfigError, match=r"lora given together with a Deployment, which says it already"):
            verb(deployment, lora)
        with pytest.raises(gs.ConfigError, match="lora = None is not a LoraConfig, and .* no adapter of its own"):
            verb(gs.Deployment("llama-3.1-8b", engine="reference"))
