"""Files of facts that are none: one sentence each, whichever command reads them."""

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.facts import read_facts

KINDS = ["kernels", "held-out", "unmeasured", "structure", "e2e", "lora", "slots", "lifecycle", "published", "traces"]


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("text", ["# A page\n\na, b\nc, d, e, f\n", "a,b\n1,2\n", "", "\x00\x01\n"])
def test_a_file_that_is_no_table_of_facts_is_one_sentence(what, text, tmp_path, capsys):
    file = tmp_path / "facts.csv"
    file.write_text(text)
    assert main(["validate", what, str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"graphsim: {file}: ") and error.count("\n") == 1


def test_what_is_missing_is_named_with_all_that_is_needed(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert read_facts(tmp_path / "x.csv", "facts", ["b", "a"])["b"].tolist() == [2]
    with pytest.raises(gs.ConfigError, match="x.csv: column c is missing; needed are a, c$"):
        read_facts(tmp_path / "x.csv", "facts", ["a", "c"])
