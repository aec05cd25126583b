"""Makes neutral_keys.csv: keys without meaning for structure, each changed in transformers' own models.

Every default config in tests/data/hf is instantiated on torch's meta device as it is, and with each key of
`graphsim/models/huggingface/known_keys.py` given another value, or given at all. Counted is in how many configs the
parameters stayed the same, name by name and shape by shape; in how many they changed; and in how many transformers
refused the value. Run it where torch and transformers 5.24 are installed: `python tests/data/make_neutral_keys.py`.
"""

import contextlib
import csv
import io
import runpy
import sys
import warnings
from collections import Counter
from pathlib import Path

import transformers
from make_hf_structure import configs_of_all, model_of

HERE = Path(__file__).parent
NEUTRAL = runpy.run_path(str(HERE.parents[1] / "graphsim/models/huggingface/known_keys.py"))["NEUTRAL"]
GIVEN = {
    "hidden_act": "relu", "initializer_range": 0.5, "rms_norm_eps": 0.125, "layer_norm_epsilon": 0.125,
    "layer_norm_eps": 0.125, "use_cache": False, "auto_map": {}, "cache_implementation": "static",
    "id2label": {"0": "no", "1": "yes", "2": "maybe"}, "time_step_limit": [0.0, 1.0],
    "rope_parameters": {"rope_type": "default", "rope_theta": 77_777.0},
    "rope_scaling": {"rope_type": "linear", "rope_theta": 77_777.0, "factor": 2.0},
}  # fmt: skip
"""Values of keys that a config lacks, where 1 is of the wrong type."""

VERDICTS = ("same", "changed", "refused")
SKIPPED = {"architectures", "model_type", "dtype", "torch_dtype", "attn_implementation"}
"""What chooses the class, its numbers' format or kernel for the test itself."""


def changed(key: str, value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return max(value - 1, 0) if "token" in key else value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.125
    if isinstance(value, dict) and "rope_theta" in value:
        return {**value, "rope_theta": 77_777.0}
    if isinstance(value, str) and value in transformers.activations.ACT2FN:
        return "relu" if value != "relu" else "silu"
    return value


def shapes_of(data: dict) -> dict[str, tuple[int, ...]] | None:
    """Every parameter's name and shape; nothing where transformers refuses the config."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return {name: tuple(p.shape) for name, p in model_of(data).named_parameters()}
        except Exception:  # whatever it says, there is no model
            return None


def sorted_out(data: dict, values: dict[str, object], base: object) -> dict[str, list[str]]:
    """What becomes of the model with each of the values: all at once where they change nothing, else by halves."""
    found = shapes_of({**data, **values})
    if found == base or len(values) == 1:
        verdict = "same" if found == base else "refused" if found is None else "changed"
        return {verdict: list(values)}
    keys = sorted(values)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    parts = [sorted_out(data, {key: values[key] for key in half}, base) for half in halves]
    return {verdict: [key for part in parts for key in part.get(verdict, [])] for verdict in VERDICTS}


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(100)
    counts = {verdict: Counter[str]() for verdict in VERDICTS}
    for name, data in configs_of_all().items():
        if not name.startswith("default:"):
            continue
        base = shapes_of(data)
        given = {key: data.get(key) for key in NEUTRAL - SKIPPED}
        values = {key: GIVEN.get(key, 1) if old is None else changed(key, old) for key, old in given.items()}
        values = {key: value for key, value in values.items() if data.get(key) != value}
        for verdict, keys in sorted_out(data, values, base).items():
            counts[verdict].update(keys)
            if verdict == "changed" and keys:
                print(f"{name}: {', '.join(keys)} changes the model", flush=True)
    with (HERE / "neutral_keys.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", *VERDICTS, "transformers"])
        for key in sorted(NEUTRAL - SKIPPED):
            writer.writerow([key, *(counts[verdict][key] for verdict in VERDICTS), transformers.__version__])


if __name__ == "__main__":
    sys.exit(main())
