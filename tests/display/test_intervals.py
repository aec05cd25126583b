"""Intervals as they are written and drawn beside a figure."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.display.intervals import interval_svg, interval_text
from graphsim.units import counted_text, seconds_text, throughput_text
from tests.residual_records import device_with


@pytest.mark.parametrize(
    ("value", "ends", "told"),
    [
        (0.0081, (0.0076, 0.00871), "8.1 ms (7.6 to 8.71)"),
        (0.00098, (0.00091, 0.00112), "980 µs (910 µs to 1.12 ms)"),
        (0.0081, None, "8.1 ms"),
    ],
)
def test_units_are_said_once_where_they_are_the_same(value, ends, told):
    assert interval_text(value, ends, seconds_text) == told


@pytest.mark.parametrize(
    ("value", "ends", "told"),
    [
        (1111.13, (909.7, 1172.2), "1,111 tokens/s (910 to 1,170)"),
        (60.684, (48.26, 65.2), "60.68 tokens/s (48.3 to 65.2)"),
        (0.012348, None, "0.01235 tokens/s"),
        (1234567.0, None, "1,235,000 tokens/s"),
    ],
)
def test_a_throughput_shows_no_digits_that_it_does_not_have(value, ends, told):
    assert interval_text(value, ends, throughput_text) == told


@pytest.mark.parametrize(("number", "told"), [(0, "0 adapters"), (1.0, "1 adapter"), (1000, "1,000 adapters")])
def test_one_thing_is_singular(number, told):
    assert counted_text(number, "adapter") == told


def test_the_bar_reaches_from_the_low_end_to_the_high_one():
    bars = ET.fromstring(interval_svg(10.0, (8.0, 12.0), "8 to 12")).findall("{*}rect")
    track, bar, dot = [(float(rect.get("x")), float(rect.get("width"))) for rect in bars]
    scale = 100 / (1.1 * 12)
    assert bar == pytest.approx((8 * scale, 4 * scale), abs=0.01) and track == (0.0, 100.0)
    assert dot[0] + dot[1] / 2 == pytest.approx(10 * scale, abs=0.01)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return device_with(tmp_path_factory.mktemp("hardware"), 0.05)


def test_run_prints_the_interval_beside_each_figure(device, capsys):
    main(["run", "gpt-2", "--hardware", str(device), "--top", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"time per output token  [\d.]+ .s \([\d.]+ to [\d.]+\)", "\n".join(lines))
    assert "in brackets: expected in 80% of cases" in lines


def test_run_prints_bare_figures_where_there_is_no_interval(capsys):
    main(["run", "gpt-2", "--hardware", "m2-ultra", "--top", "0"])
    assert "in brackets" not in capsys.readouterr().out


def test_json_holds_the_ends(device, capsys):
    main(["run", "gpt-2", "--hardware", str(device), "--json"])
    found = json.loads(capsys.readouterr().out)
    low, high = found["intervals"]["tpot_s"]
    assert found["intervals"]["coverage"] == 0.8 and low < found["tpot_s"] < high


def test_a_notebook_and_a_page_show_it(device):
    estimate = gs.simulate("gpt-2", device)
    assert len(re.findall(r" \([\d.,]+ to [\d.,]+\)", estimate._repr_html_())) == 4
    assert gs.to_html(estimate).count('<svg class="interval"') == 4
