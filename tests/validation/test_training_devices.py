"""Devices as tables of training describe them."""

from __future__ import annotations

import pytest

from graphsim.hardware import load_hardware
from graphsim.validation.training_devices import device_of

TEXT = "H100-96GB HBM2e 2.4TB/s (Grand Teton, {} W limit)"


def peak(watts: int) -> float:
    return device_of(TEXT.format(watts))[0].flops_per_s["bf16"]


def test_a_limit_of_power_takes_rates_and_nothing_at_the_devices_own() -> None:
    own = load_hardware("h100-sxm")
    assert peak(700) == pytest.approx(own.flops_per_s["bf16"])
    assert peak(1000) == pytest.approx(own.flops_per_s["bf16"])
    assert peak(300) < peak(500) < peak(700)


def test_half_of_what_is_left_for_work_is_the_root_of_a_half() -> None:
    idle = 700 * 0.3  # `hardware/power.json`, waiting
    assert peak(round(idle + (700 - idle) / 2)) / peak(700) == pytest.approx(0.5**0.5, rel=1e-2)


def test_memory_is_as_the_text_says() -> None:
    device, _ = device_of(TEXT.format(500))
    assert device.memory_bytes == 96 * 2**30 and device.memory_bytes_per_s == 2.4e12
