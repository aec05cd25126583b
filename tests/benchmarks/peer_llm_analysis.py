"""Runs under an interpreter that has llm-analysis: times its estimate of each row of a grid, read as JSON.

Prints seconds of every row. A row is one `LLMAnalysis.inference`; the object is made once for every tp. It knows no
adapters.
"""

import contextlib
import json
import logging
import sys
import time

from llm_analysis.analysis import LLMAnalysis, ParallelismConfig
from llm_analysis.config import get_dtype_config_by_name, get_gpu_config_by_name, get_model_config_by_name
from llm_analysis.logger import logger

logger.setLevel(logging.ERROR)


def analysis(tp):
    return LLMAnalysis(
        get_model_config_by_name("NousResearch_Llama-2-7b-hf"),
        get_gpu_config_by_name("a100-sxm-80gb"),
        get_dtype_config_by_name("w16a16e16"),
        ParallelismConfig(tp_size=tp),
    )


if __name__ == "__main__":
    rows = json.load(sys.stdin)
    made = {tp: analysis(tp) for tp in {tp for *_, tp in rows}}
    seconds = []
    for batch, input_tokens, output_tokens, tp in [rows[0], *rows]:
        start = time.perf_counter()
        with contextlib.suppress(AssertionError):  # it asserts that the model fits
            made[tp].inference(batch_size_per_gpu=batch, seq_len=input_tokens, num_tokens_to_generate=output_tokens)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[1:]))
