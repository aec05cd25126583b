"""Makes tests/data/hf/vision/towers.csv: flops of towers, as torch counts them in `get_image_features`.

The models are small and run on the CPU, since grids of patches are looked into. Run it where torch and transformers
5.24 are installed: `python tests/data/make_tower_facts.py`.
"""

import csv
import json
import warnings
from pathlib import Path

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "hf" / "vision"
SQUARES = {
    "internvl_norms": 56, "idefics3_scale3": 84, "paligemma_projection": 56, "cohere2_small": 56, "vipllava_two": 56,
    "video_llava_small": 56,
}  # fmt: skip
"""Towers of one image size, without a pooling head: the side of the square that they take."""

GRIDS = {
    "qwen2_vl_small": (8, 12), "qwen2_5_vl_small": (8, 12), "qwen3_vl_small": (8, 12), "glm4v_small": (4, 6),
    "glm_ocr_small": (4, 6), "exaone4_5_small": (4, 8),
}  # fmt: skip
"""Towers of native resolution: the grid of patches."""


def image_flops(name: str, data: dict) -> tuple[int, int, int]:
    """Height and width of an image, and the flops of its features."""
    config = CONFIG_MAPPING[data["model_type"]](**{key: value for key, value in data.items() if key != "model_type"})
    model = getattr(transformers, data["architectures"][0])._from_config(config, attn_implementation="eager").eval()
    inputs: dict[str, torch.Tensor] = {}
    if name in SQUARES:
        side = SQUARES[name]
        shape = (1, 1, 3, side, side) if name == "idefics3_scale3" else (1, 3, side, side)
        inputs["pixel_values"] = torch.ones(shape)
        high, wide = side, side
    else:
        vision = data["vision_config"]
        rows, columns = GRIDS[name]
        values = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
        inputs["pixel_values"] = torch.zeros(rows * columns, values)
        inputs["image_grid_thw"] = torch.tensor([[1, rows, columns]])
        high, wide = rows * vision["patch_size"], columns * vision["patch_size"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model.get_image_features(**inputs)
    return high, wide, counter.get_total_flops()


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    configs = json.loads((HERE / "configs.json").read_text())
    with (HERE / "towers.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["name", "height", "width", "flops"])
        for name in [*SQUARES, *GRIDS]:
            try:
                writer.writerow([name, *image_flops(name, configs[name])])
            except Exception as error:  # a tower that wants more than pixels has no row
                print(name, type(error).__name__, error)


if __name__ == "__main__":
    main()
