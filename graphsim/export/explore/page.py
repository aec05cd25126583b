"""`gs.explore`: a self-contained page that answers what-if questions about a deployment, without server or network."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import has_arrays
from graphsim.errors import ConfigError
from graphsim.export.explore.call import call_of
from graphsim.export.explore.deployments import COMMON, DEGREES, deployments_of, devices_of, engines_of
from graphsim.export.explore.manifest import devices_named, engines_named, manifest_of, named, prices_among
from graphsim.export.explore.printing import all_printed, watts_printed
from graphsim.export.html_page import escaped, json_text, substituted
from graphsim.files.written import write_text
from graphsim.lora.config import LoraConfig
from graphsim.ops.precision import Precision
from graphsim.symbolic.javascript import Script, runtime
from graphsim.units import Num, bounds_text, short

_SCRIPTS = ("model.js", "chart.js", "controls.js", "ui.js")


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
    engines: Sequence[EngineRef] = (),
    devices: str | Sequence[HardwareRef] | None = None,
    degrees: Sequence[int] = DEGREES,
    price_per_hour: Mapping[str, float] | float | None = None,
) -> str:
    """A page with controls for batch, lengths, engine, device, degree and adapters; written to `path` if given.

    The page holds the deployment's traced formulas as JavaScript, one for each engine, device, degree and strategy, so
    every setting shows what `gs.simulate` gives, up to rounding, without a server or network.
    model, hardware, parallelism, lora, precision, cost, engine: as in `gs.simulate`; the default adapter has rank 16
    path: the file to write, None for none
    batch, input_tokens, output_tokens: the initial requests of the page
    engines, devices: further engines and devices to choose from, `all` for the whole catalog of devices; by default a
        few devices of the same architecture
    degrees: tensor-parallel degrees to choose from; those that the model or the engine refuses are listed with the
        reason
    price_per_hour: of one device, in any currency: one number, or a mapping of device names to prices
    Raises ConfigError for arrays, for a cost function or pass that cannot be traced, and where `path` cannot be
    written; InfeasibleError if no combination can be run.
    """
    if isinstance(model, Deployment):
        model = model.under(DEFAULT_ENGINE)
    else:
        engine = DEFAULT_ENGINE if engine is None else engine
    asked = deployed(model, hardware, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine)
    requests = Requests(batch=batch, input_tokens=input_tokens, output_tokens=output_tokens)
    if has_arrays(asked) or any(map(np.ndim, (requests.batch, requests.input_tokens, requests.output_tokens))):
        raise ConfigError("explore takes single numbers, not arrays; the page itself varies them")
    tp = int(asked.parallelism.tp)
    chosen = sorted({*_degrees(degrees), *([tp] if tp > 1 else [])})
    there, profiles = devices_of(asked.device, devices), engines_of(asked, engines)
    prices = prices_among(price_per_hour, there)
    found = deployments_of(asked, profiles, there, chosen, requests)
    script = Script()
    formulas, watts = all_printed(script, found, requests), watts_printed(script, there)
    texts = (
        named(model, asked.model.name),
        devices_named(hardware, there),
        engines_named(profiles, (engine, *engines)),
    )
    manifest = manifest_of(asked, requests, found, there, chosen) | {
        "prices": prices, "call": call_of(asked, asked.adapter or COMMON, *texts),
    }  # fmt: skip
    page = _page(manifest, script, formulas, watts)
    if path is not None:
        write_text(path, page)
    return page


def _degrees(degrees: Sequence[int]) -> list[int]:
    good = isinstance(degrees, Sequence) and not isinstance(degrees, str)
    if not good or not all(isinstance(degree, int) and 1 <= degree <= 1024 for degree in degrees):
        raise ConfigError(f"degrees = {short(degrees)} is not allowed; expected whole numbers {bounds_text(1, 1024)}")
    return list(degrees)


def _page(manifest: dict[str, Any], script: Script, formulas: dict[str, str], watts: dict[str, str]) -> str:
    computed = f"{runtime()}\n{script.text}\nconst FORMULAS={_object(formulas)};\nconst WATTS={_object(watts)};"
    shown = "\n".join([f"const PAGE={json_text(manifest)};", *map(asset, _SCRIPTS)])
    content = {
        "title": escaped(f"{manifest['model']}, explored"),
        "engine": escaped(f"engine {', '.join(manifest['engines'])} · {manifest['precision']}"),
        "style": asset("page.css"),
        "scripts": _plain(computed, shown) if len(computed) <= MOST_PLAIN else _packed(computed, shown),
    }
    return substituted(asset("page.html"), content)


MOST_PLAIN = 1_000_000
"""Largest number of characters of formulas that a page holds as plain text; longer formulas are compressed."""


def _plain(*scripts: str) -> str:
    return "\n".join(f"<script>\n{script}\n</script>" for script in scripts)


def _packed(*scripts: str) -> str:
    """Scripts as compressed text that `unpack.js` decompresses and runs; needs a browser of 2023 or later."""
    packed = b64encode(gzip.compress("\n".join(scripts).encode(), mtime=0)).decode()
    return f'<script type="text/plain" id="packed">{packed}</script>\n<script>\n{asset("unpack.js")}\n</script>'


def _object(entries: dict[str, str]) -> str:
    """A JavaScript object, from the text of each value by key."""
    lines = ",\n".join(f"{json_text(key)}:{value}" for key, value in entries.items())
    return f"{{{lines}}}"


def asset(name: str) -> str:
    """The text of an asset file of the page."""
    return resources.files("graphsim.export.explore").joinpath("assets", name).read_text(encoding="utf-8")
