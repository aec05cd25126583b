"""Makes hf_structure.csv: exact counts of every config in hf_configs.json by transformers and PEFT themselves.

Models are instantiated on torch's meta device, so no weights are needed. Run it in an environment with
torch, transformers 5.23 and peft 0.21: `python tests/data/make_hf_structure.py`.
"""

import csv
import json
import warnings
from pathlib import Path

import peft
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent
COLUMNS = ["name", "params", "prefill_flops_b2_s256", "lora_qv_r16", "lora_all_linear_r8", "transformers", "peft"]

UNCOUNTED = (
    *("moe", "mixtral", "minimax", "deepseek", "kimi", "llama4", "dbrx", "gpt_oss", "dots", "dsa", "next", "qwen3_5"),
    *("jamba", "mamba", "bamba", "zamba", "falcon_h1", "nemotron_h", "lfm2", "recurrent_gemma", "gemma4_text"),
)
"""Parts of a `model_type` whose flops are left blank: on the meta device no token chooses an expert and scans run
element by element, and torch counts the padding of convolutions as work."""


def model_of(data: dict) -> torch.nn.Module:
    fields = dict(data)
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


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
    if any(part in data["model_type"] for part in UNCOUNTED):
        return ""
    model = model_of(data).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 256, dtype=torch.long, device="meta"))
    return counter.get_total_flops()


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    configs = json.loads((HERE / "hf_configs.json").read_text())
    with (HERE / "hf_structure.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, data in configs.items():
            params = sum(p.numel() for p in {id(p): p for p in model_of(data).parameters()}.values())
            qv = adapter_parameters(data, ["q_proj", "v_proj"], 16)
            every = adapter_parameters(data, "all-linear", 8)
            writer.writerow([name, params, prefill_flops(data), qv, every, transformers.__version__, peft.__version__])
            file.flush()


if __name__ == "__main__":
    main()
