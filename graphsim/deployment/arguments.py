"""From the arguments of a public function to its deployment and requests.

Every function takes a `Deployment`, or the arguments of one; both are handled here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from graphsim.cost.base import CostModel
from graphsim.deployment.deployment import DEFAULT_ENGINE, REFERENCE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.refusals import require_runs
from graphsim.deployment.scenarios import scenarios_in
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.hardware import load_hardware
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.models.media import Media
from graphsim.ops.precision import Precision
from graphsim.symbolic.memo import UNKEPT, Memo
from graphsim.symbolic.substitute import names_of
from graphsim.units import Num, amount_text

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig

T_co = TypeVar("T_co", covariant=True)


def deployed(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    *,
    default_engine: str = REFERENCE,
    passes: Sequence[Pass] = (),
    **described: Any,
) -> Deployment:
    """The deployment given in place of a model, or one made from the function's arguments.

    default_engine: of the function, if neither names an engine
    described: the further arguments of `Deployment`, None if not given
    Raises ConfigError if a deployment is given together with arguments that it already holds, InfeasibleError for what
    the engine or the model cannot run.
    """
    deployment = _described(model, hardware, default_engine, passes, described)
    require_runs(deployment)
    return deployment


def _described(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None,
    default_engine: str,
    passes: Sequence[Pass],
    described: dict[str, Any],
) -> Deployment:
    if not isinstance(model, Deployment):
        described["engine"] = unnamed(default_engine) if described.get("engine") is None else described["engine"]
        return _made_of(model, hardware, passes, described)
    given = {"hardware": hardware, "passes": passes or None} | described
    twice = [name for name, value in given.items() if value is not None]
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} given together with a Deployment, which says {'it' if len(twice) == 1 else 'them'} "
            f"already; use dataclasses.replace(deployment, {twice[0]}=…) for another one"
        )
    return model.under(unnamed(default_engine))


def _made_of(
    model: ModelRef, hardware: HardwareRef | None, passes: Sequence[Pass], described: dict[str, Any]
) -> Deployment:
    """The deployment of a function's arguments; equal arguments give the same object, though names are looked up at
    every call.
    """
    config, device = load_model(model), None if hardware is None else load_hardware(hardware)
    described["engine"] = load_profile(described["engine"])
    structure = (getattr(config, name) for name in names_of(ModelConfig))
    parts = (
        *structure,
        device,
        *described.keys(),
        *described.values(),
        *(() if isinstance(passes, (tuple, list)) and not passes else (UNKEPT,)),
    )
    return _made.get(parts, lambda: Deployment(config, device, passes=passes, **described))


_made: Memo[Deployment] = Memo(most=32)


@lru_cache(maxsize=8)
def unnamed(engine: str) -> EngineProfile:
    """A function's default engine if none is named: its refusals become notes, as with `reference`."""
    return replace(load_profile(engine), notes_only=True)


def check_media(model: ModelConfig, media: Media | None) -> None:
    """Raise ConfigError if requests have images or sound and the model has no tower for them."""
    if media is None:
        return
    if not any(encoder.cut.pieces(media).count for encoder in model.encoders):
        taken = "no tower and takes only text" if not model.encoders else "no tower for it"
        what = "images" if media.images else "sound"
        raise ConfigError(
            f"media = {media.images} images and {amount_text(media.audio_s)} s of sound is not allowed: model "
            f"'{model.name}' has {taken}; expected a model that takes {what}"
        )


class RequestVerb(Protocol[T_co]):
    """A public function on one batch of requests and one deployment."""

    def __call__(
        self,
        model: ModelRef | Deployment,
        hardware: HardwareRef | None = None,
        batch: Num = 1,
        input_tokens: Num = 512,
        output_tokens: Num = 128,
        parallelism: Parallelism | None = None,
        lora: LoraConfig | None = None,
        precision: str | Precision | None = None,
        cost: str | CostModel | None = None,
        engine: EngineRef | None = None,
        passes: Sequence[Pass] = (),
        media: Media | None = None,
    ) -> T_co:
        """The answer."""


def request_verb(answer: Callable[[Inference], T_co]) -> RequestVerb[T_co]:
    """Make a public function from a function of one inference: it takes a deployment, or the arguments of one.

    Its docstring is that of the given function, plus the arguments of `RequestVerb`.
    """

    @wraps(answer)
    def verb(
        model: ModelRef | Deployment,
        hardware: HardwareRef | None = None,
        batch: Num = 1,
        input_tokens: Num = 512,
        output_tokens: Num = 128,
        parallelism: Parallelism | None = None,
        lora: LoraConfig | None = None,
        precision: str | Precision | None = None,
        cost: str | CostModel | None = None,
        engine: EngineRef | None = None,
        passes: Sequence[Pass] = (),
        media: Media | None = None,
    ) -> T_co:
        described = {"parallelism": parallelism, "lora": lora, "precision": precision, "cost": cost, "engine": engine}
        deployment = _described(model, hardware, DEFAULT_ENGINE, passes, described)
        requests = Requests(batch=batch, input_tokens=input_tokens, output_tokens=output_tokens, media=media)
        check_media(deployment.model, requests.media)
        scenarios_in(requests, deployment)  # arrays that differ in length are reported before they are combined
        require_runs(deployment, requests)
        return answer(Inference(deployment=deployment, requests=requests))

    del verb.__wrapped__  # so that help() shows the verb's arguments
    return verb


@request_verb
def inference_of(inference: Inference) -> Inference:
    """The deployment and requests of a function's arguments, for functions with further arguments."""
    return inference
