"""This checkout's speed beside another one's, on one machine in one run: `python -m tests.benchmarks.against FOLDER`.

Every figure is processor time, which other load disturbs little, taken in a fresh process, the two checkouts in turn,
`--runs` times each (9), after one run of each that does not count and leaves compiled bytecode behind, as an
installation does; medians and the median of the ratios are printed. Only names that both have are measured, so that
FOLDER may hold an older state of the project.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]

CLOCK = """
import statistics, time
def median_s(call, arguments):
    found = []
    for given in arguments:
        start = time.process_time()
        call(given)
        found.append(time.process_time() - start)
    return statistics.median(found)
"""

START = (
    CLOCK
    + """
import graphsim as gs
MODEL, DEVICE, LORA = "llama-2-7b", "a100-sxm-80gb", gs.LoraConfig()
"""
)

FIGURES = {
    "import graphsim": CLOCK + """
start = time.process_time()
import graphsim
print(time.process_time() - start)
""",
    "first call of a process": """
import time, numpy, networkx, pandas, yaml
import graphsim as gs
gs.simulate, gs.LoraConfig
start = time.process_time()
gs.simulate("llama-2-7b", "a100-sxm-80gb", 4, 512, lora=gs.LoraConfig())
print(time.process_time() - start)
""",
    "simulate, warm": START + """
for _ in range(40): gs.simulate(MODEL, DEVICE, 4, 512, lora=LORA)
print(median_s(lambda _: gs.simulate(MODEL, DEVICE, 4, 512, lora=LORA), range(200)))
""",
    "simulate, new numbers": START + """
for n in range(60): gs.simulate(MODEL, DEVICE, 100 + n, 300 + n, lora=LORA)
print(median_s(lambda n: gs.simulate(MODEL, DEVICE, 1 + n, 512 + 7 * n, lora=LORA), range(1, 120)))
""",
    "simulate, new numbers, roofline": START + """
for n in range(60): gs.simulate(MODEL, DEVICE, 100 + n, 300 + n, lora=LORA, cost="roofline")
print(median_s(lambda n: gs.simulate(MODEL, DEVICE, 1 + n, 512 + 7 * n, lora=LORA, cost="roofline"), range(1, 120)))
""",
    "formulas alone, warm": START + """
import inspect
from graphsim.compile.formulas import formulas_of
from graphsim.compile.symbols import numbers_of
inference = gs.simulate(MODEL, DEVICE, 4, 512, lora=LORA).inference
formulas, numbers = formulas_of(inference), numbers_of(inference)
tolerance = (1e-9,) if "tolerance" in inspect.signature(formulas.times_s).parameters else ()  # of older states
for _ in range(60): formulas.times_s(numbers, *tolerance)
print(median_s(lambda _: formulas.times_s(numbers, *tolerance), range(500)))
""",
    "first call of another model": START + """
for name in ("llama-3.1-8b", "qwen3-8b"): gs.load_model(name)
gs.simulate("llama-3.1-8b", DEVICE, 4, 512, lora=LORA)
print(median_s(lambda _: gs.simulate("qwen3-8b", DEVICE, 4, 512, lora=LORA), range(1)))
""",
    "first call of another rate": START + """
from dataclasses import replace
device = gs.load_hardware(DEVICE)
gs.simulate(MODEL, device, 4, 512, lora=LORA)
print(median_s(lambda n: gs.simulate(MODEL, replace(device, memory_bytes_per_s=1e12 + n), 4, 512, lora=LORA), range(5)))
""",
    "own list of 20,000, roofline": START + """
import numpy as np
draw = np.random.default_rng(0)
asked = {"batch": draw.integers(1, 129, 20000), "input_tokens": draw.integers(50, 7000, 20000)}
print(median_s(lambda _: gs.simulate(MODEL, DEVICE, lora=LORA, cost="roofline", **asked).latency_s, range(3)))
""",
    "own list of 2,000, calibrated": START + """
import numpy as np
draw = np.random.default_rng(0)
asked = {"batch": draw.integers(1, 129, 2000), "input_tokens": draw.integers(50, 7000, 2000)}
print(median_s(lambda _: gs.simulate(MODEL, DEVICE, lora=LORA, **asked).latency_s, range(3)))
""",
    "compiled step, known": START + """
step = gs.compile_step(MODEL, DEVICE, lora=LORA)
for _ in range(200): step(decode_batch=8.0, context=512.0)
print(median_s(lambda _: step(decode_batch=8.0, context=512.0), range(2000)))
""",
    "compiled step, new context": START + """
step = gs.compile_step(MODEL, DEVICE, lora=LORA)
for n in range(300): step(decode_batch=8.0, context=float(n))
print(median_s(lambda n: step(decode_batch=8.0, context=float(n)), range(1000, 3000)))
""",
    "compiled step, new prompt": START + """
step = gs.compile_step(MODEL, DEVICE, lora=LORA)
for n in range(300): step(prefill_tokens=float(1 + n), decode_batch=8.0, context=512.0)
print(median_s(lambda n: step(prefill_tokens=float(n), decode_batch=8.0, context=512.0), range(1000, 2000)))
""",
    "sweep of a product, roofline": START + """
grid = {"batch": list(range(1, 65)), "input_tokens": list(range(16, 4096, 16)), "tp": [1, 2], "rank": [8, 64]}
print(median_s(lambda _: gs.sweep(MODEL, DEVICE, cost="roofline", output_tokens=128, **grid), range(3)))
""",
    "sweep of a product, calibrated": START + """
grid = {"batch": list(range(1, 65)), "input_tokens": list(range(16, 4096, 16)), "tp": [1, 2], "rank": [8, 64]}
print(median_s(lambda _: gs.sweep(MODEL, DEVICE, output_tokens=128, **grid), range(3)))
""",
    "400 layers spelt out: build, price, path": START + """
model = gs.load_model({"name": "deep", "hidden_size": 512, "vocab_size": 1000, "layers": 400,
    "attention": {"heads": 8, "kv_heads": 8, "head_dim": 64}, "mlp": {"intermediate_size": 1024}})
def call(_):
    gs.critical_path(gs.annotate(gs.build_graph(model, lora=gs.LoraConfig(), expand=True), DEVICE))
print(median_s(call, range(3)))
""",
}  # fmt: skip
"""Code that prints the seconds of something, once it is warm."""


def seconds(folder: Path, code: str, bytecode: str) -> float:
    """What a piece of code prints in a fresh process under the package of a checkout."""
    environment = os.environ | {
        "PYTHONPATH": str(folder), "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="another checkout")
    parser.add_argument("--runs", type=int, default=9, help="of each figure in each checkout (9)")
    options = parser.parse_args()
    other = options.folder.resolve()
    print("| figure | other | this one | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as bytecode:
        for name, code in FIGURES.items():
            runs = [[seconds(folder, code, bytecode) for folder in (other, HERE)] for _ in range(options.runs + 1)]
            before, now = (statistics.median(column) for column in zip(*runs[1:], strict=True))
            ratio = statistics.median([mine / theirs for theirs, mine in runs[1:]])
            print(f"| {name} | {before * 1e3:.4g} ms | {now * 1e3:.4g} ms | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
