"""How numbers are stored and multiplied: the one table of number formats, and the precision of a model.

A format says what a number weighs, scales included, at which matrix rate it is multiplied, and under which name the
measured kernels of each cost family know it. What else a kernel does with its numbers (`cost/families/formats.py`)
is described with the formats of this table.

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
    compute: the format whose matrix rate applies ("" where values are widened to the activations' first)
    gemm, moe, attention: the `dtype` by which the kernels of that cost family know weights (in attention, keys and
        values) in this format, or in the nearest one that they run; "" where they run nothing like it
    block_n, block_k: outputs and inputs of a weight that share a scale and lie on one device; 0 where shards may end
        anywhere (engines pad mxfp4's)
    """

    name: str
    bytes: float
    compute: str = ""
    gemm: str = ""
    moe: str = ""
    attention: str = ""
    block_n: int = 0
    block_k: int = 0


def weight_only(bits: int, group: int, *, zeros: bool = True) -> Format:
    """Integers of `bits` bits with an fp16 scale per group, and a zero point where `zeros`; widened before use.

    group: weights that share a scale; 0 or less for one per output channel, which is below 0.1 % of any real layer
    GPTQ: arXiv 2210.17323; AWQ: arXiv 2306.00978.
    """
    extra = (2.0 + (bits / 8 if zeros else 0.0)) / group if group > 0 else 0.0
    kernel = "int4_wo" if bits <= 4 else "int8_wo"
    return Format(name=f"int{bits}", bytes=bits / 8 + extra, gemm=kernel, moe="int4_wo", attention="fp8",
                  block_k=max(group, 0))  # fmt: skip


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(name="fp32", bytes=4.0, compute="tf32", gemm="float32", moe="float32", attention="float32"),
        Format(name="bf16", bytes=2.0, compute="bf16", gemm="bfloat16", moe="bfloat16", attention="bfloat16"),
        Format(name="fp16", bytes=2.0, compute="fp16", gemm="bfloat16", moe="bfloat16", attention="bfloat16"),
        # one scale per tensor
        Format(name="fp8", bytes=1.0, compute="fp8", gemm="fp8", moe="fp8", attention="fp8"),
        # one fp32 scale per 128x128 block of the weight (DeepSeek-V3 report, arXiv 2412.19437, section 3.3.2)
        Format(
            name="fp8_block", bytes=1.0 + 4.0 / 128**2, compute="fp8", gemm="fp8_block", moe="fp8_block",
            attention="fp8", block_n=128, block_k=128,
        ),
        # one fp32 scale per output channel is below 0.1 % of any real layer
        Format(name="int8", bytes=1.0, compute="int8", gemm="int8", moe="int8", attention="fp8"),
        # bitsandbytes: rows and columns have a scale each, outliers multiply in 16 bits (arXiv 2208.07339)
        Format(name="llm_int8", bytes=1.0, compute="int8", gemm="int8", moe="int8", attention="fp8"),
        # 16 e2m1 values share an e4m3 scale (NVIDIA, "Introducing NVFP4", 2025)
        Format(
            name="nvfp4", bytes=0.5 + 1.0 / 16, compute="fp4", gemm="nvfp4", moe="nvfp4", attention="fp8", block_k=16
        ),
        # 32 e2m1 values share an e8m0 scale (OCP Microscaling Formats specification 1.0, section 5)
        Format(name="mxfp4", bytes=0.5 + 1.0 / 32, gemm="w4a16_mxfp4", moe="w4a16_mxfp4", attention="fp8"),
        weight_only(4, 128),
        # bitsandbytes: fp32 absmax per 64 values; double quantisation stores it in 8 bits (arXiv 2305.14314, section 3)
        Format(name="nf4", bytes=0.5 + 4.0 / 64, gemm="nf4", moe="int4_wo", attention="fp8"),
        Format(name="nf4_dq", bytes=0.5 + 1.0 / 64 + 4.0 / (64 * 256), gemm="nf4", moe="int4_wo", attention="fp8"),
    )
}  # fmt: skip
"""All storage formats by name."""

SPELLINGS = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float8": "fp8", "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8", "int8_sq": "int8", "llm.int8": "llm_int8", "bnb_int8": "llm_int8",
    "bnb_nf4": "nf4", "fp4": "nvfp4", "w4a16": "int4", "w4a16_awq": "int4",
}  # fmt: skip
"""Other names of formats, as PyTorch, engines and files of measurements write them."""

SAME_WIDTH: dict[str, tuple[str, ...]] = {"tf32": ("fp32",), "fp16": ("bf16",), "bf16": ("fp16",)}
"""Matrix formats whose rate serves where a device states none for the first: an operation runs all the same."""

_WIDE = ("bf16", "fp16", "tf32", "fp32")
RATES: dict[str, tuple[str, ...]] = {
    "fp4": ("fp4", "fp8", *_WIDE), "int8": ("int8", "fp8", *_WIDE), "fp8": ("fp8", *_WIDE), "bf16": _WIDE,
    "fp16": ("fp16", "bf16", "tf32", "fp32"), "tf32": ("tf32", "fp32", "bf16"),
}  # fmt: skip
"""For each matrix format, in which formats its kernels multiply: the first one whose rate a device states."""


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
    def of_weights(self) -> tuple[Format, ...]:
        """Every format that weights of the blocks' linear layers are in."""
        return tuple(own for own in (self.weights, self.experts, self.attention) if own is not None)

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


def format_of(name: str) -> Format | None:
    """The format that a name or another spelling of it stands for; None where there is none."""
    return FORMATS.get(SPELLINGS.get(name, name))


def _format(name: str, field: str) -> Format:
    known = format_of(name)
    if known is None:
        raise ConfigError(f"{field} = '{name}' is not known; {choices_text(name, FORMATS)}")
    return known
