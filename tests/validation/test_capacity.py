"""KV capacity that engines logged: the errors that the handbook states hold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.validation.capacity import once_each, validate_capacity
from tests.paths import REFERENCE

LOGGED = ("measured_public.csv", "serving/blis_vllm015_runs.csv", "serving/llmservingsim_runs.csv")
"""What slots leave, in `lora_memory.csv`, is held within 2 % by test_adapters."""


def test_logged_capacity_is_within_3_percent_in_the_median_and_8_at_worst() -> None:
    """Each source, model and device once. The two of gpt-oss-120b have weights as logged, not as described."""
    paths = [REFERENCE / name for name in LOGGED]
    if not all(path.exists() for path in paths):
        pytest.skip("the reference data is not at hand")
    table = pd.concat([validate_capacity(path) for path in paths])
    assert len(table) == 12 and table["error"].abs().max() < 0.08
    once = once_each(table)
    assert len(once) == 10 and once["error"].median() < 0.03


def test_a_run_is_judged_by_its_own_blocks_and_limits(tmp_path: Path) -> None:
    """58.42 GiB of 0.9 x 79.18 are left beside 12.55 GiB of Llama-2-7B and 0.29 GiB: 0.5 MiB a token, 16 a block."""
    path = tmp_path / "runs.csv"
    head = "source,hardware,framework,model,tp,max_num_seqs,max_num_batched_tokens,kv_blocks"
    run = "someone/runs,H100 SXM 80GB,vllm 0.15.1 (V1),meta-llama/Llama-2-7b-hf,1,128,2048,"
    path.write_text(f"{head}\n{run}7463\n{run}7463\n{run}\n", encoding="utf-8")
    table = validate_capacity(path)
    assert len(table) == 1 and table["logged"][0] == 7463 * 16
    assert table["predicted"][0] == pytest.approx((0.9 * 79.18 - 12.55 - 0.29) * 2048, rel=2e-3)
    assert list(once_each(table)["source"]) == ["someone"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "holds no logged capacity; expected one of the columns metric, kv_blocks, num_gpu_blocks"),
        ("kv_blocks,model\n1,x\n", "column hardware is missing"),
        (
            "metric,measured,source,model,hw,tp,precision,note\nkv_tokens,5,a blog,qwen3-8b,h100-sxm,1,bf16,\n",
            "row 1: no profile is known for 'a blog'",
        ),
        (
            "source,hardware,framework,model,tp,max_num_seqs,max_num_batched_tokens,kv_blocks\n"
            "x,a card,vllm 0.15,llama-2-7b,1,8,64,5\n",
            "row 1: hardware = 'a card' is not known",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        validate_capacity(path)
