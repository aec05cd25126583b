"""Options of `graphsim serve` that say which requests come."""

from __future__ import annotations

import argparse

import pytest

from graphsim.cli.traffic import add_traffic, traffic_of


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        ("--rate 5", 1000),
        ("--rate inf --requests 7", 7),
        ("--rate 5:60,10:60", 900),
        ("--rate 5:600,10:600", 9000),
        ("--rate 5:600,10:600 --requests 50", 50),
        ("--concurrency 4", 1000),
    ],
)
def test_as_many_requests_as_are_asked_for(options: str, requests: int) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lora")
    add_traffic(parser)
    assert len(traffic_of(parser.parse_args(options.split())).table()) == requests
