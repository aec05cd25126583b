"""Attention in captured models: however it is spelt, the nodes are those of the families that graphsim builds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import graphsim as gs  # noqa: E402
from graphsim.graph import walk  # noqa: E402
from graphsim.models.capture import capture  # noqa: E402
from graphsim.models.yaml import read_model  # noqa: E402
from graphsim.ops import Attention, KvCache, Rope  # noqa: E402

pytestmark = pytest.mark.slow

HEADS, KV_HEADS, WIDTH, HIDDEN, REACH = 4, 2, 16, 64, 8

Tensor = Any
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def later(tokens: int, device: Any) -> Tensor:
    """Which keys each query may see."""
    places = torch.arange(tokens, device=device)
    return places[:, None] >= places[None, :]


def repeated(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Key heads as often as there are query heads, in two spellings."""
    batch, heads, tokens, width = value.shape
    shared = HEADS // heads
    spread = value[:, :, None].expand(batch, heads, shared, tokens, width).reshape(batch, HEADS, tokens, width)
    return key.repeat_interleave(shared, dim=1), spread


def grouped(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def unmasked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, *repeated(key, value))


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = later(query.shape[-2], query.device)
    return functional.scaled_dot_product_attention(query, *repeated(key, value), attn_mask=mask)


def matmul(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    key, value = repeated(key, value)
    scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH)
    scores = scores.masked_fill(~later(query.shape[-2], query.device), float("-inf"))
    return scores.float().softmax(-1).to(value.dtype) @ value


def einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    key, value = repeated(key, value)
    scores = torch.einsum("bhid,bhjd->bhij", query * WIDTH**-0.5, key)
    scores = torch.where(later(query.shape[-2], query.device), scores, -1e9)
    return torch.einsum("bhij,bhjd->bhid", torch.softmax(scores, dim=-1), value)


def baddbmm(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, _, tokens, _ = query.shape
    query, key, value = (x.reshape(batch * HEADS, tokens, WIDTH) for x in (query, *repeated(key, value)))
    bias = torch.zeros(1, tokens, tokens, device=query.device, dtype=query.dtype)
    bias = bias.masked_fill(~later(tokens, query.device), -1e9)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=WIDTH**-0.5)
    return torch.bmm(functional.softmax(scores, -1), value).view(batch, HEADS, tokens, WIDTH)


def flex(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    tokens = query.shape[-2]
    mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < REACH), None, None, tokens, tokens)
    return flex_attention(query, *repeated(key, value), block_mask=mask)


def half(x: Tensor, angles: Tensor) -> Tensor:
    one, other = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-other, one), dim=-1) * angles.sin()


def interleaved(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = angles.cos()[..., ::2], angles.sin()[..., ::2]
    one, other = x[..., ::2], x[..., 1::2]
    return torch.stack((one * cos - other * sin, one * sin + other * cos), dim=-1).flatten(-2)


def complex_numbers(x: Tensor, angles: Tensor) -> Tensor:
    turns = torch.polar(torch.ones_like(angles[..., ::2]), angles[..., ::2])
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


def partial(x: Tensor, angles: Tensor) -> Tensor:
    part = WIDTH // 4
    return torch.cat((half(x[..., :part], angles[..., :part]), x[..., part:]), dim=-1)


class OwnAttention(nn.Module):
    """Grouped heads, by a way to attend and a way to turn."""

    def __init__(self, way: Way, turn: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.way, self.turn = way, turn
        self.q, self.o = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(HIDDEN, KV_HEADS * WIDTH, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.turn is not None:
            places = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
            angles = places[:, None] * torch.arange(WIDTH, device=x.device, dtype=x.dtype)
            query, key = self.turn(query, angles), self.turn(key, angles)
        return self.o(self.way(query, key, value).transpose(1, 2).flatten(2))


class Multihead(nn.Module):
    """PyTorch's own module, without its fused path."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = ~later(x.shape[1], x.device)
        return self.inner(x, x, x, attn_mask=hidden, need_weights=False)[0]


class Layer(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = nn.RMSNorm(HIDDEN), attention

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class OwnModel(nn.Module):
    """A user's language model of two layers."""

    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.table = nn.Embedding(100, HIDDEN)
        self.layers = nn.ModuleList([Layer(attention()) for _ in range(2)])
        self.head = nn.Linear(HIDDEN, 100, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def entries(document: Mapping[str, Any], block: str = "layer", step: str = "prompt") -> list[dict[str, Any]]:
    program = document["blocks"][block]
    return program[step] if isinstance(program, dict) else program


def only(found: list[dict[str, Any]], op: str) -> dict[str, Any]:
    (entry,) = [entry for entry in found if entry["op"] == op]
    return entry


@pytest.mark.parametrize("way", [grouped, masked, matmul, einsum, baddbmm, flex], ids=lambda way: way.__name__)
def test_attention_of_users_modules_is_one_node(way: Way) -> None:
    """Grouped queries, however PyTorch is asked for them; nothing else is left around them."""
    found = entries(document_of(OwnModel(lambda: OwnAttention(way))))
    assert [entry["op"] for entry in found] == ["norm", "gemm", "gemm", "gemm", "attention", "gemm", "add"]
    expected = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": WIDTH}
    expected |= {"window": REACH} if way is flex else {}
    attention = only(found, "attention")
    assert {key: attention.get(key) for key in expected} == expected
    assert attention["inputs"] == ["q", "k", "v"]


def test_pytorchs_multihead_attention() -> None:
    """Its three projections are one weight, of which attention takes slices."""
    found = entries(document_of(OwnModel(Multihead)))
    assert [entry["op"] for entry in found] == ["norm", "gemm", "attention", "gemm", "add"]
    attention = only(found, "attention")
    assert attention["inputs"] == ["in_proj_weight.q", "in_proj_weight.k", "in_proj_weight.v"]
    assert (attention["heads"], attention["kv_heads"], attention["head_dim"]) == (HEADS, HEADS, WIDTH)


def test_attention_without_a_mask_sees_every_key() -> None:
    """And keeps none of them for a later step."""
    found = entries(document_of(OwnModel(lambda: OwnAttention(unmasked))))
    attention = only(found, "attention")
    assert attention["cached"] is False
    assert "causal" not in attention


class OwnCache(nn.Module):
    """Keys and values that the model's own code joins with those of earlier steps."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(100, HIDDEN), nn.Linear(HIDDEN, 100, bias=False)
        self.layers = nn.ModuleList([KeepingLayer() for _ in range(2)])

    def forward(self, input_ids: Tensor, past_key_values: Any = None) -> dict[str, Any]:
        x, kept = self.table(input_ids), []
        for i, layer in enumerate(self.layers):
            x, pair = layer(x, None if past_key_values is None else past_key_values[i])
            kept.append(pair)
        return {"logits": self.head(x), "past_key_values": kept}


class KeepingLayer(OwnAttention):
    def __init__(self) -> None:
        super().__init__(grouped, half)

    def forward(self, x: Tensor, past: Any = None) -> Any:
        query, key, value = (layer(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        first = 0 if past is None else past[0].shape[2]
        places = torch.arange(x.shape[1], device=x.device, dtype=x.dtype) + first
        angles = places[:, None] * torch.arange(WIDTH, device=x.device, dtype=x.dtype)
        query, key = half(query, angles), half(key, angles)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        return self.o(self.way(query, key, value).transpose(1, 2).flatten(2)), (key, value)


def test_a_cache_that_the_models_own_code_keeps() -> None:
    """One program serves both steps; a token keeps its keys and values in both layers."""
    document = document_of(OwnCache())
    assert isinstance(document["blocks"]["layer"], list)
    found = entries(document)
    assert [entry["op"] for entry in found] == ["gemm", "gemm", "gemm", "rope", "attention", "gemm"]
    assert only(found, "attention")["inputs"] == ["rope.q", "rope.k", "v"]
    model = read_model(document, "captured", "own")
    cache = gs.footprint(model, "h100-sxm", engine="reference").rooms[0].cache
    assert float(cache.token_bytes) == 2 * 2 * KV_HEADS * WIDTH * 2


@pytest.mark.parametrize("way", [matmul, einsum, baddbmm], ids=lambda way: way.__name__)
def test_flops_of_users_modules_are_torchs(way: Way) -> None:
    """Counted on real tensors of another size; PyTorch counts the whole square of queries and keys."""
    module = OwnModel(lambda: OwnAttention(way))
    batch, tokens = 2, 24
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(batch, tokens, dtype=torch.long))
    model = read_model(document_of(module), "captured", "own")
    total, squares = 0.0, 0.0
    for _, op, times in walk(gs.build_graph(model, "prefill", batch=batch, input_tokens=tokens)):
        total += times * float(op.work().flops) if not isinstance(op, Attention) else 0.0
        squares += times * 4 * batch * HEADS * WIDTH * tokens**2 if isinstance(op, Attention) else 0.0
    rest = 2 * (tokens - 1) * batch * HIDDEN * 100  # logits of all positions but the last
    assert total + squares + rest == counter.get_total_flops()


@pytest.mark.parametrize("turn", [half, interleaved, complex_numbers, partial], ids=lambda turn: turn.__name__)
def test_a_rotary_embedding_is_one_node(turn: Callable[[Tensor, Tensor], Tensor]) -> None:
    """It turns queries and keys together, as in the families that graphsim builds, partial or not."""
    found = entries(document_of(OwnModel(lambda: OwnAttention(grouped, turn))))
    assert [entry["op"] for entry in found] == ["norm", "gemm", "gemm", "gemm", "rope", "attention", "gemm", "add"]
    rope = only(found, "rope")
    assert (rope["inputs"], rope["heads"], rope["kv_heads"], rope["head_dim"]) == (["q", "k"], HEADS, KV_HEADS, WIDTH)
    assert only(found, "attention")["inputs"] == ["rope.q", "rope.k", "v"]


class ScaledAttention(OwnAttention):
    """Queries are scaled by a learned number for each head and by their position."""

    def __init__(self) -> None:
        super().__init__(grouped)
        self.scale = nn.Parameter(torch.ones(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        places = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        query = query * (self.scale * torch.log(places + 1)[None, :, None])
        return self.o(self.way(query, key, value).transpose(1, 2).flatten(2))


def test_learned_scales_are_no_rotation() -> None:
    """A learned number for each head stays, in a kernel of its own."""
    found = entries(document_of(OwnModel(ScaledAttention)))
    assert [entry["op"] for entry in found] == [
        "norm",
        "gemm",
        "gemm",
        "gemm",
        "elementwise",
        "attention",
        "gemm",
        "add",
    ]
    assert only(found, "elementwise")["learned"] == HEADS


def small(name: str, **more: Any) -> Any:
    """A transformers config of two small layers."""
    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.CONFIG_MAPPING[name](**{**sizes, "intermediate_size": 128, **more})


def kinds(model: Any, phase: str) -> list[tuple[Any, ...]]:
    """Attention, caches and rotations of a graph, in order, with their sizes."""

    def parts() -> Iterator[tuple[Any, ...]]:
        for _, op, times in walk(gs.build_graph(model, phase, batch=3, input_tokens=53)):
            if isinstance(op, Attention):
                yield ("attention", times, float(op.work().flops), op.heads, op.kv_heads, op.head_dim, op.value_dim)
            elif isinstance(op, KvCache):
                yield ("cache", times, op.kv_heads, op.width, float(op.kept_tokens))
            elif isinstance(op, Rope):
                yield ("rope", times, op.heads, op.kv_heads, op.head_dim)

    return list(parts())


CONFIGS = {
    "llama": small("llama", num_key_value_heads=2),
    "gpt2": transformers.GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=4),
    "gptj": transformers.GPTJConfig(vocab_size=320, n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
    "gpt_neox": small("gpt_neox"),
    "bloom": transformers.BloomConfig(vocab_size=320, hidden_size=64, n_layer=2, n_head=4),
    "falcon": small("falcon", multi_query=True),
    "phi": small("phi"),
    "qwen3": small("qwen3", num_key_value_heads=2, head_dim=32),
    "glm": small("glm", num_key_value_heads=2, head_dim=16, pad_token_id=None),
    "gemma2": small("gemma2", num_key_value_heads=2, head_dim=32, sliding_window=16),
    "cohere2": small("cohere2", num_key_value_heads=2, sliding_window=16, num_hidden_layers=4),
    "gpt_oss": small(
        "gpt_oss", num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=16
    ),
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_attention_as_built(name: str, phase: str, documents: Callable[[str], Any]) -> None:
    """Windows, sinks, caps, shared heads, biases, rotations of parts: sizes and order of the hand-written family."""
    built = gs.load_model(CONFIGS[name].to_dict())
    model = read_model(documents(name), "captured", name)
    assert kinds(model, phase) == kinds(built, phase)


@pytest.fixture(scope="module")
def documents() -> Callable[[str], Any]:
    """Documents of the configs above, each captured once."""
    made: dict[str, Any] = {}

    def document(name: str) -> Any:
        if name not in made:
            made[name] = document_of(CONFIGS[name])
        return made[name]

    return document


def document_of(model: object) -> dict:
    """The model file of a captured model."""
    document = capture(model).document
    assert document is not None
    return dict(document)
