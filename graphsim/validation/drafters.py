"""The drafters of measured servers, each with one acceptance rate from published measurements.

Nothing here is fitted to the validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graphsim.errors import ConfigError, choices_text
from graphsim.speculation.speculation import Speculation

MTP_ACCEPTANCE = 0.875
"""The middle of "between 85% and 90% across various generation topics", the acceptance of the second token that
DeepSeek-V3's layer predicts (DeepSeek-V3 Technical Report, arXiv 2412.19437, section 5.4.3)."""

DRAFTERS: Mapping[str, Speculation] = MappingProxyType(
    {"mtp": Speculation(draft="mtp", tokens=1, acceptance=MTP_ACCEPTANCE)}
)
"""Drafters by their name in the column `spec_decoding`. In InferenceX's rows the layer drafts one token (`NEXTN` with
`--speculative-num-steps 1`: github.com/billishyahao/sglang_disagg, server.sh, MODEL_MTP_CONFIGS)."""


def drafter_of(name: str) -> Speculation | None:
    """The drafter of a table's `spec_decoding`; None for none. Raises ConfigError for an unknown drafter."""
    if name in ("", "none"):
        return None
    if name not in DRAFTERS:
        raise ConfigError(f"spec_decoding = {name!r} is not known; {choices_text(name, DRAFTERS)}")
    return DRAFTERS[name]
