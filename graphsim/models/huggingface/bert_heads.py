"""Heads of BERT and its kin that generate nothing: classifiers, answers to questions, masked language models.

Module names and shapes of transformers 5.24, `modeling_bert.py`, `modeling_roberta.py`, `modeling_electra.py` and kin.
"""

from __future__ import annotations

from collections.abc import Callable

from graphsim.files.reading import Fields
from graphsim.models.huggingface.heads import labels
from graphsim.models.layers.answers import Answer, Score
from graphsim.models.layers.bert_ends import MaskedHead, TransformHead

Answering = tuple[str, Answer]
"""What a class is for, and its head."""


def _sequence(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering:
    """Of the first token: a linear behind the pooler, or a dense layer and a linear of the head's own."""
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
"""Endings of the classes that these heads belong to."""


def answering(fields: Fields, hidden: int, head: TransformHead, pooler: str) -> Answering | None:
    """The head of the class in `architectures`; None where it generates, or has none.

    head: the family's for language models; pooler: module of what its classifier reads, "" where that has a dense layer
    """
    given = fields.sequence("architectures")
    found = [make for ending, make in _HEADS.items() if given and str(given[0]).endswith(ending)]
    return found[0](fields, hidden, head, pooler) if found else None
