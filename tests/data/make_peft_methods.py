"""Makes what PEFT itself says of the adapters of every method in peft/methods.json.

methods.csv: what it wraps and trains on each model; tensors.json: names and shapes of what it saves for one of them,
those of its layers together where all of them are alike.

Models are small enough for the CPU. BOFT's CUDA extension, without which PEFT takes one butterfly factor for any, is
taken to be there. Run it where torch, transformers 5.24 and peft 0.21 are installed:
`python tests/data/make_peft_methods.py`.
"""

import copy
import csv
import json
import re
import warnings
from pathlib import Path

import peft
import transformers
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "peft"
SAVED = "qwen2"
COLUMNS = ["model", "adapter", "params", "modules", "refused", "transformers", "peft"]


def model_of(data: dict) -> transformers.PreTrainedModel:
    """The causal language model of a config, with random weights."""
    fields = dict(data)
    return transformers.AutoModelForCausalLM.from_config(CONFIG_MAPPING[fields.pop("model_type")](**fields))


def adapter_of(fields: dict) -> peft.PeftConfig:
    """PEFT's own config of a method; it writes into what it is given."""
    fields = copy.deepcopy(fields)
    return PEFT_TYPE_TO_CONFIG_MAPPING[fields.pop("peft_type")](**fields)


def tensors_of(wrapped: peft.PeftModel, layers: int) -> dict[str, list[int]]:
    """Shapes by name, with a star for the index of a layer where all layers have the same."""
    shapes = {name: list(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(wrapped).items()}
    found: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        star = re.sub(r"\.layers\.\d+\.", ".layers.*.", name)
        alike = all(shapes.get(star.replace("*", str(i))) == shape for i in range(layers))
        found[star if alike else name] = shape
    return found


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    peft.tuners.boft.layer.get_fbd_cuda = lambda: True
    data = json.loads((HERE / "methods.json").read_text())
    saved: dict[str, dict[str, list[int]]] = {}
    with (HERE / "methods.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for model, config in data["models"].items():
            for adapter, fields in data["adapters"].items():
                row = {"model": model, "adapter": adapter, "transformers": transformers.__version__}
                row["peft"] = peft.__version__
                try:
                    wrapped = peft.get_peft_model(model_of(config), adapter_of(fields), autocast_adapter_dtype=False)
                except Exception as error:  # whatever PEFT refuses
                    said = re.sub(r"\{[^}]*\}", "{}", " ".join(str(error).split()))  # sets come in any order
                    row["refused"] = f"{type(error).__name__}: {said[:90]}"
                else:
                    row["params"] = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
                    row["modules"] = len(wrapped.targeted_module_names)
                    if model == SAVED:
                        saved[adapter] = tensors_of(wrapped, config["num_hidden_layers"])
                writer.writerow(row)
    lines = (f" {json.dumps(adapter)}: {json.dumps(shapes)}" for adapter, shapes in saved.items())
    (HERE / "tensors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
