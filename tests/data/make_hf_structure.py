"""Makes the facts.csv of a folder in tests/data/hf: exact counts of its configs by transformers and PEFT themselves.

Models are instantiated on torch's meta device, so no weights are needed. Run it in an environment with
torch, transformers 5.24 and peft 0.21: `python tests/data/make_hf_structure.py decoders [NAME ...]`. Rows that are
there stay as they are unless they are named. `source` says where the text of a published config was read; a row that
names no version of transformers is of a model that it does not have, written by hand from what the source says.
"""

import csv
import importlib
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

TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}  # fmt: skip
"""What PEFT is told of models with other heads, so that it trains these in full and puts no adapter on them."""

SMALL = 10**7
"""Models of so few parameters are counted with weights, so that tokens choose experts."""

UNROUTED = (
    *("moe", "mixtral", "minimax", "deepseek", "kimi", "llama4", "dbrx", "gpt_oss", "dots", "dsa"),
    *("nemotron_h", "longcat", "mimo", "axk", "laguna", "muse", "hy_v", "mistral4", "step3p5", "afmoe"),
)
"""Parts of a `model_type` whose flops are left blank but for small models: on the meta device no token chooses an
expert."""

UNCOUNTED = (
    *("kimi_linear", "glm5_next", "bailing_hybrid", "olmo_hybrid", "inkling", "next", "qwen3_5", "zaya", "xlstm"),
    *("jamba", "mamba", "bamba", "zamba", "falcon_h1", "nemotron_h", "lfm", "recurrent_gemma", "gemma4_text", "switch"),
)
"""Parts of a `model_type` whose flops are left blank: scans run element by element, torch counts the padding of
convolutions as work, and Switch drops the tokens that an expert has no room for."""


def configs_of_all() -> dict[str, dict]:
    """The configs of every folder."""
    files = sorted(HERE.glob("*/configs.json"))
    return {name: data for file in files for name, data in json.loads(file.read_text()).items()}


def model_of(data: dict, device: str = "meta") -> torch.nn.Module:
    """The class that `architectures` names, or the generating one of the `model_type`; experts one by one."""
    fields = dict(data)
    kind, named = fields.pop("model_type"), getattr(transformers, (data.get("architectures") or [""])[0], None)
    known = kind in CONFIG_MAPPING or named is None
    config = (CONFIG_MAPPING[kind] if known else named.config_class)(
        **fields
    )  # another's class: Kimi K2 is DeepSeek V3
    config._experts_implementation = "eager"
    with torch.device(device):
        if named is not None:
            return named._from_config(config, attn_implementation="eager")
        for name in AUTO:
            auto = getattr(transformers, name)
            if type(config) in auto._model_mapping:
                return auto.from_config(config, attn_implementation="eager")
        return Headed(config)


class Headed(transformers.PreTrainedModel):
    """A language model of which transformers has only the body, as a part of multimodal models, and a head for it."""

    def __init__(self, config: transformers.PreTrainedConfig) -> None:
        super().__init__(config)
        package = type(config).__module__.replace(".configuration_", ".modeling_")
        body = getattr(importlib.import_module(package), type(config).__name__.replace("Config", "Model"))
        self.model = body._from_config(config, attn_implementation="eager")
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.get_input_embeddings().weight

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.model(input_ids=input_ids, use_cache=False)[0])


def adapter_parameters(data: dict, targets: object, rank: int) -> object:
    """Trainable parameters, or nothing where PEFT finds no module of that name (or refuses the model)."""
    named = (data.get("architectures") or [""])[0]
    task = next((task for ending, task in TASKS.items() if named.endswith(ending)), None)
    config = peft.LoraConfig(r=rank, target_modules=targets, task_type=task)
    try:
        model = peft.get_peft_model(model_of(data), config, autocast_adapter_dtype=False)
    except Exception:  # whatever PEFT says, there is no number
        return ""
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and "lora_" in name)


def prefill_flops(data: dict, params: int) -> object:
    """Of matrix products as torch counts them: 2 sequences of 256 tokens, the whole square of scores, all logits.

    An encoder-decoder has as many on both sides; where it hears sound, as many frames as its encoder always has.
    """
    small = params < SMALL
    left_out = UNCOUNTED if small else UNCOUNTED + UNROUTED
    if any(part in data["model_type"] for part in left_out) or "text_config" in data:
        return ""
    device = "cpu" if small else "meta"
    model = model_of(data, device).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs_of(model, device))
    return counter.get_total_flops()


def inputs_of(model: torch.nn.Module, device: str) -> dict[str, torch.Tensor]:
    """What the model takes in a step of 2 sequences of 256 tokens."""
    config, tokens = model.config, torch.zeros(2, 256, dtype=torch.long, device=device)
    if not config.is_encoder_decoder:
        return {"input_ids": tokens}
    if model.main_input_name != "input_features":
        return {"input_ids": tokens, "decoder_input_ids": tokens}
    frames = 2 * config.max_source_positions
    features = torch.zeros(2, config.num_mel_bins, frames, device=device)
    return {"input_features": features, "decoder_input_ids": tokens}


def facts_of(name: str, data: dict) -> dict[str, object]:
    params = sum(p.numel() for p in {id(p): p for p in model_of(data).parameters()}.values())
    try:
        flops = prefill_flops(data, params)
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
            rows[name] = facts_of(name, data) | {"source": rows.get(name, {}).get("source", "")}
            print(*rows[name].values(), flush=True)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows[name] for name in configs)


if __name__ == "__main__":
    main(*sys.argv[1:])
