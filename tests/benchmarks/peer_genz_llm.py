"""Runs under an interpreter that has genz-llm: times its estimate of each row of a grid, read as JSON.

Prints seconds of every row. A row is what it calls `prefill_moddeling` and `decode_moddeling`; it knows no adapters.
"""

import json
import sys
import time
import warnings

from GenZ import decode_moddeling, prefill_moddeling

warnings.filterwarnings("ignore")


def row(batch, input_tokens, output_tokens, tp):
    shared = {
        "model": "llama2_7b", "batch_size": batch, "input_tokens": input_tokens, "system_name": "A100_80GB_GPU",
        "bits": "bf16", "tensor_parallel": tp, "parallelism_heirarchy": f"TP{{{tp}}}_EP{{1}}_PP{{1}}",
    }  # fmt: skip
    try:
        ttft_ms = prefill_moddeling(**shared)["Latency"]
        tpot_ms = decode_moddeling(**shared, output_tokens=output_tokens, Bb=1)["Latency"]
    except ValueError:  # it raises where the model does not fit, and is spared the decode step
        return None
    return ttft_ms, tpot_ms


if __name__ == "__main__":
    rows = json.load(sys.stdin)
    row(*rows[0])
    seconds = []
    for each in rows:
        start = time.perf_counter()
        row(*each)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))
