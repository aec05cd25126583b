"""Selects the head, if any, by the class in `architectures`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import size
from graphsim.models.layers.answers import Answer, Score
from graphsim.models.layers.norm import NormLayer
from graphsim.units import short

GENERATING = (
    "ForCausalLM", "LMHeadModel", "LMHead", "ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq",
    "ForVisionText2Text", "ForTextToText", "ForSpeechSeq2Seq", "ForProteinText2Text", "MTModel",
)  # fmt: skip
"""Suffixes of classes that have the family's own output head."""

_OWN_HEAD = (
    *("BertGenerationDecoder", "EncoderDecoderModel", "VisionEncoderDecoderModel", "SpeechEncoderDecoderModel"),
    *("ChatGLMModel", "NemotronH_Omni_Reasoning_V3"),
)
"""Classes with the family's own head whose names do not say so.

Every ChatGLM checkpoint states its bare class but contains the output head (vLLM 0.33, `models/registry.py`).
"""

_CLASSIFIER = {"gpt2", "gpt_neo", "gpt_neox", "bloom", "falcon", "mpt", "gpt-sw3"}
"""Families whose token classification heads are named `classifier` (transformers 5.24)."""

_SCORE = {"t5gemma": "score.out_proj", "t5gemma2": "score.out_proj"}
"""Families whose classifier has its linear layer in a submodule, with a bias (transformers 5.24)."""

_BIASED = frozenset(_SCORE.values())


def decodes_alone(data: Mapping[str, Any]) -> bool:
    """Whether `architectures` names the standalone decoder of an encoder-decoder, which some families have."""
    listed = data.get("architectures")
    return isinstance(listed, list) and bool(listed) and str(listed[0]).endswith("ForCausalLM")


def headed(config: ModelConfig, fields: Fields, data: Mapping[str, Any]) -> ModelConfig:
    """The model with the head of the class in `architectures`; with the family's own head if no class is named.

    An unknown class is a problem of `fields`; it never silently gets the family's own head.
    """
    listed = data.get("architectures")
    if listed is None or listed == []:
        return config
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        fields.problems.append(f"architectures = {short(listed)} is not allowed; expected a list of class names")
        return config
    refused = any(problem.startswith("architectures ") for problem in fields.problems)
    if refused or isinstance(config.head, Answer):  # read by the family
        return config
    if listed[0] in _OWN_HEAD or listed[0].endswith(GENERATING):
        return config
    found = [head for ending, head in HEADS.items() if listed[0].endswith(ending)]
    if found and not listed[0].endswith("EncoderModel"):
        if getattr(config.head, "join", None):
            told = "is not simulated for a model that joins its streams after its last block"
            fields.problems.append(f"architectures = {short(listed)} {told}")
        return found[0](config, fields.child(data, "", lenient=True))
    known = ", ".join((*GENERATING[:4], *HEADS))
    fields.problems.append(f"architectures = {short(listed)} is not known; allowed: a class that ends with {known}")
    return config


def labels(fields: Fields) -> int:
    """The number of classes: `num_labels`, or the number of names; 2 by default, as in transformers.

    fields: fields of the whole config, from which a multimodal model's classes are read, not its text_config
    """
    names = fields.raw("id2label")
    if names is not None and not isinstance(names, Mapping):
        fields.problem("id2label", "is not allowed; expected a mapping of numbers to names")
    return size(fields, "num_labels", default=len(names) if isinstance(names, Mapping) and names else 2)


def _norm_of(config: ModelConfig) -> NormLayer | None:
    norm: NormLayer | None = getattr(config.head, "norm", None)
    return norm


def _answering(
    config: ModelConfig, kind: str, *scores: Score, per_token: bool = False, pooler: str = ""
) -> ModelConfig:
    projection: str = getattr(config.head, "projection", "")
    width: int = getattr(config.head, "width", 0) if projection else 0
    head = Answer(
        scores=scores, per_token=per_token, pooler=pooler, norm=_norm_of(config), projection=projection, width=width
    )
    return replace(config, head=head, notes=(*config.notes, note_of(kind)))


def note_of(kind: str) -> str:
    """The note on a model that generates nothing."""
    return f"{kind}: its answer comes with the prompt step, and nothing is generated"


def _sequence(config: ModelConfig, fields: Fields) -> ModelConfig:
    """A classifier or reward model: one score per label on the last token, without a bias except in T5Gemma."""
    module = _SCORE.get(str(fields.data.get("model_type")), "score")
    return _answering(config, "a classifier", Score(module=module, outputs=labels(fields), bias=module in _BIASED))


def _token(config: ModelConfig, fields: Fields) -> ModelConfig:
    kind = str(fields.data.get("model_type"))
    module = "classifier" if kind in _CLASSIFIER else _SCORE.get(kind, "score")
    score = Score(module=module, outputs=labels(fields), bias=True)
    return _answering(config, "a classifier of tokens", score, per_token=True)


def _answers(config: ModelConfig, fields: Fields) -> ModelConfig:
    """Start and end of a span in the prompt."""
    score = Score(module="qa_outputs", outputs=2, bias=True)
    return _answering(config, "extractive question answering", score, per_token=True)


def _reward(config: ModelConfig, fields: Fields) -> ModelConfig:
    """One value on the last token after a hidden layer (Qwen2.5-Math-RM; vLLM 0.33, `models/qwen2_rm.py`)."""
    hidden = Score(module="score.0", outputs=int(config.hidden_size), bias=True)
    return _answering(config, "a reward model", hidden, Score(module="score.2", outputs=1, bias=True))


def _process_reward(config: ModelConfig, fields: Fields) -> ModelConfig:
    """Two values per token after a hidden layer (Qwen2.5-Math-PRM; vLLM 0.33, `models/qwen2_rm.py`)."""
    hidden = Score(module="score.0", outputs=int(config.hidden_size), bias=True)
    value = Score(module="score.2", outputs=2, bias=True)
    return _answering(config, "a process reward model", hidden, value, per_token=True)


def _headless(config: ModelConfig, fields: Fields) -> ModelConfig:
    """The bare model, as used for embeddings; its modules are one level higher."""
    pooler: str = getattr(config.head, "body_pooler", "")
    bare = _answering(config, "without an output head, as for embeddings", pooler=pooler)
    first, _, rest = config.layer_prefix.partition(".")
    if not rest or "{}" in first:
        return bare
    head: Any = bare.head
    norm = head.norm and replace(head.norm, name=head.norm.name.removeprefix(f"{first}."))
    head = replace(head, norm=norm, projection=head.projection.removeprefix(f"{first}."))
    return replace(bare, layer_prefix=rest, stem=_raised(bare.stem, f"{first}."), head=head)


def _raised(stem: Any, prefix: str) -> Any:
    """The stem with its modules one level higher."""
    if hasattr(stem, "base"):
        return replace(stem, base=_raised(stem.base, prefix))
    names = ("module", "position_module", "projection")
    raised = replace(stem, **{name: getattr(stem, name).removeprefix(prefix) for name in names})
    if raised.norm is not None:
        raised = replace(raised, norm=replace(raised.norm, name=raised.norm.name.removeprefix(prefix)))
    tables = getattr(raised, "tables", ())
    if not tables:
        return raised
    return replace(raised, tables=tuple(replace(one, module=one.module.removeprefix(prefix)) for one in tables))


HEADS: dict[str, Callable[[ModelConfig, Fields], ModelConfig]] = {
    "ForSequenceClassification": _sequence,
    "ForTokenClassification": _token,
    "ForQuestionAnswering": _answers,
    "ForProcessRewardModel": _process_reward,
    "ForRewardModel": _reward,
    "Model": _headless,
}
"""Heads by the suffix of a class."""
