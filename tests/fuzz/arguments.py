"""Command lines with words changed, doubled, left out and put in, all in one process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from graphsim.cli import main
from graphsim.errors import ConfigError
from tests.fuzz.adapters import CONFIGS
from tests.fuzz.runner import Fuzzer

SMALL = {
    "name": "small", "hidden_size": 64, "layers": 2, "vocab_size": 256, "norm": "rms", "max_positions": 4096,
    "attention": {"heads": 4, "kv_heads": 2}, "mlp": {"intermediate_size": 128, "gated": True},
}  # fmt: skip

LINES = tuple(line.split() for line in """
    run small.yaml --hardware l4 --batch 2 --input 16 --output 4 --json
    run small.yaml --hardware h100-sxm --tp 2 --precision bf16 --lora rank=8,targets=attn+ffn,strategy=dynamic
    run small.yaml --hardware h100-sxm --engine reference --cost roofline --html page.html
    run small.yaml --hardware l4 --lora adapter --output 8
    run small.yaml --hardware h100-sxm --speculation draft=ngram,tokens=3,acceptance=0.8 --json
    lora small.yaml --hardware l4 --engine vllm --lora rank=16,adapters=4,max_loras=8 --json
    sweep small.yaml --hardware l4 h100-sxm --batch 1,8 --rank 8,64 --strategy base,dynamic --to table.csv
    sweep small.yaml --hardware l4 --batch 1,2 --workers 2 --json
    sweep small.yaml --hardware l4 --input 16,32 --out parts --resume
    best small.yaml --hardware l4 --tpot 0.05 --batch 1,8 --json
    serve small.yaml --hardware l4 --rate 4 --requests 8 --input 32 --output 4 --json
    serve small.yaml --hardware l4 --concurrency 2 --requests 8 --adapters 4 --popularity zipf:1.2 --lora rank=8
    serve small.yaml --hardware l4 --trace trace.csv --slo ttft=0.5,tpot=0.05 --rows rows
    serve small.yaml --hardware l4 --rate 4 --requests 6 --replicas 2 --router least-loaded --json
    train small.yaml --hardware h100-sxm --method lora --seq-len 32 --batch 2 --json
    train small.yaml --hardware h100-sxm --method full --zero 2 --dp 2 --recompute full --optimizer adamw
    explain small.yaml --hardware l4 --input 16 --output 4
    export small.yaml --hardware l4 --to layer.dot
    export small.yaml --hardware l4 --input 16 --to graph.json --lora rank=8
    sensitivity small.yaml --hardware l4 --json
    models small.yaml --json
    hardware l4 --json
    validate public facts.csv --json
    doctor
    completion bash
    --version
    run --help
""".strip().splitlines())  # fmt: skip

WORDS = (
    "0", "-1", "1e9", "1e400", "nan", "inf", "x", "", " ", "1,2", ",", "1-64", "64-1", "1:256:8", "8..512*2", "30ms",
    "40GiB", "99999999999999999999", "0.5", "1_000", "½", "é", "🦙", "a=b", "rank=", "rank=-1,targets=", "=", "==",
    "rank=8,rank=8", "small.yaml", "l4", "none.yaml", ".", "/", "adapter", "trace.csv", "a\nb", "\ud800", "true",
    "None", "[]", "{}", "%s", "--", "-", "--json", "--batch", "--tp=3", "--lora", "--engine", "sglang",
    "--engine=nobody", "--output=8", "--help", "-h", "--hardware", "--precision=fp8", "--cost=best", "--html",
    "no/folder/page.html", "page.html", "--pp=9", "all", "x" * 300, "--workers=1000000", "--images=2",
    "--audio-s=nan", "--resume", "--seed=1", "--rate=0", "--rate=1e9", "--adapters=9",
)  # fmt: skip


@cache
def yaml_text() -> str:
    return yaml.safe_dump(SMALL)


def laid_out(folder: Path) -> None:
    """The files that command lines name."""
    (folder / "small.yaml").write_text(yaml_text(), encoding="utf-8")
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,16,4\n0.5,20,3\n", encoding="utf-8")
    (folder / "facts.csv").write_text(
        "source,model,hw,tp,precision,batch,input,output,metric,measured,note\n"
        "a,gpt-2,l4,1,bf16,1,16,4,ttft_ms,5,\n", encoding="utf-8",
    )  # fmt: skip
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(CONFIGS[0]), encoding="utf-8")


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def called(words: list[str], folder: Path) -> None:
    """Run a command; what it refuses becomes a ConfigError here, with what it said."""
    out, err = io.StringIO(), io.StringIO()
    laid_out(folder)
    with inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: Any = main(words)
        except SystemExit as stop:  # argparse leaves by itself
            status = stop.code or 0
    said = err.getvalue()
    assert status in (0, 2), f"status {status}: {said}"
    assert "Traceback" not in said
    if status == 2:
        assert said.startswith("graphsim"), said
        raise ConfigError(said.rstrip("\n"))
    if "--json" in words and not {"-h", "--help", "--version"} & set(words):
        json.loads(out.getvalue(), parse_constant=lambda text: require_none(words, text))


def require_none(words: list[str], text: str) -> None:
    raise AssertionError(f"{words}: {text} in JSON")


def case(rng: random.Random, folder: Path) -> None:
    words = list(rng.choice(LINES))
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(words) + 1), rng.random()
        if kind < 0.6 and at < len(words):
            words[at] = rng.choice(WORDS)
        elif kind < 0.75:
            words.insert(at, rng.choice(WORDS))
        elif kind < 0.85 and at < len(words):
            del words[at]
        elif kind < 0.95:
            words[at:at] = rng.choice(LINES)[1:3]
        else:
            rng.shuffle(words)
    called(words, folder)


def sound(folder: Path) -> None:
    for words in LINES:
        called(list(words), folder)
        for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
            path.rmdir() if path.is_dir() else path.unlink()


FUZZER = Fuzzer("arguments", case, sound)
