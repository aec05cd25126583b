"""Options that say which requests come, and how they become a Traffic."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.errors import ConfigError, choices_text

if TYPE_CHECKING:
    from graphsim.traffic.traffic import Traffic

_SESSIONS = {
    "turns": "turns", "think": "think_s", "prefix": "shared_prefix_tokens", "groups": "prefix_groups",
}  # fmt: skip
_CLIENT = {"connections": "connections", "timeout": "timeout_s", "cutoff": "cutoff_s"}
_SLO = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}
_SCALING = {
    "target": "target", "least": "least", "most": "most", "every": "every_s", "calm": "calm_s",
    "cold_start": "cold_start_s", "start": "start_s",
}  # fmt: skip
_DRIFT = {"every": "every_s", "shift": "shift", "over": "over_s"}
_RANDOM = ("input", "output", "range_ratio", "burstiness", "sessions")
"""What says nothing about a trace, which has requests of its own."""


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """How many requests come, when, of which lengths and for which adapters."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--rate", metavar="R", help="requests per second, or stages of them: RATE:SECONDS,RATE:SECONDS,…")
    kind.add_argument("--concurrency", type=shared.whole(1), metavar="C", help="requests in flight at any time")
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="requests from a file (Azure, BurstGPT, Mooncake, Vidur, vllm bench serve, …); with --rate R stretched to "
        "it, with --concurrency C in a closed loop",
    )
    parser.add_argument("--requests", type=shared.whole(1), metavar="N", help="requests in all (1000)")
    parser.add_argument(
        "--input",
        metavar="N",
        help="prompt tokens, a range LOW-HIGH, or a distribution: lognormal:mean=222,median=152 (512)",
    )
    parser.add_argument("--output", metavar="N", help="tokens of each answer, in the same ways (128)")
    parser.add_argument(
        "--range-ratio",
        metavar="CLIENT:R",
        help="lengths as a client's --random-range-ratio has them: vllm:0.5, sglang:0",
    )
    parser.add_argument("--burstiness", type=float, metavar="B", help="1 for Poisson arrivals, less for bursts (1)")
    parser.add_argument("--adapters", type=shared.whole(0), metavar="N", help="registered adapters (0: base model)")
    parser.add_argument(
        "--popularity", metavar="P", help="which adapters are asked for: uniform, zipf:1.2, power:1 (uniform)"
    )
    parser.add_argument(
        "--drift", metavar="SPEC", help="popularity that moves on: every=3600,shift=1, or to=zipf:2,over=86400"
    )
    parser.add_argument("--ranks", metavar="R/R/…", help="ranks dealt out to the adapters in turn (that of --lora)")
    parser.add_argument("--base-share", type=float, metavar="P", help="part of the requests without an adapter (0)")
    parser.add_argument("--sessions", metavar="SPEC", help="chats: turns=4,think=10,prefix=500,groups=8")
    parser.add_argument("--client", metavar="SPEC", help="its limits: connections=100,timeout=300,cutoff=3600")
    parser.add_argument("--seed", type=shared.whole(0), default=0, metavar="N", help="of all that is drawn (0)")


def traffic_of(options: argparse.Namespace) -> Traffic:
    """The traffic that the options describe. Raises ConfigError naming the option and what is allowed."""
    from graphsim.traffic.client import Client
    from graphsim.traffic.traffic import Traffic

    further = _adapters(options)
    if options.client:
        numbers: dict[str, Any] = _numbers("--client", options.client, _CLIENT)
        further["client"] = Client(**numbers)
    if options.trace:
        given = [f"--{name.replace('_', '-')}" for name in _RANDOM if getattr(options, name) is not None]
        if given:
            raise ConfigError(f"{given[0]} and --trace exclude each other: a trace has requests of its own")
        rate = None if options.rate is None else _rate(options.rate)
        if isinstance(rate, list):
            raise ConfigError(f"--rate {options.rate} and --trace exclude each other: a trace is stretched to one rate")
        return Traffic.from_file(
            options.trace, requests=options.requests, rate=rate, concurrency=options.concurrency, seed=options.seed,
            **further,
        )  # fmt: skip
    lengths = {
        "input_tokens": _length(options.input, 512, options.range_ratio),
        "output_tokens": _length(options.output, 128, options.range_ratio),
        "requests": options.requests or 1000, "seed": options.seed,
    }  # fmt: skip
    if options.sessions:
        further["sessions"] = _sessions(options.sessions)
    if options.concurrency is not None:
        if options.burstiness is not None:
            raise ConfigError("--burstiness and --concurrency exclude each other: a closed loop has no gaps to draw")
        return Traffic.closed(concurrency=options.concurrency, **lengths, **further)
    if options.rate is None:
        raise ConfigError("one of --rate R, --concurrency C and --trace FILE is needed: which requests come?")
    if options.burstiness is not None:
        further["burstiness"] = options.burstiness
    rate = _rate(options.rate)
    if isinstance(rate, list):  # stages say themselves how many requests there are
        lengths["requests"] = options.requests
    return Traffic.poisson(rate=rate, **lengths, **further)


def limits_of(text: str | None) -> dict[str, float]:
    """Limits in seconds by the names of `gs.capacity`, from `ttft=0.5,tpot=0.05,e2e=10`."""
    found = _numbers("--slo", text, _SLO) if text else {}
    for name, value in found.items():
        if not value > 0.0:
            raise ConfigError(f"--slo: {name.removesuffix('_s')} = {value:g} is not allowed; expected seconds above 0")
    return found


def host_of(text: str | None) -> dict[str, float]:
    """Constants of the host, from `request_s=0.004,step_factor=1.03`."""
    from graphsim.serving.adjusted import CONSTANTS

    return _numbers("--host", text, {name: name for name in CONSTANTS}) if text else {}


def scaling_of(text: str | None) -> Any:
    """Replicas that come and go, from `target=16,least=1,most=8`."""
    if not text:
        return None
    from graphsim.serving.fleet.scaling import Scaling

    numbers: dict[str, Any] = _numbers("--autoscale", text, _SCALING)
    if "target" not in numbers:
        raise ConfigError(f"--autoscale {text}: target is missing, the requests that each replica should have")
    return Scaling(**numbers)


def _sessions(text: str) -> Any:
    from graphsim.traffic.sessions import Sessions

    numbers: dict[str, Any] = _numbers("--sessions", text, _SESSIONS)
    return Sessions(**numbers)


def _rate(text: str) -> float | list[tuple[float, float]]:
    if ":" not in text:
        return _number("--rate", text)
    stages = [stage.partition(":") for stage in text.split(",")]
    if not all(rate and seconds for rate, _, seconds in stages):
        raise ConfigError(f"--rate {text} is not allowed; expected RATE:SECONDS,RATE:SECONDS,…, such as 2:600,8:60")
    return [(_number("--rate", rate), _number("--rate", seconds)) for rate, _, seconds in stages]


def _adapters(options: argparse.Namespace) -> dict[str, Any]:
    """What is said of adapters; `--lora` alone stands for one that every request wants."""
    count = options.adapters
    if count is None and options.lora and not options.trace:
        count = 1
    further: dict[str, Any] = {} if count is None else {"adapters": count}
    said = {"popularity": options.popularity, "ranks": options.ranks, "base_share": options.base_share}
    further |= {name: value for name, value in said.items() if value is not None}
    if options.drift:
        further["popularity"] = _drift(options.drift, options.popularity or "uniform")
    if not count and not options.trace and (further.keys() - {"adapters"}):
        raise ConfigError("--popularity, --drift, --ranks and --base-share need --adapters N, the registered adapters")
    return further


def _drift(text: str, popularity: str) -> Any:
    """How popularity moves: `to` is a popularity, the others are numbers."""
    from graphsim.traffic.popularity import Drift

    entries = text.split(",")
    to = [entry.partition("=")[2] for entry in entries if entry.startswith("to=")]
    rest = ",".join(entry for entry in entries if not entry.startswith("to="))
    numbers: dict[str, Any] = _numbers("--drift", rest, _DRIFT) if rest else {}
    return Drift(popularity=popularity, to=to[0] if to else None, **numbers)


def _length(text: str | None, default: int, ratio: str | None) -> Any:
    """A number, a range, or a distribution's text as Traffic reads it; or a number and a client's ratio."""
    from graphsim.traffic.lengths import RangeRatio

    low, dash, high = (text or str(default)).partition("-")
    whole = low.isdecimal() and (not dash or high.isdecimal())
    if ratio is not None:
        client, colon, number = ratio.partition(":")
        if not colon or not whole or dash:
            raise ConfigError(
                f"--range-ratio {ratio}: expected CLIENT:RATIO, as vllm:0.5, and whole numbers as lengths"
            )
        return RangeRatio(tokens=int(low), ratio=_number("--range-ratio", number), client=client)
    if whole:
        return (int(low), int(high)) if dash else int(low)
    return text


def _numbers(option: str, text: str, names: dict[str, str]) -> dict[str, float]:
    """`key=number,…` with keys of which each stands for a field."""
    found: dict[str, float] = {}
    for entry in text.split(","):
        key, _, value = entry.partition("=")
        if key not in names and key not in names.values():
            raise ConfigError(f"{option}: '{key}' is not a known key; {choices_text(key, names)}")
        if names.get(key, key) in found:
            raise ConfigError(f"{option} {text}: {key} is given twice; leave one out")
        found[names.get(key, key)] = _number(f"{option}: {key}", value)
    return found


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"{option} = '{text}' is not a number") from None
    if number != number:
        raise ConfigError(f"{option} = '{text}' is not a number")
    return int(number) if number.is_integer() else number
