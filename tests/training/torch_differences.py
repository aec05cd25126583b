"""What eager PyTorch on a CPU keeps of a training step beside what the graph says, each with its reason, in bytes."""

import json

import networkx as nx

from graphsim.graph import walk
from graphsim.ops import KeptValue
from tests.training.torch_facts import MODELS, Row

ANGLES = {
    "llama": 32, "qwen3": 64, "gemma": 64, "gemma2": 64, "olmo2": 64, "phi3": 32, "granite": 32, "starcoder2": 32,
    "falcon": 32, "gpt_neox": 8, "stablelm": 8, "glm": 16, "mixtral": 32, "qwen3_moe": 64,
}  # fmt: skip
"""Of cosine and sine per position; in fp32 for OLMo 2. They are made once, by GLM in each layer."""

LAYER_NORMS = ("gpt2", "opt", "bloom", "falcon", "gpt_neox", "starcoder2", "stablelm")
"""Models with torch's own LayerNorm, whose statistics have the input's 16 bits on a CPU and 32 on CUDA."""

SCALED_IN_FP32 = ("olmo2", "gemma", "gemma2")
"""Models whose norms multiply by the scale ahead of the cast to 16 bits, so what is normalised is kept in 32."""

SCALED_EMBEDDINGS = ("granite", "gpt2", "opt")
"""Models that scale, drop or add to the embedding's output, so that it is not the first layer's input itself."""

SHIFTED_SCALES = ("gemma", "gemma2")
"""Models whose norms multiply by 1 + scale, in 32 bits, which is kept."""

NATIVE_SOFTMAX = ("gpt2", "falcon")
"""Models whose eager attention leaves the scores in 16 bits; others make them 32, keep these, and cast them back."""

JOINED_ROTATIONS = ("phi3", "glm", "gpt_neox", "stablelm")
"""Models that join what is rotated with what is not: queries then lie head by head, so does torch's fused attention's
result, and what the output projection takes is a copy."""

FUSED_PROJECTIONS = ("phi3", "gpt_neox")
"""Models whose values are a view of the product that makes queries and keys as well: all of it stays."""


MASKS = {"gpt2": 2 * 2, "gemma2": 2 * 2 * 2, "bloom": 2 * 2, "opt": 2, "falcon": 2 * 2}
"""Of the masks that eager attention is given, bytes per pair of positions: batch (OPT has one for all), two masks of
Gemma 2, format."""


def beside(row: Row, graph: nx.DiGraph) -> dict[str, float]:
    """Bytes that torch keeps and the graph does not (below 0: the reverse), by reason."""
    name, kept = (
        row["model"],
        [(op, times) for _, op, times in walk(graph) if isinstance(op, KeptValue) and not op.again],
    )
    fields, layers = MODELS[name], int(row["layers"])
    tokens, length = float(row["batch"]) * float(row["length"]), float(row["length"])
    hidden = fields.get("hidden_size") or fields["n_embd"]

    def elems(what: str) -> float:
        return sum(times * float(op.elems) for op, times in kept if op.what == what)

    layers = reached_layers(kept) if not row["checkpoint"] else layers
    found = {"the loss": 4.0, "token ids, given": -8.0 * elems("ids")}
    checkpoints, whole = bool(row["checkpoint"]), not row["adapter"]
    rotated = [times for op, times in kept if ".rope" in f".{op.of}"]
    if name in ANGLES and (checkpoints or rotated):
        found["angles"] = ANGLES[name] * length * (layers if name == "glm" and not checkpoints else 1)
    found["numbers of positions"] = 8.0 * _positions(row, length)
    if checkpoints and row["attention"] == "eager":
        found["the mask, given to checkpoints"] = MASKS.get(name, 0) * length * length
        found["slopes of ALiBi, given to checkpoints"] = 2.0 * 2.0 * 6.0 * length * (name == "bloom")
    if row["entry"] == "1" and (not checkpoints or name in SCALED_EMBEDDINGS):
        found["the embedding's output, which is made to require a gradient"] = 2.0 * tokens * hidden
    if name in LAYER_NORMS:
        found["statistics in 16 bits"] = -2.0 * elems("rstd")
    if name in SCALED_IN_FP32:
        found["normalised in 32 bits"] = 2.0 * elems("normalised")
    if name in SHIFTED_SCALES:
        found["1 + scale"] = 4.0 * elems("fp32") / tokens
    if row["attention"] == "eager" and not checkpoints:
        found |= _eager(name, elems("softmax"), fields, tokens, layers)
    if name == "opt" and not checkpoints:
        found["no dropout behind the embedding"] = -tokens * hidden * whole
    apart = row["case"].startswith("lora qv") and row["entry"] == "0" and "q_proj" in row["adapter"]
    if apart and row["attention"] == "eager":
        heads = fields["num_attention_heads"]
        width = fields.get("head_dim") or hidden / heads
        found["queries of the first layer, whose keys require no gradient"] = -2.0 * tokens * heads * width
    return found | _projections(row, fields, tokens, layers) | _adapters(row, fields, tokens)


def _adapters(row: Row, fields: dict, tokens: float) -> dict[str, float]:
    """Of PEFT's methods beside LoRA, measured on Llama."""
    if row["model"] != "llama":
        return {}
    hidden, inner, layers, wide = 48.0, 112.0, float(row["layers"]), row["adapter_format"] == "fp32"
    form, found = 4.0 if wide else 2.0, dict[str, float]()
    outputs = {"qv": (48.0, 16.0), "all": (48.0, 16.0, 16.0)}.get(row["case"].partition(" ")[2].partition(",")[0], ())
    if row["case"].startswith("dora"):
        found["magnitudes of a base's result that requires no gradient, in the first layer"] = -form * sum(outputs)
        if wide and "dropout" in row["case"]:
            weights = hidden * (48 + 16 + 16 + 48) + 3 * hidden * inner
            first = hidden * (48 + 16 + 16)
            found["weights in 32 bits, for the product of what was dropped"] = 4.0 * (layers * weights - first)
            found["that product in 32 bits"] = 2.0 * tokens * (48 + 16 + 16 + 48 + 112 + 112 + 48) * layers
    if row["case"].startswith("vera"):
        factors = 8.0 * (4 * hidden + 48 + 16 + 16 + 48)
        found["the shared factors, which are the model's own"] = -form * (factors * layers - 8.0 * 3 * hidden)
    if row["case"].startswith("ia3") and wide:
        found["inputs of the feed-forward in 32 bits, of gate and up each its own"] = (
            tokens * layers * (4.0 * (2 * hidden + inner) - 2.0 * (hidden + inner))
        )
    return found


def reached_layers(kept: list) -> float:
    """Layers whose attention keeps anything."""
    return float(sum(times for op, times in kept if op.what in ("lse", "softmax") and float(op.elems)))


def _positions(row: Row, length: float) -> float:
    """How many numbers of positions are kept: by learned positions, and by checkpoints, to which they are given."""
    name, learned = row["model"], not row["adapter"]
    if name == "gpt2":
        return length * (learned or bool(row["checkpoint"]))
    if name == "opt":
        return 2.0 * length * learned
    return length * (bool(row["checkpoint"]) and name in ANGLES)


def _eager(name: str, scores: float, fields: dict, tokens: float, layers: int) -> dict[str, float]:
    heads = fields.get("num_attention_heads") or fields.get("n_head")
    groups = 1 if fields.get("multi_query") else fields.get("num_key_value_heads") or heads
    width = fields.get("head_dim") or (fields.get("hidden_size") or fields["n_embd"]) / heads
    return {
        "indices of fused heads": 16.0 * layers * (name == "falcon"),
        "softmax in 32 bits": 0.0 if name in NATIVE_SOFTMAX else 4.0 * scores,
        "tanh of scores": 2.0 * scores * (name == "gemma2"),
        "keys and values of all heads": 2.0 * 2.0 * tokens * (heads - groups) * width * layers,
    }


def _projections(row: Row, fields: dict, tokens: float, layers: int) -> dict[str, float]:
    name, found = row["model"], dict[str, float]()
    if row["checkpoint"]:
        return found
    adapter = json.loads(row["adapter"] or "{}")
    if name in JOINED_ROTATIONS and row["attention"] == "sdpa" and _keeps_output_input(row, adapter):
        found["attention's result, copied"] = 2.0 * tokens * fields["hidden_size"] * layers
    if name in FUSED_PROJECTIONS and row["attention"] == "sdpa":
        heads = fields["num_attention_heads"]
        groups = fields.get("num_key_value_heads") or heads
        found["all of the fused product"] = 2.0 * tokens * (heads + groups) * fields["hidden_size"] / heads * layers
    if name == "gpt2":
        found["GELU's tanh, written out"] = 3.0 * 2.0 * tokens * 4.0 * fields["n_embd"] * float(row["layers"])
    if name == "opt" and (
        not adapter
        or (row["adapter_format"] == "bf16" and "fc2" in adapter["target_modules"] and not adapter.get("lora_dropout"))
    ):
        found["ReLU's input, as its result is enough"] = -2.0 * tokens * fields["ffn_dim"] * float(row["layers"])
    return found


def _keeps_output_input(row: Row, adapter: dict) -> bool:
    if not adapter:
        return True
    names = ("o_proj", "dense", "attention.dense")
    reached = any(name in adapter["target_modules"] for name in names)
    return reached and row["adapter_format"] == "bf16" and not adapter.get("lora_dropout")
