"""A multimodal model is its language model and its towers, which a step runs where a prompt brings something."""

from __future__ import annotations

import csv
from dataclasses import replace

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import total_work, validate
from graphsim.graph.schedule import makespan_s
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface import from_config
from graphsim.models.huggingface.towers import WHOLES
from graphsim.models.huggingface.towers.cuts import Longest, Native, Resized
from graphsim.models.huggingface.towers.tiles import Canvas, Split, Tiles
from graphsim.models.phase import decode, prefill
from graphsim.ops.precision import load_precision
from tests.models.checkpoint.folders import saved
from tests.paths import DATA, hf_configs

CONFIGS = hf_configs()
TOWERS = [row for file in sorted((DATA / "hf").glob("*/towers.csv")) for row in csv.DictReader(file.open())]
BF16 = load_precision("bf16")
ONE = gs.Media(images=1, image_size=(56, 56))


def model(name: str) -> ModelConfig:
    return from_config(CONFIGS[name], name)


def nodes(graph: nx.DiGraph) -> list[tuple[str, dict[str, float]]]:
    return [(name, op.dims()) for name, op in graph.nodes(data="op") if not hasattr(op, "body")]


@pytest.mark.parametrize("fact", TOWERS, ids=lambda fact: fact["name"])
def test_a_tower_computes_what_torch_counts(fact: dict[str, str]) -> None:
    config, size = model(fact["name"]), (int(fact["height"]), int(fact["width"]))
    image, *others = config.encoders
    patch = CONFIGS[fact["name"]]["vision_config"]["patch_size"]
    cut = Resized(image=size, patch=patch if isinstance(patch, int) else patch[0])
    if not image.seen:
        config = replace(config, encoders=(replace(image, cut=cut), *others))
    phases = [prefill(1.0, 64.0, media=media, source_tokens=config.rows_seen(media)) for media in (ONE, None)]
    with_image, without = (total_work(build(config, phase, BF16)).flops for phase in phases)
    assert with_image - without == int(fact["flops"])


@pytest.mark.parametrize("name", ["llava_next_clip", "qwen3_vl_small", "deepseek_vl_hybrid_small", "gemma4_vision"])
def test_a_step_without_media_is_that_of_the_language_model(name: str) -> None:
    config = model(name)
    alone = replace(config, encoders=())
    for phase in (prefill(2.0, 64.0), decode(2.0, 64.0)):
        assert nodes(build(config, phase, BF16)) == nodes(build(alone, phase, BF16))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({data["model_type"] for data in CONFIGS.values()} & set(WHOLES)))
def test_graphs_with_images_are_valid_whole_and_cut(kind: str) -> None:
    smallest = min((d for d in CONFIGS.values() if d["model_type"] == kind), key=lambda data: len(str(data)))
    config = from_config(smallest, kind)
    if not any(encoder.cut.pieces(ONE).count for encoder in config.encoders):
        return  # of videos alone, or without towers
    for size in ((56, 56), (600, 250)):
        for tp in (1, 2):
            asked = {"media": replace(ONE, image_size=size), "parallelism": gs.Parallelism(tp=tp)}
            try:
                graph = gs.build_graph(config, batch=2, input_tokens=64, **asked)
            except gs.InfeasibleError as error:
                assert tp == 2 and "does not divide" in str(error)
                continue
            validate(graph)


def test_memory_holds_the_towers_and_devices_share_them() -> None:
    config = model("llava_next_clip")
    whole = gs.simulate(config, "h100-sxm", engine="reference").memory.weights_bytes
    assert whole == 2 * config.num_parameters
    halves = gs.simulate(config, "h100-sxm", parallelism=gs.Parallelism(tp=2), engine="reference").memory.weights_bytes
    alone = gs.simulate(
        replace(config, encoders=()), "h100-sxm", parallelism=gs.Parallelism(tp=2), engine="reference"
    ).memory.weights_bytes
    tower = whole - 2 * replace(config, encoders=()).num_parameters
    assert tower / 2 <= halves - alone < tower


def test_images_take_time_in_the_prompt_step_alone() -> None:
    config = model("qwen2_5_vl_small")
    asked = {"batch": 3, "input_tokens": 200, "output_tokens": 4}
    plain, seen = (gs.simulate(config, "h100-sxm", media=media, **asked, engine="reference") for media in (None, ONE))
    more = gs.simulate(config, "h100-sxm", media=gs.Media(images=5, image_size=(560, 560)), **asked, engine="reference")
    assert plain.ttft_s < seen.ttft_s < more.ttft_s
    assert plain.tpot_s == seen.tpot_s == more.tpot_s
    assert seen.settings["media"] == ONE and "media" not in plain.settings
    assert seen.ttft_s == pytest.approx(makespan_s(seen.prefill.graph), rel=1e-12)
    assert seen.memory.weights_bytes == plain.memory.weights_bytes


def test_a_prompt_shorter_than_its_images_is_noted() -> None:
    config = model("qwen2_vl_small")
    media = gs.Media(images=2, image_size=(280, 560))  # 10 x 20 rows of 28 x 28 pixels each
    assert [encoder.prompt_tokens(media) for encoder in config.encoders] == [400.0]
    for tokens, noted in ((399, True), (400, False)):
        notes = gs.simulate(config, "h100-sxm", input_tokens=tokens, media=media, engine="reference").notes
        assert any("stand for 400" in note for note in notes) == noted


def test_a_regular_expression_on_the_path_within_the_whole_matches() -> None:
    config = model("gemma3_small")  # 3 layers, hidden 64, 4 heads and 2 for keys of 16, MLPs of 160
    wanted = r"^(model\.language_model(?=\.).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))$"
    layer = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 160)
    adapter = gs.LoraConfig.from_peft({"peft_type": "LORA", "r": 8, "target_modules": wanted})
    assert gs.lora_parameters(config, adapter) == 8 * 3 * layer
    tower = gs.LoraConfig(rank=8, target_modules=r"model\.vision_tower\..*\.fc1")
    assert gs.lora_parameters(config, tower) == 8 * (3 + 1) * (48 + 100)  # the pooling head has one too


def test_an_adapter_of_the_tower_alone_leaves_the_steps_that_generate_as_they_are() -> None:
    config = model("qwen2_vl_small")
    lora = gs.LoraConfig(rank=8, target_modules=["attn.qkv"])
    plain, adapted = (
        gs.simulate(config, "h100-sxm", media=ONE, lora=each, engine="reference") for each in (None, lora)
    )
    assert adapted.tpot_s == plain.tpot_s and adapted.ttft_s > plain.ttft_s
    assert adapted.memory.adapters_bytes == 2 * 8 * 3 * (48 + 3 * 48)
    with pytest.raises(gs.ConfigError, match="matches no module"):
        gs.simulate(config, "h100-sxm", lora=gs.LoraConfig(rank=8, target_modules=["attn.qvk"]), engine="reference")


def test_vllm_is_noted_to_leave_the_towers_part_of_an_adapter_out() -> None:
    config = model("llava_next_clip")
    for target, noted in ((["q_proj"], True), (["gate_proj"], False)):
        lora = gs.LoraConfig(rank=8, target_modules=target)
        notes = gs.simulate(config, "h100-sxm", engine="vllm", lora=lora).notes
        assert any("enable_tower_connector_lora" in note for note in notes) == noted
        assert not any("tower" in note for note in gs.simulate(config, "h100-sxm", lora=lora, engine="reference").notes)


def test_what_no_tower_takes_is_refused() -> None:
    with pytest.raises(gs.ConfigError, match="has no tower and takes only text"):
        gs.simulate("llama-3.1-8b", "h100-sxm", media=ONE, engine="reference")
    with pytest.raises(gs.ConfigError, match="expected a model that takes sound"):
        gs.build_graph(model("llava_next_clip"), media=gs.Media(audio_s=3.0))
    for wrong in ({"images": -1}, {"images": 1.5}, {"image_size": 224}, {"image_size": (0, 3)}, {"audio_s": "long"}):
        with pytest.raises(gs.ConfigError, match=f"{next(iter(wrong))} = .* is not allowed"):
            gs.Media(**wrong)  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match="expected gs.Media"):
        gs.simulate("llama-3.1-8b", "h100-sxm", media=3, engine="reference")  # type: ignore[arg-type]


def test_towers_that_are_not_known_say_how_to_go_on() -> None:
    data = CONFIGS["llava_next_clip"] | {"model_type": "someone_vl"}
    with pytest.raises(gs.ConfigError, match=r"not known \(vision_config\); to simulate the language model alone"):
        from_config(data, "config.json")
    assert from_config(data["text_config"], "config.json").encoders == ()
    with pytest.raises(gs.ConfigError, match="vision_config is missing"):
        from_config({**CONFIGS["llava_next_clip"], "vision_config": None}, "config.json")
    vision = CONFIGS["llava_next_clip"]["vision_config"] | {"model_type": "clip_visoin_model"}
    with pytest.raises(gs.ConfigError, match="did you mean 'clip_vision_model'"):
        from_config({**CONFIGS["llava_next_clip"], "vision_config": vision}, "config.json")


def test_sizes_that_a_tower_leaves_out_are_named() -> None:
    notes = from_config(CONFIGS["mistral3_tower_left_out"], "config.json").notes
    assert any("vision_config leaves out" in note and "hidden_size = 1024" in note for note in notes)


@pytest.mark.parametrize(
    ("cut", "size", "pieces"),
    [
        # 1080 / 28 = 38.6 and 1920 / 28 = 68.6 rows of patches, rounded, of 2 x 2 patches each
        (Native(patch=14, merge=2, most=12_845_056), (1080, 1920), (1, 78, 138)),
        # sqrt(8000 * 8000 / 12845056) = 2.232: 8000 / 2.232 / 28 = 128.0
        (Native(patch=14, merge=2, most=12_845_056), (8000, 8000), (1, 256, 256)),
        # sqrt(3136 / 100) = 5.6: 10 * 5.6 = 56
        (Native(patch=14, merge=2, least=3136), (10, 10), (1, 4, 4)),
        # 3000 / 1540 = 1.948: 1539 / 28 and 2000 / 1.948 = 1026 / 28, rounded up, of 2 x 2 patches each
        (Longest(patch=14, longest=1540, merge=2), (3000, 2000), (1, 110, 74)),
        # 16:9 is nearer to 2:1 than to 3:2; of 2 x 1 and 4 x 2 tiles the image is more than half as large as the latter
        (Tiles(tile=(448, 448), patch=14), (1080, 1920), (9, 32, 32)),
        (Tiles(tile=(448, 448), patch=14), (300, 300), (1, 32, 32)),
        (Resized(image=(336, 336), patch=14), (1080, 1920), (1, 24, 24)),
        # 336 x 672 keeps 336 x 597 pixels, 672 x 672 keeps 672 x 378, 336 x 1008 keeps 336 x 597
        (
            Canvas(tile=(336, 336), patch=14, canvases=((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))),
            (1080, 1920),
            (5, 24, 24),
        ),
        # 1456 x 819 pixels: 4 x 3 tiles and the whole
        (Split(side=364, patch=14, longest=1456), (1080, 1920), (13, 26, 26)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else None,
)
def test_images_are_cut_as_processors_cut_them(
    cut: Native, size: tuple[int, int], pieces: tuple[int, int, int]
) -> None:
    found = cut.pieces(gs.Media(images=1, image_size=size))
    assert (found.count, found.height, found.width) == pieces
    assert cut.pieces(gs.Media(images=3, image_size=size)).count == 3 * pieces[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("idefics2", "latents"), ("llava", "class_embedding"), ("got_ocr2", "pos_embed")]
)
def test_no_adapter_reaches_a_parameter_that_is_no_module(kind: str, name: str) -> None:
    model = gs.load_model(saved(kind)[0], ignore="all")
    with pytest.raises(gs.ConfigError, match=f"'{name}'. matches no module"):
        gs.match_report(model, gs.LoraConfig(rank=8, target_modules=[name]))
