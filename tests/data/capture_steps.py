"""The steps of a transformers model on token ids, counted: a prompt, and a decode step with the cache that it left."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from capture_flops import KINDS, StepFlops
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SOURCE = 37
"""Rows of an encoder."""

FLOAT32 = {"xlnet"}
"""Models whose code makes float32 of its own; their bytes are left out."""

CACHES = ("past_key_values", "cache_params", "state", "mems")


def model_of(data: dict[str, Any], device: str = "meta") -> Any:
    """The class that the config names."""
    config = CONFIG_MAPPING[data["model_type"]].from_dict(json.loads(json.dumps(data)))
    dtype = torch.float32 if data["model_type"] in FLOAT32 else torch.bfloat16
    with torch.device(device):
        model = getattr(transformers, data["architectures"][0])._from_config(config, dtype=dtype)
    if hasattr(model, "set_default_language"):
        model.set_default_language(config.languages[0])
    return model.eval()


def inputs_of(model: Any, batch: int, tokens: int) -> dict[str, Any]:
    """Token ids, and what an encoder reads, or has made of what is no text."""
    device, taken = model.device, inspect.signature(model.forward).parameters

    def ids(length: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(length)
        return torch.randint(5, 90, (batch, length), generator=random).to(device)

    if not model.config.is_encoder_decoder:
        return {"input_ids": ids(tokens)}
    if model.main_input_name == "input_ids":
        extra = {"bbox": torch.zeros(batch, SOURCE, 4, device=device)} if "bbox" in taken else {}
        return {"input_ids": ids(SOURCE), "decoder_input_ids": ids(tokens), **extra}
    config = getattr(model.config, "encoder", None) or getattr(model.config, "vision_config", None) or model.config
    width = getattr(config, "hidden_size", None) or model.config.d_model
    rows = torch.zeros(batch, SOURCE, width, dtype=model.dtype, device=device)
    return {"encoder_outputs": _encoded(rows), "decoder_input_ids": ids(tokens)}


def _encoded(rows: torch.Tensor) -> Any:
    """An encoder's output, as classes with experts and without take it."""
    found = transformers.modeling_outputs.BaseModelOutput(last_hidden_state=rows)
    found.router_logits = found.attention_mask = None
    return found


def kept(holder: Any, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a cache, under the names of the attributes that lead to it."""
    seen = set() if seen is None else seen
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, torch.Tensor):
        yield name, holder
    elif isinstance(holder, dict | list | tuple):
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            yield from kept(value, f"{name}.{key}", seen)
    elif hasattr(holder, "__dict__") and not isinstance(holder, torch.nn.Module | transformers.PreTrainedConfig):
        for key, value in vars(holder).items():
            yield from kept(value, f"{name}.{key}", seen)


def cache_bytes(cache: Any, source: bool = False) -> int:
    """Of all sequences, without what an encoder left, or of that alone."""
    return sum(
        tensor.numel() * tensor.element_size()
        for path, tensor in kept(cache)
        if tensor.dim() > 1 and ("cross_attention" in path) is source
    )


class Steps:
    """The steps of a model, each counted."""

    def __init__(self, data: dict[str, Any], device: str) -> None:
        self.model = model_of(data, device)
        self.takes_last = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.name = data["model_type"]
        self.rows: list[dict[str, object]] = []
        self.kept: dict[int, tuple[float, float]] = {}
        self.operations: dict[int, int] = {}
        self.caching: dict[str, bool] = {}
        self.why = ""

    def at(self, batch: int, tokens: int) -> None:
        """Runs them all at one size."""
        inputs = inputs_of(self.model, batch, tokens)
        out, counter = self._prompt(inputs)
        self.operations[tokens] = counter.operations
        self._add("prompt", batch, tokens, counter, out.get(self._key(out)))
        key = self._key(out)
        if self.takes_last:
            last, counter = self._counted(**inputs, **self.caching, logits_to_keep=1)
            self._add("prompt_last", batch, tokens, counter, last.get(key))
        if not key:
            self.why = self.why or "its output holds no cache, so there is no decode step"
            return
        cache, source = out[key], cache_bytes(out[key], source=True)
        self.kept[tokens] = (cache_bytes(cache) / batch, source / batch / SOURCE)
        try:
            self._decode(batch, tokens, inputs, out, key)
        except TimeoutError:
            raise
        except Exception as error:  # the prompt is counted nonetheless
            self.why = f"decode step: {sentence(error)}"

    def _prompt(self, inputs: dict[str, Any]) -> tuple[Any, StepFlops]:
        """With a cache, asked for or by default; without one where its code fails on it."""
        failed = ""
        for self.caching in ({"use_cache": True}, {}, {"use_cache": False}):
            try:
                found = self._counted(**inputs, **self.caching)
            except TimeoutError:
                raise
            except Exception as error:  # whatever its code asks for
                failed, last = failed or f"with its cache: {sentence(error)}", error
                continue
            self.why = failed if self.caching.get("use_cache") is False else ""
            return found
        raise last

    @staticmethod
    def _key(out: Any) -> str:
        return next((key for key in CACHES if out.get(key) is not None), "")

    def _decode(self, batch: int, tokens: int, inputs: dict[str, Any], out: Any, key: str) -> None:
        taken = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
        again = {taken: inputs[taken][:, -1:], key: out[key]}
        if taken == "decoder_input_ids":
            again["encoder_outputs"] = inputs.get("encoder_outputs") or _encoded(out.encoder_last_hidden_state)
        step, counter = self._counted(**again, **self.caching)
        self._add("decode", batch, tokens, counter, step.get(key))

    def _counted(self, **inputs: Any) -> tuple[Any, StepFlops]:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), StepFlops(self.model) as counter:
            out = self.model(**inputs)
        assert sum(counter.kinds.values()) == counter.get_total_flops()
        return out, counter

    def _add(self, step: str, batch: int, tokens: int, counter: StepFlops, cache: Any) -> None:
        kinds = {kind: counter.kinds[kind] for kind in KINDS}
        left = "" if cache is None or self.name in FLOAT32 else cache_bytes(cache)
        self.rows.append(
            {"model_type": self.name, "step": step, "batch": batch, "tokens": tokens, **kinds, "cache_bytes": left}
        )


def sentence(error: BaseException) -> str:
    """What went wrong, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    return f"{type(error).__name__}: {text}"[:220]
