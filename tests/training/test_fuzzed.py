"""Whatever a stranger's files say, and whatever degrees are asked for: a step whose laws hold, or one sentence."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import graphsim as gs
from graphsim.errors import GraphsimError
from graphsim.models.loading import load_model
from graphsim.training.config_files.reader import read_training_config
from graphsim.training.moments import PARTS
from tests.training import config_examples as examples

TINY = load_model({
    "name": "tiny", "hidden_size": 64, "layers": 4, "vocab_size": 128, "norm": "rms",
    "attention": {"heads": 4, "kv_heads": 2}, "mlp": {"intermediate_size": 128, "gated": True},
})  # fmt: skip
EXPERTS = load_model({
    "name": "tiny-moe", "hidden_size": 64, "layers": 4, "vocab_size": 128, "norm": "rms",
    "attention": {"heads": 4}, "moe": {"experts": 8, "experts_per_token": 2, "intermediate_size": 64},
})  # fmt: skip
FILES: dict[str, dict[str, Any]] = {
    name: yaml.safe_load(text) if isinstance(text, str) else text
    for name, text in (
        ("axolotl", examples.AXOLOTL), ("llama-factory", examples.LLAMA_FACTORY), ("torchtune", examples.TORCHTUNE),
        ("trl", examples.TRL), ("unsloth", examples.UNSLOTH), ("training_arguments", examples.TRAINING_ARGUMENTS),
        ("adapter_config", examples.LORA), ("accelerate", examples.ACCELERATE), ("deepspeed", examples.DEEPSPEED),
    )
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 0.5, 1, 7, 1e308, float("nan"), float("inf"), 10**30, "", " ", "x", "12", "1e3", "auto",
    "<script>", "../../etc/passwd", "a\nb", "\ud800", "\0", [], [1], [None], [[]], {}, {"value": 1}, {"": None}, 2**63,
    "none", "off", "1,2", "None", [True], ["q_proj", 3], {"stage": None},
)  # fmt: skip
NAMES = ("", " ", "<b>", "a\nb", "\ud800", 3, None, "lora_r", "deepspeed", "x" * 300)


def mutated(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy in which some values, somewhere inside, are something else, gone, or under another name."""
    found = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(found))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.75:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif isinstance(holder, dict) and kind < 0.9:
            holder[rng.choice(NAMES)] = holder.pop(key)
        else:
            del holder[key]
    return found


def _places(data: Any) -> Any:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def check(estimate: Any) -> None:
    """What holds of every step."""
    memory = estimate.memory
    assert np.all(np.isfinite(estimate.step_s)) and np.all(np.asarray(estimate.step_s) > 0.0)
    parts = [np.asarray(getattr(memory, f"{name}_bytes")) for name in PARTS]
    assert all(np.all(part >= 0.0) and np.all(np.isfinite(part)) for part in parts)
    assert np.allclose(sum(parts), memory.total_bytes)
    assert np.all(np.asarray(memory.reserved_bytes) >= np.asarray(memory.total_bytes))
    assert all(np.all(np.asarray(size) <= memory.total_bytes * (1 + 1e-9)) for _, size in memory.timeline)


def said(error: GraphsimError) -> None:
    """A sentence, which may name the file's own text only where that is printable."""
    text = str(error)
    assert text.strip() and "\n" not in text and "Traceback" not in text and "\0" not in text
    text.encode()


def read_and_trained(*files: Any) -> None:
    """Reads, and trains where that is not refused."""
    try:
        found = read_training_config(*files, model=TINY, ignore="all")
        asked = {"seq_len": 64} | found.train
        asked["seq_len"] = min(asked["seq_len"], 64) if isinstance(asked["seq_len"], int | float) else asked["seq_len"]
        asked.pop("squares", None)
        asked.setdefault("hardware", "h100-sxm")
        check(gs.train(**asked))
    except GraphsimError as error:
        said(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
def test_trainers_files_are_read_or_refused(name: str) -> None:
    rng = random.Random(name)
    for _ in range(25):
        files = [mutated(FILES[name], rng)]
        if rng.random() < 0.3:
            files.append(mutated(FILES[rng.choice(sorted(FILES))], rng))
        read_and_trained(*files)


def test_texts_that_are_no_files_of_a_trainer(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = ["", "\n", "[]", "null", "3", "a: &a [*a]", "{", "\ufeff", "a: !!python/object:os.system x", "- 1\n- 2"]
    for place, text in enumerate([*texts, *(_garbled(rng) for _ in range(30))]):
        path = tmp_path / f"{place}.{rng.choice(('yaml', 'json', 'yml', 'txt'))}"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_training_config(path, model=TINY)
        except GraphsimError as error:
            said(error)


def _garbled(rng: random.Random) -> str:
    """A trainer's file with pieces lost, repeated or put in."""
    name = rng.choice(sorted(FILES))
    text = json.dumps(FILES[name]) if rng.random() < 0.5 else yaml.safe_dump(FILES[name])
    for _ in range(rng.randint(1, 4)):
        at, piece = (
            rng.randrange(len(text)),
            rng.choice(("\0", "{", "]", ":", "\t", "1e999", "- ", "\ud800", '"', "*x")),
        )
        text = text[:at] + piece + text[at + rng.randint(0, 9) :]
    return text


CHOICES: dict[str, tuple[Any, ...]] = {
    "method": ("lora", "qlora", "full", "pretrain", "dora", "relora", "galore", "lora-fa"),
    "recipe": ("peft", "megatron-bridge", "megatron-bridge-26.04", "torchtitan", "torchtune", "unsloth", "llm-foundry"),
    "recompute": ("none", "full", "selective"),
    "sharding": (None, "ddp", "zero1", "zero2", "zero3", "fsdp1", "fsdp2", "shard_grad_op", "distributed_optimizer"),
    "offload": ((), ("optimizer",), ("parameters", "optimizer"), ("activations",), ("optimizer", "activations")),
    "optimizer": (None, "adamw_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd", "muon"),
    "batch": (1, 2, 3), "accumulate": (1, 2, 8), "recompute_every": (1, 2, 5), "precision": (None, "fp8", "mxfp8"),
}  # fmt: skip
DEGREES: dict[str, tuple[Any, ...]] = {
    "tp": (1, 2, 4, 8), "pp": (1, 2, 3, 4), "dp": (1, 2, 8), "ep": (1, 2, 8), "cp": (1, 2), "sp": (1, 2),
    "schedule": ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe"), "virtual_stages": (1, 2, 3),
}  # fmt: skip


def stepped(rng: random.Random) -> None:
    """One step as it is drawn: its laws, or a sentence."""
    asked = {name: rng.choice(values) for name, values in CHOICES.items() if rng.random() < 0.6}
    degrees = {name: rng.choice(values) for name, values in DEGREES.items() if rng.random() < 0.4}
    try:
        model = EXPERTS if degrees.get("ep", 1) > 1 else TINY
        check(gs.train(model, "h100-sxm", seq_len=64, parallelism=gs.Parallelism(**degrees), **asked))
    except GraphsimError as error:
        said(error)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_degrees_schedules_and_offloads(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        stepped(rng)
