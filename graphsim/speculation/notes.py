"""The assumptions of an estimate with speculation, as notes."""

from __future__ import annotations

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.speculation.drafts import Draft


def notes_of(target: Deployment, draft: Draft) -> tuple[str, ...]:
    """Sentences on what was assumed of the draft and of how often its tokens are accepted."""
    found = ["speculation: acceptance is as given; it depends on the text, the sampling and the draft's training"]
    if draft.deployment is None:
        found.append("speculation: tokens copied from the text so far take the device no time to draft")
    elif draft.at_once:
        found.append("speculation: one pass of the draft proposes all tokens of a step, as a chain and not as a tree")
    else:
        found.append("speculation: the draft runs once for each proposed token, as a chain and not as a tree")
    if np.any(np.greater(target.parallelism.pp, 1)):
        found.append(
            "speculation: the draft runs on the last pipeline stage; states of earlier stages that it reads, and the "
            "way of its tokens back to the first one, are taken to cost nothing"
        )
    if target.adapter is not None:
        found.append(
            "speculation: the draft runs without an adapter, so acceptance has to be that for the adapted model"
        )
    return tuple(found)
