"""The truth that captured models are judged by is judged here: by arithmetic, and by the hand-written families."""

from __future__ import annotations

from collections import Counter

import pytest

import graphsim as gs
from tests.models.capture.compare import BUILT, Line, compared, lines_of
from tests.models.capture.counting import flops_of
from tests.models.capture.explained import EXPLAINED
from tests.models.capture.truth import Step, truths

ABSORBED = ("axk1", "deepseek_v2", "deepseek_v3", "minicpm3", "youtu")
"""Families all of whose layers keep one compressed vector for each token, and look at all of them."""

QUICK = ("llama", "mixtral", "t5")


def test_the_table_holds_both_steps_of_most_architectures() -> None:
    kinds = Counter(kind for truth in truths().values() for kind in {step.kind for step in truth.steps})
    assert len(truths()) == 279
    assert kinds["prompt"] >= 270 and kinds["decode"] >= 249
    for truth in truths().values():
        assert truth.why or {"prompt", "decode"} <= {step.kind for step in truth.steps}, truth.name


def test_flops_of_a_mixture_are_what_its_config_says() -> None:
    config = truths()["mixtral"].config
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    queries = hidden  # its heads divide it
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    for step in truths()["mixtral"].steps:
        decode = step.kind == "decode"
        rows = step.batch * (1 if decode else step.tokens)
        logits = step.batch if step.kind == "prompt_last" else rows
        seen = step.tokens + decode
        each = hidden * (2 * queries + 2 * keys + config["num_local_experts"])
        assert step.flops["weights"] == 2 * rows * layers * each + 2 * logits * hidden * config["vocab_size"]
        assert step.flops["products"] == 4 * rows * seen * layers * queries
        assert step.flops["grouped"] == 6 * rows * config["num_experts_per_tok"] * layers * hidden * inner
        assert step.cache_bytes == 4 * step.batch * seen * layers * keys


@pytest.mark.slow
@pytest.mark.parametrize("name", ABSORBED)
def test_a_decode_step_of_transformers_expands_every_compressed_vector_again(name: str) -> None:
    truth = truths()[name]
    config = truth.config
    rank, heads, layers = config["kv_lora_rank"], config["num_attention_heads"], config["num_hidden_layers"]
    plain, rotary, values = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    for step in (step for step in truth.steps if step.kind == "decode"):
        built = flops_of(gs.load_model(truth.config), step)
        seen = step.tokens + 1
        expanded = 2 * step.batch * step.tokens * layers * rank * heads * (plain + values)
        assert step.flops["weights"] - built["weights"] == expanded
        assert step.flops["products"] == 2 * step.batch * seen * layers * heads * (plain + rotary + values)
        assert built["products"] == 2 * step.batch * seen * layers * heads * (2 * rank + rotary)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in truths()]
)
def test_a_family_is_what_torch_counts_or_the_difference_has_a_reason(name: str) -> None:
    lines = [line for line in compared(truths()[name], BUILT) if isinstance(line, Line)]
    if not lines:
        pytest.skip(f"'{name}' has no family of its own")
    assert not [str(line) for line in lines if not line.equal and not line.explanation]
    different = {(line.way, line.model_type, line.kind) for line in lines if not line.equal}
    told = {key for key in EXPLAINED if key[1] == name and key[0] != "captured"}
    assert told == different, f"explained.py gives reasons for what is equal: {sorted(told - different)}"


def test_a_number_that_is_not_equal_is_told() -> None:
    truth = truths()["llama"]
    wider = gs.load_model({**truth.config, "intermediate_size": 2 * truth.config["intermediate_size"]})
    found = {line.kind: line.equal for line in lines_of(truth, "built", wider)}
    assert not found["parameters"] and not found["prompt_last"] and not found["adapters all-linear"]
    assert found["adapters q_proj, v_proj"] and found["bytes of a token"]


def test_a_step_says_which_logits_it_has() -> None:
    kinds = {step.kind for truth in truths().values() for step in truth.steps}
    assert kinds == {"prompt", "prompt_last", "decode"}
    step = Step(kind="prompt", batch=3, tokens=53, flops={}, cache_bytes=0)
    assert step.all_logits and step.name == "prompt 3x53"
