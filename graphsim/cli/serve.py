"""`graphsim serve`: many requests over time: latencies of the server, what limits it and what would help."""

from __future__ import annotations

import argparse
import re
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from graphsim.cli import disaggregation
from graphsim.cli import options as shared
from graphsim.cli.basis import print_basis, served_basis
from graphsim.cli.engine_flags import as_flags, engine_limits
from graphsim.cli.outputs import JSON, PAGE, OutFile, OutFolder, report_written
from graphsim.cli.printing import RunProgress, print_json
from graphsim.cli.serve_tables import print_advice, print_capacity, print_comparison, print_measured, print_service
from graphsim.cli.several import Names, Settings, varied
from graphsim.cli.traffic import SCALING, add_slo, add_traffic, host_settings, limits_of, scaling_of, traffic_of
from graphsim.cli.values import Portion, Quantity
from graphsim.errors import ConfigError

if TYPE_CHECKING:
    from graphsim.serving.bench_files import BenchRun
    from graphsim.serving.own_run import OwnRun
    from graphsim.serving.scenario import Serving
    from graphsim.serving.service import Service

_FILES = ("html", "timeline", "output_json", "rows")
EXAMPLES = """examples:
  graphsim serve llama-3.1-8b --hardware h100-sxm --rate 4 --slo ttft=0.5,tpot=0.05
  graphsim serve llama-3.1-8b --hardware l40s --rate 2 --adapters 100 --popularity zipf:1.2 --lora rank=16,max_loras=8
  graphsim serve llama-3.1-8b --hardware h100-sxm --rate 4 --find-capacity --slo ttft=0.5 --max-num-seqs 64
  graphsim serve llama-3.1-8b --hardware h100-sxm --trace requests.csv --html page.html --output-json bench.json
  graphsim serve llama-3.1-8b --hardware h100-sxm --concurrency 16 --measured bench.json
  graphsim serve llama-3.1-8b --hardware l40s --rate 20 --adapters 50 --replicas 8 --vary router=least-loaded,placed
  graphsim serve llama-3.1-70b --hardware h100-sxm --tp 4 --rate 2 --speculation draft=ngram,tokens=3,acceptance=0.4
  graphsim serve llama-3.1-8b --hardware h100-sxm --rate 6 --input 8192 --prefill-replicas 3 --replicas 1
An engine's own flags (--max-num-batched-tokens 2048, --chunked-prefill-size 4096, …) are taken by their names.
"""


def add_commands(commands: Any) -> None:
    """Add `serve`."""
    parser = shared.add_command(commands, "serve", EXAMPLES)
    parser.hands_on = True  # type: ignore[attr-defined]
    shared.add_model(parser)
    add_traffic(parser)
    shared.add_deployment(parser)
    shared.add_speculation(parser)
    _add_question(parser)
    _add_servers(parser)
    disaggregation.add_disaggregation(parser)
    _add_files(parser)
    shared.add_json(parser)
    parser.set_defaults(command_function=serve, known=tuple(parser._option_string_actions), handed_on={})


def _add_question(parser: argparse.ArgumentParser) -> None:
    """Add options for the serving strategy of adapters, comparisons and searches, and limits."""
    parser.add_argument(
        "--strategy", metavar="S", help="dynamic, merged:POLICY, mixed or paged: how adapters are served (dynamic)"
    )
    parser.add_argument(
        "--strategies", type=Names(), metavar="A,B,…", help="compare several strategies on the same requests"
    )
    parser.add_argument(
        "--vary",
        metavar="FLAG=A,B,…",
        help="compare several values of one flag: max_loras=4,8,16, router=placed,llm-d, replicas=2,4",
    )
    add_slo(parser)
    parser.add_argument(
        "--find-capacity", action="store_true", help="find the highest rate (or concurrency) that meets the SLO"
    )
    parser.add_argument("--over", choices=("rate", "adapters"), default="rate", help="what --find-capacity increases")
    parser.add_argument(
        "--attainment",
        type=Portion(),
        default=0.99,
        metavar="P",
        help="share of requests that must meet the SLO (0.99)",
    )


def _add_servers(parser: argparse.ArgumentParser) -> None:
    """Add --replicas and the options for routing requests to them."""
    parser.add_argument("--replicas", type=shared.whole(1), default=1, metavar="N", help="identical servers (1)")
    parser.add_argument(
        "--router",
        default="least-loaded",
        metavar="R",
        help="how requests go to replicas (least-loaded)",
    )
    parser.add_argument(
        "--view-age",
        type=Quantity("s"),
        default=0.0,
        metavar="S",
        help="seconds between the router's metric updates (0)",
    )
    parser.add_argument(
        "--autoscale",
        type=Settings(SCALING),
        metavar="SPEC",
        help="add and remove replicas with the load: target=16,least=1,most=8,every=15s,calm=5min",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options for measured runs to read and files to write."""
    parser.add_argument("--measured", metavar="FILE", help="compare with the result file of a benchmark client")
    parser.add_argument(
        "--host",
        type=host_settings,
        metavar="SPEC",
        help="constants fitted by --measured: request_s=4ms,step_factor=1.03,…",
    )
    parser.add_argument("--html", type=OutFile(PAGE), metavar="FILE", help="write a report as one self-contained page")
    parser.add_argument("--timeline", type=OutFile(JSON), metavar="FILE", help="write a timeline for Perfetto, .json")
    parser.add_argument(
        "--output-json", type=OutFile(JSON), metavar="FILE", help="write the result file of `vllm bench serve`"
    )
    parser.add_argument(
        "--rows", type=OutFolder("Parquet files of requests, adapters and steps"), metavar="FOLDER",
        help="write Parquet files with a row per request, adapter and step",
    )  # fmt: skip
    parser.add_argument("--no-advice", action="store_true", help="leave out what limits the server and what would help")
    parser.add_argument("--workers", type=shared.whole(1), default=1, metavar="N", help="processes of a search (1)")


def serve(options: argparse.Namespace) -> None:
    """Simulate, compare or search, and print the result."""
    _check_question(options)
    try:
        limits, serving = limits_of(options.slo), _serving(options)
        if options.find_capacity:
            _find_capacity(serving, limits, options)
        elif options.strategies or options.vary:
            _compare(serving, limits, options)
        elif options.splits:
            disaggregation.compare_splits(serving, limits, options)
        else:
            _simulate(serving, limits, options)
    except ConfigError as error:
        text = as_flags(error)
        if text.startswith(start := "capacity needs a limit: "):
            text = f"--find-capacity needs a limit: --slo, or {text.removeprefix(start).rpartition(', or ')[2]}"
        raise type(error)(text) from None


def _check_question(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that exclude each other."""
    asked = [name for name in ("find_capacity", "strategies", "vary", "splits") if getattr(options, name)]
    if len(asked) > 1:
        raise ConfigError(f"{_named(asked[0])} and {_named(asked[1])} exclude each other; ask one question at a time")
    if options.over != "rate" and not options.find_capacity:
        raise ConfigError(f"--over {options.over} applies to --find-capacity only, which is missing")
    without = ("measured",) if options.find_capacity else ("measured", *_FILES) if asked else ()
    for name in without:
        if getattr(options, name):
            raise ConfigError(
                f"{_named(name)} and {_named(asked[0])} exclude each other; the first applies to a single run"
            )
    if options.strategy and options.strategies:
        raise ConfigError("--strategy and --strategies exclude each other; leave one out")


def _named(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _serving(options: argparse.Namespace) -> Serving:
    """The server and its traffic that the options describe; `strategy` may also be given in --lora."""
    from graphsim.serving.serve import serving_of

    strategy = options.strategy
    if options.lora and (found := re.search(r"(?:^|,)strategy=([^,]*)", options.lora)):
        if strategy and strategy != found[1]:
            raise ConfigError(
                f"--strategy {strategy} and --lora strategy={found[1]} contradict each other; leave one out"
            )
        strategy = found[1]
        rest = (options.lora[: found.start()] + options.lora[found.end() :]).strip(",")
        options = argparse.Namespace(**{**vars(options), "lora": rest or None})
    if options.lora and re.search(r"(?:^|,)(?:registered|popularity)=", options.lora):
        raise ConfigError(
            "--lora: registered and popularity are not allowed here; give --adapters N and --popularity P"
        )
    deployment = shared.deployment(options)
    return serving_of(
        deployment, traffic=traffic_of(options), strategy=strategy, replicas=options.replicas,
        limits=engine_limits(options.handed_on, options.known), host=options.host or {}, router=options.router,
        view_age_s=options.view_age, scaling=scaling_of(options.autoscale), speculation=shared.speculation(options),
        **disaggregation.prefill_arguments(options, deployment),
    )  # fmt: skip


def _simulate(serving: Serving, limits: dict[str, float], options: argparse.Namespace) -> None:
    bench = _bench(options)  # read first, so that errors in it are reported before the run
    with RunProgress(len(serving.table)) as progress:
        service = serving.run(progress.simulated)
    if service.log.interrupted or serving.fleet.is_fleet:  # advice is limited to one engine
        options.no_advice = True
    advice = None
    if not options.no_advice:
        from graphsim.serving.advice import advice_of

        with RunProgress(0) as progress:
            advice = advice_of(serving, service, limits, progress.trying)
    compared = _measured(serving, service, bench)
    _write(service, limits, options)
    if options.json:
        found = service.to_dict()
        found |= {
            "basis": served_basis(serving.deployment).to_dict(),
            "goodput": _goodput(service, limits),
            "advice": None if advice is None else advice.to_dict(),
        }
        print_json(found | ({} if compared is None else {"measured": compared.to_dict()}))
        return
    print_basis([served_basis(serving.deployment)])
    print_service(service, limits)
    if compared is not None:
        print_measured(compared)
    if advice is not None:
        print_advice(advice)


def _find_capacity(serving: Serving, limits: dict[str, float], options: argparse.Namespace) -> None:
    from graphsim.serving.capacity import capacity_of
    from graphsim.sweeps.workers import Processes

    pool = Processes(options.workers)() if options.workers > 1 else nullcontext()
    with pool as executor, RunProgress(0) as progress:
        found = capacity_of(
            serving, limits, attainment=options.attainment, over=options.over, executor=executor,
            progress=progress.trying,
        )  # fmt: skip
    _write(found.service, limits, options)
    if options.json:
        basis = {"basis": served_basis(serving.deployment).to_dict()}
        print_json(basis | found.to_dict() | {"service": found.service.to_dict()})
        return
    print_basis([served_basis(serving.deployment)])
    print_capacity(found, limits, options.attainment)


def _compare(serving: Serving, limits: dict[str, float], options: argparse.Namespace) -> None:
    from graphsim.serving.comparison import comparison_of

    with RunProgress(0) as progress:
        frame = comparison_of(serving, _varied(options), limits, progress.trying)
    if options.json:
        print_json(frame.reset_index().to_dict("records"))
    else:
        print_basis([served_basis(serving.deployment)])
        print_comparison(frame, serving)


def _varied(options: argparse.Namespace) -> dict[str, list[Any]]:
    """The varied arguments and their values."""
    if options.strategies:
        return {"strategy": options.strategies}
    name, values = varied("--vary", options.vary, "FLAG", "max_loras=4,8,16")
    return {name: values}


def _bench(options: argparse.Namespace) -> BenchRun | None:
    """The measured run; None if none was given."""
    if options.measured is None:
        return None
    from graphsim.serving.bench_files import read_bench

    return read_bench(options.measured)


def _measured(serving: Serving, service: Service, bench: BenchRun | None) -> OwnRun | None:
    """The comparison of the run with a measured one; None if none was given."""
    if bench is None:
        return None
    from graphsim.serving.own_run import own_run

    with RunProgress(0) as progress, suppress(KeyboardInterrupt):
        return own_run(serving, service, bench, progress.trying)
    return None


def _goodput(service: Service, limits: dict[str, float]) -> dict[str, float] | None:
    from graphsim.serving.goodput import has_limits

    if not limits and not has_limits(service.classes):
        return None
    found = service.goodput(**limits)
    return {"requests_per_s": found.requests_per_s, "share": found.share}


def _write(service: Service, limits: dict[str, float], options: argparse.Namespace) -> None:
    """Write the requested files."""
    if options.html:
        from graphsim.export.serving_html import serving_html

        serving_html(service, options.html, **limits)
    if options.timeline:
        from graphsim.export.serving_trace import serving_trace

        serving_trace(service, options.timeline)
    if options.output_json:
        service.to_json(options.output_json)
    if options.rows:
        service.to_parquet(options.rows)
    report_written(options, [getattr(options, name) for name in _FILES])
