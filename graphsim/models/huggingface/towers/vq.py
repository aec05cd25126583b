"""Number of weights of a VQ model (VQGAN, arXiv 2012.09841), by which a language model generates images."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST, size


def vq_model(vq: Fields) -> int:
    """Weights of encoder, codes and decoder (transformers 5.24, `modeling_janus.py`, JanusVQVAE)."""
    base, latent, embed = size(vq, "base_channels"), size(vq, "latent_channels"), size(vq, "embed_dim")
    times = vq.sequence("channel_multiplier") or (1, 1, 2, 2, 4)
    if not all(type(n) is int and 0 < n < MOST for n in times):
        vq.problem("channel_multiplier", "is not allowed; expected a list of whole numbers from 1")
        times = (1,)
    blocks = size(vq, "num_res_blocks")
    widths = [base * n for n in times]
    given = latent * (2 if vq.flag("double_latent", False) else 1)
    down = _conv(size(vq, "in_channels", default=3), base) + _levels([base, *widths], blocks)
    down += sum(_conv(width, width) for width in widths[:-1])
    up = _conv(latent, widths[-1]) + _levels([widths[-1], *reversed(widths)], blocks + 1, deepest=0)
    up += sum(_conv(width, width) for width in widths[1:])
    middle = 2 * _block(widths[-1], widths[-1]) + _attention(widths[-1])
    ends = 2 * widths[-1] + _conv(widths[-1], given) + 2 * base * times[0]
    ends += _conv(base * times[0], size(vq, "out_channels", default=3))
    codes = size(vq, "num_embeddings") * embed
    return down + up + 2 * middle + ends + codes + _conv(latent, embed, 1) + _conv(embed, latent, 1)


def _levels(widths: list[int], blocks: int, deepest: int = -1) -> int:
    """Weights of residual blocks from each width to the next, with attention after each at the deepest level."""
    found = 0
    for before, width in zip(widths, widths[1:], strict=False):
        found += _block(before, width) + (blocks - 1) * _block(width, width)
    inner = widths[1:][deepest]
    return found + blocks * _attention(inner)


def _conv(inputs: int, outputs: int, side: int = 3) -> int:
    return inputs * outputs * side**2 + outputs


def _block(inputs: int, outputs: int) -> int:
    own = _conv(inputs, outputs, 1) if inputs != outputs else 0
    return 2 * inputs + _conv(inputs, outputs) + 2 * outputs + _conv(outputs, outputs) + own


def _attention(width: int) -> int:
    return 2 * width + 4 * _conv(width, width, 1)
