"""Whether an engine runs a step in two halves, and the contents of each."""

from __future__ import annotations

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.lora.profile import EngineProfile
from graphsim.models.phase import Phase


def halves_of(phase: Phase, engine: EngineProfile | None, parallelism: Parallelism) -> tuple[Phase, Phase] | None:
    """The halves of a step that an engine splits, the larger one first; None where it splits no step of this kind.

    With fewer tokens than the engine's threshold, the first half holds everything and the second is empty and takes no
    time, so that scenarios can share a graph. Tokens are halved (vLLM, `v1/worker/ubatch_utils.py`; SGLang,
    `two_batch_overlap.py`), and each half is assumed to have half of the attention's work, even if a prompt is split
    and its second part sees more.
    """
    if engine is None or parallelism.pp > 1 or not np.any(np.asarray(parallelism.ep) > np.asarray(parallelism.tp)):
        return None
    decodes = all(segment.decode for segment in phase.segments)
    least = engine.split_decode_tokens if decodes else engine.split_prompt_tokens
    return phase.halves(np.greater_equal(phase.tokens, least)[()] * 1.0) if least else None
