"""A training setup: a deployment, a method, a recipe, and the size of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from graphsim.brief import figures_text
from graphsim.deployment.deployment import Deployment
from graphsim.training.optimizers import Optimizer
from graphsim.training.recipe import Recipe
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A training method.

    name: `full`, `pretrain`, `lora`, `qlora`, `relora`, …
    base: whether the model's own weights are trained
    adapters: whether adapters are
    embeddings: whether the embedding is trained, where the base is (LoRA's modules_to_save belong to the adapter)
    base_format: format of the frozen linears: "" as published, or a name of `graphsim.ops.formats`: `nf4` (double
        quantised: `nf4_dq`), `int4` of GPTQ, …
    upcasts: whether unquantised weights are kept in fp32 (`prepare_model_for_kbit_training`)
    others: whether weights without an adapter are trained too: embeddings, head, norms, biases
    merges: whether adapters are periodically merged into the base and initialised again (ReLoRA)
    variant: the `LoraConfig.variant` that the name implies
    optimizer: the optimizer that it implies; "" for none
    course: defaults of `fine_tune_plan` for the method, by the names of its arguments
    source: the source of these facts
    """

    name: str
    base: bool
    adapters: bool
    embeddings: bool = True
    base_format: str = ""
    upcasts: bool = False
    others: bool = False
    merges: bool = False
    variant: str = ""
    optimizer: str = ""
    course: Mapping[str, float] = field(default_factory=dict, compare=False)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSetup:
    """The description of one optimizer step.

    batch: sequences per micro-batch on one data-parallel rank
    seq_len: tokens per sequence
    squares: mean over micro-batches of the sum of squared lengths of the packed documents; None: batch * seq_len^2
    accumulate: micro-batches per step (with a pipeline: all that pass through it)
    recompute: `none`, `full`, `selective`
    recompute_every: recompute only every n-th layer (1 = all of them)
    sharding: how data-parallel ranks share weights, gradients and states
    offload: what is kept in host memory
        (`optimizer`, `parameters`, `activations`)
    """

    deployment: Deployment
    method: Method
    recipe: Recipe
    optimizer: Optimizer
    batch: Num = 1.0
    seq_len: Num = 2048.0
    squares: Num | None = None
    accumulate: Num = 1.0
    recompute: str = "none"
    recompute_every: int = 1
    sharding: str = "ddp"
    offload: tuple[str, ...] = ()

    def __repr__(self) -> str:
        what = f"{self.deployment!r}, {self.method.name}, recipe {self.recipe.name}, {self.optimizer.name}"
        return figures_text("TrainingSetup", {"batch": self.batch, "seq_len": self.seq_len}, of=what)


def settings_of(setup: TrainingSetup) -> dict[str, Any]:
    """The arguments of `train`, by name."""
    deployment, lora = setup.deployment, setup.deployment.adapter
    hidden = ("matching", "tensors")
    named = ("batch", "seq_len", "squares", "accumulate", "recompute", "recompute_every", "sharding", "offload")
    return {name: getattr(setup, name) for name in named} | {
        "method": setup.method.name,
        "recipe": setup.recipe.name,
        "optimizer": setup.optimizer.name,
        "precision": deployment.precision.name,
        "parallelism": {f.name: getattr(deployment.parallelism, f.name) for f in fields(deployment.parallelism)},
        "lora": None if lora is None else {f.name: getattr(lora, f.name) for f in fields(lora) if f.name not in hidden},
    }
