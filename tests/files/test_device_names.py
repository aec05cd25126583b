"""What people type and what tables say of their hardware names a device of the catalog, or is known to name none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.files.device_names import LONGEST
from graphsim.hardware import device_described, list_hardware, load_hardware
from tests.paths import REFERENCE, ROOT

TYPED = {
    "h100": "h100-sxm", "H100 80GB HBM3": "h100-sxm", "NVIDIA H100-SXM5-80GB": "h100-sxm", "H100 PCIe": "h100-pcie",
    "NVIDIA H100 64GB": "h100-64gb", "a100": "a100-sxm-80gb", "NVIDIA A100-SXM4-80GB": "a100-sxm-80gb",
    "a100-40gb": "a100-sxm-40gb", "A100-PCIE-80GB": "a100-pcie-80gb", "h200": "h200-sxm", "H200 NVL": "h200-nvl",
    "h20": "h20", "h800": "h800-sxm", "gh200": "gh200", "NVIDIA GH200 480GB": "gh200", "b200": "b200-sxm",
    "B200 192GB": "b200-sxm", "gb300": "gb300", "NVIDIA DGX-GB200": "gb200", "l40s": "l40s", "NVIDIA L4": "l4",
    "4090": "rtx-4090", "rtx4090": "rtx-4090", "RTX 4090": "rtx-4090", "NVIDIA GeForce RTX 3090": "rtx-3090",
    "5090": "rtx-5090", "A6000": "rtx-a6000", "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000", "a10": "a10", "NVIDIA A10G": "a10g",
    "v100": "v100-sxm2-32gb", "Tesla V100-SXM2-16GB": "v100-sxm2-16gb", "V100 PCIe 32GB": "v100-pcie-32gb",
    "t4": "t4", "Tesla T4": "t4", "T4 16 GB": "t4", "DGX Spark": "gb10", "mi300": "mi300x",
    "AMD Instinct MI300X 192GB HBM3": "mi300x", "mi355": "mi355x", "MI250X 128GB": "mi250x",
    "Intel(R) Gaudi(R) 2 AI Accelerator": "gaudi-2", "gaudi3": "gaudi-3", "Intel Arc Pro B50": "arc-pro-b50",
    "v5e": "tpu-v5e", "Cloud TPU v6e": "tpu-v6e", "Trillium": "tpu-v6e", "Ironwood": "tpu-v7", "trn2": "trainium-2",
    "Apple M2 Ultra": "m2-ultra", "M3 Ultra 512GB": "m3-ultra", "AMD EPYC 9965": "epyc-9965", "8xH100": "h100-sxm",
    "A100 80GB": "a100-sxm-80gb", "a100-80g": "a100-sxm-80gb", "A100 80 GB SXM": "a100-sxm-80gb",
    "a100 80gb pcie": "a100-pcie-80gb", "Nvidia tesla a100": "a100-sxm-80gb", "h100-80gb": "h100-sxm",
    "hgx h100": "h100-sxm", "h100 sxm5": "h100-sxm", "h100sxm": "h100-sxm", "H100 64GB": "h100-64gb",
    "h200 141gb": "h200-sxm", "gh200 96gb": "gh200", "RTX 4090 24GB": "rtx-4090", "rtx_4090": "rtx-4090",
    "4080 16gb": "rtx-4080", "RTX 5090 32GB": "rtx-5090", "a5000": "rtx-a5000", "rtx6000 ada": "rtx-6000-ada",
    "a40 48gb": "a40", "l40s 48gb": "l40s", "l4 24gb": "l4", "NVIDIA L20": "l20", "Tesla V100": "v100-sxm2-32gb",
    "V100 16GB": "v100-sxm2-16gb", "b200 180gb": "b200-sxm", "HGX B300": "b300-sxm", "GB300 NVL72": "gb300",
    "GB200 NVL72": "gb200", "NVIDIA GB10": "gb10", "MI300": "mi300x", "MI325": "mi325x", "mi350": "mi350x",
    "MI250": "mi250x", "Gaudi2": "gaudi-2", "gaudi 2": "gaudi-2", "HL-225H": "gaudi-2", "HL-325L": "gaudi-3",
    "b60": "arc-pro-b60", "v5litepod-8": "tpu-v5e", "TPU v5 lite": "tpu-v5e", "tpu v5p-8": "tpu-v5p",
    "v6e-8": "tpu-v6e", "TPU v6 lite": "tpu-v6e", "TPU7x": "tpu-v7", "tpu v7": "tpu-v7", "Trainium2": "trainium-2",
    "m2 ultra": "m2-ultra", "Xeon 6980P": "xeon-6980p", "2x4090": "rtx-4090", "8*H100": "h100-sxm",
    "8 × MI300X": "mi300x", "H100 x8": "h100-sxm", "8 x 5090": "rtx-5090",
}  # fmt: skip

NO_DEVICE = {
    "": "nothing is said", "gpu": "a kind of device", "h100 94gb": "an H100 NVL, of which there is no file",
    "A100 48GB": "no A100 has 48 GB", "h100 banana": "a word explains nothing", "tpu": "of which generation?",
    "RTX PRO 6000 Blackwell Workstation Edition": "another card than the server's", "2x 24GB GPU": "a size is no name",
    "x" * (LONGEST + 1): "too long for a name",
}  # fmt: skip

NEAREST = {
    "h100 nvl": "h100-pcie", "H100 NVL 94GB": "h100-pcie", "h100 94gb": "h100-pcie", "A100 PCIe 40GB": "a100-pcie-80gb",
    "A100 48GB": "a100-sxm-80gb", "GH200 144GB": "gh200", "H20 141GB": "h20", "MI300A": "mi300x", "B100": "b200-sxm",
    "L40": "l40s", "NVIDIA GeForce RTX 3090 Ti": "rtx-3090", "3090ti": "rtx-3090", "RTX 5080": "rtx-5090",
    "RTX 4090 48GB": "rtx-4090", "RTX A4000": "rtx-a5000", "Quadro RTX 6000": "rtx-6000-ada", "V100S": "v100-pcie-32gb",
    "RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000", "T4G": "t4", "Gaudi": "gaudi-2, gaudi-3",
    "tpu": "tpu-v5e, tpu-v5p, tpu-v6e, tpu-v7", "TPU v4": "tpu-v5p", "trn1": "trainium-2", "M1 Ultra": "m2-ultra",
    "Arc B580": "arc-pro-b60", "Jetson AGX Thor": "gb10", "2x 3090 Ti": "rtx-3090", "CPU": "epyc-9965, xeon-6980p",
}  # fmt: skip
"""Devices that people have and the catalog has not, and the files that an error names instead."""

UNTOLD = {
    "the device is not told": [
        "1 GPU", "2x GPU", "4 GPUs", "any", "not in the stored text", "not stated", "see PR", "see blog",
        "see blog (AWS)", "see issue", "see paper", "single GPU (2 GPUs in the run)",
    ],
    "only a size of memory is told": [
        "2 x 24 GB GPU", "2 x 24 GB GPU (24564 MiB each, type not stated)", "2x 24GB GPU", "2x 40GB GPU",
        "GPU with 8 GB", "GPU with 12 GB", "GPU with 16 GB", "GPU with 24 GB", "GPU with 40 GB", "GPU with 48 GB",
        "GPU with 80 GB",
    ],
    "which processor is not told": [
        "CPU",
        "CPU (dropout mask on CUDA is 1 byte/element, on CPU it has the input dtype: CPU rows with dropout overstate)",
    ],
    "of which generation is not told": ["TPU, tp4"],
    "made for one owner, with fewer watts and another memory than any H100 on sale": [
        "H100-96GB HBM2e 2.4TB/s (Grand Teton, 500 W limit)",
    ],
}  # fmt: skip
"""Texts of the reference tables that name no device of the catalog, by the reason."""


@pytest.mark.parametrize(("typed", "name"), TYPED.items())
def test_the_names_that_people_type_are_devices(typed: str, name: str) -> None:
    assert load_hardware(typed).name == name
    found = device_described(typed)
    assert found is not None and found.name == name


@pytest.mark.parametrize("text", NO_DEVICE, ids=list(NO_DEVICE.values()))
def test_a_name_with_a_word_or_a_size_too_many_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        load_hardware(text)


@pytest.mark.parametrize(("text", "near"), NEAREST.items())
def test_a_device_without_a_file_is_said_to_have_none_and_the_nearest_are_named(text: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"is not known: the catalog has no file of such a device; nearest: {near}"):
        load_hardware(text)
    assert device_described(text) is None


@pytest.mark.parametrize("text", ["h100 banana", "banana 4090", "xyz"])
def test_a_name_with_a_word_that_explains_nothing_has_no_nearest_device(text: str) -> None:
    with pytest.raises(ConfigError, match="is not known; .*allowed: "):
        load_hardware(text)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("16x NVIDIA H100-SXM5-80GB", "h100-sxm", 16), ("16x H100 (DGX-H100)", "h100-sxm", 16),
        ("72x NVIDIA Blackwell Ultra GPU (GB300)", "gb300", 72), ("8xMi300x  2FP8-amd", "mi300x", 8),
        ("AMD Instinct MI355X 288GB HBM3e (x87)", "mi355x", 87), ("H200 SXM (8 in one node)", "h200-sxm", None),
        ("NVIDIA Blackwell GPU (B200-SXM-180GB)", "b200-sxm", None),
        ("2x4090", "rtx-4090", 2), ("8 × MI300X", "mi300x", 8), ("H100 x8", "h100-sxm", 8), ("8*H100", "h100-sxm", 8),
        ("v5litepod-8", "tpu-v5e", None), ("TPU v5p-8", "tpu-v5p", None),
    ],
)  # fmt: skip
def test_a_tables_text_names_a_device_and_how_many(text: str, name: str, count: int | None) -> None:
    found = device_described(text)
    assert found is not None and (found.name, found.count) == (name, count)


def test_a_text_that_names_two_devices_names_none() -> None:
    assert device_described("A100 and H100") is None
    assert device_described("H100 prefill, H200 decode") is None


def test_what_a_name_usually_means_is_shipped_and_every_file_is_found_by_its_words() -> None:
    table = json.loads((ROOT / "hardware" / "names.json").read_text(encoding="utf-8"))
    listed = [*table["usual"].values(), *table["absent"].values()]
    lost = {name for names in listed for name in names} - set(list_hardware())
    assert not lost, f"hardware/names.json names {', '.join(sorted(lost))}, of which there is no file"
    both = set(table["usual"]) & set(table["absent"])
    assert not both, f"hardware/names.json says of {', '.join(sorted(both))} that it is a device, and that it is none"
    for name in list_hardware():
        for spelled in (name, name.upper().replace("-", " "), name.replace("-", "", 1), f"NVIDIA {name} GPU"):
            assert load_hardware(spelled).name == name, f"{spelled} is read as {load_hardware(spelled).name}"


def test_titles_of_the_shipped_files_name_their_own_device() -> None:
    wrong = {}
    for name in list_hardware():
        found = device_described(load_hardware(name).title)
        if found is None or found.name != name:
            wrong[name] = found
    assert not wrong


def test_a_users_own_file_comes_before_what_a_name_usually_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_hardware("h100").name == "h100-sxm"
    Path("hardware").mkdir()
    Path("hardware/h100.yaml").write_text((ROOT / "hardware" / "l4.yaml").read_text())
    assert load_hardware("h100").cores == 58.0


@pytest.mark.parametrize("text", ["../h100", "/h100", "./h100", "..", "hardware/../h100", "h100.yaml"])
def test_a_name_never_leaves_the_folders_and_a_path_is_never_a_name(text: str) -> None:
    with pytest.raises(ConfigError):
        load_hardware(text)


def test_a_table_of_names_cannot_point_outside_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.yaml").write_text((ROOT / "hardware" / "l4.yaml").read_text())
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "names.json").write_text(json.dumps({"left_out": [], "usual": {"mine": ["../secret"]}}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'mine' is not known"):
        load_hardware("mine")


@pytest.mark.parametrize("table", ["[]", "{}", '{"left_out": [], "usual": {"a": "b"}}', '{"left_out": 3, "usual": {}}'])
def test_a_broken_table_of_names_is_told_in_a_sentence(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "names.json").write_text(table)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"names\.json: "):
        load_hardware("some device")


def test_an_estimate_says_which_device_a_name_was_read_as() -> None:
    assert gs.simulate("gpt-2", "H100", engine="reference").hardware == "h100-sxm"


def spellings() -> set[str]:
    """What the reference tables say of their hardware."""
    pandas = pytest.importorskip("pandas")
    found: set[str] = set()
    for path in sorted(REFERENCE.rglob("*.csv")):
        frame = pandas.read_csv(path, dtype=str, usecols=lambda name: name in COLUMNS)
        found |= {value for column in frame for value in frame[column].dropna().unique()}
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in sorted(REFERENCE.rglob("*.parquet")):
        columns = [name for name in parquet.read_schema(path).names if name in COLUMNS]
        frame = pandas.read_parquet(path, columns=columns)
        found |= {str(value) for column in columns for value in frame[column].dropna().unique()}
    return found


COLUMNS = ("hardware", "gpu", "hw", "device", "decode_hardware", "prefill_hardware")


def test_every_device_of_the_reference_tables_is_resolved_or_listed_with_the_reason() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("reference measurements are not here")
    reasons = {text for texts in UNTOLD.values() for text in texts}
    told = spellings()
    unresolved = {text for text in told if device_described(text) is None}
    assert len(told) > 100
    assert not unresolved - reasons, "neither a device nor listed in UNTOLD"
    assert not reasons & (told - unresolved), "listed in UNTOLD, and a device"


def test_a_price_may_be_given_under_the_name_that_was_typed() -> None:
    typed = gs.best(
        "gpt-2",
        ["H100", "l4"],
        "cost_per_token",
        batch=8,
        price_per_hour={"H100": 2.5, "NVIDIA L4": 0.7},
        engine="reference",
    )
    named = gs.best(
        "gpt-2",
        ["h100-sxm", "l4"],
        "cost_per_token",
        batch=8,
        price_per_hour={"h100-sxm": 2.5, "l4": 0.7},
        engine="reference",
    )
    assert typed.equals(named)
