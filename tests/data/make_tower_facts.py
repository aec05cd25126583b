"""Makes the towers.csv of a folder of tests/data/hf: flops of towers, as torch counts them in `get_image_features`.

The models are small and run on the CPU, since grids of patches are looked into. Run it where torch and transformers
5.24 are installed: `python tests/data/make_tower_facts.py vision`.
"""

import csv
import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "hf"
SQUARES = {
    "internvl_norms": 56, "idefics3_scale3": 84, "paligemma_projection": 56, "cohere2_small": 56, "vipllava_two": 56,
    "video_llava_small": 56, "step3p7_small": 56,
}  # fmt: skip
"""Towers of one image size, without a pooling head: the side of the square that they take."""

GRIDS = {
    "qwen2_vl_small": (8, 12), "qwen2_5_vl_small": (8, 12), "qwen3_vl_small": (8, 12), "glm4v_small": (4, 6),
    "glm_ocr_small": (4, 6), "exaone4_5_small": (4, 8), "minimax_m3_small": (6, 9), "paddleocr_bias": (6, 9),
    "ernie_vl_small": (6, 9), "qwen2_5_omni_small": (8, 12), "qwen3_omni_small": (8, 12),
    "hyperclovax_v2_small": (8, 12), "glm5_next_small": (4, 6), "muse_glimmer_small": (6, 9),
    "lfm3_vl_small": (6, 9),
}  # fmt: skip
"""Towers of native resolution: the grid of patches."""


FRAMES = {"paddleocr_bias": 1, "ernie_vl_small": 1, "muse_glimmer_small": 1}
"""Frames of a patch, where the config does not call them `temporal_patch_size`."""


def image_flops(name: str, data: dict) -> tuple[int, int, int]:
    """Height and width of an image, and the flops of its features."""
    config = CONFIG_MAPPING[data["model_type"]](**{key: value for key, value in data.items() if key != "model_type"})
    model = getattr(transformers, data["architectures"][0])._from_config(config, attn_implementation="eager").eval()
    inputs: dict[str, torch.Tensor] = {}
    if name in SQUARES:
        side = SQUARES[name]
        shape = (1, 1, 3, side, side) if name == "idefics3_scale3" else (1, 3, side, side)
        inputs["pixel_values"] = torch.ones(shape)[..., : data["vision_config"].get("num_channels", 3), :, :]
        high, wide = side, side
    else:
        vision = data["vision_config"]
        rows, columns = GRIDS[name]
        channels = vision.get("in_channels", vision.get("num_channels", 3))
        values = channels * vision.get("temporal_patch_size", FRAMES.get(name, 2)) * vision["patch_size"] ** 2
        inputs["pixel_values"] = torch.zeros(rows * columns, values)
        if name == "paddleocr_bias":
            inputs["pixel_values"] = torch.zeros(rows * columns, channels, vision["patch_size"], vision["patch_size"])
        inputs["image_grid_thw"] = torch.tensor([[1, rows, columns]])
        high, wide = rows * vision["patch_size"], columns * vision["patch_size"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model.get_image_features(**inputs)
    own = 0  # convolutions of a channel by itself are no matrix products
    if name == "lfm3_vl_small":
        layers = data["vision_config"]["layer_types"].count("conv")
        taps = data["vision_config"]["conv_kernel_size"] ** 2
        own = 2 * rows * columns * data["vision_config"]["hidden_size"] * taps * layers
    return high, wide, counter.get_total_flops() - own


def seen_flops(data: dict) -> tuple[int, int, int]:
    """Height and width of a tile, and what an image adds to a step of 64 tokens whose layers attend to its rows."""
    config = CONFIG_MAPPING[data["model_type"]](**{key: value for key, value in data.items() if key != "model_type"})
    model = getattr(transformers, data["architectures"][0])._from_config(config, attn_implementation="eager").eval()
    tokens = torch.zeros(1, 64, dtype=torch.long)
    side, tiles = data["vision_config"]["image_size"], data["vision_config"]["max_num_tiles"]
    image = {
        "pixel_values": torch.ones(1, 1, tiles, 3, side, side), "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, 64, 1, tiles, dtype=torch.long),
    }  # fmt: skip
    flops = []
    for inputs in ({}, image):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(input_ids=tokens, use_cache=False, **inputs)
        flops.append(counter.get_total_flops())
    rows = tiles * -(-((side // data["vision_config"]["patch_size"]) ** 2 + 1) // 8) * 8
    mask = 2 * rows**2  # the mask of tiles is made as an outer product, which torch counts
    return side, side, flops[1] - flops[0] - mask


def main(group: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    configs = json.loads((HERE / group / "configs.json").read_text())
    with (HERE / group / "towers.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["name", "height", "width", "flops"])
        for name in [name for name in (*SQUARES, *GRIDS) if name in configs]:
            try:
                writer.writerow([name, *image_flops(name, configs[name])])
            except Exception as error:  # a tower that wants more than pixels has no row
                print(name, type(error).__name__, error)
        if "mllama_whole" in configs:
            writer.writerow(["mllama_whole", *seen_flops(configs["mllama_whole"])])


if __name__ == "__main__":
    main(sys.argv[1])
