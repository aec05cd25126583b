"""A model folder is loaded if its tensors are those that its config describes, and refused by the modules if not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from tests.models.checkpoint.folders import Header, saved, write_folder, write_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "m", *saved("qwen3"), shards=2)


def changed(folder: Path, **fields: object) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | fields
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_folder_loads_by_its_path_and_by_that_of_its_config(folder: Path) -> None:
    assert gs.load_model(folder).num_parameters == gs.load_model(folder / "config.json").num_parameters == 218507264
    report = gs.check_checkpoint(folder)
    assert report.checkpoint_parameters == report.parameters == 218507264
    assert report.bytes == report.checkpoint_bytes == report.explained_bytes == 2 * 218507264


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"num_hidden_layers": 3, "layer_types": None}, r"layers\.3 is missing in the structure"),
        (
            {"num_hidden_layers": 5, "layer_types": None},
            r"model\.layers\.4\.input_layernorm is missing in the checkpoint",
        ),
        (
            {"intermediate_size": 3000},
            r"model\.layers\.0\.mlp\.gate_proj has shape \[3072, 1024\] in BF16, .* \(and 3 more like",
        ),
        ({"num_key_value_heads": 4}, r"model\.layers\.0\.self_attn\.k_proj has shape"),
        ({"head_dim": 64}, r"model\.layers\.0\.self_attn\.q_proj has shape"),
        ({"vocab_size": 151000}, r"model\.embed_tokens has shape \[151936, 1024\] in BF16, .*\[151000, 1024\]"),
        ({"tie_word_embeddings": False}, r"lm_head is missing in the checkpoint"),
        ({"attention_bias": True}, r"model\.layers\.0\.self_attn\.q_proj has a bias of 0 weights"),
        ({"model_type": "qwen2"}, r"q_norm is missing in the structure"),
    ],
)
def test_a_config_of_another_model_names_modules(folder: Path, fields: dict[str, object], names: str) -> None:
    changed(folder, **fields)
    with pytest.raises(gs.ConfigError, match=rf"{names}[\s\S]*check=False") as caught:
        gs.load_model(folder)
    assert "\n" not in str(caught.value)
    assert gs.load_model(folder, check=False).num_layers in (3, 4, 5)
    assert gs.check_checkpoint(folder).differences


def test_what_is_extra_and_known_is_a_note(tmp_path: Path) -> None:
    config, header = saved("qwen3")
    more: Header = {
        "lm_head.weight": ("BF16", (151936, 1024)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (64,)),
        "model.layers.1.self_attn.k_scale": ("F32", ()),
        "model.layers.4.eh_proj.weight": ("BF16", (1024, 2048)),
        "model.layers.4.enorm.weight": ("BF16", (1024,)),
        "mtp.layers.0.mlp.up_proj.weight": ("BF16", (3072, 1024)),
        "visual.blocks.0.attn.qkv.weight": ("BF16", (30, 10)),
        "visual.patch_embed.proj.weight": ("BF16", (10, 3, 2, 14, 14)),
    }
    model = gs.load_model(write_folder(tmp_path / "m", config, header | more))
    notes = " ".join(model.notes)
    assert "holds lm_head although it is tied" in notes
    for name in ("layers.4", "mtp.layers.0", "visual"):
        assert f"the checkpoint holds {name} too, which is left out" in notes
    report = gs.check_checkpoint(tmp_path / "m")
    left_out = 2 * (1024 * 2048 + 1024 + 3072 * 1024 + 300 + 10 * 3 * 2 * 14 * 14)
    assert report.checkpoint_bytes - (report.explained_bytes or 0) == left_out + 4 * 64


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "", "transformer."])
def test_what_stands_in_front_of_the_language_model_does_not_matter(tmp_path: Path, prefix: str) -> None:
    config, header = saved("qwen3")
    other = {prefix + name.removeprefix("model."): entry for name, entry in header.items()}
    assert gs.check_checkpoint(write_folder(tmp_path / "m", config, other)).explained == 1.0


def test_fused_and_separate_weights_are_the_same(tmp_path: Path) -> None:
    config, header = saved("qwen3")
    fused = {
        name: entry
        for name, entry in header.items()
        if not name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
    }
    for i in range(4):
        fused[f"model.layers.{i}.self_attn.qkv_proj.weight"] = ("BF16", (2048 + 2 * 1024, 1024))
    report = gs.check_checkpoint(write_folder(tmp_path / "m", config, fused))
    assert report.differences == ()
    assert report.explained == 1.0
    assert any("other names for self_attn.q_proj and 2 more: self_attn.qkv_proj" in note for note in report.notes)
    fused["model.layers.2.self_attn.qkv_proj.weight"] = ("BF16", (2048 + 1024, 1024))
    with pytest.raises(gs.ConfigError, match=r"model\.layers\.2\.self_attn\.qkv_proj"):
        gs.load_model(write_folder(tmp_path / "odd", config, fused))


def test_an_index_alone_is_compared_by_names_and_bytes(tmp_path: Path) -> None:
    config, header = saved("qwen3")
    folder = write_folder(tmp_path / "m", config, {})
    (folder / "model.safetensors").unlink()
    files = dict.fromkeys(header, "model-00001-of-00001.safetensors")
    write_index(folder, header, files)
    assert any("only the checkpoint's index is here" in note for note in gs.load_model(folder).notes)
    lost = {name: file for name, file in files.items() if name != "model.layers.2.mlp.up_proj.weight"}
    write_index(folder, header, lost)
    with pytest.raises(gs.ConfigError, match=r"model\.layers\.2\.mlp\.up_proj is missing in the checkpoint"):
        gs.load_model(folder)
    write_index(folder, {name: ("F32", shape) for name, (_, shape) in header.items()}, files)
    with pytest.raises(gs.ConfigError, match="the whole model takes 416.8 MiB .* 833.5 MiB in the checkpoint"):
        gs.load_model(folder)


def test_the_command_shows_both_sides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", str(folder)])
    text = capsys.readouterr().out
    assert "explained: 100.00% of the checkpoint's bytes" in text
    assert "no module differs" in text
    changed(folder, intermediate_size=3000)
    main(["models", str(folder), "--json"])
    found = json.loads(capsys.readouterr().out)["checkpoint"]
    assert found["structure_parameters"] < found["checkpoint_parameters"] == 218507264
    assert {entry["module"] for entry in found["differences"]} == {
        f"model.layers.{i}.mlp.{name}_proj" for i in range(4) for name in ("gate", "up", "down")
    }
    assert found["explained_bytes"] == found["checkpoint_bytes"] - 2 * 4 * 3 * 3072 * 1024


def test_the_command_line_goes_on_where_it_is_told_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(folder, intermediate_size=3000)
    assert main(["run", str(folder), "--hardware", "l4", "--json"]) == 2
    assert "--no-check" in capsys.readouterr().err
    assert not main(["run", str(folder), "--hardware", "l4", "--no-check", "--json"])


def test_a_folder_that_changes_is_read_again(folder: Path) -> None:
    gs.load_model(folder)
    _, header = saved("qwen3")
    write_folder(
        folder,
        json.loads((folder / "config.json").read_text(encoding="utf-8")),
        header | {"odd.weight": ("F16", (4,))},
        shards=2,
    )
    with pytest.raises(gs.ConfigError, match="odd is missing in the structure"):
        gs.load_model(folder)


def test_a_config_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(saved("qwen3")[0]), encoding="utf-8")
    assert gs.load_model(tmp_path).num_layers == 4
    with pytest.raises(gs.ConfigError, match="holds no safetensors file and no index"):
        gs.check_checkpoint(tmp_path)


@pytest.mark.parametrize(("said", "own"), [(False, True), (True, False)])
def test_a_head_that_t5_ties_is_its_own_where_config_and_checkpoint_say_so(
    tmp_path: Path, said: bool, own: bool
) -> None:
    config, header = saved("t5")
    config, table = config | {"tie_word_embeddings": said}, config["vocab_size"] * config["d_model"]
    alone = gs.load_model(config).num_parameters
    assert gs.load_model(write_folder(tmp_path / "tied", config, header)).num_parameters == alone
    header |= {"lm_head.weight": ("BF16", (config["vocab_size"], config["d_model"]))}
    model = gs.load_model(write_folder(tmp_path / "own", config, header))
    assert model.num_parameters == alone + own * table
    assert any("tied to another weight" in note for note in model.notes) is not own
    assert gs.load_model(tmp_path / "own", check=False).num_parameters == alone
