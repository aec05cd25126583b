"""`graphsim train`: a step from the command line, its searches, its files, and mistakes in one sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main

TRAIN = ["train", "llama-3.2-1b", "--hardware", "h100-sxm"]
SMALL = [*TRAIN, "--seq-len", "64", "--lora", "rank=8,targets=q_proj+v_proj"]
QUIET = [*SMALL, "--no-advice"]
LORA = gs.LoraConfig(rank=8, target_modules=("q_proj", "v_proj"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str, written: Sequence[Path] = ()) -> str:
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == "".join(f"wrote {path}\n" for path in written)
    return out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(list(arguments))
    except SystemExit as left:
        status = int(left.code or 0)
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.count("\n") == 1
    return err


def test_it_prints_what_train_returns(capsys: pytest.CaptureFixture[str]) -> None:
    degrees = ["--dp", "2", "--accumulate", "2", "--batch", "3"]
    found = json.loads(told(capsys, *QUIET, *degrees, "--recompute", "full", "--json"))
    step = gs.train(
        "llama-3.2-1b", "h100-sxm", batch=3, seq_len=64, lora=LORA, accumulate=2, recompute="full",
        parallelism=gs.Parallelism(dp=2),
    )  # fmt: skip
    assert found["step_s"] == pytest.approx(float(step.step_s))
    assert found["memory"]["reserved_bytes"] == float(step.memory.reserved_bytes)
    assert found["settings"]["recompute"] == "full" and found["settings"]["parallelism"]["dp"] == 2
    assert "plan" not in found and "advice" not in found


def test_tables_say_how_long_how_full_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, *QUIET, "--explain")
    about, how, *_ = out.splitlines()
    assert about.startswith("llama-3.2-1b on h100-sxm, recipe peft, bf16; calibrated") and how == "lora rank 8"
    for said in ("MFU", "where the time goes", "busy with", "memory per device", "reserved by the allocator",
                 "fullest at: ", "busy the longest: ", "shortfall"):  # fmt: skip
        assert said in out


def test_a_run_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    course = ["--tokens", "64000", "--price", "3", "--checkpoint-every", "300", "--disk", "1 GB/s"]
    found = json.loads(told(capsys, *QUIET, *course, "--json"))["plan"]
    assert found["steps"] == 1000 and found["parts"]["checkpoints"]["count"] == 4
    assert found["money"] == pytest.approx(3 * found["device_hours"])
    out = told(capsys, *QUIET, *course, "--top", "0")
    assert "checkpoints" in out and "money" in out and "busy with" not in out


def test_advice_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, *SMALL, "--recompute", "full", "--json"))["advice"]
    [lever] = [one for one in found["levers"] if one["name"] == "no recomputation (--recompute none)"]
    without = gs.train("llama-3.2-1b", "h100-sxm", seq_len=64, lora=LORA, recompute="none")
    assert lever["step_s"] == pytest.approx(float(without.step_s))
    assert found["now"]["step_s"] > lever["step_s"]


def test_what_would_fit_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, *SMALL[:2], "--hardware", "l4", "--seq-len", "8192", "--lora", "rank=8,targets=q_proj")
    assert "does not fit, by " in out and "what would fit" in out
    assert "full recomputation (--recompute full)" in out


def test_searches_end_where_the_memory_does(capsys: pytest.CaptureFixture[str]) -> None:
    small = [*SMALL[:2], "--hardware", "l4", "--lora", "rank=8,targets=q_proj"]
    found = json.loads(told(capsys, *small, "--longest-sequence", "--json"))
    lora = gs.LoraConfig(rank=8, target_modules=("q_proj",))
    for tokens, fits in ((found["seq_len"], True), (round(1.002 * found["seq_len"]), False)):
        assert bool(gs.train("llama-3.2-1b", "l4", seq_len=tokens, lora=lora).memory.fits) is fits
    assert found["step"]["settings"]["seq_len"] == found["seq_len"]
    out = told(capsys, *small, "--seq-len", "1024", "--largest-batch", "--top", "0")
    assert out.startswith("largest micro-batch that fits: ")


def test_ways_stand_side_by_side_or_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    varied = ["--vary", "method=full,lora", "--vary", "batch=1,2"]
    rows = json.loads(told(capsys, *QUIET, *varied, "--json"))
    assert [(row["method"], row["batch"]) for row in rows] == [("full", 1), ("full", 2), ("lora", 1), ("lora", 2)]
    out = told(capsys, *QUIET, *varied, "--goal", "cost", "--tokens", "1e9", "--price", "2")
    assert "the best by cost first" in out and out.splitlines()[2].split()[-1] == "cost"
    assert "cannot" not in told(capsys, *QUIET, "--vary", "global-batch=2,4")
    assert "does not divide" in told(capsys, *QUIET, "--vary", "tp=1,3")


AXOLOTL = """
base_model: llama-3.2-1b
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_modules: [q_proj, v_proj]
sequence_len: 64
micro_batch_size: 2
gradient_accumulation_steps: 2
num_epochs: 3
optimizer: adamw_torch
bf16: true
gradient_checkpointing: true
"""


def test_what_a_file_leaves_out_is_noted_once_and_only_where_no_option_says_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL + "sample_packing: true\nfavourite_colour: blue\n", encoding="utf-8")
    adapter = tmp_path / "adapter_config.json"
    names = {"base_model_name_or_path": "meta-llama/Llama-3.2-1B", "peft_type": "LORA", "r": 8}
    adapter.write_text(json.dumps(names | {"target_modules": ["q_proj"]}), encoding="utf-8")
    asked = ["train", "--hardware", "h100-sxm", "--no-advice", "--devices", "1", "--json", "--config"]
    for file, ending, options in (
        (path, "give squares", ["--squares", "2048"]),
        (adapter, "give seq_len", ["--seq-len", "64"]),
    ):
        notes = json.loads(told(capsys, *asked, str(file)))["config_notes"]
        assert sum("favourite_colour" in note for note in notes) == (file is path)
        left_out = {note for note in notes if note.endswith(ending)}
        given = json.loads(told(capsys, *asked, str(file), *options))["config_notes"]
        assert left_out and set(notes) - set(given) == left_out


def test_a_trainers_own_file_is_read_and_options_come_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL, encoding="utf-8")
    asked = ["train", "--config", str(path), "--hardware", "h100-sxm", "--no-advice", "--json"]
    found = json.loads(told(capsys, *asked))
    settings = found["settings"]
    assert (settings["batch"], settings["accumulate"], settings["recompute"]) == (2, 2, "full")
    assert settings["lora"]["rank"] == 8 and settings["recipe"] == "axolotl"
    assert "plan" not in found and any("--dataset-samples" in note for note in found["config_notes"])
    whole = json.loads(told(capsys, *asked, "--dataset-samples", "1000", "--batch", "4", "--recompute", "none"))
    assert whole["settings"]["batch"] == 4 and whole["settings"]["recompute"] == "none"
    assert whole["plan"]["steps"] == 3 * 125


def test_keys_of_a_file_that_nobody_knows_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL + "lora_rnak: 4\n", encoding="utf-8")
    asked = ["train", "--config", str(path), "--hardware", "h100-sxm", "--no-advice", "--json"]
    assert "lora_rnak = 4 is not a known key" in complaint(capsys, *asked)
    assert json.loads(told(capsys, *asked, "--ignore", "lora_rnak"))["settings"]["lora"]["rank"] == 8


@pytest.mark.slow
def test_files_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    suffixes = {"html": "html", "dot": "dot", "trace": "json", "plot": "svg"}
    files = {name: tmp_path / f"step.{suffix}" for name, suffix in suffixes.items()}
    asked = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    told(capsys, *QUIET, *asked, "--tokens", "1e6", written=[*files.values()])
    assert "<h2>The whole run</h2>" in files["html"].read_text(encoding="utf-8")
    assert files["dot"].read_text(encoding="utf-8").startswith("digraph")
    assert json.loads(files["trace"].read_text(encoding="utf-8"))["traceEvents"]
    assert files["plot"].read_text(encoding="utf-8").startswith("<?xml")
    ways = tmp_path / "ways.png"
    told(capsys, *QUIET, "--vary", "method=full,lora", "--plot", str(ways), written=[ways])
    assert ways.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["train", "--hardware", "l4"], "MODEL is missing"),
        (["train", "--hardware", "l4", "--config", "no.yaml"], "no.yaml"),
        ([*TRAIN, "--devices", "4"], "--devices 4 needs --config"),
        ([*TRAIN, "--method", "lorra"], "method = 'lorra' is not known; did you mean 'lora'"),
        ([*TRAIN, "--batch", "0"], "batch = 0 is not allowed"),
        ([*TRAIN, "--seq-len", "long"], "'long' is not a number"),
        ([*TRAIN, "--recompute", "some"], "recompute = 'some' is not known"),
        ([*TRAIN, "--zero", "4"], "--zero = 4 is not allowed"),
        ([*TRAIN, "--evaluate-every", "5"], "--evaluate-every applies to a whole run"),
        ([*TRAIN, "--tokens", "1e9", "--epochs", "2", "--no-advice"], "tokens and epochs were given"),
        ([*TRAIN, "--tokens", "1e9", "--price", "cheap"], "--price: 'cheap' is not a price; expected a number"),
        ([*TRAIN, "--vary", "batch"], "--vary batch: expected NAME=VALUE"),
        ([*TRAIN, "--vary", "batches=1,2"], "'batches' is not known; did you mean 'batch'"),
        ([*TRAIN, "--vary", "batch=1,2", "--dot", "x.dot"], "--dot applies to a single step"),
        ([*TRAIN, "--goal", "cost"], "needs --vary, whose choices it ranks"),
        ([*TRAIN, "--vary", "batch=1,2", "--goal", "cost"], "--goal cost needs --tokens"),
        ([*TRAIN, "--largest-batch", "--longest-sequence"], "exclude each other"),
        ([*TRAIN, "--largest-batch", "--batch", "2"], "--batch is the value to be found"),
        ([*TRAIN, "--html", "no/such/folder.html"], "there is no folder 'no/such'"),
        ([*TRAIN, "--plot", "step.gif"], "--plot: 'step.gif' cannot be written: its suffix is '.gif'"),
        ([*TRAIN, "--offload", "weights"], "offload = 'weights' is not known"),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], asked: list[str], said: str) -> None:
    assert said in complaint(capsys, *asked)
