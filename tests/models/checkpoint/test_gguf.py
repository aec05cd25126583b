"""GGUF files of every architecture are their Hugging Face family, each tensor in its format, all bytes explained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.models.gguf.architectures import ARCHITECTURES
from graphsim.models.huggingface import from_config
from graphsim.ops import ExpertGemm, Gemm
from graphsim.ops.precision import load_precision
from tests.models.checkpoint.folders import names_of
from tests.models.checkpoint.gguf_files import Tensors, converted, converted_models, file_bytes, size, usual_type
from tests.paths import DATA, hf_configs

KEYS = sorted(converted_models())
SMALL = DATA / "checkpoints" / "small.gguf"


def written(folder: Path, key: str, tensors: Tensors | None = None, **more: object) -> Path:
    metadata, own = converted(key)
    path = folder / "m.gguf"
    path.write_bytes(file_bytes(metadata | more, own if tensors is None else tensors))
    return path


def test_every_architecture_that_is_read_has_a_model_to_be_held_to() -> None:
    same = {"qwen2vl": "qwen2", "qwen3vl": "qwen3", "qwen3vlmoe": "qwen3moe", "mistral3": "llama"}
    assert {same.get(name, name) for name in ARCHITECTURES} == {key.partition("+")[0] for key in KEYS}


@pytest.mark.parametrize("key", KEYS)
def test_a_file_is_the_model_that_it_was_converted_from(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, key)
    model = gs.load_model(path)
    source = from_config(hf_configs()[converted_models()[key]["config"]], key)
    assert model.num_parameters == source.num_parameters
    assert model.layers == source.layers
    report = gs.check_checkpoint(path)
    assert report.differences == ()
    assert report.explained == 1.0


def matrices(graph: object) -> float:
    """Bytes of all products' and tables' matrices."""
    from graphsim.graph.walking import walk
    from graphsim.ops import Embedding

    total = 0.0
    for _, op, times in walk(graph):  # type: ignore[arg-type]
        if isinstance(op, Gemm | Embedding) and float(op.parameters):
            bias = (
                float(op.n) * (float(op.experts) if isinstance(op, ExpertGemm) else 1)
                if getattr(op, "bias", False)
                else 0
            )
            total += (float(op.weight_storage_bytes) - bias * op.activations.bytes) * times
    return total


@pytest.mark.parametrize("key", ["llama", "qwen3moe", "gemma2", "phi3", "qwen2", "gpt2", "llama4"])
def test_the_bytes_of_all_matrices_are_those_of_the_file(tmp_path: Path, key: str) -> None:
    _, tensors = converted(key)
    model = gs.load_model(written(tmp_path, key))
    from graphsim.models.build import build
    from graphsim.models.phase import prefill

    assert model.precision is not None
    expected = sum(size(*entry) for name, entry in tensors.items() if len(entry[1]) > 1)
    assert matrices(build(model, prefill(1.0, 1.0), model.precision)) == expected


def test_a_precision_names_the_modules_that_are_in_other_types_and_is_read_again(tmp_path: Path) -> None:
    model = gs.load_model(written(tmp_path, "llama"))
    assert model.precision is not None
    last = converted_models()["llama"]["metadata"]["llama.block_count"] - 1
    assert model.precision.name == (
        f"q4_k,lm_head=q6_k,model.embed_tokens=q4_k,model.layers.{{0-{last}}}.mlp.down_proj=q6_k"
    )
    assert load_precision(model.precision.name).weights.name == "q4_k"


def test_a_file_by_llama_cpps_own_writer_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    model = gs.load_model(SMALL)
    assert model.name == "Small"
    assert model.num_parameters == 2 * 40 * 32 + 3 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32
    main(["models", str(SMALL)])
    assert "explained: 100.00%" in capsys.readouterr().out


def test_layers_of_other_types_are_told_apart(tmp_path: Path) -> None:
    def mixed(name: str, shape: tuple[int, ...]) -> str:
        wide = "ffn_down" in name and name.startswith(("blk.0.", "blk.3."))
        return "Q5_K" if wide else "Q4_K" if "ffn_down" in name else usual_type(name, shape)

    _, tensors = converted("llama", mixed)
    model = gs.load_model(written(tmp_path, "llama", tensors))
    assert model.precision is not None
    assert "model.layers.{0|3}.mlp.down_proj=q5_k" in model.precision.name
    wide, usual = (math.prod((4096, 11008)) * block / 256 for block in (176, 144))
    graph = gs.build_graph(model, "decode")
    names = {name: op for name, op, _ in _walk(graph) if name.endswith("down_proj")}
    assert {float(op.weight_storage_bytes) for op in names.values()} == {wide, usual}


def _walk(graph: object) -> list[tuple[str, object, int]]:
    from graphsim.graph.walking import walk

    return list(walk(graph))  # type: ignore[arg-type]


def test_gate_and_up_of_experts_in_two_types_are_one_weight_of_their_mean(tmp_path: Path) -> None:
    def mixed(name: str, shape: tuple[int, ...]) -> str:
        return "Q5_K" if "ffn_gate_exps" in name else usual_type(name, shape)

    _, tensors = converted("qwen3moe", mixed)
    path = written(tmp_path, "qwen3moe", tensors)
    model = gs.load_model(path)
    assert model.precision is not None
    assert "experts.gate_up_proj=q4_k+q5_k" in model.precision.name
    assert load_precision(model.precision.name) == model.precision
    assert gs.check_checkpoint(path).explained == 1.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"llama.block_count": 30}, r"layers\.30 is missing in the structure .*\(and 1 more like it\)"),
        ({"llama.feed_forward_length": 11000}, r"mlp\.gate_proj has shape \[11008, 4096\] in Q4_K, .*\[11000, 4096\]"),
        ({"llama.attention.head_count_kv": 8}, r"self_attn\.k_proj has shape \[4096, 4096\]"),
    ],
)
def test_metadata_that_are_not_the_tensors_are_refused_by_modules(tmp_path: Path, change: dict, text: str) -> None:
    path = written(tmp_path, "llama", **change)
    with pytest.raises(gs.ConfigError, match=text):
        gs.load_model(path)
    assert gs.load_model(path, check=False).num_layers in (30, 32)


@pytest.mark.parametrize("way", ["drop", "turn", "rename"])
def test_a_tensor_that_is_otherwise_is_named(tmp_path: Path, way: str) -> None:
    metadata, tensors = converted("llama")
    kind, shape = tensors.pop("blk.7.ffn_up.weight")
    if way != "drop":
        tensors["blk.7.ffn_up.weight" if way == "turn" else "blk.7.ffn_oop.weight"] = (
            kind,
            shape[::-1] if way == "turn" else shape,
        )
    with pytest.raises(gs.ConfigError, match=r"model\.layers\.7\.mlp\.up_proj"):
        gs.load_model(written(tmp_path, "llama", tensors))


@pytest.mark.parametrize("name", ["bert", "lama", None, 7])
def test_an_architecture_that_is_not_known_lists_those_that_are(tmp_path: Path, name: object) -> None:
    metadata = {} if name is None else {"general.architecture": name}
    path = tmp_path / "m.gguf"
    path.write_bytes(file_bytes(metadata, {}))
    with pytest.raises(
        gs.ConfigError, match=r"general.architecture = .* is not known; .*allowed: arcee, .*bloom.*stablelm"
    ):
        gs.load_model(path)


@pytest.mark.parametrize("kind", ["adapter", "imatrix", "mmproj"])
def test_files_that_are_no_models_say_what_they_are(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, "llama", **{"general.type": kind})
    with pytest.raises(gs.ConfigError, match=f"general.type = '{kind}' is not allowed; expected a model"):
        gs.load_model(path)


@pytest.mark.parametrize("value", [True, "many", 0, [], 10**9])
@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "feed_forward_length"])
def test_metadata_that_are_no_sizes_are_one_sentence(tmp_path: Path, key: str, value: object) -> None:
    if value == []:
        value = [0]
    with pytest.raises(gs.ConfigError) as caught:
        gs.load_model(written(tmp_path, "llama", **{f"llama.{key}": value}))
    assert "m.gguf" in str(caught.value)


def test_a_folder_with_one_gguf_file_is_that_model_and_with_several_names_them(tmp_path: Path) -> None:
    written(tmp_path, "gpt2")
    (tmp_path / "mmproj-m.gguf").write_bytes(b"beside it")
    assert gs.load_model(tmp_path).num_layers == 12
    (tmp_path / "n.gguf").write_bytes((tmp_path / "m.gguf").read_bytes())
    with pytest.raises(gs.ConfigError, match="holds several GGUF files; name one: m.gguf, n.gguf"):
        gs.load_model(tmp_path)


def test_a_model_from_a_gguf_file_is_simulated_in_its_formats(tmp_path: Path) -> None:
    found = gs.simulate(gs.load_model(written(tmp_path, "llama")), "h100-sxm", batch=1, engine="reference")
    _, tensors = converted("llama")
    assert found.memory.weights_bytes == pytest.approx(sum(size(*entry) for entry in tensors.values()), rel=0.001)


def test_names_of_facts_are_those_of_the_specification() -> None:
    names = [name for entry in converted_models()["llama"]["tensors"] for name in names_of(entry)]
    assert "blk.0.attn_q.weight" in names
    assert "token_embd.weight" in names
