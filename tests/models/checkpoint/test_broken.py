"""Whatever a header or metadata say, a model is loaded or refused in one sentence, and quickly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.checkpoint.compare import compare
from graphsim.models.huggingface import from_config
from tests.benchmarks import measure
from tests.models.checkpoint.folders import Header, saved, stored, write_folder
from tests.models.checkpoint.gguf_files import converted, file_bytes

SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (7,), (0, 5), (64, 1), (3, 3, 3, 3), (1, 1, 1, 1, 1), (2**40,)]
NAMES = [
    "", ".", "..", "model.layers", "model.layers.", "model.layers.0", "model.layers.x.q", "model.layers.999.q.weight",
    "model.model.model", "language_model", "experts.0.w1", "model.layers.0.mlp.experts.", "weight", "x" * 60_000,
    "model.layers.0.mlp.experts.5", "model.layers.1.mlp.experts.-1.w1.weight", "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.q_proj.weight.weight.weight", "ｍodel.layers.٣.q.weight", "visual", "mtp", "vision_model",
]  # fmt: skip
DTYPES = ["F32", "BF16", "F8_E4M3", "U8", "I8", "I32", "I64", "F4"]


def broken(header: Header, rng: random.Random) -> Header:
    """Some tensors gone, some of other shapes and formats, some of strange names."""
    out = {name: entry for name, entry in header.items() if rng.random() > 0.03}
    for _ in range(rng.randrange(12)):
        name = rng.choice([*NAMES, *header]) + rng.choice(["", "", ".bias", ".scales", ".weight.absmax", "_blocks"])
        out[name] = (rng.choice(DTYPES), rng.choice([*SHAPES, *(shape for _, shape in header.values())]))
    return out


@pytest.mark.parametrize("kind", ["qwen3", "zamba2", "nemotron_h", "granitemoeshared", "llama4_text"])
def test_strange_tensors_are_differences_and_never_a_traceback(kind: str) -> None:
    config, header = saved(kind)
    model = from_config(config, kind, ("all",))
    rng = random.Random(kind)
    for _ in range(8):
        report = compare(model, stored(broken(header, rng)))
        assert all(each.text for each in report.differences)
        assert 0.0 <= (report.explained or 0.0) <= 1.0


def test_an_error_stays_readable_whatever_the_names_are(tmp_path: Path) -> None:
    config, header = saved("qwen3")
    for i in range(4):
        strange = broken(header, random.Random(i))
        with pytest.raises(gs.ConfigError) as caught:
            gs.load_model(write_folder(tmp_path / str(i), config, strange))
        assert len(str(caught.value)) < 2_000
        assert "\n" not in str(caught.value)


VALUES: list[Any] = [0, 1, 7, 2**31, True, 0.5, "text", [0], [1, 2, 3], [True, False]]


@pytest.mark.parametrize("key", ["llama", "deepseek2", "falcon", "gemma2", "granitehybrid", "mamba2", "qwen3next"])
def test_strange_metadata_are_one_sentence(tmp_path: Path, key: str) -> None:
    metadata, tensors = converted(key)
    few = {name: entry for name, entry in tensors.items() if not name.startswith("blk.") or name.startswith("blk.0.")}
    rng = random.Random(key)
    path = tmp_path / "m.gguf"
    for i in range(12):
        changed = {k: rng.choice(VALUES) if rng.random() < 0.2 else v for k, v in metadata.items()}
        path.write_bytes(file_bytes(changed, few) + bytes(i))
        try:
            gs.load_model(path)
        except gs.ConfigError as error:
            assert "m.gguf" in str(error)
            assert len(str(error)) < 3_000


@pytest.mark.slow
def test_the_largest_checkpoints_are_compared_with_few_calls_a_tensor(tmp_path: Path) -> None:
    config, header = saved("deepseek_v3")
    whole: Header = {}
    for name, (_, shape) in header.items():
        linear = len(shape) == 2 and "layers." in name and not name.endswith("mlp.gate.weight")
        whole[name] = ("F8_E4M3" if linear else "BF16", shape)
        if linear:
            whole[f"{name}_scale_inv"] = ("F32", tuple(-(-n // 128) for n in shape))
    quantised = config | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    folder = write_folder(tmp_path / "m", quantised, whole, shards=61)
    report = gs.check_checkpoint(folder)
    assert len(whole) > 90_000
    assert report.differences == ()
    assert report.explained == 1.0
    assert measure.calls(lambda: gs.check_checkpoint(folder)) < 60 * len(whole)
