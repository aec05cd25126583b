"""What drafting and verifying cost: the graphs of both, priced as they are."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.cost.base import annotate
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.graph.schedule import makespan_s
from graphsim.models.media import Media
from graphsim.models.phase import decode
from graphsim.speculation.drafts import Draft
from graphsim.speculation.verification import several_queries, with_queries
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpeculativeStep:
    """Seconds of the parts of one step: drafting before it, verifying, and what a step without speculation takes."""

    draft_s: Num
    verify_s: Num
    plain_s: Num

    @property
    def seconds(self) -> Num:
        """Seconds of the whole step; never less than a step that generates a single token."""
        return self.draft_s + self.verify_s


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTimes:
    """The steps of one deployment whose tokens a draft proposes.

    tokens: drafted for each sequence, k. The draft's first pass reads the k + 1 rows of the step before (vLLM 0.11,
    `v1/spec_decode/eagle.py`, EagleProposer.propose, whose rejected rows are padded), its further k - 1 passes one
    token each; drafts at once have one pass. Sequences are those of one replica.
    """

    target: Deployment
    draft: Draft
    tokens: Num

    def step(
        self, sequences: Num, context: Num, *, input_tokens: Num | None = None, media: Media | None = None
    ) -> SpeculativeStep:
        """The step after `context` tokens of each sequence, numbers or arrays.

        input_tokens, media: of each request, where the model keeps these apart
        """
        plain_s = _seconds(self.target, self._plain(sequences, context, input_tokens, media))
        verify_s = _seconds(self.target, self.verification(sequences, context, input_tokens, media))
        return SpeculativeStep(
            draft_s=self.draft_s(sequences, context), verify_s=np.maximum(verify_s, plain_s), plain_s=plain_s
        )

    def draft_s(self, sequences: Num, context: Num) -> Num:
        """Seconds of all passes of the draft before a step."""
        deployment = self.draft.deployment
        if deployment is None:
            return 0.0
        drafts = np.where(np.greater(self.tokens, 0.0), 1.0, 0.0)[()]
        first_s = _seconds(deployment, self.first_pass(deployment, sequences, context))
        if self.draft.at_once:
            return drafts * first_s
        further = np.maximum(self.tokens - 1.0, 0.0)
        one_s = _seconds(deployment, deployment.step([decode(sequences, context + self.tokens)]))
        return drafts * (np.maximum(first_s, one_s) + further * one_s)

    def verification(
        self, sequences: Num, context: Num, input_tokens: Num | None = None, media: Media | None = None
    ) -> nx.DiGraph:
        """The graph in which the model verifies."""
        read = context if input_tokens is None else input_tokens
        phase = self.target.next_step(sequences, read, context, media)
        queries = self.tokens + 1.0
        return several_queries(self.target.step([with_queries(phase, queries)]), queries)

    def first_pass(self, deployment: Deployment, sequences: Num, context: Num) -> nx.DiGraph:
        """The graph of the first pass of the draft, which `deployment` runs."""
        queries = self.tokens + 1.0 if self.draft.reads_rows else 1.0
        phase = with_queries(decode(sequences, context), queries, last_only=self.draft.reads_rows)
        return several_queries(deployment.step([phase]), queries)

    def prompt_s(self, sequences: Num, input_tokens: Num) -> Num:
        """Seconds in which the draft reads the prompts, so that it can continue with them; heads have them read."""
        deployment = self.draft.deployment
        if deployment is None or not self.draft.reads_rows:
            return 0.0
        drafts = np.where(np.greater(self.tokens, 0.0), 1.0, 0.0)[()]
        requests = Requests(batch=1, input_tokens=1, output_tokens=1)
        inference = Inference(deployment=deployment, requests=requests)
        return drafts * inference.mixed_s(deployment.prompt_step(sequences, input_tokens))

    def _plain(self, sequences: Num, context: Num, input_tokens: Num | None, media: Media | None) -> nx.DiGraph:
        read = context if input_tokens is None else input_tokens
        return self.target.step([self.target.next_step(sequences, read, context, media)])


def _seconds(deployment: Deployment, graph: nx.DiGraph) -> Num:
    return makespan_s(annotate(graph, deployment.device, deployment.price))
