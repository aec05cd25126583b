"""Structure compared with exact counts: parameters, adapters and matrix flops of Hugging Face configs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import read_facts, whole
from graphsim.graph import total_work
from graphsim.lora.config import LoraConfig
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.models.phase import prefill
from graphsim.ops.precision import load_precision
from graphsim.simulation import lora_parameters

if TYPE_CHECKING:
    import pandas as pd

TEXT_ALONE = ("llama4", "mllama", "qwen3_5", "qwen3_5_moe")
"""Multimodal model types for which AutoModelForCausalLM of transformers, the source of the counts, builds only the text
part."""

COLUMNS = ("name", "params", "prefill_flops_b2_s256", "lora_qv_r16", "lora_all_linear_r8")


def validate_structure(path: str | Path) -> pd.DataFrame:
    """One row per fact of a CSV with the columns of `COLUMNS`: counted, simulated, whether they are equal.

    The config of model `a/b` is next to the CSV as `hf_configs/a--b_config.json`; blank facts are left out.
    Raises ConfigError for a file that cannot be read or lacks a column.
    """
    import pandas as pd

    file = Path(path)
    facts = read_facts(file, "counted facts", COLUMNS, dtype=str, keep_default_na=False)
    rows = []
    for _, fact in facts.iterrows():
        stem = str(fact["name"]).replace("/", "--").replace(":", "--")
        config = load_model(file.parent / "hf_configs" / f"{stem}_config.json")
        if fact.get("model_type") in TEXT_ALONE:
            config = replace(config, encoders=())
        for column in COLUMNS[1:]:
            if fact[column]:
                found = _simulated(config, column)
                counted = _counted(fact, column, file)
                rows.append(
                    {
                        "name": fact["name"],
                        "fact": column,
                        "counted": counted,
                        "simulated": found,
                        "equal": found == counted,
                    }
                )
    return pd.DataFrame(rows)


def _counted(fact: Any, column: str, file: Path) -> int:
    try:
        return whole(fact, column)
    except ConfigError as error:
        raise ConfigError(f"{file}: {fact['name']}: {error}") from None


def _simulated(config: ModelConfig, column: str) -> Any:
    if column == "params":
        return config.num_parameters
    if column == "prefill_flops_b2_s256":
        phase = prefill(2.0, 256.0, all_logits=True, causal=False)
        return round(float(total_work(build(config, phase, load_precision("bf16"))).flops))
    every = column == "lora_all_linear_r8"
    targets = "all-linear" if every else ("q_proj", "v_proj")
    try:
        return lora_parameters(config, LoraConfig(rank=8 if every else 16, target_modules=targets))
    except GraphsimError as error:
        return str(error)
