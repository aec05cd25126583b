"""Makes the pictures of graphsim/docs: one layer of Llama-3.1-8B under an adapter, in five ways.

Needs GraphViz's `dot`. Run it from the top of the repository: `python tests/data/make_pictures.py`.
"""

import subprocess
import sys
from pathlib import Path

import graphsim as gs
from graphsim.graph import walk
from graphsim.ops import Repeat

DOCS = Path(__file__).parents[2] / "graphsim" / "docs"
QV = ["q_proj", "v_proj"]
PICTURES = {
    "lora-packed": {"lora": gs.LoraConfig(rank=16, target_modules=QV)},
    "lora-fully-sharded": {
        "lora": gs.LoraConfig(rank=16, target_modules=[*QV, "o_proj"], fully_sharded_loras=True),
        "parallelism": gs.Parallelism(tp=2),
    },
    "lora-dora": {"lora": gs.LoraConfig(rank=16, target_modules=["q_proj"], variant="dora")},
    "lora-merge": {"lora": gs.LoraConfig(rank=16, target_modules=QV, strategy="merge")},
    "lora-vllm": {"lora": gs.LoraConfig(rank=16, target_modules=QV, max_loras=8), "engine": "vllm"},
}


def main() -> None:
    for name, asked in PICTURES.items():
        graph = gs.annotate(gs.build_graph("llama-3.1-8b", "decode", 8, 1024, **asked), "h100-sxm")
        layer = next(op.body for _, op in graph.nodes(data="op") if isinstance(op, Repeat))
        file = DOCS / f"{name}.dot"
        gs.to_dot(layer, file)
        subprocess.run(["dot", "-Tsvg", str(file), "-o", str(file.with_suffix(".svg"))], check=True)
        file.unlink()
        sys.stdout.write(f"{name}: {sum(1 for _ in walk(layer))} nodes\n")


if __name__ == "__main__":
    main()
