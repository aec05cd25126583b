"""Sweeps to disk: the rows of `sweep`, in bounded memory, whatever is interrupted, killed or lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cli.printing import Progress
from graphsim.models.loading import load_model
from tests.paths import ROOT

parquet = pytest.importorskip("pyarrow.parquet")

MODELS, DEVICES = ["llama-3.2-1b", "gpt-2"], ["l4"]
CHOICES: dict[str, Any] = {
    "batch": [1, 2, 8], "input_tokens": [64, 500, 1000], "output_tokens": [1, 9], "tp": [1, 3], "rank": [8, 16],
    "strategy": ["base", "dynamic"], "precision": [None, "fp8"], "cost": "roofline",
}  # fmt: skip
ROWS = 2 * 3 * 3 * 2 * 2 * 2 * 2 * 2


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return gs.sweep(MODELS, DEVICES, **CHOICES, engine="reference")


def to_disk(path: Path, **more: Any) -> Path:
    return gs.sweep_to_parquet(path, MODELS, DEVICES, **({"chunk_rows": 50} | more), **CHOICES, engine="reference")


def same(folder: Path, table: pd.DataFrame) -> None:
    """Bit for bit, but for the order of the categories' labels."""
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder), pd.DataFrame(table), check_exact=True, check_categorical=False
    )


def parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def stop_after(calls: int, how: Callable[[], None]) -> Callable[[int, int], None]:
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == calls:
            how()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("chunk_rows", [1, 7, 50, 10**6])
def test_the_parts_are_the_rows_of_sweep_in_order(chunk_rows: int, tmp_path: Path) -> None:
    few = CHOICES | {"batch": [1, 2], "input_tokens": [64, 500], "tp": [1, 3], "rank": 8, "output_tokens": 3}
    folder = gs.sweep_to_parquet(
        tmp_path / "x.parquet", MODELS, DEVICES, chunk_rows=chunk_rows, **few, engine="reference"
    )
    same(folder, gs.sweep(MODELS, DEVICES, **few, engine="reference"))
    sizes = [len(pd.read_parquet(folder / name)) for name in parts(folder)]
    assert max(sizes) <= chunk_rows and sum(sizes) == 2 * 2 * 2 * 2 * 2 * 2


WHOLE = (
    "batch", "input_tokens", "output_tokens", "tp", "pp", "ep", "dp", "rank", "active_adapters", "max_loras",
    "max_lora_rank", "redundant_experts",
)  # fmt: skip


def test_whole_numbers_are_integers_in_every_part(tmp_path: Path) -> None:
    """Also those that came as floats, and beside numbers that are not whole in other parts only."""
    choices: dict[str, Any] = {"batch": [1.0, 2.0], "rank": [8, 16], "active_adapters": [1, 1.5, 2.0]}
    folder = gs.sweep_to_parquet(tmp_path / "sweep", "gpt-2", "l4", chunk_rows=1, **choices)
    files = sorted(folder.glob("part-*.parquet"))
    schemas = [parquet.read_schema(file) for file in files]
    assert len(files) == 12 and all(schema == schemas[0] for schema in schemas)
    kinds = {name: str(schemas[0].field(name).type) for name in WHOLE}
    assert kinds.pop("active_adapters") == "double" and set(kinds.values()) == {"int64"}
    table = gs.sweep("gpt-2", "l4", **choices)
    assert {str(table[name].dtype) for name in kinds} == {"int64"}
    deployments = [gs.Deployment("gpt-2", "l4", lora=gs.LoraConfig(rank=rank)) for rank in (8, 16)]
    rows = pd.read_parquet(gs.sweep_to_parquet(tmp_path / "deployments", deployments, batch=[1, 2]))
    assert {str(rows[name].dtype) for name in WHOLE} == {"int64"}


def test_rows_say_the_defaults_that_they_took(tmp_path: Path) -> None:
    models, devices = ["gpt-2", "gpt-oss-20b"], ["h100-sxm", "l4", "trainium-2"]
    folder = gs.sweep_to_parquet(tmp_path / "sweep", models, devices, precision=[None, "bf16"])
    rows = pd.read_parquet(folder)
    named = [load_model(name).own_precision.name for name in models]
    assert named == ["bf16", "bf16,experts=mxfp4"]
    taken = list(dict.fromkeys(rows[["model", "precision"]].astype(str).itertuples(index=False, name=None)))
    assert taken == [("gpt-2", "bf16"), ("gpt-oss-20b", "bf16,experts=mxfp4"), ("gpt-oss-20b", "bf16")]
    costs = dict(rows[["hardware", "cost"]].astype(str).itertuples(index=False, name=None))
    assert costs == {device: gs.Deployment("gpt-2", device, engine="vllm").cost_model for device in devices}
    assert set(costs.values()) == {"calibrated", "scaled from l40s (ada)", "roofline"}
    assert set(rows["engine"]) == {"vllm"}


@pytest.mark.slow
@pytest.mark.parametrize("chunk_rows", [7, 150])
def test_fitted_prices_do_not_depend_on_the_size_of_the_parts(chunk_rows: int, tmp_path: Path) -> None:
    many = CHOICES | {"batch": list(range(1, 11)), "precision": None, "cost": "calibrated", "output_tokens": [1, 40]}
    folder = gs.sweep_to_parquet(
        tmp_path / "x.parquet", "gpt-2", DEVICES, chunk_rows=chunk_rows, **many, engine="reference"
    )
    same(folder, gs.sweep("gpt-2", DEVICES, **many, engine="reference"))


def test_zipped_choices_go_to_disk_too(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"input_tokens": [10, 20, 30], "output_tokens": [3, 2, 1], "batch": [1, 2]}
    zipped = [("input_tokens", "output_tokens")]
    folder = gs.sweep_to_parquet(
        tmp_path / "x", "gpt-2", "l4", chunk_rows=2, zipped=zipped, **asked, engine="reference"
    )
    same(folder, gs.sweep("gpt-2", "l4", zipped=zipped, **asked, engine="reference"))


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, table: pd.DataFrame) -> None:
    folder = tmp_path / "x.parquet"
    with pytest.raises(KeyboardInterrupt):
        to_disk(folder, progress=stop_after(4, interrupt))
    before, seen = parts(folder), list[tuple[int, int]]()
    rows = sum(len(pd.read_parquet(folder / name)) for name in before)
    assert len(before) == 4
    to_disk(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (rows, ROWS) and seen[-1] == (ROWS, ROWS)
    assert before.items() <= parts(folder).items(), "finished parts are not written again"
    same(folder, table)


def test_a_finished_sweep_is_not_done_again(tmp_path: Path, table: pd.DataFrame) -> None:
    folder = to_disk(tmp_path / "x")
    before, seen = parts(folder), list[int]()
    to_disk(folder, progress=lambda done, _: seen.append(done))
    assert seen == [ROWS] and parts(folder) == before


def test_a_resumed_sweep_keeps_the_parts_that_it_began_with(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(KeyboardInterrupt):
        to_disk(tmp_path / "x", progress=stop_after(2, interrupt))
    same(to_disk(tmp_path / "x", chunk_rows=31), table)


KILLED = """
import os, signal, sys
import tests.sweeps.test_parquet as t
from pathlib import Path
def die(): os.kill(os.getpid(), signal.SIGKILL)
t.to_disk(Path(sys.argv[1]), progress=t.stop_after(3, die))
"""


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, table: pd.DataFrame) -> None:
    folder = tmp_path / "x"
    code = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, timeout=120, check=False).returncode
    before = parts(folder)
    assert code == -signal.SIGKILL and len(before) == 3
    (folder / ".part-0000003.parquet.1").write_bytes(b"half a file")  # what a kill in the middle of a write leaves
    to_disk(folder)
    assert before.items() <= parts(folder).items()
    same(folder, table)


RSS = """
import sys
from pathlib import Path
import graphsim as gs
sizes = {"batch": range(1, 41), "input_tokens": range(1, 101), "output_tokens": [8, 9], "rank": [8]}
sizes |= {"active_adapters": range(1, 1 + int(sys.argv[2])), "cost": "roofline"}
gs.sweep_to_parquet(sys.argv[1], "gpt-2", "l4", chunk_rows=8000, **sizes)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's high-water mark of memory")
@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    """A table of as many rows would take 24 MB in numbers alone."""
    peak = {}
    for times in (2, 20):
        command = [sys.executable, "-c", RSS, str(tmp_path / str(times)), str(times)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
        peak[times] = int(told)
        assert len(pd.read_parquet(tmp_path / str(times), columns=["rank"])) == 8000 * times
    assert peak[20] < peak[2] + 10_000


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_gives_the_same_files(
    pool: Callable[[int], Executor], tmp_path: Path, table: pd.DataFrame
) -> None:
    with pool(2) as executor:
        same(to_disk(tmp_path / "x", executor=executor), table)
    same(to_disk(tmp_path / "y", executor=lambda: pool(2)), table)


class Unreliable(Executor):
    """Runs what it is given at once, but loses some of it."""

    def __init__(self, fails: Callable[[int], bool], breaks_at: int = 10**9) -> None:
        self.fails, self.breaks_at, self.calls = fails, breaks_at, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        if self.calls >= self.breaks_at:
            raise RuntimeError("cannot schedule new futures")
        future: Future[Any] = Future()
        if self.fails(self.calls):
            if self.calls % 2:
                future.set_exception(CancelledError())
            else:
                future.cancel()
                future.set_running_or_notify_cancel()
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_what_an_executor_loses_is_done_here(tmp_path: Path, table: pd.DataFrame) -> None:
    same(to_disk(tmp_path / "x", executor=Unreliable(lambda call: call % 3 == 0)), table)
    same(to_disk(tmp_path / "y", executor=Unreliable(lambda call: False, breaks_at=4)), table)
    same(to_disk(tmp_path / "z", executor=Unreliable(lambda call: True)), table)


def test_what_an_executor_loses_goes_to_a_new_one_as_long_as_that_helps(tmp_path: Path, table: pd.DataFrame) -> None:
    made: list[Unreliable] = []

    def make(breaks_at: int) -> Executor:
        made.append(Unreliable(lambda call: False, breaks_at=breaks_at))
        return made[-1]

    same(to_disk(tmp_path / "x", executor=lambda: make(3)), table)
    assert len(made) == -(-len(parts(tmp_path / "x")) // 2)
    made.clear()
    same(to_disk(tmp_path / "y", executor=lambda: make(1)), table)
    assert len(made) == 1, "an executor that does nothing at all is not tried again"


@pytest.mark.parametrize("again", [False, True])
def test_a_killed_worker_loses_nothing(again: bool, tmp_path: Path, table: pd.DataFrame) -> None:
    made: list[ProcessPoolExecutor] = []

    def make() -> Executor:
        made.append(ProcessPoolExecutor(2))
        return made[-1]

    def kill() -> None:
        os.kill(next(iter(made[0]._processes)), signal.SIGKILL)

    folder = to_disk(tmp_path / "x", executor=make if again else make(), progress=stop_after(1, kill), chunk_rows=10)
    same(folder, table)
    assert len(made) == 1 + again
    made[-1].shutdown()


def test_another_sweep_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    to_disk(tmp_path / "x")
    other: list[tuple[Any, Any, dict[str, Any]]] = [
        (MODELS, DEVICES, CHOICES | {"batch": [1, 2, 9]}),
        (MODELS[::-1], DEVICES, CHOICES),
        (MODELS, ["h100-sxm"], CHOICES),
        (MODELS, DEVICES, CHOICES | {"cost": "calibrated"}),
        (MODELS, DEVICES, CHOICES | {"active_adapters": 2}),
    ]
    before = parts(tmp_path / "x")
    for models, devices, choices in other:
        with pytest.raises(gs.ConfigError, match="holds another sweep"):
            gs.sweep_to_parquet(tmp_path / "x", models, devices, **choices, engine="reference")
    assert parts(tmp_path / "x") == before


def test_the_request_is_the_same_in_every_process() -> None:
    code = (
        "from graphsim.sweeps.parquet import request_hash; from graphsim.sweeps.grid import grid_of; "
        "print(request_hash(grid_of(['mixtral-8x7b', 'gpt-2'], ['l4', 'h100-sxm'], {'batch': [1, 2]})))"
    )
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1 and len(told.pop().strip()) == 64


def test_folders_that_cannot_be_used_are_one_readable_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    for name, text in (("file", "cannot be used"), ("full", "holds other files"), ("no/such", "cannot be used")):
        with pytest.raises(gs.ConfigError, match=text):
            to_disk(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "notes.txt"]
    done = to_disk(tmp_path / "done")
    with pytest.raises(gs.ConfigError, match="holds a sweep already"):
        to_disk(done, resume=False)
    for text in ("{", "[]", "{}"):
        (done / "_sweep.json").write_text(text)
        with pytest.raises(gs.ConfigError, match="not what a sweep wrote"):
            to_disk(done)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"chunk_rows": 0}, "chunk_rows = 0"),
        ({"executor": 2}, "executor = 2"),
        ({"batches": 1}, "did you mean 'batch'"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(arguments: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match=text):
        gs.sweep_to_parquet(tmp_path / "x", "gpt-2", "l4", **arguments, engine="reference")
    assert not (tmp_path / "x").exists()


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(gs.ConfigError, match=r"graphsim-llm\[parquet\]"):
        to_disk(tmp_path / "x")


COMMAND = ["sweep", "gpt-2", "--hardware", "l4", "--batch", "1,2,3", "--tp", "1,3", "--engine", "reference"]


def test_the_command_writes_what_sweep_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.parquet")
    assert main([*COMMAND, "--out", out, "--workers", "2"]) == 0
    assert capsys.readouterr() == ("", f"wrote {out}\n"), "no progress bar but on a terminal"
    same(tmp_path / "x.parquet", gs.sweep("gpt-2", "l4", batch=[1, 2, 3], tp=[1, 3], engine="reference"))
    assert main([*COMMAND, "--out", out, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": [out]}


def test_the_commands_workers_give_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for more in ([], ["--workers", "2"]):
        assert main([*COMMAND, *more]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and len(told[0].splitlines()) == 10


def test_the_command_explains_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for more, text in (
        (["--out", str(tmp_path)], "add --resume"),
        (["--resume"], "--resume needs --out"),
        (["--out", "x", "--to", "y.csv"], "exclude each other"),
    ):
        assert main([*COMMAND, *more]) == 2
        out, err = capsys.readouterr()
        assert out == "" and text in err and err.count("\n") == 1


def test_progress_is_drawn_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([*COMMAND, "--out", str(tmp_path / "x")]) == 0
    drawn = capsys.readouterr().err
    assert drawn.startswith("\r") and "6 of 6 scenarios (100%" in drawn and drawn.endswith("\n")


def test_progress_says_how_fast_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 1.01, 3.0])
    monkeypatch.setattr("graphsim.cli.printing.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    draw = Progress()
    for done in (1000, 2000, 2500, 4000):  # the first thousand was there before; two calls close together draw once
        draw(done, 5000)
    lines = [line.rstrip() for line in capsys.readouterr().err.split("\r") if line]
    assert lines[-2:] == [
        "2,000 of 5,000 scenarios (40%, 1,000/s, 3 s left)", "4,000 of 5,000 scenarios (80%, 1,000/s, 1 s left)"
    ]  # fmt: skip
