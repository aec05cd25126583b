"""How numbers are stored and multiplied: formats with their true bytes, scales included.

A precision names the format of the weights of the blocks' linear layers; embeddings, norms, router and
output head stay in the activation format, as quantised checkpoints keep them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.errors import ConfigError, choices_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One storage format.

    bytes: per element, block scales and zero points included
    compute: the format whose matrix peak applies ("" where values are widened to the activations' first)
    """

    name: str
    bytes: float
    compute: str = ""


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(name="fp32", bytes=4.0, compute="tf32"),
        Format(name="bf16", bytes=2.0, compute="bf16"),
        Format(name="fp16", bytes=2.0, compute="fp16"),
        # one scale per tensor
        Format(name="fp8", bytes=1.0, compute="fp8"),
        # one fp32 scale per 128x128 block of the weight (DeepSeek-V3 report, arXiv 2412.19437, section 3.3.2)
        Format(name="fp8_block", bytes=1.0 + 4.0 / 128**2, compute="fp8"),
        # one fp32 scale per output channel is below 0.1 % of any real layer
        Format(name="int8", bytes=1.0, compute="int8"),
        # 16 e2m1 values share an e4m3 scale (NVIDIA, "Introducing NVFP4", 2025)
        Format(name="nvfp4", bytes=0.5 + 1.0 / 16, compute="fp4"),
        # 32 e2m1 values share an e8m0 scale (OCP Microscaling Formats specification 1.0, section 5)
        Format(name="mxfp4", bytes=0.5 + 1.0 / 32),
        # GPTQ/AWQ layout: fp16 scale and 4-bit zero point per group of 128 (arXiv 2210.17323, 2306.00978)
        Format(name="int4", bytes=0.5 + 2.5 / 128),
        # bitsandbytes: fp32 absmax per 64 values; double quantisation stores it in 8 bits (arXiv 2305.14314, section 3)
        Format(name="nf4", bytes=0.5 + 4.0 / 64),
        Format(name="nf4_dq", bytes=0.5 + 1.0 / 64 + 4.0 / (64 * 256)),
    )
}
"""All storage formats by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The formats a model runs in.

    weights: of the linear layers inside the blocks
    activations: of everything that flows, and of embeddings, norms and the output head
    kv: of the KV cache
    experts, attention: of the weights of experts and of attention's projections, where they differ
    """

    weights: Format
    activations: Format
    kv: Format
    experts: Format | None = None
    attention: Format | None = None

    @property
    def name(self) -> str:
        """How a user writes it: `fp8`, or `fp8,kv=fp8` where the cache differs from the activations."""
        suffix = "" if self.kv == self.activations else f",kv={self.kv.name}"
        parts = [f",{part}={own.name}" for part in ("experts", "attention") if (own := getattr(self, part)) is not None]
        return self.weights.name + "".join(parts) + suffix

    @property
    def compute(self) -> str:
        """The matrix peak that the blocks' linear layers run at."""
        return self.weights.compute or self.activations.compute


def load_precision(ref: str | Precision, kv: str | None = None) -> Precision:
    """The precision that a name such as `bf16`, `fp8` or `nvfp4,kv=fp8` stands for.

    Raises ConfigError listing the known formats.
    """
    if isinstance(ref, Precision):
        return ref if kv is None else replace(ref, kv=_format(kv, "kv precision"))
    if not isinstance(ref, str):
        raise ConfigError(f"precision = {ref!r} is not a name; {choices_text('', FORMATS)}")
    name, _, rest = ref.partition(",")
    if rest and not rest.startswith("kv="):
        raise ConfigError(f"precision = '{ref}' is not understood; write a format such as bf16, or fp8,kv=fp8")
    weights = _format(name.strip(), "precision")
    activations = weights if weights.name in ("fp32", "bf16", "fp16") else FORMATS["bf16"]
    cache = kv or rest.removeprefix("kv=").strip()
    return Precision(
        weights=weights, activations=activations, kv=_format(cache, "kv precision") if cache else activations
    )


_SPELLINGS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float8": "fp8", "fp4": "nvfp4"}


def _format(name: str, field: str) -> Format:
    known = FORMATS.get(_SPELLINGS.get(name, name))
    if known is None:
        raise ConfigError(f"{field} = '{name}' is not known; {choices_text(name, FORMATS)}")
    return known
