"""A price of steps for tests: lines in the context between nodes, with what engines' steps depend on."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

NODES = (0.0, 100.0, 300.0, 1000.0, 5000.0, 1e9)
SECONDS = (0.0, 2e-4, 5e-4, 2e-3, 9e-3, 9e-3 + 1e9 * 2e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePrice:
    """step_s and sequence_s of every step, token_s of a prompt's token, adapter_s of each different adapter."""

    step_s: float = 0.01
    sequence_s: float = 1e-4
    token_s: float = 5e-5
    pair_s: float = 1e-8
    prompt_s: float = 2e-4
    adapter_s: float = 3e-4
    load_s: float = 0.02
    disk_s: float = 0.1

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        mean = context / batch
        node = min(bisect_right(NODES, mean) - 1, len(NODES) - 2)
        slope = (SECONDS[node + 1] - SECONDS[node]) / (NODES[node + 1] - NODES[node])
        seconds = self.step_s + self.sequence_s * batch + self.adapter_s * adapters
        seconds += SECONDS[node] + slope * (mean - NODES[node])
        return seconds, slope, int(NODES[node + 1] - mean) + 1

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        base = self.decode(batch, context, adapters)[0] if batch else self.step_s + self.adapter_s * adapters
        return base + self.token_s * prompt_tokens + self.pair_s * pairs + self.prompt_s * (prompts + ending)

    def load(self, adapter: int, from_disk: bool) -> float:
        return self.load_s + (self.disk_s if from_disk else 0.0)
