import json
from pathlib import Path

import graphsim
from graphsim.validation.report import held_out_table

HARDWARE = Path(graphsim.__file__).parents[1] / "hardware"


def recorded() -> dict[tuple[str, ...], tuple[int, str, float]]:
    """Every error in the shipped files: by device, engine, kernel, family and format."""
    found = {}
    for path in HARDWARE.glob("*.calibration.json"):
        device, _, engine = path.name.removesuffix(".calibration.json").partition(".")
        for family, record in json.loads(path.read_text())["provenance"]["families"].items():
            for kernel, facts in record.items() if engine else [("", record)]:
                for kind, error in facts["held_out_median_error"].items():
                    found[device, engine, kernel, family, kind] = (facts["points"], facts["date"], error)
    return found


def test_the_table_holds_every_error_that_the_shipped_files_record() -> None:
    table, expected = held_out_table(), recorded()
    shown = {
        (r.device, r.engine, r.kernel, r.family, r.format): (r.points, r.date, r.held_out_error)
        for r in table.itertuples()
    }
    assert shown == expected and len(table) == len(expected)
    assert set(table["engine"]) == {"", "sglang", "trtllm"}
