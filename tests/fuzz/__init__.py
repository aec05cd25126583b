"""Fuzzers: what a stranger may hand to graphsim, changed at random; see `runner` for what each case has to end in."""

from tests.fuzz import adapters, arguments, documents, graphs, traces, yaml_files

FUZZERS = {
    each.FUZZER.name: each.FUZZER for each in (graphs, documents, arguments, adapters, yaml_files, traces)
}  # fmt: skip
"""By name; `python -m tests.fuzz 10000` runs them all."""
