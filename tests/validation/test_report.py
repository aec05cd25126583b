import json
from pathlib import Path

import graphsim
from graphsim.validation.report import held_out_table

HARDWARE = Path(graphsim.__file__).parents[1] / "hardware"


def test_the_table_holds_every_error_that_the_shipped_files_record() -> None:
    recorded = {
        (path.name.removesuffix(".calibration.json"), family, kind): (facts["points"], error)
        for path in HARDWARE.glob("*.calibration.json")
        for family, facts in json.loads(path.read_text())["provenance"]["families"].items()
        for kind, error in facts["held_out_median_error"].items()
    }
    table = held_out_table()
    shown = {(r.device, r.family, r.format): (r.points, r.held_out_error) for r in table.itertuples()}
    assert recorded and shown == recorded and len(table) == len(recorded)
