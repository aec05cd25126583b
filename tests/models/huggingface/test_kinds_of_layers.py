"""A list of what each layer is names kinds that the family has, or is refused."""

import json
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from tests.paths import DATA, hf_configs

LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types")
IDLE = {
    ("deepseek_v32", "layer_types"),
    ("glm_moe_dsa", "layer_types"),
    ("hy_v4", "layer_types"),
    ("deepseek_v4", "mlp_layer_types"),
}
"""Lists that change no layer's weights or work in transformers 5.24."""

DRAFTS = json.loads((DATA / "hf" / "drafts" / "configs.json").read_text(encoding="utf-8"))
"""Their lists are of the layers of the model that they draft for."""


@pytest.mark.slow
@pytest.mark.parametrize("strange", ["strange_attention", 3, None, ["full_attention"], {}])
def test_an_entry_that_no_layer_of_the_family_is_called_is_refused(strange: Any) -> None:
    tried, loaded = 0, []
    for name, data in hf_configs().items():
        if name in DRAFTS:
            continue
        for key in LISTS:
            listed = data.get(key)
            if isinstance(listed, list) and (data["model_type"], key) not in IDLE:
                tried += 1
                try:
                    from_config({**data, key: [*listed[:-1], strange]}, "config.json")
                    loaded.append(f"{name}: {key}")
                except gs.ConfigError as error:
                    assert key in str(error), error
    assert tried > 100 and not loaded, f"{strange} loads: {', '.join(loaded)}"
