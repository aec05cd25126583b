import pandas as pd
import pytest

from graphsim.calibration.fit import read_measurements
from graphsim.calibration.measure import Effort, measure
from graphsim.calibration.plan import COLUMNS, Plan, least_bytes
from graphsim.errors import ConfigError

SMALL = Plan(
    dtypes=("float32",), tokens=(1, 16), sides=(64, 128), ranks=(8,), heads=((4, 2),), head_dims=(16,), lengths=(16,),
    batches=(1, 2), elements=(1024, 65536),
)  # fmt: skip
QUICK = Effort(repeats=1, batch_s=1e-4)


def test_a_plan_holds_every_kind_once_in_columns_of_the_schema():
    rows = SMALL.rows()
    assert len({tuple(sorted(row.items())) for row in rows}) == len(rows)
    assert {name for row in rows for name in row} <= set(COLUMNS)
    assert {"gemm", "context_attention", "generation_attention", "elementwise", "copy", "host_to_device"} == {
        row["op"] for row in rows
    }
    assert any(row["op"] == "gemm" and row["n"] == 8 for row in rows)


def test_memory_of_a_row_is_that_of_its_operands_and_result():
    assert least_bytes({"op": "gemm", "dtype": "bfloat16", "m": 2, "n": 3, "k": 5}) == 2 * (10 + 15 + 6)
    assert least_bytes({"op": "copy", "dtype": "float32", "message_size": 10, "kernel": "copy"}) == 120


@pytest.mark.parametrize(
    ("change", "message"), [({"kinds": ("gem",)}, "'gem' is not known"), ({"dtypes": ("x",)}, "'x'")]
)
def test_an_unknown_kind_or_dtype_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Plan(**change).rows()


def test_without_pytorch_measuring_says_what_to_install(monkeypatch, tmp_path):
    def refuse(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr("graphsim.calibration.measure.import_module", refuse)
    with pytest.raises(ConfigError, match="needs PyTorch"):
        measure(tmp_path / "rows.csv")


class TestOnThisMachine:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    def test_measurements_are_rows_that_calibrate_reads(self, tmp_path):
        path, calls = tmp_path / "rows.csv", []
        count = measure(path, plan=SMALL, device="cpu", effort=QUICK, progress=lambda *call: calls.append(call))
        frame = read_measurements(path)
        assert len(frame) == count == len(SMALL.rows()) - 2 and calls[-1] == (count, count, "done")
        assert set(frame["op"]) == {row["op"] for row in SMALL.rows()} - {"host_to_device"}

    def test_a_run_that_was_cut_off_goes_on_where_it_stopped(self, tmp_path):
        path = tmp_path / "rows.csv"
        count = measure(path, plan=SMALL, device="cpu", effort=QUICK)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-5]) + lines[-5][:20])
        assert measure(path, plan=SMALL, device="cpu", effort=QUICK) == 5
        assert measure(path, plan=SMALL, device="cpu", effort=QUICK) == 0
        assert len(pd.read_csv(path)) == count

    def test_a_file_of_other_columns_is_not_touched(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(ConfigError, match="its columns are not those"):
            measure(path, plan=SMALL, device="cpu")
        assert path.read_text() == "a,b\n1,2\n"

    def test_an_absent_device_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="device 'tpu' is not available"):
            measure(tmp_path / "rows.csv", plan=SMALL, device="tpu")
