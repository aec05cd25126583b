"""What the program does with terminals, pipes that nobody reads, full disks and interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from graphsim.cli import main

pty = pytest.importorskip("pty")
PROGRAM = [sys.executable, "-m", "graphsim"]
SWEEP = ["sweep", "gpt-2", "--hardware", "l4", "--rank", "1,2,3,4", "--input", ",".join(map(str, range(100, 300)))]


def on_a_terminal(*arguments: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    known = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=theirs, stderr=theirs, env=known | {"TERM": "xterm"} | environment
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 1 << 16):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=120) == 0
    return written.decode()


def test_tables_have_styles_on_terminals_only() -> None:
    assert "\x1b[1m" in on_a_terminal("models")
    assert "\x1b" not in on_a_terminal("models", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("models", TERM="dumb")
    piped = subprocess.run([*PROGRAM, "models"], capture_output=True, check=True, timeout=120)
    assert b"\x1b" not in piped.stdout


def test_long_work_shows_its_progress_on_terminals_only() -> None:
    assert "800 of 800 scenarios (100%" in on_a_terminal(*SWEEP)
    assert subprocess.run([*PROGRAM, *SWEEP], capture_output=True, check=True, timeout=120).stderr == b""


def test_nobody_reading_on_is_no_mistake() -> None:
    process = subprocess.Popen([*PROGRAM, *SWEEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=120) == 0
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, "models"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=120)
    assert (done.returncode, done.stderr.decode().count("\n")) == (2, 1)
    assert done.stderr.startswith(b"graphsim: standard output cannot be used (No space left")


def test_an_interrupt_is_one_word() -> None:
    many = ["--batch", ",".join(map(str, range(1, 2000))), "--output", ",".join(map(str, range(1, 6)))]
    process = subprocess.Popen(
        [*PROGRAM, *SWEEP, *many],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, b"", b"graphsim: interrupted\n")


def test_an_error_of_the_system_is_a_sentence_where_output_is_a_stream_in_memory() -> None:
    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        assert main(["train", "gpt-2", "--hardware", "l4", "--config", "x" * 5000]) == 2
    assert said.getvalue().startswith("graphsim") and said.getvalue().count("\n") == 1 and not out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "run gpt-2 --hardware l4 --html page.html",
        "train gpt-2 --hardware l4 --html page.html",
        "explore gpt-2 --hardware l4 --out page.html",
        "export gpt-2 --hardware l4 --to page.dot",
        "sweep gpt-2 --hardware l4 --to page.csv",
        "serve gpt-2 --hardware l4 --rate 1 --requests 4 --html page.html",
    ],
)
def test_a_json_document_is_all_that_is_printed_where_a_file_is_written_too(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*line.split(), "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert [path.stem for path in tmp_path.iterdir()] == ["page"]
