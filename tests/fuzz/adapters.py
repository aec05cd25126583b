"""Folders of PEFT adapters with something changed in the config or in the header of the weights."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import graphsim as gs
from tests.fuzz.graphs import MODEL
from tests.fuzz.hostile import changed, spoilt
from tests.fuzz.runner import Fuzzer, require_finite

CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"],
        "bias": "none", "rank_pattern": {"q_proj": 4}, "alpha_pattern": {}, "modules_to_save": None, "use_dora": False,
        "use_rslora": True, "fan_in_fan_out": False, "layers_to_transform": None, "layers_pattern": None,
        "base_model_name_or_path": "some/model", "task_type": "CAUSAL_LM", "init_lora_weights": True,
    },
    {"peft_type": "LORA", "r": 8, "target_modules": "all-linear", "use_dora": True, "exclude_modules": ["o_proj"]},
    {"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    {"peft_type": "VERA", "r": 16, "target_modules": ["q_proj"], "projection_prng_key": 0, "d_initial": 0.1},
    {"peft_type": "OFT", "oft_block_size": 16, "r": 0, "target_modules": ["q_proj"], "coft": False},
    {"peft_type": "LOKR", "r": 8, "target_modules": ["q_proj"], "decompose_both": False, "decompose_factor": -1},
)  # fmt: skip


def weights() -> dict[str, Any]:
    """The header of a rank 8 adapter's file."""
    header, at = dict[str, Any](), 0
    for layer in range(2):
        for name, outputs in (("q_proj", 64), ("v_proj", 32)):
            rank = 4 if name == "q_proj" else 8
            for part, shape in (("A", [rank, 64]), ("B", [outputs, rank])):
                key = f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{part}.weight"
                size = 2 * shape[0] * shape[1]
                header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
                at += size
    return header


def file_of(header: Any, rng: random.Random | None = None) -> bytes:
    """The weights' file: a header's length, the header, and as many bytes as it speaks of."""
    text = json.dumps(header).encode()
    length = len(text) if rng is None or rng.random() < 0.8 else rng.choice((0, 1, 10**6, 2**63, len(text) + 1))
    content = struct.pack("<Q", length) + text + bytes(10240)
    return content if rng is None or rng.random() < 0.8 else content[: rng.randint(0, len(content))]


def tried(folder: Path) -> None:
    lora = gs.LoraConfig.from_peft(folder)
    require_finite(gs.lora_parameters(MODEL, lora))
    estimate = gs.simulate(MODEL, "h100-sxm", 1, 16, 4, lora=lora, engine="reference")
    require_finite(estimate.ttft_s, estimate.memory.total_bytes)


def case(rng: random.Random, folder: Path) -> None:
    config = rng.choice(CONFIGS)
    written = folder / "adapter_config.json"
    if rng.random() < 0.8:
        written.write_text(json.dumps(changed(config, rng)), encoding="utf-8")
    else:
        written.write_bytes(spoilt(json.dumps(config, indent=1), rng))
    if rng.random() < 0.5:
        header = weights() if rng.random() < 0.3 else changed(weights(), rng)
        (folder / "adapter_model.safetensors").write_bytes(file_of(header, rng))
    tried(folder)


def sound(folder: Path) -> None:
    for number, config in enumerate(CONFIGS):
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        if not number:
            (folder / "adapter_model.safetensors").write_bytes(file_of(weights()))
        tried(folder)
        (folder / "adapter_model.safetensors").unlink(missing_ok=True)


FUZZER = Fuzzer("adapters", case, sound)
