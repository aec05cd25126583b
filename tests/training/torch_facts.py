"""Training steps whose flops and kept bytes PyTorch, transformers and PEFT have counted, as graphsim derives them."""

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import networkx as nx

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import KeptValue, Norm, Repeat
from graphsim.ops.precision import load_precision
from graphsim.passes.backward import backward
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.trained import mark_trained

FOLDER = Path(__file__).parents[1] / "data" / "training"
MODELS = json.loads((FOLDER / "models.json").read_text())

DROPPING = ("gpt2", "gpt_bigcode", "opt", "xglm")
"""Models whose configs drop hidden values by default, the first two scores as well."""

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """Of a file of facts."""
    return list(csv.DictReader((FOLDER / f"{name}.csv").open()))


def case_id(row: Row) -> str:
    """What a test of a row is called."""
    entry = " entry" if row["entry"] == "1" else ""
    more = [row["attention"], f"{row['layers']} layers"] if "layers" in row else []
    return ", ".join([row["model"], row["case"] + entry, *filter(None, [row["checkpoint"]]), *more])


@cache
def model_of(name: str, layers: str = "") -> ModelConfig:
    """The model of a row."""
    fields = dict(MODELS[name])
    if layers:
        key = next(key for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in fields)
        fields[key] = int(layers)
    return gs.load_model(fields)


def rules_of(row: Row, attention: str) -> BackwardRules:
    """How transformers and PEFT run the row."""
    adapter = json.loads(row["adapter"] or "{}")
    return BackwardRules(
        adapter_format=row.get("adapter_format") or "bf16",
        lora_dropout=adapter.get("lora_dropout", 0.0),
        attention=attention,
        input_requires_grad=row["entry"] == "1",
        recompute="full" if row["checkpoint"] else "none",
        reentrant=row["checkpoint"] == "reentrant",
        hidden_dropout=row["model"] in DROPPING,
        attention_dropout=row["model"] in DROPPING[:2],
        logit_bytes=4.0,
    )


def graph_of(row: Row, attention: str = "unfused") -> nx.DiGraph:
    """Forward, loss and backward of the row's step."""
    model = model_of(row["model"], row.get("layers", ""))
    phase = prefill(float(row["batch"]), float(row["length"]), all_logits=True, causal=False)
    graph = build(model, phase, load_precision("bf16"))
    if row["adapter"]:
        lora = gs.LoraConfig.from_peft({"peft_type": "LORA", **json.loads(row["adapter"])})
        graph = inject(graph, replace(lora, lora_dtype=row.get("adapter_format") or "bf16"))
    full = not row["adapter"]
    marked = mark_trained(
        graph, base=full, adapters=not full, embeddings=row["frozen"] != "embedding", freeze_a=row["frozen"] == "lora_A"
    )
    if row["frozen"] == "norms":
        marked = norms_frozen(marked)
    return backward(marked, rules_of(row, attention))


def norms_frozen(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph, none of whose norms is trained."""
    out = graph.copy()
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Norm):
            out.nodes[name]["op"] = replace(op, trained=0.0)
        elif isinstance(op, Repeat):
            out.nodes[name]["op"] = replace(op, body=norms_frozen(op.body))
    return out


def kept_bytes(graph: nx.DiGraph) -> float:
    """Of all that the forward pass keeps, turns multiplied out."""
    found = 0.0
    for _, op, times in walk(graph):
        if isinstance(op, KeptValue) and not op.again:
            found += times * float(op.kept_bytes)
    return found
