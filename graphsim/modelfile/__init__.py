"""Model files: YAML that a person writes in five minutes, read into a ModelConfig.

name: my-model                 # the file's stem by default
hidden_size: 4096
vocab_size: 32000
layers: 32
attention: {heads: 32, kv_heads: 8}
mlp: {intermediate_size: 14336}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.config import ModelConfig
from graphsim.errors import ConfigError
from graphsim.layers.ends import Head, Stem
from graphsim.layers.norm import VECTORS, NormLayer
from graphsim.modelfile.layers import read_layers
from graphsim.modelfile.sections import MOST_TOKENS, MOST_VOCABULARY, MOST_WIDTH
from graphsim.precision import Precision, load_precision
from graphsim.reading import Fields


def read_model(data: Mapping[str, Any], where: str, name: str = "custom") -> ModelConfig:
    """The model that the data of a model file describes; `name` is used where the data gives none.

    Raises ConfigError that lists every problem with its key, what was found and what is allowed.
    """
    fields = Fields(data, where)
    hidden = fields.integer("hidden_size", most=MOST_WIDTH)
    positions = fields.integer("max_positions", 0, least=0, most=MOST_TOKENS)
    aliases_of(fields)
    stem, head, prefix = _ends(fields, positions)
    layers = read_layers(fields, hidden)
    details = {
        "name": fields.text("name", name),
        "source": fields.text("source", ""),
        "published_parameters": fields.integer("parameters", 0, least=0, most=10**15),
        "notes": tuple(_texts(fields, "notes")),
        "precision": _precision(fields),
    }
    fields.finish()
    return ModelConfig(
        hidden_size=hidden,
        stem=stem,
        layers=layers,
        head=head,
        layer_prefix=prefix,
        max_positions=positions,
        **details,
    )


def aliases_of(fields: Fields) -> list[str]:
    """Other spellings under which the model is known."""
    return _texts(fields, "aliases")


def _texts(fields: Fields, key: str) -> list[str]:
    entries = fields.sequence(key, most=100)
    if not all(isinstance(entry, str) for entry in entries):
        fields.problem(key, "is not allowed; expected a list of strings")
        return []
    return list(entries)


def _precision(fields: Fields) -> Precision | None:
    ref = fields.text("precision", None)
    if ref is None:
        return None
    try:
        return load_precision(ref)
    except ConfigError as error:
        fields.problems.append(str(error))
        return None


def _ends(fields: Fields, positions: int) -> tuple[Stem, Head, str]:
    """Embeddings, output head and the module path of a layer."""
    names = fields.mapping("names")
    vocabulary = fields.integer("vocab_size", most=MOST_VOCABULARY)
    kind = fields.text("norm", "rms", VECTORS)
    learned = fields.flag("learned_positions", False)
    if learned and not positions:
        fields.problem("learned_positions", "needs max_positions; give the number of positions")
    prefix = names.text("layer", "model.layers.{}.")
    if prefix.count("{}") != 1 or not prefix.endswith("."):
        names.problem("layer", "is not allowed; expected a path with one {} that ends with a dot: model.layers.{}.")
    norm = fields.text("embedding_norm", None, VECTORS)
    norm_name = names.text("embedding_norm", "embed_norm")
    stem = Stem(
        vocab_size=vocabulary,
        positions=positions if learned else 0,
        norm=NormLayer(name=norm_name, kind=norm) if norm else None,
        module=names.text("embedding", "model.embed_tokens"),
        position_module=names.text("positions", "model.embed_positions"),
    )
    final = names.text("final_norm", "model.norm")
    head = Head(
        vocab_size=vocabulary,
        tied=fields.flag("tied_embeddings", False),
        bias=fields.flag("head_bias", False),
        norm=NormLayer(name=final, kind=kind) if fields.flag("final_norm", True) else None,
        module=names.text("head", "lm_head"),
    )
    return stem, head, prefix
