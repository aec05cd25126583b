"""Makes kv_facts.csv: what transformers itself keeps of a sequence between steps, in elements of its cache.

Every config of tests/data/hf that is published or a default of transformers is instantiated on torch's meta device and
reads prompts of several lengths; what its cache holds behind each is counted: keys and values (and an indexer's keys),
the last taps of short convolutions, and recurrent states. Run it where torch and transformers 5.24 are installed:
`python tests/data/make_kv_facts.py [NAME ...]`. Rows that are there stay as they are unless they are named; a row with
a `source` is of a model that transformers does not have or cannot run so, written by hand from what is said there.
"""

import csv
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from make_hf_structure import HERE, model_of

FILE = Path(__file__).parent / "kv_facts.csv"
COLUMNS = ["name", "token", "far_token", "source_row", "taps", "state", "window", "transformers", "source"]
"""Elements: of a token in the caches of all layers, of one behind every window, of a row of an encoder, and of what
does not grow; the longest window, in tokens."""

SHORT, LONG = 16, 32
"""Tokens of the two prompts whose difference tells what a token adds."""

ENCODERS = (
    "bert",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
    "big_bird",
    "megatron-bert",
    "rembert",
    "roformer",
)
"""Families that look both ways unless their config says that they decode."""

WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "local_attention", "window_size")
"""What configs call the tokens that a layer looks back at most."""

UNTOLD = 10**6
"""A window at least this long is none."""

SMALL = 10**9
"""Models of so few parameters are run with weights where they cannot be run without."""


def chosen() -> dict[str, dict[str, Any]]:
    """Published configs and transformers' defaults that transformers has a class for, by name."""
    found = {}
    for folder in sorted(HERE.iterdir()):
        rows = csv.DictReader((folder / "facts.csv").open())
        counted = {row["name"] for row in rows if row["transformers"]}
        configs = json.loads((folder / "configs.json").read_text())
        found |= {name: data for name, data in configs.items() if name in counted}
    return {name: data for name, data in found.items() if "/" in name or name.startswith("default:")}


def kept(holder: Any, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a cache, under the names of the attributes that lead to it."""
    seen = set() if seen is None else seen
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, torch.Tensor):
        yield name, holder
    elif isinstance(holder, dict):
        for key, value in holder.items():
            yield from kept(value, f"{name}.{key}", seen)
    elif isinstance(holder, list | tuple):
        for place, value in enumerate(holder):
            yield from kept(value, f"{name}.{place}", seen)
    elif hasattr(holder, "__dict__") and not isinstance(holder, torch.nn.Module | transformers.PreTrainedConfig):
        for key, value in vars(holder).items():
            yield from kept(value, f"{name}.{key}", seen)


RWKV_INPUTS = ("state.0", "state.1")
"""The last token's inputs, which RWKV mixes with the next one's, as a convolution of two taps does."""


def kind_of(path: str) -> str:
    """Which of the counted kinds a tensor of a cache is, by the attributes that lead to it."""
    if "cross_attention" in path:
        return "source"
    return "taps" if "conv" in path or path in RWKV_INPUTS else "keys"


def counts(model: torch.nn.Module, tokens: int) -> dict[str, int]:
    """Elements of each kind behind a prompt of `tokens`; an encoder reads the shorter one."""
    ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        source = torch.zeros(1, SHORT, dtype=torch.long, device=model.device)
        inputs = {"input_ids": source, "decoder_input_ids": ids}
        if model.main_input_name == "input_features":
            bins = model.config.num_mel_bins
            inputs["input_features"] = torch.zeros(1, bins, 2 * model.config.max_source_positions, device=model.device)
            del inputs["input_ids"]
    with torch.no_grad():
        made = model(**inputs, use_cache=True)
    key = next(key for key in ("past_key_values", "cache_params", "state") if made.get(key) is not None)
    found = {"keys": 0, "source": 0, "taps": 0}
    for path, tensor in kept(made[key], key):
        if tensor.dim() > 1:
            found[kind_of(path)] += tensor.numel()
    return found


def rows_of(model: torch.nn.Module) -> int:
    """Rows that an encoder makes of the shorter prompt, or of the length of sound that it always hears."""
    return model.config.max_source_positions if model.main_input_name == "input_features" else SHORT


def window_of(config: Any) -> int:
    """The longest window that any part of a config names."""
    parts = [config.get_text_config(), config]
    named = [getattr(part, key, None) for part in parts for key in WINDOWS]
    return max((size for size in named if isinstance(size, int) and size < UNTOLD), default=0)


def running(data: dict[str, Any], device: str) -> torch.nn.Module:
    """The model, experts side by side in one product; one that is no decoder of its own is made one."""
    model = model_of({**data, "is_decoder": True} if data["model_type"] in ENCODERS else data, device).float().eval()
    for module in model.modules():
        if getattr(module, "config", None) is not None:
            module.config._experts_implementation = "batched_mm"
    return model


def facts_of(name: str, data: dict[str, Any], device: str = "meta") -> dict[str, object]:
    model = running(data, device)
    short, long = counts(model, SHORT), counts(model, LONG)
    token = (long["keys"] - short["keys"]) / (LONG - SHORT)
    window, far = window_of(model.config), token
    if window:
        near, ahead = counts(model, window + SHORT), counts(model, window + LONG)
        far = (ahead["keys"] - near["keys"]) / (LONG - SHORT)
    return {
        "name": name,
        "token": f"{token:.15g}",
        "far_token": f"{far:.15g}",
        "source_row": f"{short['source'] / rows_of(model):.15g}",
        "taps": long["taps"],
        "state": f"{long['keys'] - LONG * token:.15g}",
        "window": window,
        "transformers": transformers.__version__,
        "source": "",
    }


def measured(name: str, data: dict[str, Any]) -> dict[str, object]:
    """The facts of a config, without weights if its code allows that."""
    try:
        return facts_of(name, data)
    except Exception:  # whatever its code asks of the values of a tensor
        if sum(p.numel() for p in model_of(data).parameters()) > SMALL:
            raise
        return facts_of(name, data, "cpu")


def main(*names: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    rows = {row["name"]: row for row in csv.DictReader(FILE.open())} if FILE.exists() else {}
    configs = chosen()
    for name, data in configs.items():
        if name in names or (not names and name not in rows):
            try:
                rows[name] = measured(name, data)
            except Exception as error:  # some models need more than token ids, or values that meta tensors lack
                print(f"{name}: {type(error).__name__}: {error}".splitlines()[0][:200], file=sys.stderr, flush=True)
            else:
                print(*rows[name].values(), flush=True)
            with FILE.open("w", newline="") as out:
                writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows[name] for name in sorted(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
