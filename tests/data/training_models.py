"""Tiny models of every dense family and of some others, and how transformers and PEFT build and train them.

Sizes differ from each other on purpose, so that no product comes out right by chance. For `make_training_flops.py` and
`make_training_kept.py`, which run where torch, transformers and peft are installed.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "training"
MODELS: dict[str, dict[str, Any]] = json.loads((HERE / "models.json").read_text())
RANK = 8
ATTENTION_WORDS = ("attn", "attention")
QUERIES_VALUES = ("q_proj", "v_proj")
FUSED = ("query_key_value", "qkv_proj", "c_attn", "Wqkv")


def config_of(name: str, layers: int | None = None, attention: str = "eager") -> transformers.PreTrainedConfig:
    """The config of a model, of other depth if that is said."""
    fields = copy.deepcopy(MODELS[name])
    kind = fields.pop("model_type")
    if layers is not None:
        key = next(key for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in fields)
        fields[key] = layers
        for kinds in ("layer_types", "attention_layers"):
            if kinds in fields:
                fields[kinds] = fields[kinds][:layers]
    config = CONFIG_MAPPING[kind](**fields)
    config._attn_implementation = attention
    config._experts_implementation = "eager"
    config.use_cache = False
    return config


def model_of(
    name: str, device: str, layers: int | None = None, attention: str = "eager", dtype: torch.dtype = torch.float32
) -> transformers.PreTrainedModel:
    """The model with a language model's head, in training mode."""
    config = config_of(name, layers, attention)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.train()


def linears(model: torch.nn.Module) -> list[str]:
    """Paths of the linear layers that LoRA can go on, without the head."""
    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return [path for path, module in model.named_modules() if isinstance(module, kinds) and module is not head]


def target_sets(model: torch.nn.Module) -> dict[str, list[str]]:
    """Names for `target_modules`: queries and values, attention, feed-forward, all; the shortest that tell apart."""
    paths = linears(model)
    attention = {path for path in paths if any(word in path for word in ATTENTION_WORDS)}
    qv = {path for path in attention if path.rpartition(".")[2] in QUERIES_VALUES}
    qv = qv or {path for path in attention if path.rpartition(".")[2] in FUSED}
    sets = {"qv": qv, "attention": attention, "mlp": set(paths) - attention, "all": set(paths)}
    return {key: sorted(_suffixes(chosen, paths)) for key, chosen in sets.items()}


def _suffixes(chosen: set[str], paths: list[str]) -> Iterator[str]:
    seen = set()
    for path in sorted(chosen):
        parts = path.split(".")
        for i in range(1, len(parts) + 1):
            suffix = ".".join(parts[-i:])
            reached = {p for p in paths if p == suffix or p.endswith("." + suffix)}
            if reached <= chosen:
                break
        if suffix not in seen:
            seen.add(suffix)
            yield suffix


def tied(model: torch.nn.Module) -> bool:
    """Whether the head shares the embedding's weights."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def adapted(model: torch.nn.Module, fields: dict[str, Any], fp32: bool = False) -> torch.nn.Module:
    """The model with an adapter as PEFT puts it there."""
    fields = copy.deepcopy(fields)
    kind = fields.pop("peft_type", "LORA")
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)](**fields)
    return peft.get_peft_model(model, config, autocast_adapter_dtype=fp32)


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
