"""Makes hf_mutations.csv: how parameters change in transformers' own models when one key of a config is changed.

Each config of tests/data/hf that transformers has a class for is filled up with the class's defaults and cut to a few
layers; then every key that may have to do with structure is changed on its own, and the model is instantiated on
torch's meta device. Run it where tests/data/make_hf_structure.py runs: `python tests/data/make_mutations.py
[--again] [GROUP or NAME ...]`; without arguments it goes through all groups. Of a config that is no `default:` one,
and not named, only some keys are changed. Configs that are in the file already are left alone unless `--again` is
given. A config that cannot be instantiated is skipped, and one whose facts have another source than transformers.
"""

import csv
import dataclasses
import json
import re
import signal
import sys
import typing
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from make_hf_structure import HERE, model_of
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FILE = Path(__file__).parent / "hf_mutations.csv"
COLUMNS = ["config", "key", "value", "params", "lora_qv_r8", "windows"]
"""A row without a key is the config itself, as JSON; `params` is "refused" where transformers raises an error.

`windows` are those of the cache, each with the number of layers that keep no more; "full" where all keep everything.
"""

LAYERS = re.compile(
    r"(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|num_decoder_layers|num_blocks|depth)"
)
KEPT_LAYERS = (4, 6, 12, 24)
"""How many layers are tried first, and how many where transformers refuses the model that is left."""

SECONDS = 20

SOME = 3
"""Of configs that are no default of their class, one change of so many is tried."""

NO_LAYERS = re.compile(
    r"rope_\w*|\w*_rope\w*|id2label|label2id|task_specific_params|per_layer_config|quantization_config|generation_config"
)
"""Nested mappings that are not gone into."""

UNTRIED = re.compile(
    r"(\w*token_(id|ids|index)|(pad|bos|eos|sep|cls|mask|image|video|audio)_\w*ids?|\w*dropout\w*|\w*_pdrop|\w*drop_prob|"
    r"\w*layerdrop|\w*_eps|eps|\w*epsilon|\w*initializer\w*|init_std|\w*theta|router_\w*coef|\w*_loss\w*|"
    r"output_(attentions|hidden_states|router_logits|past)|return_dict|use_cache|transformers_version|dtype|torch_dtype|"
    r"chunk_size_\w+|problem_type|id2label|label2id|num_labels|_name_or_path|is_encoder_decoder|architectures|model_type|"
    r"_attn_implementation\w*|summary_\w+|time_step_(min|max|floor|limit)|tokenizer_\w+)"
)
"""Keys that are not changed: names, token ids, dropout, constants of norms, losses and initialisation."""

MASKED = ("gpt_neo", "minimax")
"""Models whose windows are masks in transformers; the cache keeps rows that no query sees again."""


def nodes(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The config and every config within it, with the path of its keys."""
    yield prefix, data
    for key, value in data.items():
        if isinstance(value, dict) and not NO_LAYERS.fullmatch(key):
            yield from nodes(value, f"{prefix}{key}/")


def shrunk(data: dict[str, Any], least: int) -> dict[str, Any]:
    """The config with few layers, and what lists one entry for each layer cut alike."""
    for _, node in nodes(data):
        counts = {key: node[key] for key in node if LAYERS.fullmatch(key) and type(node[key]) is int}
        whole = max(counts.values(), default=0)
        listed = [key for key, value in node.items() if isinstance(value, list) and len(value) == whole > least]
        kept = next((n for n in range(least, whole) if all(_is_full(node[key], n, least) for key in listed)), whole)
        for key in counts:
            node[key] = min(node[key], kept)
        for key in listed:
            node[key] = node[key][:kept]
        if isinstance(node.get("per_layer_config"), dict):
            node["per_layer_config"] = {i: entry for i, entry in node["per_layer_config"].items() if int(i) < kept}
        for key, value in node.items():
            if re.search(r"layer_ids|layer_indices|layer_idxs|attn_idxs|indices", key) and isinstance(value, list):
                node[key] = [i for i in value if not isinstance(i, int) or i < kept]
            if re.search(r"first_k_dense|num_dense_layers|max_window_layers|num_kv_shared", key) and value:
                node[key] = min(value, kept // 2)
    return data


def _is_full(values: list[Any], kept: int, least: int) -> bool:
    """Whether the first entries hold every kind of entry that the list has, as far as that takes few more layers."""
    kinds = {json.dumps(value) for value in values}
    return {json.dumps(value) for value in values[:kept]} == kinds or kept >= least + 2


def changes(value: object, allowed: object) -> list[object]:
    """Other values of a key: a switch turned, a number doubled and one more, a list reversed and made uniform."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value or 2, value + 1] if value < 10**7 else [value + 1]
    if isinstance(value, float):
        return [2.0 * value]
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        other = [value[::-1], [value[0]] * len(value), [value[-1]] * len(value), value[:-1]]
        return [entry for i, entry in enumerate(other) if entry != value and entry not in other[:i]]
    if isinstance(value, str) and len(set(value)) > 1 and re.fullmatch(r"[A-Z*\-|]+", value):
        return [value[::-1]]
    kinds = typing.get_args(allowed) or (allowed,)
    if value is None:
        return [2, 16] if int in kinds else [True] if bool in kinds else []
    return []


def tried(data: dict[str, Any]) -> Iterator[tuple[str, object, dict[str, Any]]]:
    """Key, new value and config of every change."""
    text = json.dumps(data)
    for prefix, node in nodes(data):
        types = _types(str(node.get("model_type")))
        for key, value in node.items():
            if UNTRIED.fullmatch(key) or isinstance(value, dict):
                continue
            others = [*changes(value, types.get(key)), *_nothing(value, types.get(key))]
            for other in [each for i, each in enumerate(others) if each not in others[:i]]:
                changed = json.loads(text)
                place = dict(nodes(changed))[prefix]
                place[key] = other
                yield f"{prefix}{key}", other, changed


def _types(kind: str) -> dict[str, object]:
    if kind not in CONFIG_MAPPING:
        return {}
    return {field.name: field.type for field in dataclasses.fields(CONFIG_MAPPING[kind])}


def _nothing(value: object, allowed: object) -> list[None]:
    """No value at all, where the class allows it."""
    return [None] if value is not None and type(None) in typing.get_args(allowed) else []


def counted(data: dict[str, Any]) -> tuple[object, object, str]:
    """Parameters, tied ones once, those of adapters of rank 8 on q_proj and v_proj, windows; "refused" for an error."""
    signal.alarm(SECONDS)
    try:
        model = model_of(data)
    except (Exception, SystemExit):
        return "refused", "", ""
    finally:
        signal.alarm(0)
    params = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    linears = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in ("q_proj", "v_proj")
    ]
    adapters = sum(8 * (module.in_features + module.out_features) for module in linears)
    return params, adapters or "", windows(model.config)


def windows(config: Any) -> str:
    """What transformers' own cache keeps of long sequences."""
    if config.model_type in MASKED:
        return ""
    try:
        layers = transformers.DynamicCache(config=config).layers
    except Exception:  # a model without such a cache
        return ""
    found = Counter(layer.sliding_window for layer in layers if getattr(layer, "sliding_window", None))
    return " ".join(f"{window}x{times}" for window, times in sorted(found.items())) or "full"


def whole(given: dict[str, Any]) -> dict[str, Any]:
    """The config with every default of its class, without the keys that are not tried."""
    fields = dict(given)
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    data: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    for _, node in nodes(data):
        for key in [key for key in node if UNTRIED.fullmatch(key) and key != "model_type"]:
            del node[key]
    return data | {key: given[key] for key in ("model_type", "architectures") if key in given}


def is_drawn(name: str, key: str, value: object) -> bool:
    """Whether a change of a config of which only some are tried is among these, always the same ones."""
    return zlib.crc32(f"{name} {key} {value}".encode()) % SOME == 0


def rows_of(name: str, given: dict[str, Any], every: bool) -> list[dict[str, object]]:
    """The config itself and every change of it, or some; nothing where transformers cannot make it."""
    try:
        text = json.dumps(whole(given))
    except Exception as error:  # transformers has no such config
        print(f"{name}: skipped, {type(error).__name__}: {str(error)[:80]}", flush=True)
        return []
    for least in KEPT_LAYERS:
        data = shrunk(json.loads(text), least)
        base = counted(data)
        if base[0] != "refused":
            break
    else:
        print(f"{name}: skipped, cannot be cut to few layers", flush=True)
        return []
    rows = [dict(zip(COLUMNS, (name, "", json.dumps(data), *base), strict=True))]
    for key, value, changed in tried(data):
        if not every and not is_drawn(name, key, value):
            continue
        rows.append(dict(zip(COLUMNS, (name, key, json.dumps(value), *counted(changed)), strict=True)))
    print(f"{name}: {len(rows)} rows", flush=True)
    return rows


def _stop(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def main(*arguments: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, _stop)
    groups = {file.parent.name: json.loads(file.read_text()) for file in sorted(HERE.glob("*/configs.json"))}
    wanted = [argument for argument in arguments if argument != "--again"]
    sourced = {
        row["name"] for group in groups for row in csv.DictReader((HERE / group / "facts.csv").open()) if row["source"]
    }
    chosen = {
        name: data
        for group, configs in groups.items()
        for name, data in configs.items()
        if name not in sourced and (name in wanted or not wanted or group in wanted)
    }
    found: dict[str, list[dict[str, object]]] = {}
    if FILE.exists():
        for row in csv.DictReader(FILE.open()):
            found.setdefault(row["config"], []).append(row)
    for name, data in chosen.items():
        if name in found and "--again" not in arguments:
            continue
        if rows := rows_of(name, data, name.startswith("default:") or name in wanted):
            found[name] = rows
            with FILE.open("w", newline="") as out:
                writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(row for each in sorted(found) for row in found[each])


if __name__ == "__main__":
    main(*sys.argv[1:])
