"""Parameters and adapters of Hugging Face configs equal what transformers and PEFT instantiate, to the last one."""

import csv
from dataclasses import replace

import pytest

import graphsim as gs
from graphsim.graph import total_work, validate
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from graphsim.ops.precision import load_precision
from graphsim.validation.structure import TEXT_ALONE
from tests.paths import REFERENCE, hf_configs, hf_facts

CONFIGS = hf_configs()
FACTS = hf_facts()

"""Published configs of families whose defaults and small variants are tried as well."""

SLOW = pytest.mark.slow

QV = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj"])
ALL = gs.LoraConfig(rank=8, target_modules="all-linear")


def reference_rows() -> list[dict[str, str]]:
    path = REFERENCE / "structure.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def test_every_config_has_facts_and_every_fact_a_config() -> None:
    names = [fact["name"] for fact in FACTS]
    make = "run `python tests/data/make_hf_structure.py FOLDER` where transformers and peft are installed"
    bare = sorted(set(CONFIGS) - set(names))
    assert not bare, f"tests/data/hf has no parameters to hold {', '.join(bare)} to: {make}"
    lost = sorted(set(names) - set(CONFIGS))
    assert not lost, f"tests/data/hf has no config of {', '.join(lost)}: add it, or {make}"
    assert len(names) == len(set(names)), f"tests/data/hf has rows of one name: {make}"


def test_every_fact_states_parameters() -> None:
    blank = [fact["name"] for fact in FACTS if not fact["params"].isdigit()]
    assert not blank, f"tests/data/hf: params of {', '.join(blank)} is not a whole number"


FEW = sorted(CONFIGS)[::9]
"""Configs that a plain run counts and whose graphs it builds; the others' take long, as they are many."""


@pytest.mark.parametrize(
    "fact", [pytest.param(fact, id=fact["name"], marks=() if fact["name"] in FEW else SLOW) for fact in FACTS]
)
def test_counts_equal_transformers_and_peft(fact: dict[str, str]) -> None:
    config = from_config(CONFIGS[fact["name"]], fact["name"])
    assert config.num_parameters == int(fact["params"]), (
        f"{fact['name']}: {config.num_parameters} parameters, {fact['params']} in "
        f"{fact['source'] or 'transformers ' + fact['transformers']}"
    )
    if fact["prefill_flops_b2_s256"]:
        read = config.source_encoder.rows_of(256.0) if config.source_encoder else 0.0
        phase = prefill(2.0, 256.0, all_logits=True, causal=False, source_tokens=read)
        graph = build(config, phase, load_precision("bf16"))
        assert total_work(graph).flops == int(fact["prefill_flops_b2_s256"])
    if fact["lora_qv_r16"]:
        assert gs.lora_parameters(config, QV) == int(fact["lora_qv_r16"])
    if fact["lora_all_linear_r8"]:
        assert gs.lora_parameters(config, ALL) == int(fact["lora_all_linear_r8"])


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param(name, ("prefill", "decode")[number % 2], marks=() if name in FEW else SLOW)
        for number, name in enumerate(sorted(CONFIGS))
    ],
)
def test_graphs_of_both_phases_are_valid_programs_whole_and_cut(name: str, cut: str) -> None:
    """Of each config, one phase whole and the other one cut; configs of a family have them in turn."""
    config = from_config(CONFIGS[name], name)
    for phase in ("prefill", "decode"):
        tp = 2 if phase == cut else 1
        try:
            graph = gs.build_graph(config, phase, 2, 64, parallelism=gs.Parallelism(tp=tp))
        except gs.ConfigError as error:
            assert tp == 2 and "does not divide" in str(error)
            continue
        validate(graph)


@pytest.mark.skipif(not reference_rows(), reason="the reference data is not here")
@pytest.mark.parametrize("row", reference_rows(), ids=lambda row: row["name"])
def test_every_reference_row_is_exact(row: dict[str, str]) -> None:
    file = row["name"].replace("/", "--").replace(":", "--") + "_config.json"
    config = gs.load_model(REFERENCE / "hf_configs" / file)
    if row["model_type"] in TEXT_ALONE:
        config = replace(config, encoders=())
    assert config.num_parameters == int(row["params"])
    if row["lora_qv_r16"]:
        assert gs.lora_parameters(config, QV) == int(row["lora_qv_r16"])
    if row["lora_all_linear_r8"]:
        assert gs.lora_parameters(config, ALL) == int(row["lora_all_linear_r8"])
    if row["prefill_flops_b2_s256"]:
        graph = build(config, prefill(2.0, 256.0, all_logits=True, causal=False), load_precision("bf16"))
        assert total_work(graph).flops == int(row["prefill_flops_b2_s256"])
