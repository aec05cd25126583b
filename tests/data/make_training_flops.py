"""Makes training/flops.csv: matrix flops of one training step, forward and backward, as torch's counter has them.

Models lie on torch's meta device; loss and head over all positions, scores as whole squares (eager attention). Run it
where torch, transformers and peft are installed: `python tests/data/make_training_flops.py [MODEL ...]`; rows of other
models stay as they are.

entry: whether the embedding's output requires a gradient by `enable_input_require_grads` (checkpoints call it in
transformers 5); checkpoint: how layers are recomputed, whose second forward is counted with the backward; frozen: which
parts of a trained base are not trained.
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
from torch.utils.flop_counter import FlopCounterMode
from training_models import HERE, MODELS, RANK, adapted, model_of, target_sets, tied, versions

BATCH, LENGTH = 2, 40
COLUMNS = [
    "model", "case", "adapter", "frozen", "entry", "checkpoint", "batch", "length", "forward", "backward",
    "torch", "transformers", "peft",
]  # fmt: skip


@dataclass
class Case:
    name: str
    adapter: dict[str, Any] = field(default_factory=dict)
    frozen: str = ""
    entry: bool = False
    checkpoint: str = ""


MIXTURES = ("mixtral", "qwen3_moe")
"""Models that run on the CPU, as no token chooses an expert on the meta device."""

MORE = ("llama", "qwen3", "gpt2", "gpt_neox")
"""Models of which rarer cases are counted as well."""


def cases_of(name: str) -> Iterator[Case]:
    model = model_of(name, "meta")
    sets, rank = target_sets(model), {"r": RANK}
    yield Case("full")
    yield Case("full, frozen embedding", frozen="embedding")
    for key, names in sets.items():
        if not names:
            continue
        for entry in (False, True):
            yield Case(f"lora {key}", rank | {"target_modules": names}, entry=entry)
    yield Case("dora all", rank | {"target_modules": sets["all"], "use_dora": True})
    if not tied(model):
        for saved in ("head", "embedding"):
            adapter = rank | {"target_modules": sets["qv"], "modules_to_save": [_end(model, saved)]}
            yield Case(f"lora qv, saved {saved}", adapter)
    if name not in MORE:
        return
    yield Case("dora all, dropout", rank | {"target_modules": sets["all"], "use_dora": True, "lora_dropout": 0.1})
    for layer in (0, 1):
        yield Case(f"lora all, layer {layer}", rank | {"target_modules": sets["all"], "layers_to_transform": [layer]})
    pattern = {sets["mlp"][0]: 3}
    yield Case("lora all, rank pattern", rank | {"target_modules": sets["all"], "rank_pattern": pattern})
    yield Case("lora mlp, all biases", rank | {"target_modules": sets["mlp"], "bias": "all"})
    yield Case("vera all", rank | {"peft_type": "VERA", "target_modules": sets["attention"]})
    ia3 = {"target_modules": sets["all"], "feedforward_modules": [n for n in sets["all"] if n in sets["mlp"]]}
    yield Case("ia3 all", {"peft_type": "IA3", **ia3})
    for checkpoint in ("reentrant", "non_reentrant"):
        yield Case("full, checkpoints", checkpoint=checkpoint)
        for key in ("qv", "all"):
            adapter = rank | {"target_modules": sets[key]}
            yield Case(f"lora {key}, checkpoints", adapter, entry=True, checkpoint=checkpoint)


def _end(model: torch.nn.Module, end: str) -> str:
    module = model.get_output_embeddings() if end == "head" else model.get_input_embeddings()
    return next(path for path, each in model.named_modules() if each is module).rpartition(".")[2]


def flops_of(name: str, case: Case) -> tuple[int, int]:
    """Forward and backward of one step."""
    device = "cpu" if name in MIXTURES else "meta"
    model = model_of(name, device)
    if case.frozen == "embedding":
        model.get_input_embeddings().weight.requires_grad_(False)
    whole = adapted(model, case.adapter) if case.adapter else model
    if case.checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": case.checkpoint == "reentrant"})
    if case.entry:
        model.enable_input_require_grads()
    tokens = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH).to(device)
    with FlopCounterMode(display=False) as forward:
        loss = whole(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    for case in cases_of(name):
        try:
            forward, backward = flops_of(name, case)
        except Exception as error:  # what PEFT or torch cannot do has no row
            print(f"{name}, {case.name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            continue
        yield {
            "model": name, "case": case.name, "adapter": json.dumps(case.adapter) if case.adapter else "",
            "frozen": case.frozen, "entry": int(case.entry), "checkpoint": case.checkpoint, "batch": BATCH,
            "length": LENGTH, "forward": forward, "backward": backward, **versions(),
        }  # fmt: skip


def main(*names: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    path = HERE / "flops.csv"
    kept = list(csv.DictReader(path.open())) if path.exists() else []
    chosen = names or tuple(MODELS)
    rows = [row for row in kept if row["model"] not in chosen]
    rows += [row for name in chosen for row in rows_of(name)]
    order = list(MODELS)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: order.index(row["model"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
