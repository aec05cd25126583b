"""What published configs say beside what transformers' defaults have."""

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from graphsim.models.media import Media
from tests.paths import hf_configs

CONFIGS = hf_configs()
EXAONE, LFM2, STARCODER, CODER = (
    CONFIGS[name]
    for name in (
        *("LGAI-EXAONE/EXAONE-4.0-32B", "LiquidAI/LFM2.5-VL-1.6B", "bigcode/starcoder2-7b"),
        "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    )
)


def test_letters_say_the_layers_that_slide_as_the_list_beside_them_does() -> None:
    letters = {key: value for key, value in EXAONE.items() if key != "layer_types"}
    assert from_config(letters, "letters").layers == from_config(EXAONE, "list").layers


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        # 3 x 3 tiles of 512 pixels and a view of the whole; a row for 32 x 32 pixels
        ({}, (9 + 1) * 16 * 16),
        ({"use_thumbnail": False}, 9 * 16 * 16),
        ({"max_tiles": 4}, (4 + 1) * 16 * 16),
        ({"tile_size": 256}, (9 + 1) * 8 * 8),
        # resized to the largest image that is not cut
        ({"do_image_splitting": False}, 256),
        ({"do_image_splitting": False, "max_image_tokens": 1024}, 1024),
    ],
)
def test_the_config_says_how_images_are_tiled(given: dict[str, object], rows: int) -> None:
    """LFM2-VL (arXiv 2511.23404; transformers 5.24, `image_processing_lfm2_vl.py`)."""
    (tower,) = from_config({**LFM2, **given}, "config.json").encoders
    assert tower.prompt_tokens(Media(images=1, image_size=(2048, 2048))) == rows


@pytest.mark.parametrize(
    ("config", "changed"),
    [(STARCODER, {"mlp_type": "gated"}), (STARCODER, {"norm_type": "rms"}), (CODER, {"use_qk_norm": False})],
)
def test_what_the_class_does_not_build_is_refused(config: dict[str, object], changed: dict[str, object]) -> None:
    (key,) = changed
    with pytest.raises(gs.ConfigError, match=key):
        from_config({**config, **changed}, "config.json")
