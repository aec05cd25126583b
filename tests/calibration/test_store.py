import json

import pytest

from graphsim.calibration.store import VERSION, Calibration, calibration_path, load_calibration, save_calibration
from graphsim.errors import ConfigError
from graphsim.hardware import list_hardware, load_hardware

CALIBRATED = ["a100-sxm-80gb", "arc-pro-b60", "b200-sxm", "gb200", "h100-sxm", "rtx-pro-6000"]


@pytest.mark.parametrize("name", CALIBRATED)
def test_shipped_calibrations_are_small_and_say_where_they_come_from(name):
    path = calibration_path(load_hardware(name))
    calibration = load_calibration(path)
    assert path.stat().st_size < 150_000
    assert calibration.hardware == name and calibration.architecture == load_hardware(name).architecture
    record = calibration.provenance["families"]["gemm"]
    assert record["points"] > 5000 and record["data"] and record["date"] and record["held_out_median_error"]


def test_calibrations_are_no_hardware():
    assert not [name for name in list_hardware() if "calibration" in name or "generations" in name]


def test_a_saved_calibration_loads_as_it_was(tmp_path):
    path = tmp_path / "x.calibration.json"
    one = Calibration(hardware="x", architecture="other", families={"gemm": {"bfloat16": {"constants": {"a": 1.5}}}})
    save_calibration(one, path)
    assert load_calibration(path) == one


def test_a_calibration_of_another_version_is_refused(tmp_path):
    path = tmp_path / "x.calibration.json"
    path.write_text(json.dumps({"version": VERSION + 1, "hardware": "x", "architecture": "other", "families": {}}))
    with pytest.raises(ConfigError, match="version = 2 is not supported; allowed: 1"):
        load_calibration(path)
