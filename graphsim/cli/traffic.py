"""Options that describe the requests, and the Traffic made from them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphsim.cli import options as shared
from graphsim.cli.adapters import is_base
from graphsim.cli.several import WORD, Settings, Several
from graphsim.cli.values import Portion, Quantity
from graphsim.errors import ConfigError
from graphsim.units import amount_text

if TYPE_CHECKING:
    from graphsim.traffic.traffic import Traffic

SESSIONS = {
    "turns": ("turns", "few"), "think": ("think_s", "s"), "prefix": ("shared_prefix_tokens", "count"),
    "groups": ("prefix_groups", "few"),
}  # fmt: skip
CLIENT = {"connections": ("connections", "few"), "timeout": ("timeout_s", "s"), "cutoff": ("cutoff_s", "s")}
SLO = {"ttft": ("ttft_s", "s"), "tpot": ("tpot_s", "s"), "e2e": ("e2e_s", "s")}
SCALING = {
    "target": ("target", "few"), "least": ("least", "few"), "most": ("most", "few"), "every": ("every_s", "s"),
    "calm": ("calm_s", "s"), "cold_start": ("cold_start_s", "s"), "start": ("start_s", "s"),
}  # fmt: skip
DRIFT = {"every": ("every_s", "s"), "shift": ("shift", "few"), "over": ("over_s", "s"), "to": ("to", WORD)}
"""Argument and kind of quantity for each key of an option."""

_RANDOM = ("input", "output", "range_ratio", "burstiness", "sessions")
"""Options that do not apply to a trace, which has its own requests."""


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """Add options for the number of requests, their arrival times, lengths and adapters."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--rate", type=rate_of, metavar="R", help="requests per second, or stages of them: RATE:SECONDS,RATE:SECONDS,…"
    )
    kind.add_argument("--concurrency", type=shared.whole(1), metavar="C", help="requests in flight at any time")
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="requests from a file (Azure, BurstGPT, Mooncake, Vidur, vllm bench serve, …); --rate R scales its "
        "times, --concurrency C makes it a closed loop",
    )
    parser.add_argument("--requests", type=shared.whole(1), metavar="N", help="total number of requests (1000)")
    parser.add_argument(
        "--input",
        metavar="N",
        help="prompt tokens: a number, a range LOW-HIGH, or a distribution: lognormal:mean=222,median=152 (512)",
    )
    parser.add_argument("--output", metavar="N", help="tokens of each answer, in the same form (128)")
    parser.add_argument(
        "--range-ratio",
        metavar="CLIENT:R",
        help="lengths as drawn with a client's --random-range-ratio: vllm:0.5, sglang:0",
    )
    parser.add_argument(
        "--burstiness", type=Quantity(""), metavar="B", help="1 for Poisson arrivals, lower for burstier ones (1)"
    )
    parser.add_argument("--adapters", type=shared.whole(0), metavar="N", help="registered adapters (0: base model)")
    parser.add_argument(
        "--popularity", metavar="P", help="popularity of the adapters: uniform, zipf:1.2, power:1 (uniform)"
    )
    parser.add_argument(
        "--drift",
        type=Settings(DRIFT),
        metavar="SPEC",
        help="popularity that changes over time: every=1h,shift=1, or to=zipf:2,over=1d",
    )
    parser.add_argument(
        "--ranks", type=_ranks, metavar="R,R,…", help="ranks, assigned to the adapters in turn (that of --lora)"
    )
    parser.add_argument(
        "--base-share", type=Portion(), metavar="P", help="share of the requests without an adapter (0)"
    )
    parser.add_argument(
        "--sessions", type=Settings(SESSIONS), metavar="SPEC", help="chats: turns=4,think=10s,prefix=500,groups=8"
    )
    parser.add_argument(
        "--client", type=Settings(CLIENT), metavar="SPEC", help="client limits: connections=100,timeout=300s,cutoff=1h"
    )
    parser.add_argument("--seed", type=shared.whole(0), default=0, metavar="N", help="seed of the random draws (0)")


def traffic_of(options: argparse.Namespace) -> Traffic:
    """The traffic that the options describe. Raises ConfigError naming the option and the allowed values."""
    from graphsim.traffic.client import Client
    from graphsim.traffic.traffic import Traffic

    further = _adapters(options)
    if options.client:
        further["client"] = Client(**options.client)
    if options.trace:
        given = [f"--{name.replace('_', '-')}" for name in _RANDOM if getattr(options, name) is not None]
        if given:
            raise ConfigError(f"{given[0]} and --trace exclude each other: a trace brings its own requests")
        if isinstance(options.rate, list):
            raise ConfigError("stages of --rate and --trace exclude each other: a trace is scaled to one rate")
        return Traffic.from_file(
            options.trace, requests=options.requests, rate=options.rate, concurrency=options.concurrency,
            seed=options.seed, **further,
        )  # fmt: skip
    lengths = {
        "input_tokens": _length(options.input, 512, options.range_ratio),
        "output_tokens": _length(options.output, 128, options.range_ratio),
        "requests": options.requests or 1000, "seed": options.seed,
    }  # fmt: skip
    if options.sessions:
        from graphsim.traffic.sessions import Sessions

        further["sessions"] = Sessions(**options.sessions)
    if options.concurrency is not None:
        if options.burstiness is not None:
            raise ConfigError("--burstiness and --concurrency exclude each other: a closed loop has no gaps to draw")
        return Traffic.closed(concurrency=options.concurrency, **lengths, **further)
    if options.rate is None:
        raise ConfigError("one of --rate R, --concurrency C and --trace FILE is needed; it says which requests arrive")
    if options.burstiness is not None:
        further["burstiness"] = options.burstiness
    if isinstance(options.rate, list):  # stages determine the number of requests
        lengths["requests"] = options.requests
    return Traffic.poisson(rate=options.rate, **lengths, **further)


def add_slo(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add --slo."""
    parser.add_argument(
        "--slo", type=Settings(SLO), required=required, metavar="SPEC",
        help="latency limits: ttft=500ms,tpot=50ms,e2e=10s",
    )  # fmt: skip


def limits_of(slo: Mapping[str, float] | None) -> dict[str, float]:
    """Limits in seconds by argument name of `gs.capacity`. Raises ConfigError for a limit that is not above 0."""
    found = dict(slo or {})
    for name, value in found.items():
        if not value > 0.0:
            raise ConfigError(
                f"--slo: {name.removesuffix('_s')} = {amount_text(value)} is not allowed; expected seconds above 0"
            )
    return found


def host_settings(text: str) -> dict[str, float]:
    """Constants of the host from `--host`, such as `request_s=4ms,step_factor=1.03`."""
    from graphsim.serving.adjusted import CONSTANTS

    return Settings({name: (name, "s" if name.endswith("_s") else "") for name in CONSTANTS})(text)


def scaling_of(numbers: Mapping[str, Any] | None) -> Any:
    """The autoscaling that `--autoscale` describes. Raises ConfigError without a target."""
    if numbers is None:
        return None
    from graphsim.serving.fleet.scaling import Scaling

    if "target" not in numbers:
        raise ConfigError("--autoscale: target is missing; give the requests that each replica should have")
    return Scaling(**numbers)


def rate_of(text: str) -> float | list[tuple[float, float]]:
    """Requests per second, or a list of stages of (requests per second, seconds)."""
    rate, seconds = Quantity("1/s"), Quantity("s")
    if ":" not in text:
        return rate(text)
    stages = [stage.partition(":") for stage in text.split(",")]
    if not all(first and last for first, _, last in stages):
        raise argparse.ArgumentTypeError(
            f"{text} is not allowed; expected RATE:SECONDS,RATE:SECONDS,…, such as 2:600,8:60 or 2:10min,8:1min"
        )
    return [(rate(first), seconds(last)) for first, _, last in stages]


def _ranks(text: str) -> str:
    """Ranks in the form that Traffic takes, from a list with ranges or from 8/16/32."""
    return text if "/" in text else "/".join(map(str, Several(1)(text)))


def _adapters(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments for adapters; `--lora` alone describes one adapter that every request uses."""
    count = options.adapters
    if count is None and not is_base(options.lora) and not options.trace:
        count = 1
    further: dict[str, Any] = {} if count is None else {"adapters": count}
    said = {"popularity": options.popularity, "ranks": options.ranks, "base_share": options.base_share}
    further |= {name: value for name, value in said.items() if value is not None}
    if options.drift:
        from graphsim.traffic.popularity import Drift

        further["popularity"] = Drift(popularity=options.popularity or "uniform", **options.drift)
    if not count and not options.trace and (further.keys() - {"adapters"}):
        raise ConfigError("--popularity, --drift, --ranks and --base-share need --adapters N, the registered adapters")
    return further


def _length(text: str | None, default: int, ratio: str | None) -> Any:
    """A length as Traffic takes it: a number, a range, the text of a distribution, or a number with a range ratio."""
    from graphsim.traffic.lengths import RangeRatio

    low, dash, high = (text or str(default)).partition("-")
    ends = [_tokens(end) for end in ((low, high) if dash else (low,))]
    whole = [end for end in ends if end is not None]
    if ratio is not None:
        client, colon, number = ratio.partition(":")
        if not colon or len(whole) != 1 or dash:
            raise ConfigError(
                f"--range-ratio {ratio}: expected CLIENT:RATIO, such as vllm:0.5, and whole numbers as lengths"
            )
        return RangeRatio(tokens=whole[0], ratio=_ratio(number), client=client.lower())
    if len(whole) == len(ends):
        return (whole[0], whole[1]) if dash else whole[0]
    return text


def _tokens(text: str) -> int | None:
    """A text as an integer number of tokens; None if it is not one."""
    try:
        found = Quantity()(text)
    except argparse.ArgumentTypeError:
        return None
    return found if isinstance(found, int) else None


def _ratio(text: str) -> float:
    try:
        return Quantity("share")(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--range-ratio: {error}") from None
