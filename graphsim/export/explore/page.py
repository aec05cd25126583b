"""`gs.explore`: one self-contained page that answers what-if questions of a deployment, without server or network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.compile.symbols import numbers_of
from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import has_arrays
from graphsim.errors import ConfigError
from graphsim.export.explore.call import call_of
from graphsim.export.explore.controls import OPTIONS, options_of, refused_of
from graphsim.export.explore.deployments import (
    COMMON,
    DEGREES,
    STRATEGIES,
    Deployments,
    deployments_of,
    devices_of,
)
from graphsim.export.explore.printing import all_printed
from graphsim.export.html_page import escaped, json_text
from graphsim.files.written import write_text
from graphsim.hardware import Hardware
from graphsim.lora.config import LoraConfig
from graphsim.ops.precision import Precision
from graphsim.symbolic.javascript import Script, runtime
from graphsim.units import Num, short

_SCRIPTS = ("model.js", "chart.js", "ui.js")


def explore(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    path: str | Path | None = None,
    *,
    batch: Num = 1,
    input_tokens: Num = 512,
    output_tokens: Num = 128,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef | None = None,
    devices: str | Sequence[HardwareRef] | None = None,
    degrees: Sequence[int] = DEGREES,
) -> str:
    """A page in which batch, lengths, device, tensor parallelism and adapters can be moved; written to `path` if given.

    The deployment's recorded formulas stand in the page as JavaScript, one for each device, degree and strategy, so
    that every move gives what `gs.simulate` gives, to rounding, without a server or network.
    model, hardware, parallelism, lora, precision, cost, engine: as of `gs.simulate`; lora is a plain adapter of rank 16
        where neither it nor the model names one
    batch, input_tokens, output_tokens: of the requests that the page opens with
    devices: further devices to choose from, `all` for the whole catalog; by default a few of the same architecture
    degrees: of tensor parallelism to choose from; those that the model or the engine refuses are named with the reason
    Raises ConfigError for arrays, for a cost function or pass whose arithmetic cannot be recorded and where `path`
    cannot be written; InfeasibleError where nothing of it can be run.
    """
    if isinstance(model, Deployment):
        model = model.under(DEFAULT_ENGINE)
    else:
        engine = DEFAULT_ENGINE if engine is None else engine
    asked = deployed(model, hardware, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine)
    requests = Requests(batch=batch, input_tokens=input_tokens, output_tokens=output_tokens)
    if has_arrays(asked) or any(map(np.ndim, (requests.batch, requests.input_tokens, requests.output_tokens))):
        raise ConfigError("explore takes single numbers, not arrays: what varies is moved in the page")
    chosen = sorted({*_degrees(degrees), int(asked.parallelism.tp)})
    there = devices_of(asked.device, devices)
    found = deployments_of(asked, there, chosen, requests)
    names = _named(model, asked.model.name), _devices(hardware, there)
    script = Script()
    formulas = all_printed(script, found, requests)
    manifest = _manifest(asked, requests, found) | {
        "devices": {device.name: device.title for device in there}, "degrees": chosen,
        "call": call_of(asked, asked.adapter or COMMON, *names),
    }  # fmt: skip
    page = _page(manifest, script, formulas)
    if path is not None:
        write_text(path, page)
    return page


def _degrees(degrees: Sequence[int]) -> list[int]:
    good = isinstance(degrees, Sequence) and not isinstance(degrees, str)
    if not good or not all(isinstance(degree, int) and 1 <= degree <= 1024 for degree in degrees):
        raise ConfigError(f"degrees = {short(degrees)} is not allowed; expected whole numbers from 1 to 1024")
    return list(degrees)


def _manifest(asked: Deployment, requests: Requests, found: Deployments) -> dict[str, Any]:
    """What the page has to know besides its formulas."""
    start = _start(asked, requests, found)
    options = options_of(start, asked.adapter or COMMON)
    return {
        "model": asked.model.name, "engine": asked.engine_name, "precision": asked.precision.name,
        "strategies": STRATEGIES, "start": start, "values": _values(found, requests), "options": options,
        "refused": found.refused, "limits": refused_of(found, requests, options),
    }  # fmt: skip


def _start(asked: Deployment, requests: Requests, found: Deployments) -> dict[str, Any]:
    """What the page opens with: what was asked for, or else the first choice that can be run."""
    adapter = asked.adapter or COMMON
    wanted = adapter.strategy if asked.adapter else "base"
    device, tp = asked.device.name, int(asked.parallelism.tp)
    like = [c for c in found.found if (c.device, c.tp) == (device, tp)] or list(found.found)
    choice = next((c for c in like if c.strategy == wanted), like[0])
    numbers = {name: getattr(adapter, name) for name in ("rank", "active_adapters", "max_loras", "adapter_share")}
    numbers |= {name: getattr(requests, name) for name in ("batch", "input_tokens", "output_tokens")}
    numbers["dp"] = asked.parallelism.dp
    return {
        "device": choice.device, "tp": choice.tp, "strategy": choice.strategy,
        **{name: float(numbers[name]) for name in OPTIONS},
    }  # fmt: skip


def _values(found: Deployments, requests: Requests) -> dict[str, float]:
    """Values of all variables that no control moves."""
    values: dict[str, float] = {}
    for deployment in found.found.values():
        numbers = numbers_of(Inference(deployment=deployment, requests=requests))
        values |= {name: float(value) for name, value in numbers.items()}
    return {name: value for name, value in values.items() if name not in OPTIONS}


def _named(thing: Any, name: str) -> str:
    """How a model or device is written in Python: what was given, where that is a name or a path."""
    return repr(str(thing) if isinstance(thing, str | Path) else name)


def _devices(hardware: HardwareRef | None, devices: Sequence[Hardware]) -> dict[str, str]:
    texts = {device.name: repr(str(device.path) if _own(device) else device.name) for device in devices}
    return texts | ({devices[0].name: _named(hardware, devices[0].name)} if hardware is not None else {})


def _own(device: Hardware) -> bool:
    from graphsim.hardware import list_hardware

    return device.path is not None and device.name not in list_hardware()


def _page(manifest: dict[str, Any], script: Script, formulas: dict[str, str]) -> str:
    objects = ",\n".join(f"{json_text(key)}:{value}" for key, value in formulas.items())
    content = {
        "title": escaped(f"{manifest['model']}, explored"),
        "engine": escaped(f"engine {manifest['engine']} · {manifest['precision']}"),
        "style": asset("page.css"),
        "formulas": f"{runtime()}\n{script.text}\nconst FORMULAS={{{objects}}};",
        "manifest": f"const PAGE={json_text(manifest)};",
        "script": "\n".join(map(asset, _SCRIPTS)),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", asset("page.html"))
    return "".join(content[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def asset(name: str) -> str:
    """The text of a file of the page."""
    return resources.files("graphsim.export.explore").joinpath("assets", name).read_text(encoding="utf-8")
