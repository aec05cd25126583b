"""Mixtures of experts, however their Python spells them, are the nodes of a built one."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import graphsim as gs  # noqa: E402
from graphsim.graph import walk  # noqa: E402

pytestmark = pytest.mark.slow

HIDDEN, WIDTH, EXPERTS, CHOSEN, VOCAB, LAYERS = 64, 48, 6, 2, 320, 2
BATCH, TOKENS = 5, 70


class Gate(nn.Module):
    """Chooses experts by a softmax."""

    def __init__(self, chosen: int = CHOSEN) -> None:
        super().__init__()
        self.chosen = chosen
        self.weight = nn.Parameter(torch.zeros(EXPERTS, HIDDEN))

    def forward(self, x: Any) -> tuple[Any, Any]:
        scores = F.softmax(F.linear(x, self.weight).float(), dim=-1)
        weights, chosen = torch.topk(scores, self.chosen, dim=-1)
        return (weights / weights.sum(-1, keepdim=True)).to(x.dtype), chosen


class Stacked(nn.Module):
    """Gate and up in one parameter of all experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(EXPERTS, 2 * WIDTH, HIDDEN))
        self.down_proj = nn.Parameter(torch.zeros(EXPERTS, HIDDEN, WIDTH))

    def expert(self, x: Any, e: Any) -> Any:
        gate, up = F.linear(x, self.gate_up_proj[e]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down_proj[e])


class Hits(Stacked):
    """A loop over the experts that were hit, as transformers 5 falls back to."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        out = torch.zeros_like(x)
        mask = F.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        for hit in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero():
            place, token = torch.where(mask[hit[0]])
            out.index_add_(0, token, self.expert(x[token], hit[0]) * weights[token, place, None])
        return out


class Grouped(Stacked):
    """Rows sorted by expert, one grouped product for all."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        experts, order = torch.sort(chosen.reshape(-1))
        ends = torch.histc(experts.float(), bins=EXPERTS, min=0, max=EXPERTS - 1).cumsum(0).to(torch.int32)
        rows = x[order // CHOSEN]
        gate, up = torch._grouped_mm(rows, self.gate_up_proj.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        done = torch._grouped_mm(F.silu(gate) * up, self.down_proj.transpose(1, 2), offs=ends)
        return torch.zeros_like(x).index_add(0, order // CHOSEN, done * weights.reshape(-1)[order, None])


class Batched(Stacked):
    """Each row takes the weights of its expert."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        experts = chosen.reshape(-1)
        rows = x.repeat_interleave(CHOSEN, dim=0)
        gate, up = torch.bmm(self.gate_up_proj[experts], rows[..., None]).squeeze(-1).chunk(2, dim=-1)
        done = torch.bmm(self.down_proj[experts], (F.silu(gate) * up)[..., None]).squeeze(-1)
        return (done * weights.reshape(-1, 1)).view(-1, CHOSEN, HIDDEN).sum(dim=1)


class Split(Stacked):
    """Rows are cut by how many each expert gets."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        counts = torch.zeros(x.shape[0], EXPERTS, dtype=torch.long, device=x.device).scatter(1, chosen, 1).sum(0)
        order = chosen.flatten().sort(0)[1]
        pieces = x[order // CHOSEN].split(counts.tolist(), dim=0)
        done = torch.cat([self.expert(piece, e) for e, piece in enumerate(pieces)], dim=0)
        return torch.zeros_like(x).index_add(0, order // CHOSEN, done * weights.flatten()[order, None])


class Expert(nn.Module):
    """An MLP of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w2 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w3 = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Listed(nn.ModuleList):
    """A loop over all experts, as Mixtral's first code has it."""

    def __init__(self) -> None:
        super().__init__(Expert() for _ in range(EXPERTS))

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        out = torch.zeros_like(x)
        mask = F.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        for e, expert in enumerate(self):
            place, token = torch.where(mask[e])
            if token.shape[0] == 0:
                continue
            state = x[None, token].reshape(-1, HIDDEN)
            out.index_add_(0, token, expert(state) * weights[token, place, None])
        return out


class Named(nn.ModuleDict):
    """A loop over the experts that were hit, each looked up by its name, as Switch Transformers has it."""

    def __init__(self) -> None:
        super().__init__({f"expert_{e}": Expert() for e in range(EXPERTS)})
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        out = torch.zeros_like(x)
        mask = F.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        for hit in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero():
            place, token = torch.where(mask[hit].squeeze(0))
            done = self.dropout(self[f"expert_{hit[0]}"](x[token]))
            out.index_add_(0, token, done * weights[token, place, None])
        return out


class Counted(Listed):
    """Slices by counts in NumPy, as DeepSeek's own code has it."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        counts = chosen.new_zeros((chosen.shape[0], EXPERTS)).scatter_(1, chosen, 1).sum(dim=0)
        order = chosen.view(-1).argsort()
        rows, done, start = x[order // CHOSEN], [], 0
        for e, number in enumerate(counts.cpu().numpy()):
            if number == 0:
                continue
            done.append(self[e](rows[start : start + number]))
            start += number
        outs = torch.cat(done, dim=0)
        back = torch.empty_like(outs)
        back[order] = outs
        return (back.view(-1, CHOSEN, HIDDEN) * weights.unsqueeze(-1)).sum(dim=1)


class Masked(Listed):
    """Rows picked by a mask of booleans."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        out = torch.zeros_like(x)
        for e, expert in enumerate(self):
            for place in range(CHOSEN):
                mask = chosen[:, place] == e
                if mask.any():
                    out[mask] += expert(x[mask]) * weights[mask, place, None]
        return out


class Layer(nn.Module):
    """Experts behind a residual."""

    def __init__(self, experts: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(HIDDEN)
        self.gate, self.experts = Gate(), experts()

    def forward(self, x: Any) -> Any:
        rows = self.norm(x).view(-1, HIDDEN)
        return x + self.experts(rows, *self.gate(rows)).view(x.shape)


class Model(nn.Module):
    """An embedding, layers of experts, a head."""

    def __init__(self, experts: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer(experts) for _ in range(LAYERS))
        self.head = nn.Linear(HIDDEN, VOCAB, bias=False)

    def forward(self, input_ids: Any) -> Any:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def captured(experts: type[nn.Module]) -> gs.ModelConfig:
    with torch.device("meta"):
        model = Model(experts).to(torch.bfloat16)
    return gs.capture(model)


def ops(model: gs.ModelConfig, name: str = "prefill") -> list[tuple[Any, float]]:
    graph = gs.build_graph(model, name, batch=BATCH, input_tokens=TOKENS)
    return [(op, float(times)) for _, op, times in walk(graph)]


SPELLINGS = [Hits, Grouped, Batched, Split, Listed, Named, Counted]
PARAMETERS = 2 * VOCAB * HIDDEN + LAYERS * (HIDDEN + EXPERTS * HIDDEN + 3 * EXPERTS * WIDTH * HIDDEN)


@pytest.mark.parametrize("experts", SPELLINGS)
def test_a_spelling_is_the_nodes_of_a_built_mixture(experts: type[nn.Module]) -> None:
    """Kinds, counts and rows of what `layers/moe.py` makes."""
    found = [(type(op).__name__, op) for op, _ in ops(captured(experts)) if type(op).family == "moe"]
    assert [name for name, _ in found] == [
        "Route", "Permute", "ExpertGemm", "ExpertActivation", "ExpertGemm", "Permute",
    ]  # fmt: skip
    route, gather, up, act, down, combine = (op for _, op in found)
    tokens = BATCH * TOKENS
    assert (route.experts, route.chosen, route.tokens) == (EXPERTS, CHOSEN, tokens)
    assert (gather.gather, combine.gather) == (True, False)
    assert {gather.width, combine.width} == {HIDDEN}
    assert (up.m, up.n, up.k, up.rank_factor) == (tokens * CHOSEN, 2 * WIDTH, HIDDEN, 2)
    assert (down.m, down.n, down.k, down.rank_factor) == (tokens * CHOSEN, HIDDEN, WIDTH, 1)
    assert (up.of, up.chosen) == (down.of, down.chosen) == (EXPERTS, CHOSEN)
    assert (float(act.elems), act.reads) == (tokens * CHOSEN * WIDTH, 2.0)


@pytest.mark.parametrize("experts", SPELLINGS)
@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_flops_are_those_of_the_chosen_experts(experts: type[nn.Module], step: str) -> None:
    """By hand: routed rows through three matrices, the router on every token, the head on the last one."""
    tokens = BATCH * (TOKENS if step == "prefill" else 1)
    layer = tokens * 2 * HIDDEN * (EXPERTS + CHOSEN * 3 * WIDTH)
    expected = LAYERS * layer + 2 * BATCH * HIDDEN * VOCAB
    assert sum(times * float(op.work().flops) for op, times in ops(captured(experts), step)) == expected


@pytest.mark.parametrize("experts", [*SPELLINGS, Masked])
def test_no_weight_is_lost_or_counted_twice(experts: type[nn.Module]) -> None:
    """Every parameter of the module."""
    assert captured(experts).num_parameters == PARAMETERS


def test_experts_that_are_modules_have_a_pair_each() -> None:
    """PEFT puts a pair on each linear layer; stacks of parameters have none unless named."""
    lora = gs.LoraConfig(rank=4, target_modules="all-linear")
    pairs = 2 * (HIDDEN + WIDTH) + (WIDTH + HIDDEN)
    assert gs.lora_parameters(captured(Listed), lora) == LAYERS * EXPERTS * 4 * pairs
    named = gs.LoraConfig(rank=4, target_modules=[], target_parameters=["down_proj"])
    assert gs.lora_parameters(captured(Hits), named) == LAYERS * EXPERTS * 4 * (WIDTH + HIDDEN)


def test_rows_picked_by_masks_are_all_routed_rows() -> None:
    """A loop over places and experts asks for each place's rows once; the second pass holds no weights."""
    flops = sum(times * float(op.work().flops) for op, times in ops(captured(Masked)))
    tokens = BATCH * TOKENS
    assert flops == LAYERS * tokens * 2 * HIDDEN * (EXPERTS + CHOSEN * 3 * WIDTH) + 2 * BATCH * HIDDEN * VOCAB


class Dense(Stacked):
    """Every expert on every token, as Llama 4's code has it; one is chosen."""

    def forward(self, x: Any, weights: Any, chosen: Any) -> Any:
        scores = torch.zeros(x.shape[0], EXPERTS, dtype=x.dtype, device=x.device).scatter(1, chosen, weights)
        rows = x.repeat(EXPERTS, 1) * scores.transpose(0, 1).reshape(-1, 1)
        rows = rows.view(EXPERTS, -1, HIDDEN)
        gate, up = torch.bmm(rows, self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        done = torch.bmm(F.silu(gate) * up, self.down_proj.transpose(1, 2))
        return done.sum(dim=0)


def test_experts_that_all_run_are_priced_as_what_runs_and_said() -> None:
    """Flops of all experts on all tokens, and a note."""
    model = captured(Dense)
    flops = sum(times * float(op.work().flops) for op, times in ops(model))
    tokens = BATCH * TOKENS
    assert flops == LAYERS * tokens * 2 * HIDDEN * (EXPERTS + EXPERTS * 3 * WIDTH) + 2 * BATCH * HIDDEN * VOCAB
    assert model.num_parameters == PARAMETERS
    assert "every token passes 6 of 6 experts" in str(model.document["notes"])


def test_experts_that_do_nothing_hold_the_weights_that_the_class_gives_them() -> None:
    """LongCat Flash: a router over more experts than work, whose linear layer is never called but has its weights read.

    By hand: of 8 scores 6 are experts'; the class (transformers 5.24) has a gate and up for all 8.
    """
    transformers = pytest.importorskip("transformers")
    config = transformers.LongcatFlashConfig(
        hidden_size=64, ffn_hidden_size=96, expert_ffn_hidden_size=48, num_layers=3, num_attention_heads=4,
        n_routed_experts=6, zero_expert_num=2, moe_topk=2, vocab_size=128,
    )  # fmt: skip
    model = gs.capture(config)
    found = {op.module.rpartition(".")[2]: op for op, _ in ops(model) if hasattr(op, "of")}
    assert (found["gate_up_proj"].of, found["down_proj"].of) == (8, 6)
    assert "of 8 scores some are no routed expert's" in str(model.document["notes"])
    router = gs.LoraConfig(rank=4, target_modules=["classifier"], matching="peft")
    assert gs.lora_parameters(model, router) == 3 * 4 * (64 + 8)
