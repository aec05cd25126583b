"""Which engine answers where none is named, and that every answer names it."""

from __future__ import annotations

import json

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.graph import walk

MODEL, DEVICE, LORA = "qwen3-0.6b", "h100-sxm", gs.LoraConfig(rank=8)


def test_what_states_a_time_or_a_memory_is_of_vllm() -> None:
    estimate = gs.simulate(MODEL, DEVICE, 2, 100, 4)
    assert estimate.engine == estimate.to_dict()["settings"]["engine"] == "vllm"
    assert estimate.ttft_s == gs.simulate(MODEL, DEVICE, 2, 100, 4, engine="vllm").ttft_s
    assert gs.sweep(MODEL, DEVICE, batch=[1, 2])["engine"].tolist() == ["vllm", "vllm"]
    assert gs.best(MODEL, DEVICE, batch=[1, 2])["engine"].tolist()[0] == "vllm"
    assert set(gs.compare_lora(MODEL, DEVICE, 2, lora=LORA)["engine"]) == {"vllm"}
    assert gs.footprint(MODEL, DEVICE).engine == "vllm"
    step, asked = gs.compile_step(MODEL, DEVICE), {"prompt_tokens": 100}
    assert step(**asked) == gs.compile_step(MODEL, DEVICE, engine="vllm")(**asked)


def test_so_is_a_deployment_that_leaves_it_to_the_verb() -> None:
    silent = gs.Deployment(MODEL, DEVICE)
    assert gs.simulate(silent, batch=2).engine == "vllm"
    assert gs.sweep([silent, gs.Deployment(MODEL, DEVICE, engine="sglang")])["engine"].tolist() == ["vllm", "sglang"]


def test_graphs_and_counts_are_the_lora_document_s() -> None:
    silent, named = (
        gs.to_text(gs.build_graph(MODEL, "decode", lora=LORA, **engine))  # type: ignore[arg-type]
        for engine in ({}, {"engine": "reference"})
    )
    kinds = {op.op_type.name for _, op, _ in walk(gs.build_graph(MODEL, "decode", lora=LORA))}
    assert silent == named and {"GEMM_LORA_A", "GEMM_LORA_B", "ADD"} <= kinds
    assert gs.estimate_end_to_end_performance(MODEL, system_name=DEVICE)["engine"] == "reference"


def test_titles_and_tables_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "engine vllm" in gs.explain(gs.simulate(MODEL, DEVICE)).title
    for command in (["run", MODEL], ["lora", MODEL], ["sweep", MODEL], ["best", MODEL], ["explain", MODEL]):
        assert main([*command, "--hardware", DEVICE]) == 0
        assert "vllm" in capsys.readouterr().out, command[0]
    assert main(["run", MODEL, "--hardware", DEVICE, "--engine", "trtllm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["engine"] == "trtllm" and found["engine_time"]["request_s"] > 0


def test_what_vllm_cannot_run_is_a_note_where_no_engine_was_named() -> None:
    with pytest.raises(gs.InfeasibleError, match="engine 'vllm'"):
        gs.simulate("bart-large", DEVICE, engine="vllm")
    for notes in (gs.simulate("bart-large", DEVICE, **named).notes for named in ({}, {"engine": "reference"})):
        assert any("breaks a rule of serving engines" in note for note in notes)
