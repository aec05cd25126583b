"""`graphsim explore`: an interactive page for what-if questions."""

from __future__ import annotations

import argparse
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.outputs import PAGE, OutFile, report_written
from graphsim.cli.printing import print_json
from graphsim.cli.several import Names, Several, add_price, named_as_options

EXAMPLES = """examples:
  graphsim explore llama-3.1-8b --hardware h100-sxm --out page.html
  graphsim explore llama-3.1-8b --hardware h100-sxm --engine vllm,sglang --price 2.5 --out page.html
  graphsim explore llama-3.1-8b --hardware h100-sxm --lora rank=16,adapters=4,max_loras=8 --out page.html
  graphsim explore llama-3.1-70b --hardware h100-sxm --tp 4 --precision fp8 --devices h200-sxm,b200-sxm -o page.html
"""


def add_commands(commands: Any) -> None:
    """Add `explore`."""
    parser = shared.add_command(commands, "explore", EXAMPLES)
    shared.add_model(parser)
    parser.add_argument(
        "-o", "--out", type=OutFile(PAGE), required=True, metavar="FILE", help="the page to write, .html"
    )
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument(
        "--devices", type=Names(), metavar="HW,…",
        help="further devices to choose from, or `all` (a few of the same architecture)",
    )  # fmt: skip
    parser.add_argument(
        "--degrees", type=Several(1), default=[1, 2, 4, 8], metavar="N,…",
        help="degrees of tensor parallelism to choose from (1,2,4,8)",
    )  # fmt: skip
    add_price(parser)
    shared.add_json(parser)
    parser.set_defaults(command_function=explore)


def explore(options: argparse.Namespace) -> None:
    """Write the page."""
    from graphsim.export.explore.page import explore as write

    engines = Names()(options.engine) if options.engine else []
    options.engine = engines[0] if engines else None
    devices = "all" if options.devices == ["all"] else options.devices
    with named_as_options():
        page = write(
            shared.deployment(options), None, options.out, **shared.requests(options), devices=devices,
            degrees=tuple(options.degrees), engines=engines[1:], price_per_hour=options.price,
        )  # fmt: skip
    report_written(options, [options.out])
    if options.json:
        print_json({"written": [options.out], "bytes": len(page.encode())})
