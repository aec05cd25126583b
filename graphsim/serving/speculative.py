"""From a server and its speculation to the rules and the prices by which it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphsim.analysis.slots import footprint_of
from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import captured_of, rules_of, served
from graphsim.serving.pricing import price_of
from graphsim.serving.rules import Rules
from graphsim.serving.speculative_prices import SpeculativePrices
from graphsim.serving.step_price import StepPrice
from graphsim.speculation.drafted import Drafted
from graphsim.speculation.drafts import Draft, check_target, draft_of
from graphsim.speculation.memory import table_bytes
from graphsim.speculation.speculation import Speculation
from graphsim.speculation.step_times import StepTimes
from graphsim.units import scaled, short


@dataclass(frozen=True, kw_only=True, eq=False)
class Speculator:
    """The draft of a server: `draft` proposes `speculation.tokens` tokens per sequence."""

    speculation: Speculation
    draft: Draft

    @property
    def tokens(self) -> int:
        """Drafted for each sequence and step."""
        return int(self.speculation.tokens)

    @property
    def drafted(self) -> Drafted:
        """The same as a scheduler sees it."""
        speculation = self.speculation
        return Drafted(tokens=self.tokens, acceptance=speculation.acceptance, seed=speculation.seed)

    def rules(self, rules: Rules, target: Deployment, limits: EngineLimits) -> Rules:
        """The rules of the server with the draft in addition to the model: its weights and its cache take blocks.

        Each sequence counts as many tokens of a step as it verifies. Raises InfeasibleError where nothing is left.
        """
        most = max(rules.max_num_batched_tokens // (self.tokens + 1), 1)
        rules = replace(rules, drafted=self.drafted, max_num_seqs=min(rules.max_num_seqs, most))
        if self.draft.deployment is None or {"kv_tokens", "kv_blocks", "num_gpu_blocks_override"} & {*limits}:
            return rules
        blocks = self._blocks(rules, target, limits)
        length = min(rules.max_model_len, float(blocks * rules.block_tokens))
        return replace(rules, kv_blocks=blocks, max_model_len=length)

    def _blocks(self, rules: Rules, target: Deployment, limits: EngineLimits) -> int:
        """Blocks that hold both models' keys and values."""
        if self.draft.deployment is None:
            return rules.kv_blocks
        beside, blocks = footprint_of(self.draft.deployment), rules.kv_blocks
        weights = float(beside.weights_bytes) + float(table_bytes(served(target, limits)))
        rooms = footprint_of(served(target, limits)).rooms
        for i, room in enumerate(rooms):  # the draft is on the last stage
            last = float(i == len(rooms) - 1)
            token = float(room.cache.token_bytes) + last * float(beside.kv_token_bytes)
            left = max(float(room.kv_bytes) - last * weights, 0.0)
            if token > 0.0:
                blocks = min(blocks, int(left // (token * rules.block_tokens)))
        if blocks < 1:
            raise InfeasibleError(
                f"speculation: {scaled(weights, 'B')} of weights of the draft leave no room for a KV cache on "
                f"'{target.device.name}'; use more devices, a smaller draft or a smaller format"
            )
        return blocks

    def price(
        self, plain: StepPrice, target: Deployment, limits: EngineLimits, ranks: Sequence[int], mean_prompt: float
    ) -> StepPrice:
        """Prices of steps that verify.

        plain: of the model alone
        """
        target = served(target, limits, ranks)
        captured, pads = captured_of(target, limits)
        return SpeculativePrices(
            plain=plain, times=StepTimes(target=target, draft=self.draft, tokens=float(self.tokens)),
            tokens=self.tokens, draft=self._prompts(mean_prompt), captured=captured if pads else (),
        )  # fmt: skip

    def _prompts(self, mean_prompt: float) -> StepPrice | None:
        """Prices of the draft's steps with prompts, whose host's own time is that of the model's step."""
        draft = self.draft
        if draft.deployment is None or not draft.reads_rows or draft.deployment.engine is None:
            return None
        engine = draft.deployment.engine
        host = replace(engine.host, step_s=0.0, sequence_s=0.0, sampling_s=0.0)
        return price_of(replace(draft.deployment, engine=replace(engine, host=host)), mean_prompt=mean_prompt)


def speculator_of(speculation: Speculation | None, target: Deployment) -> Speculator | None:
    """The draft; None without one, or where no token is ever drafted.

    Raises ConfigError for numbers over scenarios, and as `draft_of` does.
    """
    if speculation is None:
        return None
    for name in ("tokens", "acceptance"):
        if np.ndim(value := getattr(speculation, name)) and isinstance(value, np.ndarray):
            raise ConfigError(f"serve: speculation.{name} = {short(value)} holds several scenarios; give one number")
    check_target(target)
    draft = draft_of(speculation, target)
    return None if speculation.never else Speculator(speculation=speculation, draft=draft)


def speculative_rules(
    speculator: Speculator | None, deployment: Deployment, limits: EngineLimits, ranks: Sequence[int] = ()
) -> Rules:
    """The rules of a server, with a draft or without one."""
    rules = rules_of(deployment, limits, ranks)
    return rules if speculator is None else speculator.rules(rules, deployment, limits)
