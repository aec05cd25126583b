"""Makes the tables of tests/data/capture: what transformers, PEFT and torch say of architectures in other sizes.

Every default config of a folder is scaled (scaled_configs.py), its class instantiated on the meta device and run on
token ids as it is: a prompt, the same with the logits of its last position only, and a decode step with the cache that
the prompt left. Models whose code asks for values of tensors run on the CPU with weights. Towers are not run. Run it
where torch, transformers 5.24 and peft 0.21 are installed, in any number of goes: rows that are there stay unless they
are named. `python tests/data/make_capture_facts.py FOLDER [NAME ...]`
"""

import csv
import json
import multiprocessing
import re
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from capture_flops import KINDS
from capture_steps import FLOAT32, Steps, model_of, sentence
from scaled_configs import RECIPES, scaled

HERE = Path(__file__).parent / "capture"
FACTS = [
    "model_type", "recipe", "class", "params", "lora_qv_r8", "lora_all_linear_r8", "token_bytes", "state_bytes",
    "source_row_bytes", "loops", "device", "seconds", "why",
]  # fmt: skip
"""Bytes are of the model's own cache at bfloat16: of a token, of a sequence however long, and of a row that an encoder
made; `loops`: operations of a prompt grow with its length; `why` says what could not be run."""

FLOPS = ["model_type", "step", "batch", "tokens", *KINDS, "cache_bytes"]
"""Of a decode step `tokens` are those behind it; `cache_bytes`: of all sequences, once the step is done."""

SHORT = ((2, 6), (3, 11))
LONG = ((3, 53), (2, 96))
"""Sequences and tokens. Only loops over tokens are counted at the short ones."""

SECONDS = 40
"""Of the processor, for all sizes and devices that are tried."""

SMALL = 500_000_000
"""Models of so few parameters are run with weights where they cannot be run without."""

NOISE = re.compile(
    r"id2label|label2id|output_(attentions|hidden_states)|return_dict|chunk_size_feed_forward|problem_type|_name_or_path|"
    r"initializer_\w+|transformers_version|dtype|\w*dropout\w*|\w+_pdrop|summary_\w+|\w*_loss\w*|mask_(time|feature)_\w+"
)
"""Keys that no count depends on."""


def adapters(data: dict[str, Any], targets: object) -> object:
    """Parameters of rank 8; nothing where PEFT refuses."""
    config = peft.LoraConfig(r=8, target_modules=targets)
    try:
        model = peft.get_peft_model(model_of(data), config, autocast_adapter_dtype=False)
    except Exception:  # whatever PEFT says, there is no number
        return ""
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and "lora_" in name)


@dataclass(kw_only=True)
class Attempt:
    """What is known of an architecture in some sizes."""

    data: dict[str, Any]
    facts: dict[str, object]
    rows: list[dict[str, object]] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """The better the more of it ran."""
        steps = {row["step"] for row in self.rows}
        return 2 * ("prompt" in steps) + (not self.facts["why"] or "no cache" in str(self.facts["why"]))

    def run(self, device: str) -> None:
        """Counts what runs."""
        self.rows, steps = [], None
        try:
            steps = Steps(self.data, device)
            for size in SHORT:
                steps.at(*size)
            self.facts |= {"device": device, "why": steps.why} | _per_sequence(steps)
            short, steps.rows = steps.rows, []
            for size in LONG:
                steps.at(*size)
                if _loops(steps.operations):
                    steps.rows = short
                    self.facts["loops"] = "yes"
                    break
            self.facts["why"] = steps.why
        except TimeoutError:
            self.facts["why"] = f"more than {SECONDS} s on the {device} device"
            raise
        except Exception as error:  # whatever its code asks for
            self.facts["why"] = sentence(error)
        finally:
            self.rows = steps.rows if steps else []


def _loops(operations: dict[int, int]) -> bool:
    """Whether a prompt has some operations more for every token, however long; loops over experts come to an end."""
    few, some, many = (operations[tokens] for _, tokens in (*SHORT, LONG[0]))
    near = (some - few) / (SHORT[1][1] - SHORT[0][1])
    far = (many - some) / (LONG[0][1] - SHORT[1][1])
    return near >= 1 and far >= near / 2


def _per_sequence(steps: Steps) -> dict[str, object]:
    """Bytes of a token, of a sequence however long, and of a row of an encoder."""
    if not steps.kept or steps.name in FLOAT32:
        return {}
    (few, (short, source)), (many, (long, _)) = sorted(steps.kept.items())[: len(SHORT)]
    token = (long - short) / (many - few)
    found = {"token_bytes": token, "state_bytes": short - token * few, "source_row_bytes": source}
    return {key: f"{value:.15g}" for key, value in found.items()}


def survey(name: str, default: dict[str, Any]) -> Attempt:
    """All facts of an architecture, in the sizes that run."""
    started = time.process_time()
    best = Attempt(data={}, facts={"model_type": name, "why": "not tried"})
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    tried = best
    try:
        for recipe in RECIPES:
            data = without_noise(scaled(default, recipe))
            try:
                params = sum(p.numel() for p in model_of(data).parameters())
            except Exception as error:
                best.facts["why"] = sentence(error) if not best.data else best.facts["why"]
                continue
            for device in ("meta", "cpu") if params < SMALL else ("meta",):
                facts = {"model_type": name, "recipe": recipe, "params": params, "why": ""}
                tried = Attempt(data=data, facts=facts)
                tried.run(device)
                best = max(best, tried, key=lambda each: (bool(each.data), each.rank))
                if best.rank == 3:
                    raise StopIteration
    except (TimeoutError, StopIteration):
        best = max(best, tried, key=lambda each: (bool(each.data), each.rank))
    signal.setitimer(signal.ITIMER_PROF, 0)
    best.facts["seconds"] = round(time.process_time() - started, 1)
    best.facts["class"] = default["architectures"][0]
    if best.data:
        best.facts["lora_qv_r8"] = adapters(best.data, ["q_proj", "v_proj"])
        best.facts["lora_all_linear_r8"] = adapters(best.data, "all-linear")
    return best


def without_noise(data: dict[str, Any]) -> dict[str, Any]:
    """Only what a count may depend on."""
    kept_keys = {key: value for key, value in data.items() if not NOISE.fullmatch(key)}
    return {key: without_noise(value) if isinstance(value, dict) else value for key, value in kept_keys.items()}


def _stop(*_: object) -> None:
    raise TimeoutError


def _apart(name: str, default: dict[str, Any]) -> Attempt:
    """A survey in a process of its own, so that what hangs or crashes ends with it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(survey(name, default)))
    process.start()
    sender.close()
    try:
        if receiver.poll(15 * SECONDS):
            return receiver.recv()
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
    return Attempt(data={}, facts={"model_type": name, "why": "its process did not come back"})


def _read(name: str, columns: list[str]) -> list[dict[str, object]]:
    file = HERE / name
    return [{key: row[key] for key in columns} for row in csv.DictReader(file.open())] if file.exists() else []


def _write(name: str, columns: list[str], rows: list[dict[str, object]]) -> None:
    with (HERE / name).open("w", newline="") as out:
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(folder: str, *names: str) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    file = HERE / "configs.json"
    configs = json.loads(file.read_text()) if file.exists() else {}
    facts = {str(row["model_type"]): row for row in _read("facts.csv", FACTS)}
    flops = _read("flops.csv", FLOPS)
    for path in sorted(Path(folder).glob("*.json")):
        default = json.loads(path.read_text())
        name = default["model_type"]
        if name not in names and (names or name in facts):
            continue
        found = _apart(name, default)
        facts[name], configs[name] = found.facts, found.data
        flops = [row for row in flops if row["model_type"] != name] + found.rows
        print(*[found.facts.get(key, "") for key in FACTS], len(found.rows), flush=True)
        lines = [f"{json.dumps(key)}: {json.dumps(configs[key])}" for key in sorted(configs) if configs[key]]
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        _write("facts.csv", FACTS, [facts[key] for key in sorted(facts)])
        _write("flops.csv", FLOPS, sorted(flops, key=lambda row: str(row["model_type"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
