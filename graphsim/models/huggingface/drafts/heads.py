"""Drafts that are heads on the target's last state: Medusa and MLP speculators."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.drafts.draft import Draft, noted
from graphsim.models.layers.ends import Head
from graphsim.models.layers.medusa import MedusaHeads, SpeculatorHeads, StateStem


def medusa(fields: Fields, name: str) -> ModelConfig:
    """Residual layers and an output head for each further token (vLLM 0.11, `models/medusa.py`, `configs/medusa.py`).

    The authors' own configs name neither the hidden size nor the vocabulary, which are the target's.
    """
    vocab = size(fields, "vocab_size")
    drafted = size(fields, "truncated_vocab_size", default=vocab, most=vocab)
    heads = size(fields, "num_heads", "medusa_num_heads", "num_medusa_heads", most=1000)
    head = MedusaHeads(
        vocab_size=drafted,
        heads=heads,
        deep=size(fields, "num_hidden_layers", "medusa_num_layers", "num_medusa_layers", default=1, least=0, most=100),
        fc_bias=fields.flag("medusa_fc_bias", False),
        one_head=fields.flag("original_lm_head", False),
    )
    unused(fields, "max_paths", "topk", "max_seq_len", "base_model_name_or_path", "num_lookahead_tokens")
    step = f"drafts {heads} tokens of each sequence at once; the target's own step is not part of it"
    return noted(_bare(fields, name, vocab, head), fields, "Medusa", "the states that it reads are the target's", step)


def speculator(fields: Fields, name: str) -> ModelConfig:
    """An MLP for each further token (IBM; vLLM 0.6, `models/mlp_speculator.py`, `configs/mlp_speculator.py`)."""
    fields.data = {**fields.data, "hidden_size": fields.data.get("emb_dim")}
    vocab, hidden = size(fields, "vocab_size"), size(fields, "emb_dim")
    stages = size(fields, "n_predict", default=3, most=1000)
    head = SpeculatorHeads(
        vocab_size=vocab,
        stages=stages,
        inner=size(fields, "inner_dim", default=0, least=0) or hidden,
        one_stage=fields.flag("tie_weights", False),
        scaled=fields.flag("scale_input", False),
    )
    if head.one_stage and stages == 1:
        fields.problem("tie_weights", "is not allowed with n_predict = 1; expected false")
    unused(fields, "top_k_tokens_per_head", "n_candidates", "num_lookahead_tokens", "base_model_name_or_path")
    step = f"drafts {stages} tokens of each sequence; the target's own step is not part of it"
    borrowed = "the states that it reads are the target's"
    return noted(_bare(fields, name, vocab, head), fields, "an MLP speculator", borrowed, step)


def _bare(fields: Fields, name: str, vocab: int, head: Head) -> ModelConfig:
    """A model that is only a head, without layers."""
    return ModelConfig(
        name=name,
        hidden_size=size(fields, "hidden_size"),
        stem=StateStem(vocab_size=vocab),
        layers=(),
        head=head,
        layer_prefix="",
    )


DRAFTS = {
    "MedusaModel": Draft(reader=medusa, kind="medusa"),
    "MLPSpeculatorPreTrainedModel": Draft(reader=speculator, kind="mlp_speculator"),
}
"""Drafts without attention."""
