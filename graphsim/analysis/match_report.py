"""A report on the modules that an adapter targets, and those that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphsim.deployment.deployment import Deployment, ModelRef
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import trained_by_all, trained_by_module
from graphsim.lora.targets import Targets, modules_of
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Embedding, ExpertGemm, Norm
from graphsim.ops.precision import load_precision
from graphsim.simulation import adapter_graph, model_and_adapter

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("module", "matched", "rank", "in_features", "out_features", "experts", "parameters")


def match_report(model: ModelRef | Deployment, lora: LoraConfig | None = None) -> pd.DataFrame:
    """One row per module of the model that an adapter could target, layer by layer.

    model: the model or deployment
    lora: the adapter, by default the deployment's, or the model's own
    Columns: module (the path as PEFT sees it); matched (whether it has an adapter); rank (of its two factors, 1 for a
    method without a rank) and parameters (number trained), both 0 without an adapter; experts (number of factor pairs,
    1 unless the module is a block of experts).
    Parameters that all modules share, such as VB-LoRA's vector bank, have a last row without sizes or a rank.
    Raises ConfigError as `simulate` does for targets that match nothing.
    """
    import pandas as pd

    config, lora = model_and_adapter(model, lora)
    adapted = adapter_graph(config, lora)
    trained = trained_by_module(adapted)
    targets = Targets(lora, config.tied_embeddings)
    rows = []
    graph = build(config, prefill(1.0, 1.0).with_towers, load_precision("bf16"))
    for op, path in modules_of(graph, every=lora.kind.copies):
        key = targets.key(op, path) if lora.enabled else None
        pairs = op.of if isinstance(op, ExpertGemm) else 1
        rank = 0.0 if key is None else float(targets.rank(key, op))
        inputs, outputs = map(int, _sizes(op))
        parameters = round(float(trained.get(path, 0.0)))
        rows.append((path, key is not None, int(rank), inputs, outputs, pairs, parameters))
    rows += [(name, True, 0, 0, 0, 1, round(float(found))) for name, found in trained_by_all(adapted).items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _sizes(op: Any) -> tuple[Any, Any]:
    """Input and output width of a module."""
    if isinstance(op, Embedding):
        return op.entries, op.width
    return (op.width, op.width) if isinstance(op, Norm) else (op.k, op.n)
