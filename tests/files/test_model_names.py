"""What people type and what tables say of their models names one of the catalog, or is known to name none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.files.catalog import list_files
from graphsim.files.model_names import LONGEST, named_model, spelling
from graphsim.files.reading import load_mapping
from graphsim.models.loading import list_models, load_model
from tests.paths import REFERENCE, ROOT

UNTOLD = {
    "the model is not told": ["", "any", "not stated", "see PR", "see blog", "see issue", "see paper"],
    "only a kind of model is told": ["MoE FP8", "MoE bf16 (see PR)", "qwen3_moe", "70B-AWQ"],
    "it is one layer, or a part of one": [
        "single linear 4096x4096", "single linear h1=4096 h2=11008", "MAMBA2_GENERIC_4K",
    ],
    "two models in one row": ["Qwen3.5-35B-A3B-FP8 / Kimi-K2.5-NVFP4"],
}  # fmt: skip
"""Texts of the reference tables that name no model, by the reason; names without a file are in models/names.json."""


@pytest.mark.parametrize(
    ("text", "name", "precision"),
    [
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b", "fp8"),
        ("neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8-dynamic", "llama-3.1-70b", "fp8_channel"),
        ("TheBloke/Llama-2-70B-GPTQ", "llama-2-70b", "int4"),
        ("Llama-3.1-70B-AWQ", "llama-3.1-70b", "int4"),
        ("unsloth/Llama-3.2-3B-Instruct-bnb-4bit", "llama-3.2-3b", "nf4"),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b", "fp8_block"),
    ],
)
def test_a_quantised_copy_is_the_model_in_that_precision_and_says_so(text: str, name: str, precision: str) -> None:
    found = load_model(text)
    assert (found.name, found.precision and found.precision.name) == (name, precision)
    assert any(precision in note for note in found.notes)
    assert load_model(name).precision is None


@pytest.mark.parametrize("text", ["TheBloke/deepseek-v2-lite-AWQ", "openai/gpt-oss-20b-FP8", "Kimi-K2-GPTQ"])
def test_a_format_that_a_name_does_not_settle_asks_for_the_copys_config(text: str) -> None:
    with pytest.raises(ConfigError, match=r"does not say which of its modules are .*config\.json"):
        load_model(text)


@pytest.mark.parametrize(
    "text",
    ["acme/llama-3.1-8b", "meta-llama/Llama-9-8B", "Qwen/Qwen3-33B", "someone/some-model.v2", "nvidia/Qwen3-32B-NVFP4"],
)
def test_any_other_id_says_how_to_get_its_config(text: str) -> None:
    with pytest.raises(ConfigError, match=f"`hf download {text} config.json --local-dir [^`]*`") as caught:
        load_model(text)
    assert len(str(caught.value)) < 500


def test_near_names_are_offered_for_an_id_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"nearest there: [^;]*qwen3-32b"):
        load_model("Qwen/Qwen3-33B")


@pytest.mark.slow
def test_every_id_and_alias_leads_to_its_own_file_in_any_case() -> None:
    for name, path in list_files("models").items():
        data = load_mapping(Path(path))
        others = [text.upper() for text in (*data.get("ids", []), *data.get("aliases", []))]
        for spelled in (*others, name.upper().replace("-", "_"), f"{name.replace('-', ' ')}-hf"):
            found = named_model(spelled)
            assert found is not None and found.name == name, spelled


def test_no_two_files_are_spelled_alike() -> None:
    names = list_models()
    assert len({spelling(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"), [("qwen2-57b", "qwen2.5-7b"), ("llama-3-1b", "llama-31-b"), ("v-31", "v-3.1")]
)
def test_a_digit_more_is_another_name(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)


def test_a_model_is_cut_to_its_first_layers() -> None:
    whole, cut = load_model("llama-3-70b"), load_model("Llama-3-70B cut to 12 layers")
    # q, k, v, o of 64 and 8 heads of 128; gate, up, down; two norms
    layer = 8192 * 128 * (64 + 8 + 8 + 64) + 3 * 8192 * 28672 + 2 * 8192
    assert cut.num_layers == 12 and cut.published_parameters == 0
    assert whole.num_parameters - cut.num_parameters == 68 * layer
    with pytest.raises(ConfigError, match="cannot be cut to 81 layers; allowed: 1 to 80"):
        load_model("llama-3-70b cut to 81 layers")


@pytest.mark.parametrize(
    ("text", "layers", "hidden", "width", "vocab", "positions"),
    [
        ("megatron-22B (L=48 h=6144 a=64, ffn 4h, v=51200)", 48, 6144, 24576, 51200, 2048),
        ("gpt3-175B (L=96 h=12288 a=96, ffn 4h, v=51200)", 96, 12288, 49152, 51200, 2048),
        ("mine (layers=2, hidden=64, heads=4, ffn=96, vocab=1k, seq=512)", 2, 64, 96, 1024, 512),
    ],
)
def test_a_name_that_gives_sizes_is_a_gpt_of_these(
    text: str, layers: int, hidden: int, width: int, vocab: int, positions: int
) -> None:
    model = load_model(text)
    # qkv and o with biases, two layers of the MLP with biases, two norms of two vectors
    layer = 4 * hidden**2 + 4 * hidden + 2 * hidden * width + width + hidden + 4 * hidden
    assert model.num_layers == layers
    assert model.num_parameters == layers * layer + (vocab + positions) * hidden + 2 * hidden


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt (L=48 h=6144 a=64)", "gives no v; write it as in"),
        ("gpt (L=48 h=6144 a=64 v=51200 x=3)", "'x=3' is not understood"),
        ("gpt (L=48 h=6144 a=64 ffn 2.33h v=51200)", "f is not a whole number"),
        ("gpt (L=48 h=6144 a=7 v=51200)", "not a multiple of the 7 attention heads"),
    ],
)
def test_sizes_that_make_no_model_are_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(text)


@pytest.mark.parametrize(
    "text", ["x" * (LONGEST + 1), "(", "()", "/", "a/", "/a", "cut to 3 layers", " ", "лама", "..", "a--b_config.json"]
)
def test_a_text_that_names_nothing_is_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError):
        load_model(text)


def test_a_users_own_model_has_ids_and_comes_before_what_a_name_usually_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    own = (ROOT / "models" / "qwen3-0.6b.yaml").read_text().replace("Qwen/Qwen3-0.6B", "Acme/Own_1B")
    (tmp_path / "models" / "own.yaml").write_text(own)
    (tmp_path / "models" / "llama-7b.yaml").write_text(own.replace("Acme", "Other"))
    (tmp_path / "models" / "flow.yaml").write_text('{"hidden_size": 64, "ids": ["Acme/Flow"], "layers": 1}')
    monkeypatch.chdir(tmp_path)
    assert load_model("acme/own_1b").name == "own"
    assert load_model("llama-7b").name == "llama-7b"
    assert named_model("Acme/Flow").name == "flow"  # type: ignore[union-attr]


@pytest.mark.parametrize("table", ["[]", '{"absent": 3}', '{"quantised": {"a/b": 1}}', '{"formats": ["a"]}'])
def test_a_broken_table_of_names_is_told_in_a_sentence(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "names.json").write_text(table)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"names\.json: "):
        load_model("some model")


def test_the_table_of_names_names_shipped_models_and_nothing_twice() -> None:
    table = json.loads((ROOT / "models" / "names.json").read_text(encoding="utf-8"))
    assert {entry["model"] for entry in table["quantised"].values()} <= set(list_models())
    absent = [name.lower() for names in table["absent"].values() for name in names]
    assert len(set(absent)) == len(absent)
    for name in absent:
        if not name.endswith("*"):
            with pytest.raises(ConfigError):
                load_model(name)


def spelled() -> set[str]:
    """What the reference tables say of their models."""
    pandas = pytest.importorskip("pandas")
    found: set[str] = set()
    for path in sorted(REFERENCE.rglob("*.csv")):
        frame = pandas.read_csv(path, dtype=str, usecols=lambda name: name == "model", keep_default_na=False)
        found |= {value for column in frame for value in frame[column].unique()}
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in sorted(REFERENCE.rglob("*.parquet")):
        if "model" in parquet.read_schema(path).names:
            found |= {str(value) for value in pandas.read_parquet(path, columns=["model"])["model"].unique()}
    return found


@pytest.mark.slow
def test_every_model_of_the_reference_tables_is_resolved_or_listed_with_the_reason() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("reference measurements are not here")
    reasons = {text for texts in UNTOLD.values() for text in texts}
    resolved, unresolved = set(), set()
    for text in spelled():
        try:
            gs.load_model(text)
            resolved.add(text)
        except ConfigError as error:
            if "is not in the catalog: " not in str(error):
                unresolved.add(text)
    assert len(resolved) > 100
    assert not unresolved - reasons, "neither a model nor listed"
    assert not reasons & resolved, "listed, and a model"
