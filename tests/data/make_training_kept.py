"""Makes training/kept.csv: bytes that autograd keeps for a step's backward, and those of the step's fullest moment.

Models of bf16 run on the CPU, loss included; dropout keeps a byte an element as on CUDA. Parameters, buffers and the
tokens are not counted. Run it where torch, transformers and peft are installed:
`python tests/data/make_training_kept.py [MODEL ...]`; rows of other models stay as they are.

saved: distinct storages that `saved_tensors_hooks` sees; live: what is alive behind the forward, the loss with it (a
checkpoint that is not re-entrant keeps its input without a hook); peak: the most alive at once, gradients included;
held: alive behind the backward, gradients of parameters included; gradients: those alone; storages: of `saved`.
"""

import csv
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from live_storages import CudaDropout, Live, Saved
from training_models import HERE, MODELS, RANK, adapted, model_of, target_sets, versions

BATCH, LENGTH = 2, 40
COLUMNS = [
    "model", "case", "adapter", "adapter_format", "frozen", "attention", "entry", "checkpoint", "batch", "length",
    "layers", "saved", "live", "peak", "held", "gradients", "storages", "torch", "transformers", "peft",
]  # fmt: skip

KEPT_OF = (
    "llama",
    "qwen3",
    "gpt2",
    "gemma2",
    "phi3",
    "olmo2",
    "falcon",
    "opt",
    "gpt_neox",
    "bloom",
    "cohere",
    "granite",
)
MANY = ("llama",)
"""Models of which every method is measured."""

EAGER = ("gpt2", "gemma2", "opt", "bloom", "falcon")
"""Models that drop scores, are given a mask, or have no fused attention: on a CPU torch has none for these."""


@dataclass
class Case:
    name: str
    adapter: dict[str, Any] = field(default_factory=dict)
    adapter_format: str = "bf16"
    frozen: str = ""
    entry: bool = False
    checkpoint: str = ""


def cases_of(name: str) -> Iterator[Case]:
    sets = target_sets(model_of(name, "meta"))
    yield Case("full")
    for key, names in sets.items():
        if not names:
            continue
        for width in ("bf16", "fp32"):
            yield Case(f"lora {key}, {width}", {"r": RANK, "target_modules": names}, width)
    every = {"r": RANK, "target_modules": sets["all"]}
    for width in ("bf16", "fp32"):
        yield Case(f"lora all, {width}, dropout", every | {"lora_dropout": 0.1}, width)
    for checkpoint in ("reentrant", "non_reentrant"):
        yield Case("full, checkpoints", checkpoint=checkpoint)
        yield Case("lora all, fp32, checkpoints", every, "fp32", entry=True, checkpoint=checkpoint)
    if name in MANY:
        yield from _rarer(sets)


def _rarer(sets: dict[str, list[str]]) -> Iterator[Case]:
    qv, every = {"r": RANK, "target_modules": sets["qv"]}, {"r": RANK, "target_modules": sets["all"]}
    yield Case("full, frozen embedding", frozen="embedding")
    yield Case("full, frozen norms", frozen="norms")
    yield Case("lora qv, fp32, entry", qv, "fp32", entry=True)
    yield Case("lora qv, bf16, dropout", qv | {"lora_dropout": 0.1}, "bf16")
    yield Case("lora qv, fp32, dropout", qv | {"lora_dropout": 0.1}, "fp32")
    yield Case("lora qv, bf16, saved head", qv | {"modules_to_save": ["lm_head"]}, "bf16")
    for width in ("bf16", "fp32"):
        yield Case(f"dora qv, {width}", qv | {"use_dora": True}, width)
        yield Case(f"dora all, {width}", every | {"use_dora": True}, width)
        yield Case(f"dora all, {width}, dropout", every | {"use_dora": True, "lora_dropout": 0.1}, width)
        yield Case(f"lora-fa all, {width}", every, width, frozen="lora_A")
        yield Case(f"lora-fa all, {width}, dropout", every | {"lora_dropout": 0.1}, width, frozen="lora_A")
        attention = {"r": RANK, "target_modules": sets["attention"]}
        yield Case(f"vera attention, {width}", attention | {"peft_type": "VERA"}, width)
        ia3 = {"peft_type": "IA3", "target_modules": sets["all"], "feedforward_modules": sets["mlp"]}
        yield Case(f"ia3 all, {width}", ia3, width)
    yield Case("ln tuning", {"peft_type": "LN_TUNING", "target_modules": ["input_layernorm"]}, "bf16")
    yield Case("lora all, layer 1", every | {"layers_to_transform": [1]}, "bf16")


def prepared(name: str, case: Case, attention: str, layers: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model, and the same with what the case puts around it."""
    model = model_of(name, "cpu", layers, attention, torch.bfloat16)
    whole = adapted(model, case.adapter, case.adapter_format == "fp32") if case.adapter else model
    for path, parameter in whole.named_parameters():
        norm = case.frozen == "norms" and "norm" in path
        embedding = case.frozen == "embedding" and parameter is model.get_input_embeddings().weight
        if norm or embedding or (case.frozen == "lora_A" and "lora_A" in path):
            parameter.requires_grad_(False)
    if case.checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": case.checkpoint == "reentrant"})
    if case.entry:
        model.enable_input_require_grads()
    return model, whole


def measured(name: str, case: Case, attention: str, layers: int) -> dict[str, Any]:
    """One step's bytes."""
    model, whole = prepared(name, case, attention, layers)
    tokens = torch.randint(0, 200, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    own = [*whole.parameters(), *whole.buffers(), tokens]
    saved, live = Saved(own), Live(own)
    with CudaDropout(), live, saved:
        loss = whole(input_ids=tokens, labels=tokens).loss
    kept, alive, storages = saved.bytes, live.bytes, saved.summary()
    saved.tensors.clear()
    with CudaDropout(), live:
        loss.backward()
    gradients = sum(each.grad.nbytes for each in whole.parameters() if each.grad is not None)
    return {
        "saved": kept, "live": alive, "peak": live.peak, "held": live.bytes, "gradients": gradients,
        "storages": storages,
    }  # fmt: skip


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    for case in cases_of(name):
        for attention in ("sdpa", "eager"):
            for layers in (1, 3) if name in MANY else (3,):
                if not _asked(name, case, attention, layers):
                    continue
                try:
                    facts = measured(name, case, attention, layers)
                except Exception as error:  # what a model or PEFT cannot do has no row
                    print(f"{name}, {case.name}, {attention}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
                    continue
                yield {
                    "model": name, "case": case.name, "adapter": json.dumps(case.adapter) if case.adapter else "",
                    "adapter_format": case.adapter_format if case.adapter else "", "frozen": case.frozen,
                    "attention": attention, "entry": int(case.entry), "checkpoint": case.checkpoint, "batch": BATCH,
                    "length": LENGTH, "layers": layers, **facts, **versions(),
                }  # fmt: skip


def _asked(name: str, case: Case, attention: str, layers: int) -> bool:
    """Whether a case is measured: with `eager` attention all of models that have no other, of the rest a few."""
    if name in EAGER:
        return attention == "eager"
    few = attention == "eager" and case.name not in ("full", "lora qv, fp32")
    return not few and not (layers == 1 and "layers_to_transform" in case.adapter)


def main(*names: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    path = HERE / "kept.csv"
    there = list(csv.DictReader(path.open())) if path.exists() else []
    chosen = names or KEPT_OF
    rows = [row for row in there if row["model"] not in chosen]
    rows += [row for name in chosen for row in rows_of(name)]
    order = list(MODELS)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: order.index(row["model"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
