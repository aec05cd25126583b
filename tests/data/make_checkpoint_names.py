"""Makes tests/data/checkpoints/tensors.json: names and shapes of the tensors that transformers saves for a model.

One config for each `model_type` in tests/data/hf, the one with the fewest parameters. Models are instantiated on
torch's meta device; what `save_pretrained` would write is their state without tied weights, under the names of the
checkpoint (transformers 5.24, `revert_weight_conversion`). Run it where torch and transformers are installed, from
tests/data: `python make_checkpoint_names.py [MODEL_TYPE ...]`; types that are there stay unless they are named.

Names that differ by indices only share an entry: `model.layers.{0-3,5}.self_attn.q_proj.weight`.
"""

import csv
import itertools
import json
import re
import sys
import warnings
from pathlib import Path

import transformers
from make_hf_structure import HERE, configs_of_all, model_of
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

FILE = Path(__file__).parent / "checkpoints" / "tensors.json"


def smallest_of_each_type() -> dict[str, str]:
    """The name of a config by `model_type`."""
    rows = [row for file in sorted(HERE.glob("*/facts.csv")) for row in csv.DictReader(file.open())]
    configs = configs_of_all()
    found: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: int(row["params"])):
        if row["name"] in configs and not row["source"]:
            found.setdefault(configs[row["name"]]["model_type"], row["name"])
    return found


def saved_tensors(data: dict) -> dict[str, list[int]]:
    """Names and shapes as `save_pretrained` writes them."""
    model = model_of(data)
    state = remove_tied_weights_from_state_dict(model.state_dict(), model)
    return {name: list(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}


def ranges(numbers: list[int]) -> str:
    """`0-3,5` of 0, 1, 2, 3, 5."""
    runs = []
    for _, run in itertools.groupby(enumerate(sorted(set(numbers))), lambda pair: pair[1] - pair[0]):
        own = [number for _, number in run]
        runs.append(str(own[0]) if len(own) == 1 else f"{own[0]}-{own[-1]}")
    return ",".join(runs)


def shortened(tensors: dict[str, list[int]]) -> dict[str, list[int]]:
    """Tensors whose names differ by indices only, as one entry where all combinations of their indices are there."""
    alike: dict[tuple, list[tuple[int, ...]]] = {}
    for name, shape in tensors.items():
        indices = tuple(int(part) for part in name.split(".") if part.isdigit())
        alike.setdefault((re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)", "#", name), tuple(shape)), []).append(indices)
    short = {}
    for (pattern, shape), found in alike.items():
        by_layer: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for first, rest in itertools.groupby(sorted(found), lambda indices: indices[:1]):
            by_layer.setdefault(tuple(indices[1:] for indices in rest), []).extend(first)
        for rests, firsts in by_layer.items():
            columns = [sorted({rest[i] for rest in rests}) for i in range(len(rests[0]))]
            assert len(rests) == len(list(itertools.product(*columns))), pattern
            texts = iter(([ranges(firsts)] if firsts else []) + [ranges(column) for column in columns])
            short[re.sub("#", lambda _: f"{{{next(texts)}}}", pattern)] = list(shape)  # noqa: B023 - used at once
    return short


def main(*types: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    rows = json.loads(FILE.read_text()) if FILE.exists() else {}
    configs = configs_of_all()
    for kind, name in smallest_of_each_type().items():
        if kind not in types and (types or kind in rows):
            continue
        try:
            tensors = shortened(saved_tensors(configs[name]))
        except Exception as error:  # what transformers cannot save in its checkpoint's names is no fact
            print(kind, name, "left out:", type(error).__name__, str(error)[:100], flush=True)
            continue
        rows[kind] = {"config": name, "transformers": transformers.__version__, "tensors": tensors}
        print(kind, name, len(tensors), flush=True)
    lines = ",\n".join(f'"{kind}": {json.dumps(rows[kind], separators=(",", ":"))}' for kind in sorted(rows))
    FILE.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
