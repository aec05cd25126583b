"""Heads of BERT-like models that generate nothing: classifiers, question answering, masked language models.

Module names and shapes: transformers 5.24, `modeling_bert.py`, `modeling_roberta.py`, `modeling_electra.py` and others.
"""

from __future__ import annotations

from collections.abc import Callable

from graphsim.files.reading import Fields
from graphsim.models.huggingface.heads import labels
from graphsim.models.layers.answers import Answer, Score
from graphsim.models.layers.bert_ends import MaskedHead, TransformHead

Answering = tuple[str, Answer]
"""The purpose of a class, and its head."""


def _sequence(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering:
    """On the first token: a linear layer after the pooler, or a dense and a linear layer of the head."""
    count = labels(fields)
    last = Score(module="classifier" if pooler else "classifier.out_proj", outputs=count, bias=True)
    dense = Score(module="classifier.dense", outputs=hidden, bias=True)
    scores = (last,) if pooler else (dense, last)
    return "a classifier", Answer(scores=scores, pooler=pooler, first=True, norm=head.norm)


def _token(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering:
    score = Score(module="classifier", outputs=labels(fields), bias=True)
    return "a classifier of tokens", Answer(scores=(score,), per_token=True, norm=head.norm)


def _answers(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering:
    """Start and end of a span in the prompt."""
    score = Score(module="qa_outputs", outputs=2, bias=True)
    return "extractive question answering", Answer(scores=(score,), per_token=True, norm=head.norm)


def _masked(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering:
    return "a masked language model", MaskedHead(head=head, norm=head.norm, tied=head.tied)


_HEADS: dict[str, Callable[[Fields, int, TransformHead, str], Answering]] = {
    "ForSequenceClassification": _sequence,
    "ForTokenClassification": _token,
    "ForQuestionAnswering": _answers,
    "ForMaskedLM": _masked,
}

ANSWERING = tuple(_HEADS)
"""Suffixes of the classes with these heads."""


def answering(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering | None:
    """The head of the class in `architectures`; None if it generates or has no head.

    head: the family's head for language models
    pooler: module of the pooler that its classifier uses; "" if the classifier has a dense layer
    """
    given = fields.sequence("architectures")
    found = [make for ending, make in _HEADS.items() if given and str(given[0]).endswith(ending)]
    return found[0](fields, hidden, head, pooler) if found else None
