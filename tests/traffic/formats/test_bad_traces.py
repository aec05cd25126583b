"""What is wrong with a trace is one sentence that names the file, the place, the value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from graphsim.errors import ConfigError
from graphsim.traffic.formats import read_trace
from tests.traffic.formats import files

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
TIME = "2023-11-16 18:15:46"


def changed(record: dict[str, Any], **values: Any) -> str:
    return json.dumps(record | values)


def mooncake(**values: Any) -> str:
    good = {"timestamp": 0, "input_length": 6, "output_length": 2, "hash_ids": [1]}
    return json.dumps(good) + "\n" + json.dumps(good | values) + "\n"


WRONG = {
    "empty": ("", "the file is empty"),
    "blank": ("\n \n", "the file is empty"),
    "header only": ("arrival_s,input_tokens,output_tokens\n", "holds no request"),
    "unknown columns": (
        "a,b\n1,2\n",
        "columns 'a, b' are of no known trace; expected arrival_s.*Azure.*BurstGPT.*Vidur",
    ),
    "unknown keys": ('{"prompt": "x"}\n', "keys 'prompt' are of no known trace; expected .*Mooncake"),
    "a missing column": (
        "arrival_s,input_tokens\n1,2\n",
        "column output_tokens is missing; found are arrival_s, input_tokens",
    ),
    "lengths only": ("num_prefill_tokens,num_decode_tokens\n1,2\n", "column arrived_at is missing"),
    "a negative time": (
        "arrival_s,input_tokens,output_tokens\n0,1,1\n-0.5,1,1\n",
        "line 3: arrival_s = -0.5 is not allowed",
    ),
    "an infinite time": ("arrival_s,input_tokens,output_tokens\ninf,1,1\n", "line 2: arrival_s = inf is not allowed"),
    "no time": ("arrival_s,input_tokens,output_tokens\n0,1,1\n\n,1,1\n", "line 4: arrival_s = nothing"),
    "a text": (
        "arrival_s,input_tokens,output_tokens\n0,many,1\n",
        "line 2: input_tokens = 'many' .* whole number from 0 to 1,000,000,000",
    ),
    "half a token": ("arrival_s,input_tokens,output_tokens\n0,1,1.5\n", "line 2: output_tokens = .*1.5.* whole number"),
    "negative tokens": ("arrival_s,input_tokens,output_tokens\n0,-3,1\n", "line 2: input_tokens = .*-3.* from 0"),
    "too many tokens": (
        "arrival_s,input_tokens,output_tokens\n0,1e30,1\n",
        "line 2: input_tokens = .*1e.30.* to 1,000,000,000",
    ),
    "a cell too many": ("arrival_s,input_tokens,output_tokens\n0,1,1\n0,1,1,1\n", "line 3"),
    "only failures": (f"{AZURE}{TIME},5,0\n", "holds no request"),
    "no date": (f"{AZURE}{TIME},5,1\nyesterday,5,1\n", "line 3: TIMESTAMP = 'yesterday' .* expected a date and time"),
    "a number for a date": (f"{AZURE}1700000000,5,1\n", "line 2: TIMESTAMP = 1700000000 .* date and time"),
    "broken JSON": (mooncake() + '{"timestamp": 3,\n', "line 3, column .*: not valid JSON"),
    "a JSON list": ('[{"timestamp": 0}]', "line 1: holds a JSON list; expected one JSON object on each line"),
    "no object": (mooncake() + "[1, 2]\n", r"line 3: holds \[1, 2\], expected a JSON object"),
    "a negative timestamp": (mooncake(timestamp=-1), "line 2: timestamp = -1 is not allowed; expected a number from 0"),
    "a timestamp in words": (mooncake(timestamp="noon"), "line 2: timestamp = 'noon' is not allowed"),
    "not a number": (mooncake(timestamp=float("nan")), "line 2: timestamp = nan is not allowed"),
    "a flag": (mooncake(input_length=True), "line 2: input_length = True is not allowed"),
    "no length": (mooncake(output_length=None), "line 2: output_length = None is not allowed"),
    "a fraction": (mooncake(input_length=0.5), "line 2: input_length = 0.5 .* whole number of tokens"),
    "hashes in words": (mooncake(hash_ids="abc"), "line 2: hash_ids = 'abc' is not allowed; expected a list"),
    "a key left out": (
        '{"timestamp": 0, "input_length": 3}\n',
        "line 1: output_length is missing; did you mean 'input_length'",
    ),
    "a huge number": ('{"timestamp": ' + "9" * 5000 + ', "input_length": 3}\n', "line 1: cannot be parsed"),
    "deep JSON": ('{"timestamp": ' + "[" * 200_000 + "\n", "line 1.*(cannot be parsed|not valid JSON)"),
    "a session of nothing": ('{"arrival_time_ns": 0, "sub_requests": []}\n', "holds no request"),
    "a session of numbers": (
        '{"arrival_time_ns": 0, "sub_requests": [3]}\n',
        r"sub_requests\[0\] = 3 .* a JSON object",
    ),
    "odd token ids": (
        '{"arrival_time_ns": 0, "input_toks": 2, "output_toks": 1, "input_tok_ids": [1, "b"]}\n',
        "line 1: input_tok_ids = .* whole numbers",
    ),
    "a result without details": (
        json.dumps({key: value for key, value in files.VLLM.items() if key not in files.DETAILS}),
        "line 1: has no input_lens and output_lens; save it with --save-detailed",
    ),
    "lists of two lengths": (
        changed(files.VLLM, output_lens=[1]),
        "output_lens has 1 entries, expected one for each of 4",
    ),
    "a list of words": (changed(files.VLLM, input_lens=["x", 1, 1, 1]), r"input_lens\[0\] = 'x' is not allowed"),
    "a list with a hole": (changed(files.VLLM, input_lens=[None, 1, 1, 1]), r"input_lens\[0\] = None is not allowed"),
    "a word for a list": (changed(files.VLLM, ttfts="fast"), "ttfts = 'fast' is not allowed; expected a list"),
    "gaps that are no lists": (changed(files.VLLM, itls=[1, 2, 3, 4]), r"itls\[0\] = 1 is not allowed"),
    "negative gaps": (changed(files.VLLM, itls=[[-1], [], [], []]), r"itls\[0\] = \[-1\] is not allowed"),
    "an unknown unit": (
        files.AIPERF.replace('"unit": "us"', '"unit": "fortnights"'),
        "line 4: unit = 'fortnights' .* ms",
    ),
    "metrics that are none": (
        '{"metadata": {"request_start_ns": 1}, "metrics": 3}\n',
        "line 1: metrics = 3 .* a JSON object",
    ),
    "metrics without lengths": (
        '{"metadata": {"request_start_ns": 1}, "metrics": {}}\n',
        "line 1: input_sequence_length = None .* JSON object",
    ),
}


@pytest.mark.parametrize("text, words", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        read_trace(path)
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said and len(said) < 700


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_trace(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="no chunk-N-trace.csv"):
        read_trace(tmp_path)
    with pytest.raises(ConfigError):
        read_trace("bad\0name")
    (tmp_path / "binary").write_bytes(b"\x89PNG\0\0\xff")
    with pytest.raises(ConfigError, match="is not a text file"):
        read_trace(tmp_path / "binary")
    (tmp_path / "latin.jsonl").write_bytes(mooncake().encode() + b'{"timestamp": "\xe9"}\n')
    with pytest.raises(ConfigError, match="line 3: is not text in UTF-8"):
        read_trace(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    "times, words",
    [
        (["2020-01-01", "2020-01-02"], "arrival_s = '2020-01-01' is not allowed"),
        ([0.0, None], "line 2: arrival_s = nothing is not allowed"),
        ([False, True], "arrival_s = 'False' is not allowed"),
        ([[1], [2]], "arrival_s = .* is not allowed"),
    ],
)
def test_parquet_of_other_types_is_refused(tmp_path: Path, times: list[Any], words: str) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "trace.parquet"
    values = pd.to_datetime(times) if isinstance(times[0], str) else times
    pd.DataFrame({"arrival_s": values, "input_tokens": [3, 2], "output_tokens": [1, 2]}).to_parquet(path)
    with pytest.raises(ConfigError, match=words):
        read_trace(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match="cannot be read as a trace"):
        read_trace(path)


SERVEGEN_WRONG = {
    "a cell too few": ("0-trace.csv", "0,1,1,Gamma,1\n", "chunk-0-trace.csv: line 1: has 5 cells, expected 6"),
    "a word": (
        "0-trace.csv",
        "0,often,1,Gamma,1,1\n",
        "line 1: '0,often,1,Gamma,1,1' is not allowed; expected numbers",
    ),
    "a negative rate": ("0-trace.csv", "0,-1,1,Gamma,1,1\n", "line 1: .* finite numbers from 0"),
    "windows out of order": (
        "0-trace.csv",
        "600,1,1,,0,0\n0,1,1,,0,0\n",
        "line 2: window 0 is not allowed; expected one after",
    ),
    "no lengths": ("0-dataset.json", "{}", "chunk-0-dataset.json: has no lengths of input_tokens"),
    "lengths in words": (
        "0-dataset.json",
        '{"0": {"input_tokens": "{a: b}"}}',
        "0: input_tokens = '{a: b}' is not allowed",
    ),
    "negative shares": ("0-dataset.json", '{"0": {"input_tokens": "{5: -1}"}}', "shares from 0"),
    "no share": ("0-dataset.json", '{"0": {"input_tokens": "{5: 0}"}}', "shares from 0"),
    "broken JSON": ("0-dataset.json", '{"0": ', "chunk-0-dataset.json: line 1, column .*: not valid JSON"),
    "a pointer to a large file": ("0-dataset.json", "version https://git-lfs.github.com/spec/v1\n", "not valid JSON"),
}


@pytest.mark.parametrize("name, text, words", SERVEGEN_WRONG.values(), ids=SERVEGEN_WRONG)
def test_servegen_s_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    folder = files.servegen(tmp_path / "clients")
    (folder / f"chunk-{name}").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_trace(folder)


def test_a_client_without_its_lengths_is_named(tmp_path: Path) -> None:
    folder = files.servegen(tmp_path / "clients")
    (folder / "chunk-0-dataset.json").unlink()
    with pytest.raises(ConfigError, match="chunk-0-dataset.json: cannot be read"):
        read_trace(folder)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"requests": 0}, "requests = 0 is not allowed"),
        ({"requests": 1.5}, "requests = 1.5 is not allowed"),
        ({"start_s": -1}, "start_s = -1 is not allowed"),
        ({"seconds": float("nan")}, "seconds = nan is not allowed"),
        ({"seconds": 0.0}, "holds no request to simulate from 0 s to 0 s, of 3 in all"),
        ({"start_s": 1e9}, "from 1,000,000,000 s, of 3 in all"),
        ({"adapter": "tenant"}, "column tenant is missing"),
        ({"adapter": 3}, "adapter = 3 is not allowed"),
        ({"prefixes": 1}, "prefixes = 1 is not allowed"),
        ({"block_tokens": 0}, "block_tokens = 0 is not allowed"),
        ({"seed": "x"}, "seed = 'x' is not allowed"),
        ({"run": 0}, "run = 0 is not allowed"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(files.PLAIN)
    with pytest.raises(ConfigError, match=words):
        read_trace(path, **options)


@pytest.mark.parametrize("name", ["mooncake.jsonl", "sim.jsonl", "vllm.json", "aiperf.jsonl", "vidur.csv"])
def test_an_adapter_that_no_request_names_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(files.TEXTS[name])
    with pytest.raises(ConfigError, match="tenant"):
        read_trace(path, adapter="tenant")
    with pytest.raises(ConfigError, match="tenant"):
        read_trace(files.servegen(tmp_path / "clients"), adapter="tenant")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(files.lines(files.SGLANG, files.SGLANG))
    with pytest.raises(ConfigError, match="run = 3 is not allowed; the file holds 2"):
        read_trace(path, run=3)
