"""Makes peft_facts.csv: what PEFT itself wraps and trains for the adapters in peft_configs.json.

Models lie on torch's meta device. Run it where torch, transformers 5.23 and peft 0.21 are installed:
`python tests/data/make_peft_facts.py`.
"""

import copy
import csv
import json
import warnings
from pathlib import Path

import peft
import transformers
from make_hf_structure import configs_of_all, model_of

HERE = Path(__file__).parent
COLUMNS = ["model", "adapter", "params", "modules", "transformers", "peft"]


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    models = configs_of_all()
    data = json.loads((HERE / "peft_configs.json").read_text())
    with (HERE / "peft_facts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for model in data["models"]:
            for adapter, fields in data["adapters"].items():
                config = peft.LoraConfig(**copy.deepcopy(fields))  # PEFT writes into what it is given
                try:
                    wrapped = peft.get_peft_model(model_of(models[model]), config, autocast_adapter_dtype=False)
                except ValueError:  # nothing matches
                    writer.writerow([model, adapter, "", "", transformers.__version__, peft.__version__])
                    continue
                params = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
                modules = len({*wrapped.targeted_module_names, *wrapped.targeted_parameter_names})
                writer.writerow([model, adapter, params, modules, transformers.__version__, peft.__version__])
                file.flush()


if __name__ == "__main__":
    main()
