"""The deployment: a model on a device, with its adapter, formats, degrees, engine and prices; and the graphs of its
steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.cost.base import CostModel
from graphsim.cost.choose import caution, choose_cost
from graphsim.cost.parameters.engines import KernelTable
from graphsim.deployment.context import context_passes, own_part
from graphsim.deployment.cutting import check_cut
from graphsim.deployment.halves import halves_of
from graphsim.deployment.kernels import table_of
from graphsim.deployment.memoised import Memoised
from graphsim.deployment.order import Watch, in_order, passes_of, run
from graphsim.deployment.parallelism import ONE_DEVICE, Parallelism
from graphsim.deployment.recorded import made_once
from graphsim.errors import ConfigError
from graphsim.graph import Pass, walk
from graphsim.hardware import Hardware, load_hardware
from graphsim.lora.limits import Limits
from graphsim.lora.memory import EngineMemory
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.models.media import Media
from graphsim.models.phase import Phase, decode, prefill
from graphsim.models.quantised import require_modules
from graphsim.models.source import prompt_phase, token_phase
from graphsim.ops import HeadGemm
from graphsim.ops.precision import Precision, load_precision
from graphsim.passes.pipeline import layer_ranges, pipeline
from graphsim.symbolic.questions import alike, is_known, most
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num, short

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig

ModelRef = str | Path | Mapping[str, Any] | ModelConfig
HardwareRef = str | Path | Mapping[str, Any] | Hardware
EngineRef = str | Path | Mapping[str, Any] | EngineProfile

FIRST: Phase = decode(1.0, 1.0)
REFERENCE = "reference"
"""The engine that runs an adapter as the LoRA document's three separate nodes; the default for graphs and counts."""
DEFAULT_ENGINE = "vllm"
"""The default engine of everything that states times or memory."""


@dataclass(frozen=True, eq=False, init=False)
class Deployment(Memoised):
    """What is simulated: a model on a device, with its parallelism, adapter, number formats, engine and cost model.

    Functions take a deployment instead of the arguments it consists of: `gs.simulate(deployment, batch=8)`. Names,
    paths and mappings are resolved once, here; the fields hold the objects they refer to. Use `dataclasses.replace` to
    derive a variant.

    model: a catalog name, a YAML or config.json path, a model folder or a mapping
    hardware: a catalog name, a YAML path or a mapping; None if only graphs are needed
    parallelism: degrees of parallelism, by default one device
    lora: the adapter, by default the model's own `lora_config`; the property `adapter` is None where it is disabled
    precision: number formats such as `fp8` or `nvfp4,kv=fp8`; by default the checkpoint's own, or bf16
    engine: the engine whose kernels run: a profile's name, YAML path or mapping; None for each function's default
    cost: `calibrated`, `roofline` or a function of an operation and a device; by default the device's best
    passes: custom passes (`gs.Pass`), each run at its stage after the built-in ones
    Degrees, ranks and device rates may be arrays of one length: one entry per scenario.
    Raises ConfigError for an argument that is not allowed, InfeasibleError where the model cannot be sharded as asked.
    What an engine refuses to run is checked by the functions (`graphsim.deployment.refusals`).
    """

    model: ModelConfig
    hardware: Hardware | None
    parallelism: Parallelism
    lora: LoraConfig | None
    precision: Precision
    engine: EngineProfile | None
    cost: str | CostModel | None
    passes: tuple[Pass, ...]

    def __init__(
        self,
        model: ModelRef,
        hardware: HardwareRef | None = None,
        *,
        parallelism: Parallelism | None = None,
        lora: LoraConfig | None = None,
        precision: str | Precision | None = None,
        engine: EngineRef | None = None,
        cost: str | CostModel | None = None,
        passes: Sequence[Pass] = (),
    ) -> None:
        config = load_model(model)
        lora = config.lora_config if lora is None else lora
        config.lora_config = None  # on our own copy: only `lora` counts
        if lora is not None:
            from graphsim.deployment.adapters import met, require_adapter

            require_adapter(lora)
        if parallelism is not None and not isinstance(parallelism, Parallelism):
            raise ConfigError(f"parallelism = {short(parallelism)} is not a Parallelism")
        if not (cost is None or isinstance(cost, str) or callable(cost)):
            raise ConfigError(f"cost = {short(cost)} is not known; allowed: calibrated, roofline, or a function")
        if lora is not None and lora.enabled:
            config, lora = met(config, lora, parallelism)
        fields: dict[str, Any] = {
            "model": config,
            "hardware": None if hardware is None else load_hardware(hardware),
            "parallelism": parallelism or ONE_DEVICE,
            "lora": lora,
            "precision": config.own_precision if precision is None else load_precision(precision),
            "engine": None if engine is None else load_profile(engine),
            "cost": cost,
            "passes": in_order((), passes),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.precision is not self.model.precision:
            require_modules(self.model, self.precision)
        if self.adapter is not None:
            from graphsim.lora.injection import require_layers

            require_layers(self.adapter, self.model.most_layers)
        if self.hardware is not None and self.cost not in (None, "calibrated"):  # a calibration is read when asked for
            choose_cost(self.cost, self.hardware)
        check_cut(self.model, self.parallelism, self.engine.limits if self.engine else Limits())

    def __repr__(self) -> str:
        parts = [self.model.name, self.hardware.name if self.hardware else "no device", self.precision.name]
        parts += [f"tp={short(self.parallelism.tp)}"] if np.any(np.asarray(self.parallelism.devices) > 1) else []
        parts += [f"cp={short(self.parallelism.cp)}"] if np.any(np.asarray(self.parallelism.cp) > 1) else []
        parts += [f"{lora.variant} rank={short(lora.rank)} {lora.strategy}"] if (lora := self.adapter) else []
        parts += [self.engine.name] if self.engine else []
        return f"Deployment({', '.join(parts)})"

    @property
    def adapter(self) -> LoraConfig | None:
        """The adapter that runs."""
        return self.lora if self.lora is not None and self.lora.enabled else None

    @property
    def device(self) -> Hardware:
        """The hardware. Raises ConfigError where the deployment names none."""
        if self.hardware is None:
            raise ConfigError("hardware = None is not allowed here; give a name, a YAML path or a mapping")
        return self.hardware

    @property
    def kernels(self) -> KernelTable:
        """The measured kernels that give the operations' times."""
        return table_of(self.engine, self.device)

    @property
    def price(self) -> CostModel:
        """The cost model that gives the operations' times."""
        return choose_cost(self.cost, self.device, self.kernels)[0]

    @property
    def cost_model(self) -> str:
        """The cost model, as an estimate names it: `calibrated`, `scaled from …`, `roofline` or a function."""
        return choose_cost(self.cost, self.device, self.kernels)[1]

    @property
    def caution(self) -> str:
        """Caveats on its times, such as an unmeasured device; "" if there are none."""
        return caution(self.cost, self.device, self.kernels)

    def under(self, default: EngineRef) -> Deployment:
        """The same deployment with a default engine, if it names none itself."""
        return self if self.engine is not None else self.once(_under, load_profile(default))

    @property
    def engine_name(self) -> str:
        """Name of the engine whose kernels run."""
        return self.engine.name if self.engine else REFERENCE

    @property
    def engine_memory(self) -> EngineMemory:
        """How the engine uses device memory."""
        return self.engine.memory if self.engine else EngineMemory()

    def stages(self, phase: Phase, after: Watch | None = None) -> list[nx.DiGraph]:
        """The sharded and lowered graph of each pipeline stage, for one micro-batch.

        after: called after each pass with the pass and the resulting graph
        """
        if after is not None or is_known(self.parallelism.dp):
            return self._stages(phase, after)
        architecture = self.hardware.architecture if self.hardware else ""
        shaping = (self.model, self.parallelism, self.precision, self.engine, self.adapter, self.passes, architecture)
        return made_once(shaping, phase, lambda: self._stages(phase))

    def _stages(self, phase: Phase, after: Watch | None = None) -> list[nx.DiGraph]:
        layers, passes = layer_ranges(self.model.num_layers, self.parallelism.pp), self.pass_order(phase)
        if self.adapter is not None and not self._is_whole(phase):
            from graphsim.lora.injection import inject

            inject(build(self.model, phase.with_towers, self.precision), self.adapter)  # raises if it has no effect
        own = own_part(phase, self.model, self.engine, self.parallelism)
        return [run(passes, build(self.model, own, self.precision, stage), after) for stage in layers]

    def pass_order(self, phase: Phase) -> tuple[Pass, ...]:
        """The passes from the logical graph of a phase to what a device runs, in order."""
        own, adapter = own_part(phase, self.model, self.engine, self.parallelism), self.adapter
        if adapter is not None:
            from graphsim.deployment.adapted import as_run

            adapter = as_run(adapter, self.engine, phase)
        return passes_of(
            model=self.model.name, parallelism=self.parallelism, precision=self.precision, engine=self.engine,
            adapter=adapter, own=self.passes,
            context=context_passes(self.model, self.engine, self.parallelism),
            present=np.minimum(phase.tokens, 1.0), tokens=own.tokens, whole=self._is_whole(phase),
            architecture=self.hardware.architecture if self.hardware else "",
            prompts=not all(segment.decode for segment in phase.segments),
        )  # fmt: skip

    def _is_whole(self, phase: Phase) -> bool:
        """Whether the graph of a stage is the whole model: there is no other stage, and no tower is left out."""
        return bool(self.parallelism.pp == 1) and (phase.has_towers or not self.model.encoders)

    @property
    def stored(self) -> Deployment:
        """The same deployment with adapters as they are stored in memory."""
        return self if self.engine is None else with_fields(self, {"engine": self.engine.stored})

    def held(self, phase: Phase = FIRST, stages: list[nx.DiGraph] | None = None) -> list[nx.DiGraph]:
        """The graph of each stage in which every target of an adapter is its own module, including towers.

        phase: the kind of step. In a generating step, latent attention absorbs a GEMM into two others; where it does,
            the graph of a prompt step shows what a stage holds
        stages: the graphs of the phase without towers, if they are built already
        """
        graphs = self.stages(phase.with_towers) if self.model.encoders else stages or self.stages(phase)
        absorbed = any(isinstance(op, HeadGemm) for graph in graphs for _, op, _ in walk(graph))
        return self.stages(prefill(1.0, 1.0).with_towers) if absorbed and self.adapter is not None else graphs

    def prefill(
        self, batch: Num, input_tokens: Num, after: Watch | None = None, media: Media | None = None
    ) -> nx.DiGraph:
        """The graph of the prompt step.

        batch: total number of sequences, split over replicas and micro-batches
        media: images and sound of each sequence
        """
        return self.step([self.prompt_step(share, input_tokens, media) for share in self.shares(batch)], after)

    def decode(
        self,
        batch: Num,
        context_tokens: Num,
        after: Watch | None = None,
        input_tokens: Num | None = None,
        media: Media | None = None,
    ) -> nx.DiGraph:
        """The graph of one decode step after `context_tokens`.

        input_tokens: how many of these tokens are the request's input, which an encoder-decoder keeps apart; all by
            default
        media: images and sound of each sequence, which cross-attention reads in every step
        """
        read = context_tokens if input_tokens is None else input_tokens
        return self.step([self.next_step(share, read, context_tokens, media) for share in self.shares(batch)], after)

    def prompt_step(self, batch: Num, input_tokens: Num, media: Media | None = None) -> Phase:
        """The step that reads the input of `batch` sequences of one micro-batch, images and sound included."""
        return prompt_phase(self.model.source_encoder, batch, input_tokens, media, self.model.rows_seen(media))

    def next_step(self, batch: Num, input_tokens: Num, context_tokens: Num, media: Media | None = None) -> Phase:
        """The step that generates one more token per sequence after `context_tokens`, input and generated."""
        seen = self.model.rows_seen(media)
        return token_phase(self.model.source_encoder, batch, input_tokens, context_tokens, seen)

    def step(self, micro_batches: Sequence[Phase], after: Watch | None = None) -> nx.DiGraph:
        """The stages of each micro-batch, one after another through the pipeline.

        after: as in `stages`
        """
        staged: list[list[nx.DiGraph]] = []
        for i, phase in enumerate(micro_batches):
            same = i > 0 and alike(phase.tokens, micro_batches[i - 1].tokens)
            staged.append(staged[-1] if same else self._launched(phase, after))
        return pipeline(staged, self.parallelism.tp * self.parallelism.cp * self.parallelism.pp)

    def _launched(self, phase: Phase, after: Watch | None) -> list[nx.DiGraph]:
        """The stages of a micro-batch; where the engine splits it and tokens are exchanged, of its halves in turns."""
        whole, halves = self.stages(phase, after), halves_of(phase, self.engine, self.parallelism)
        if halves is None:
            return whole
        from graphsim.passes.two_batches import exchanges, two_batches

        if not any(exchanges(op) for _, op in whole[0].nodes(data="op")):
            return whole
        first = self.stages(halves[0], after)
        second = first if alike(halves[0].tokens, halves[1].tokens) else self.stages(halves[1], after)
        return [two_batches(*graphs) for graphs in zip(first, second, whole, strict=True)]

    def sequences(self, batch: Num) -> Num:
        """Number of sequences on the replica with the most sequences."""
        replicas = self.parallelism.dp * self.parallelism.attention_replicas
        return np.ceil(np.true_divide(batch, replicas))[()]

    def shares(self, batch: Num) -> list[Num]:
        """Number of sequences in each micro-batch of one replica, as even as possible, the larger ones first.

        A micro-batch without sequences takes no time, so that scenarios can share a graph.
        """
        sequences, m = self.sequences(batch), self.micro_batches(batch)
        return [np.floor((sequences + m - 1.0 - j) / m) for j in range(m)]

    def micro_batches(self, batch: Num) -> int:
        """Number of micro-batches: by default as many as stages, but at most sequences."""
        return int(max(1, min(self.most_micro_batches, most(self.sequences(batch)))))

    @property
    def most_micro_batches(self) -> int:
        """Number of micro-batches into which a large batch is split."""
        return self.parallelism.micro_batches or self.parallelism.pp


def _under(deployment: Deployment, engine: EngineProfile) -> Deployment:
    return replace(deployment, engine=engine)
