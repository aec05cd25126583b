"""The time of drafting and verifying: the graphs of both, priced."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.cost.base import annotate
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.graph.schedule import latest, makespan_s
from graphsim.models.media import Media
from graphsim.models.phase import Phase, decode
from graphsim.speculation.drafts import Draft
from graphsim.speculation.verification import several_queries, with_queries
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpeculativeStep:
    """Seconds of one step and of its parts.

    draft_s: all passes of the draft
    verify_s: verifying alone
    plain_s: a step without speculation
    seconds: of the whole step, never less than a step that generates a single token; less than both parts together
        where other pipeline stages are busy while the last one drafts
    """

    draft_s: Num
    verify_s: Num
    plain_s: Num
    seconds: Num


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTimes:
    """The steps of one deployment whose tokens a draft proposes.

    tokens: drafted for each sequence, k. The draft's first pass reads the k + 1 rows of the step before (vLLM 0.11,
    `v1/spec_decode/eagle.py`, EagleProposer.propose, whose rejected rows are padded), its other k - 1 passes read one
    token each; drafts that predict all tokens at once have one pass. Sequences are those of one replica.
    """

    target: Deployment
    draft: Draft
    tokens: Num

    def step(
        self, sequences: Num, context: Num, *, input_tokens: Num | None = None, media: Media | None = None,
        micro_batches: Num = 1.0,
    ) -> SpeculativeStep:  # fmt: skip
        """The step after `context` tokens of each sequence, numbers or arrays.

        sequences: of each micro-batch
        input_tokens, media: of each request, where the model keeps these apart
        micro_batches: through a pipeline, a step recurs after the longer of one micro-batch's way through all stages
            and the slowest stage's work on all of them, as in `Inference.step_s`; the draft belongs to the last stage
        """
        phase = self._phase(sequences, context, input_tokens, media)
        draft_s = self.draft_s(sequences, context)
        plain_s = _seconds(self.target, self.target.step([phase]))
        verify_s = np.maximum(_seconds(self.target, self._verifies(phase)), plain_s)
        seconds = verify_s + draft_s
        if np.any(np.greater(micro_batches, 1.0)):
            *others, last = self._stages_s(phase)
            plain_s = np.maximum(plain_s, micro_batches * latest([plain for plain, _ in (*others, last)]))
            before = [verified for _, verified in others]
            verify_s = np.maximum(verify_s, micro_batches * latest([*before, last[1]]))
            seconds = np.maximum(seconds, micro_batches * latest([*before, last[1] + draft_s]))
        return SpeculativeStep(draft_s=draft_s, verify_s=verify_s, plain_s=plain_s, seconds=seconds)

    def _stages_s(self, phase: Phase) -> list[tuple[Num, Num]]:
        """Of each pipeline stage, seconds of a plain step and of one that verifies."""
        queries = self.tokens + 1.0
        plain, verifying = self.target.stages(phase), self.target.stages(with_queries(phase, queries))
        pairs = [
            (_seconds(self.target, one), _seconds(self.target, several_queries(other, queries)))
            for one, other in zip(plain, verifying, strict=True)
        ]
        return [(plain_s, np.maximum(verified_s, plain_s)) for plain_s, verified_s in pairs]

    def draft_s(self, sequences: Num, context: Num) -> Num:
        """Seconds of all passes of the draft before a step."""
        deployment = self.draft.deployment
        if deployment is None:
            return 0.0
        first_s = _seconds(deployment, self.first_pass(deployment, sequences, context))
        if self.draft.at_once:
            return self._drafts * first_s
        one_s = self._one_s(deployment, sequences, context)
        return self._drafts * (np.maximum(first_s, one_s) + np.maximum(self.tokens - 1.0, 0.0) * one_s)

    def further_s(self, sequences: Num, context: Num) -> Num:
        """Seconds of its passes after the one that reads the rows of a step, or the prompts; all of them for heads that
        read no rows."""
        deployment = self.draft.deployment
        if deployment is None:
            return 0.0
        if not self.draft.reads_rows:
            return self.draft_s(sequences, context)
        if self.draft.at_once:
            return 0.0
        return self._drafts * np.maximum(self.tokens - 1.0, 0.0) * self._one_s(deployment, sequences, context)

    @property
    def _drafts(self) -> Num:
        """1 where any token is drafted, else 0."""
        return np.where(np.greater(self.tokens, 0.0), 1.0, 0.0)[()]

    def _one_s(self, deployment: Deployment, sequences: Num, context: Num) -> Num:
        return _seconds(deployment, deployment.step([decode(sequences, context + self.tokens)]))

    @property
    def sent(self) -> str:
        """When the tokens of a step leave the device for the client: a word of `graphsim.lora.scheduler.SENT`.

        vLLM up to 0.20, and for draft models since, copies them behind all of the draft's passes, its second runner
        ahead of them (vllm-project/vllm, `vllm/v1/worker/gpu_model_runner.py` and `vllm/v1/worker/gpu/model_runner.py`,
        sample_tokens; pull requests 23041 and 24539); SGLang behind the pass that reads the step's rows
        (`speculative/eagle_worker_v2.py`, forward_batch_generation); TensorRT-LLM behind all passes of heads, which are
        part of the model's own, and ahead of a draft model's (`_torch/speculative/eagle3.py`,
        `_torch/pyexecutor/py_executor.py`). Each profile has its sources.
        """
        engine = self.target.engine
        if engine is None:
            return "drafted"
        return engine.scheduler.sent_with_draft if self.draft.kind == "model" else engine.scheduler.sent_with_heads

    def verification(
        self, sequences: Num, context: Num, input_tokens: Num | None = None, media: Media | None = None
    ) -> nx.DiGraph:
        """The graph in which the model verifies."""
        return self._verifies(self._phase(sequences, context, input_tokens, media))

    def _verifies(self, phase: Phase) -> nx.DiGraph:
        queries = self.tokens + 1.0
        return several_queries(self.target.step([with_queries(phase, queries)]), queries)

    def first_pass(self, deployment: Deployment, sequences: Num, context: Num) -> nx.DiGraph:
        """The graph of the first pass of the draft, which `deployment` runs."""
        queries = self.tokens + 1.0 if self.draft.reads_rows else 1.0
        phase = with_queries(decode(sequences, context), queries, last_only=self.draft.reads_rows)
        return several_queries(deployment.step([phase]), queries)

    def prompt_s(self, sequences: Num, input_tokens: Num) -> Num:
        """Seconds in which the draft reads the prompts, so that it can continue from them; heads do not need to."""
        deployment = self.draft.deployment
        if deployment is None or not self.draft.reads_rows:
            return 0.0
        requests = Requests(batch=1, input_tokens=1, output_tokens=1)
        inference = Inference(deployment=deployment, requests=requests)
        return self._drafts * inference.mixed_s(deployment.prompt_step(sequences, input_tokens))

    def _phase(self, sequences: Num, context: Num, input_tokens: Num | None, media: Media | None) -> Phase:
        """A step of one more token of each sequence."""
        read = context if input_tokens is None else input_tokens
        return self.target.next_step(sequences, read, context, media)


def _seconds(deployment: Deployment, graph: nx.DiGraph) -> Num:
    return makespan_s(annotate(graph, deployment.device, deployment.price))
