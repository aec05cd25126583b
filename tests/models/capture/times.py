"""Times of captured models beside the hand-written families: `python -m tests.models.capture.times [NAME...]`.

TTFT and TPOT of 8 prompts of 2048 tokens on one H100 under engine `reference`, of models in their published sizes and
at bf16; where the two are more than 3 % apart, the time of each kind of operation in both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

import graphsim as gs
from graphsim.result import Estimate, PhaseEstimate
from tests.models.capture.compare import ways
from tests.paths import ROOT, hf_configs

DENSE, EXPERTS, SCANS = "dense", "experts", "scans"
ALLOWED = {DENSE: 0.03, EXPERTS: 0.05, SCANS: 0.05}
"""How far apart they may be."""

MODELS = {
    "meta-llama/Llama-2-7b-hf": DENSE, "meta-llama/Llama-3.1-8B-Instruct": DENSE, "Qwen/Qwen3-8B": DENSE,
    "google/gemma-2-9b-it": DENSE, "gemma-3-12b": DENSE, "mistralai/Mistral-7B-Instruct-v0.3": DENSE, "phi-4": DENSE,
    "gpt-neox-20b": DENSE, "openai-community/gpt2": DENSE, "olmo-2-7b": DENSE, "command-r-35b": DENSE,
    "bigcode/starcoder2-7b": DENSE, "falcon-7b": DENSE,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": EXPERTS, "Qwen/Qwen3-30B-A3B-Thinking-2507": EXPERTS,
    "openai/gpt-oss-20b": EXPERTS, "olmoe-7b-a1b": EXPERTS, "phi-3.5-moe": EXPERTS,
    "codestral-mamba-7b": SCANS, "jamba-52b": SCANS, "default:falcon_h1": SCANS, "qwen3-next-80b-a3b": SCANS,
}  # fmt: skip
"""By name in the catalog or among the configs of tests/data/hf."""

REQUESTS = {"batch": 8, "input_tokens": 2048, "output_tokens": 2}
APART = 0.03


def config_of(name: str) -> dict[str, Any]:
    """The Hugging Face config, without what says how a checkpoint is quantised."""
    file = ROOT / "models" / f"{name}.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))["config"] if file.exists() else hf_configs()[name]
    return {key: value for key, value in data.items() if key != "quantization_config"}


def estimates(config: Mapping[str, Any]) -> dict[str, Estimate | str]:
    """Of the model in every way that there is; a sentence where it is refused."""
    found: dict[str, Estimate | str] = {}
    for way, read in ways().items():
        started = time.monotonic()
        try:
            found[way] = gs.simulate(read(config), "h100-sxm", engine="reference", precision="bf16", **REQUESTS)
        except gs.GraphsimError as error:
            found[way] = str(error)
        else:
            print(f"  {way}: {time.monotonic() - started:.1f} s")
    return found


def shares(step: PhaseEstimate) -> Counter[str]:
    """Seconds by kind of operation, repeats multiplied out."""
    frame = step.to_frame()
    return Counter((frame["latency_s"] * frame["times"]).groupby(frame["op"]).sum().to_dict())


def told(kind: str, found: dict[str, Estimate | str]) -> None:
    """Prints both, and what lies behind a difference."""
    for way, each in found.items():
        if isinstance(each, str):
            print(f"  {way}: {each}")
    built, captured = found["built"], found.get("captured")
    if isinstance(built, str):
        return
    for name, step in (("ttft_s", "prefill"), ("tpot_s", "decode")):
        here = float(getattr(built, name))
        if not isinstance(captured, Estimate):
            print(f"  {name}: built {here:.6g}")
            continue
        there = float(getattr(captured, name))
        apart = there / here - 1.0
        verdict = "ok" if abs(apart) <= ALLOWED[kind] else "TOO FAR"
        print(f"  {name}: captured {there:.6g} built {here:.6g} {apart:+.2%} {verdict}")
        if abs(apart) > APART:
            _told_by_kind(shares(getattr(captured, step)), shares(getattr(built, step)), here)


def _told_by_kind(captured: Counter[str], built: Counter[str], whole: float) -> None:
    for op in sorted({**captured, **built}, key=lambda op: -abs(captured[op] - built[op])):
        apart = (captured[op] - built[op]) / whole
        print(f"    {op}: captured {captured[op]:.4g} built {built[op]:.4g} {apart:+.2%} of the step")


def main(arguments: list[str]) -> None:
    """Prints the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(MODELS))
    for name in parser.parse_args(arguments).names or MODELS:
        print(name, MODELS[name], flush=True)
        told(MODELS[name], estimates(config_of(name)))


if __name__ == "__main__":
    main(sys.argv[1:])
