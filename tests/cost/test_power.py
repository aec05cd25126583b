"""What a device draws: laws of the form, and what stands in for generations that nobody measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphsim.cost.power import power_of, read_shares
from graphsim.errors import ConfigError
from graphsim.hardware import list_hardware, load_hardware

PARTS = np.linspace(0.0, 1.2, 25)


@pytest.mark.parametrize("name", list_hardware())
def test_power_grows_with_work_from_idle_to_the_limit(name: str) -> None:
    device = load_hardware(name)
    power = power_of(device)
    assert power is not None  # every device of the catalog states one
    drawn = power.watts(PARTS[:, None], PARTS[None, :])
    assert np.all(np.diff(drawn, axis=0) >= 0) and np.all(np.diff(drawn, axis=1) >= 0)
    assert drawn.min() == pytest.approx(power.idle_w) and drawn.max() == pytest.approx(device.power_w)


def test_unmeasured_generations_take_the_mean_and_say_so() -> None:
    hopper, blackwell, ampere = (power_of(load_hardware(n)) for n in ("h100-sxm", "b200-sxm", "a100-sxm-80gb"))
    assert hopper is not None and blackwell is not None and ampere is not None
    for part in ("idle", "memory", "compute"):
        pair = [getattr(power.shares, part) for power in (hopper, blackwell)]
        assert getattr(ampere.shares, part) == pytest.approx(sum(pair) / 2)
    assert "not measured" in ampere.origin and "hopper" in ampere.origin and "not measured" not in hopper.origin


def test_a_sibling_draws_the_same_share_of_its_own_limit() -> None:
    one, other = (power_of(load_hardware(name)) for name in ("h100-sxm", "h100-pcie"))
    assert one is not None and other is not None
    assert one.watts(0.5, 0.1) / one.limit_w == pytest.approx(other.watts(0.5, 0.1) / other.limit_w)


def test_without_a_stated_power_nothing_is_known() -> None:
    assert power_of(replace(load_hardware("h100-sxm"), power_w=0.0)) is None


def test_a_wrong_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "power.json"
    path.write_text(json.dumps({"idle": 0.3, "generations": {"hopper": {"memory": -1, "compute": 0.5}}}))
    with pytest.raises(ConfigError, match=r"memory.*-1"):
        read_shares(path)
    path.write_text(json.dumps({"idle": 0.3, "generations": {}}))
    with pytest.raises(ConfigError, match="generations"):
        read_shares(path)
