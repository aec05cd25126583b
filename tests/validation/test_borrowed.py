"""Residuals of borrowed constants: each measured device priced as if nobody had measured it."""

import json

import pandas as pd
import pytest

from graphsim.cost.kernels import predict_kernels
from graphsim.cost.parameters.borrowed import BASE, GENERATION, SIBLING
from graphsim.cost.residuals import ALL, check_record
from graphsim.validation.borrowed import borrowed_coverage, borrowed_record, borrowed_rows, save_borrowed


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Rows of three devices, as their own calibrations have them."""
    folder, paths = tmp_path_factory.mktemp("rows"), []
    sides = [64, 256, 1024, 2048, 4096, 8192, 14336]
    rows = pd.DataFrame([{"n": n, "k": k, "m": m} for n in sides for k in sides for m in (1, 64, 2048)])
    rows = rows.assign(op="gemm", dtype="bfloat16")
    for gpu, name in (("b200_sxm", "b200-sxm"), ("gb200", "gb200"), ("h100_sxm", "h100-sxm")):
        path = folder / f"{gpu}.csv"
        rows.assign(gpu=gpu, latency_us=predict_kernels(rows, name)).to_csv(path, index=False)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def found(tables):
    return borrowed_rows(tables)


def test_siblings_are_those_of_a_generation_with_two_measured_devices(found):
    names = {place: {part["one"].iloc[0] for _, part in parts} for place, parts in found.items()}
    assert {"b200-sxm", "gb200"} <= names[SIBLING, BASE, "gemm"]
    assert names[GENERATION, BASE, "gemm"] == {"blackwell", "hopper"}


def test_a_sibling_errs_less_as_reference_than_other_generations(found):
    spread = {}
    for relation in (SIBLING, GENERATION):
        told = borrowed_record(found[relation, BASE, "gemm"])
        check_record(told, relation)
        spread[relation] = told["quantiles"]["bfloat16"][ALL][-3] - told["quantiles"]["bfloat16"][ALL][2]
        assert 0.0 <= told["common"]["bfloat16"] <= 1.0
    assert spread[SIBLING] < spread[GENERATION]


def test_coverage_is_by_residuals_of_other_generations(found):
    table = borrowed_coverage(found).set_index(["without", "family"])
    assert table.loc[("generation", "gemm"), "rows"] == sum(len(part) for _, part in found[GENERATION, BASE, "gemm"])
    assert 0.0 <= table.loc[("generation", "gemm"), "coverage"] <= 1.0


def test_the_file_is_the_same_every_time_and_small(found, tmp_path):
    paths = [tmp_path / name for name in ("one.json", "two.json")]
    for path in paths:
        save_borrowed(found, path, date="2026-01-01")
    assert paths[0].read_bytes() == paths[1].read_bytes() and paths[0].stat().st_size < 8000
    assert set(json.loads(paths[0].read_text())) == {"about", "date", SIBLING, GENERATION}


def test_whole_blocks_are_no_kernels_and_leave_the_record_as_it_is(tables, found, tmp_path):
    """Rows of blocks that a folder of tables contains, such as latent attention with its projections."""
    block = pd.DataFrame({
        "op": "mla_generation_module", "gpu": "h100_sxm", "framework": "vllm", "kernel": "default",
        "dtype": "bfloat16", "gemm_dtype": "bfloat16", "kv_dtype": "bfloat16",
        "batch": [1, 64], "seq_len": 1, "kv_len": [128, 4096], "heads": 16, "latency_us": [120.0, 300.0],
    })  # fmt: skip
    block.to_csv(tmp_path / "blocks.csv", index=False)
    assert set(borrowed_rows([*tables, tmp_path / "blocks.csv"])) == set(found)
