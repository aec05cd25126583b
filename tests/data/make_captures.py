"""Captures some scaled architectures and keeps them as model files, so that tests without torch have captured models.

Needs the extra `torch`. Run it from the top of the repository: `python -m tests.data.make_captures [NAME…]`.
"""

import json
import sys
from pathlib import Path

import graphsim as gs

HERE = Path(__file__).parent / "capture"
NAMES = (
    "gemma3_text", "gpt2", "gpt_oss", "jamba", "llama", "mamba2", "mixtral", "olmo2", "phi3", "qwen2_vl", "qwen3",
    "qwen3_next", "t5",
)  # fmt: skip


def main(names: list[str]) -> None:
    """One file for each."""
    configs = json.loads((HERE / "configs.json").read_text(encoding="utf-8"))
    (HERE / "saved").mkdir(exist_ok=True)
    for name in names or NAMES:
        sys.stdout.write(f"{gs.capture(configs[name]).save(HERE / 'saved' / f'{name}.yaml').name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
