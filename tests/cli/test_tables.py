"""Every table that a command prints: one unit and equally many decimals in each column."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from graphsim.cli import main

SERVE = "serve gpt-2 --hardware l4 --requests 60 --input 64 --output 16 --rate 20"
ADAPTERS = "--adapters 3 --popularity zipf:2 --lora rank=8,targets=attn,max_loras=1"
SLO = "--slo ttft=0.2,tpot=0.05"
TRAIN = "train gpt-2 --hardware l4 --seq-len 256"
QUICK = {
    "serve": f"{SERVE} --no-advice {ADAPTERS} {SLO}",
    "replicas": f"{SERVE} --no-advice {ADAPTERS} --replicas 2",
    "run": "run gpt-2 --hardware l4 --top 8",
    "lora": "lora gpt-2 --hardware l4 --lora rank=8",
    "sweep": "sweep gpt-2 --hardware l4 h100-sxm --batch 1,64 --input 16,512 --rank 8",
    "best": "best gpt-2 --hardware l4 h100-sxm --batch 1,8,64 --goal cost_per_token --price 1.5",
    "energy": "best gpt-2 --hardware l4 h100-sxm --batch 1,64 --goal energy_per_token",
    "explain": "explain gpt-2 --hardware l4 --batch 8",
}
SLOW = {
    "train": f"{TRAIN} --tokens 1e8 --price 1.5 --checkpoint-every 50 --no-advice",
    "vary": f"{TRAIN} --vary batch=1,64 --vary recompute=none,full",
    "goal": f"{TRAIN} --vary batch=1,2,64 --goal cost --tokens 1e9 --price 1.5",
    "devices": "hardware",
    "advice": f"{SERVE} {ADAPTERS} {SLO}",
    "capacity": f"{SERVE} {SLO} --find-capacity",
    "strategies": f"{SERVE} {ADAPTERS} {SLO} --strategies dynamic,merged,mixed",
    "varied": f"{SERVE} {SLO} --vary max_num_seqs=1,64",
    "splits": f"{SERVE} {SLO} --splits 3",
    "fleet": "fleet gpt-2 --hardware l4 h100-sxm --requests 200 --rate 60 --input 64 --output 16 --price 1 "
    "--slo ttft=0.2,tpot=0.05",
    "train advice": TRAIN,
    "models": "models",
}
COMMANDS = [
    *(pytest.param(command, id=name) for name, command in QUICK.items()),
    *(pytest.param(command, id=name, marks=pytest.mark.slow) for name, command in SLOW.items()),
]
BY_ROW = ("latency", "measured run")
"""First heads of tables whose rows are different figures, each in its own unit."""
FIGURE = re.compile(r"[+-]?(?P<whole>[\d,]+)(\.(?P<decimals>\d+))?(?P<unit> ?[^\d\s.,].*)?")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_column_has_one_unit_and_one_precision(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 0
    found = list(tables(capsys.readouterr().out))
    assert found
    for header, rows in found:
        if len(header) == 2:  # names and values
            continue
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        series = {row[0]: row[1:] for row in rows} if header[0] in BY_ROW else dict(list(columns.items())[1:])
        for name, cells in series.items():
            assert len(forms(cells)) <= 1, f"{header}: {name} is shown as {cells}"


def forms(cells: tuple[str, ...]) -> set[tuple[str, int]]:
    """Unit and number of decimals of each figure among cells; none where some of these are words."""
    matches = [FIGURE.fullmatch(cell) for cell in cells if cell not in ("-", "inf", "")]
    if not all(matches):
        return set()
    return {((match["unit"] or "").strip(), len(match["decimals"] or "")) for match in matches if match}


def tables(text: str) -> Iterator[tuple[list[str], list[tuple[str, ...]]]]:
    """Header and rows of each table: what is above a line of dashes, and the lines below that keep to its columns."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if not re.fullmatch(r"-+(  -+)+", line):
            continue
        ends = [match.span() for match in re.finditer("-+", line)]
        rows = []
        for row in lines[i + 1 :]:
            gaps = [row[end : end + 2] for _, end in ends[:-1]]
            if not row or any(gap.strip() for gap in gaps):
                break
            rows.append(tuple(row[start:end].strip() for start, end in ends))
        yield [lines[i - 1][start:end].strip() for start, end in ends], rows


@pytest.mark.parametrize("unlike", ["9.1 ms  12.4 s", "1.25 s  1.3 s"])
def test_a_column_of_two_units_or_precisions_is_seen(unlike: str) -> None:
    assert len(forms(tuple(unlike.split("  ")))) == 2
