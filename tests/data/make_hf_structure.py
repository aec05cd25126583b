"""Makes the facts.csv of a folder in tests/data/hf: exact counts of its configs by transformers and PEFT themselves.

Models are instantiated on torch's meta device, so no weights are needed. Run it in an environment with
torch, transformers 5.24 and peft 0.21: `python tests/data/make_hf_structure.py decoders [NAME ...]`. Rows that are
there stay as they are unless they are named; a row with a `source` is of a model that transformers does not have,
written by hand from what is said there.
"""

import csv
import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "hf"
COLUMNS = [
    "name", "params", "prefill_flops_b2_s256", "lora_qv_r16", "lora_all_linear_r8", "transformers", "peft", "source",
]  # fmt: skip
AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq")
"""Where a config names no class of its own, the first of these that knows it."""

UNCOUNTED = (
    *("moe", "mixtral", "minimax", "deepseek", "kimi", "llama4", "dbrx", "gpt_oss", "dots", "dsa", "next", "qwen3_5"),
    *("jamba", "mamba", "bamba", "zamba", "falcon_h1", "nemotron_h", "lfm", "recurrent_gemma", "gemma4_text"),
)
"""Parts of a `model_type` whose flops are left blank: on the meta device no token chooses an expert and scans run
element by element, and torch counts the padding of convolutions as work."""


def configs_of_all() -> dict[str, dict]:
    """The configs of every folder."""
    files = sorted(HERE.glob("*/configs.json"))
    return {name: data for file in files for name, data in json.loads(file.read_text()).items()}


def model_of(data: dict) -> torch.nn.Module:
    """The class that `architectures` names, or the generating one of the `model_type`."""
    fields = dict(data)
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    named = getattr(transformers, (data.get("architectures") or [""])[0], None)
    with torch.device("meta"):
        if named is not None:
            return named._from_config(config, attn_implementation="eager")
        for name in AUTO:
            auto = getattr(transformers, name)
            if type(config) in auto._model_mapping:
                return auto.from_config(config, attn_implementation="eager")
    raise SystemExit(f"{data['model_type']}: transformers has no model that generates")


def adapter_parameters(data: dict, targets: object, rank: int) -> object:
    """Trainable parameters, or nothing where PEFT finds no module of that name (or refuses the model)."""
    config = peft.LoraConfig(r=rank, target_modules=targets)
    try:
        model = peft.get_peft_model(model_of(data), config, autocast_adapter_dtype=False)
    except Exception:  # whatever PEFT says, there is no number
        return ""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def prefill_flops(data: dict) -> object:
    """Of matrix products as torch counts them: 2 sequences of 256 tokens, the whole square of scores, all logits."""
    if any(part in data["model_type"] for part in UNCOUNTED) or "text_config" in data:
        return ""
    model = model_of(data).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 256, dtype=torch.long, device="meta"))
    return counter.get_total_flops()


def facts_of(name: str, data: dict) -> dict[str, object]:
    params = sum(p.numel() for p in {id(p): p for p in model_of(data).parameters()}.values())
    try:
        flops = prefill_flops(data)
    except Exception:  # some models need more than token ids
        flops = ""
    counted = (name, params, flops, adapter_parameters(data, ["q_proj", "v_proj"], 16))
    every = adapter_parameters(data, "all-linear", 8)
    return dict(zip(COLUMNS, (*counted, every, transformers.__version__, peft.__version__, ""), strict=True))


def main(group: str, *names: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    configs = json.loads((HERE / group / "configs.json").read_text())
    file = HERE / group / "facts.csv"
    rows = {row["name"]: row for row in csv.DictReader(file.open())} if file.exists() else {}
    for name, data in configs.items():
        if name in names or name not in rows:
            rows[name] = facts_of(name, data)
            print(*rows[name].values(), flush=True)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[name] for name in configs)


if __name__ == "__main__":
    main(*sys.argv[1:])
