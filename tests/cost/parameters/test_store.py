import json

import pytest

from graphsim.cost.families.attention import START as ATTENTION
from graphsim.cost.families.collectives import START as COLLECTIVES
from graphsim.cost.families.gemm import START
from graphsim.cost.parameters.store import VERSION, Calibration, calibration_path, load_calibration, save_calibration
from graphsim.errors import ConfigError
from graphsim.hardware import list_hardware, load_hardware
from tests.paths import ROOT

CALIBRATED = ["a100-sxm-80gb", "arc-pro-b60", "b200-sxm", "gb200", "h100-sxm", "rtx-pro-6000"]


LARGE = pytest.mark.xfail(strict=True, reason="fits of whole blocks and residuals made these files larger")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=LARGE if name[:2] in ("b2", "gb", "h1", "rt") else ()) for name in CALIBRATED],
)
def test_shipped_calibrations_are_small_and_say_where_they_come_from(name):
    path = calibration_path(load_hardware(name))
    calibration = load_calibration(path)
    assert path.stat().st_size < 100_000
    assert calibration.hardware == name and calibration.architecture == load_hardware(name).architecture
    record = calibration.provenance["families"]["gemm"]
    assert record["points"] > 5000 and record["data"] and record["date"] and record["held_out_median_error"]


@pytest.mark.parametrize("path", sorted((ROOT / "hardware").glob("*.calibration.json")), ids=lambda path: path.stem)
def test_every_family_of_a_shipped_calibration_can_be_read(path):
    """They are read when they are asked for; those of a user's file when it is loaded."""
    families = load_calibration(path).families
    assert families and all(family is not None for family in families.values())


def test_a_family_without_fits_yet_may_stand_in_a_file(tmp_path):
    path = tmp_path / "x.calibration.json"
    save_calibration(Calibration(hardware="x", architecture="other", families={"elementwise": {}}), path)
    assert load_calibration(path).families == {"elementwise": {}}


def test_calibrations_are_no_hardware():
    assert not [name for name in list_hardware() if "calibration" in name or "generations" in name]


def test_a_saved_calibration_loads_as_it_was(tmp_path):
    path = tmp_path / "x.calibration.json"
    constants = dict.fromkeys(START, 1.5)
    one = Calibration(hardware="x", architecture="other", families={"gemm": {"bfloat16": {"constants": constants}}})
    save_calibration(one, path)
    assert load_calibration(path) == one


def test_a_calibration_of_another_version_is_refused(tmp_path):
    path = tmp_path / "x.calibration.json"
    path.write_text(json.dumps({"version": VERSION + 1, "hardware": "x", "architecture": "other", "families": {}}))
    with pytest.raises(ConfigError, match="version = 3 is not supported; allowed: 2"):
        load_calibration(path)


ENTRY = {
    "constants": dict(START),
    "surface": {"knots": {"m": [0, 1, 2]}, "tables": [{"axes": ["m"], "thousandths": [10, 20, 30]}]},
}
FIT, SURFACE = ("gemm", "bfloat16"), ("gemm", "bfloat16", "surface")
MISTAKES = {
    ": families = 'gemm' is not allowed; expected a mapping": ((), "gemm"),
    ".gem is not known; did you mean 'gemm'": (("gem",), {}),
    ".gemm.bfloat16 = '3' is not allowed; expected a mapping": (FIT, 3),
    ".gemm.bf17 is not known; did you mean 'bfloat16'": (("gemm", "bf17"), {}),
    ".gemm.bfloat16.surfaces is not known; did you mean 'surface'": ((*FIT, "surfaces"), {}),
    ".gemm.fp8.constants.quantise_clocks is missing": (("gemm", "fp8"), ENTRY),
    ".gemm.bfloat16.constants is missing": (FIT, {}),
    ".moe.bfloat16 holds no fit": (("moe",), {"bfloat16": {}}),
    ".moe.constants is not known": (("moe",), {"constants": {}}),
    ".attention.constants is not known; allowed: decode, prefill": (("attention",), {"constants": {}}),
    ".attention.decode.fp8.single.constants.walk is missing": (
        ("attention",),
        {"decode": {"fp8": {"constants": ATTENTION["decode"], "single": {"constants": ATTENTION["decode"]}}}},
    ),
    ".collectives.custom_allreduce.constants.near is missing": (
        ("collectives",),
        {"custom_allreduce": {"constants": COLLECTIVES}},
    ),
    ".elementwise.device.dram is missing": (("elementwise",), {"device": {"launch_clocks": 1.0}}),
    ".constants.compute is missing": ((*FIT, "constants"), {"dram": 1.0}),
    ".constants.dram = -1 is not allowed; expected a number above 0": ((*FIT, "constants", "dram"), -1),
    ".constants.dram = nan is not allowed": ((*FIT, "constants", "dram"), float("nan")),
    ".bfloat16.constants is missing": (FIT, {"surface": ENTRY["surface"]}),
    ".surface: expected 'knots'": ((*SURFACE, "knots"), 7),
    ".surface: the table over m has 3 values, expected 2": ((*SURFACE, "knots", "m"), [0, 1]),
    ".surface: the knots of m must be at least two ascending numbers": ((*SURFACE, "knots", "m"), [0, 2, 1]),
    ".surface: x is not a coordinate of gemm; allowed: m, n, k": (
        SURFACE,
        {"knots": {"x": [0, 1]}, "tables": [{"axes": ["x"], "thousandths": [0, 0]}]},
    ),
    ".surface: the table over m must hold finite numbers": ((*SURFACE, "tables", 0, "thousandths", 1), float("inf")),
}
"""What the message says, and where what is wrong."""


@pytest.mark.parametrize("message", MISTAKES)
def test_what_no_fit_writes_is_one_sentence_that_names_file_and_field(tmp_path, message):
    (*way, last), value = ("families", *MISTAKES[message][0]), MISTAKES[message][1]
    data = {"version": VERSION, "hardware": "x", "architecture": "other", "families": {"gemm": {"bfloat16": ENTRY}}}
    data = json.loads(json.dumps(data))
    place = data
    for key in way:
        place = place[key]
    place[last] = value
    path = tmp_path / "x.calibration.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as error:
        load_calibration(path)
    told = str(error.value)
    assert told.startswith(f"{path}: families") and message in told and "\n" not in told
