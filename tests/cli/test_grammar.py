"""One grammar for all commands: ranges, units, adapters, degrees, prices, small and capital letters."""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from pathlib import Path

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.cli.commands import parser
from graphsim.cli.options import DEGREES
from graphsim.cli.outputs import OutFile, OutFolder
from graphsim.cli.parsing import subparsers
from graphsim.cli.several import WORD, Listed, Names, Prices, Settings, Several
from graphsim.cli.values import Quantity, Whole
from graphsim.errors import nearest
from tests.command import status_of

COMMANDS = subparsers(parser())
OPTIONS = [
    (command, action)
    for command, one in COMMANDS.items()
    for action in one._actions
    if action.option_strings and action.nargs != 0
]
NAMED = pytest.mark.parametrize(
    ("command", "action"), OPTIONS, ids=[f"{command} {action.option_strings[-1]}" for command, action in OPTIONS]
)
UNITS = {
    "s": ("30ms", 0.03), "h": ("2d", 48), "bytes": ("40GiB", 40 * 2**30), "bytes/s": ("2GB/s", 2e9),
    "1/s": ("120/min", 2), "count": ("8k", 8000), "few": ("8k", 8000), "share": ("90%", 0.9), "": ("2.5", 2.5),
}  # fmt: skip
"""A text with a unit for each kind of quantity, and the number that it is."""

ADAPTERS = ("run", "lora", "fit", "sweep", "best", "serve", "fleet", "explain", "explore", "export", "sensitivity",
            "train")  # fmt: skip


def option(command: str, name: str) -> argparse.Action:
    return COMMANDS[command]._option_string_actions[name]


@NAMED
def test_several_numbers_may_be_a_range(command: str, action: argparse.Action) -> None:
    """Whatever says that it takes numbers between commas."""
    if not re.match(r"[NR],", str(action.metavar)):
        return
    assert callable(action.type)
    found = action.type("1-3,8..16*2,1:17:8")
    numbers = [int(part) for part in found.split("/")] if isinstance(found, str) else found
    assert numbers == [1, 2, 3, 8, 16, 9, 17]


@NAMED
def test_a_number_with_a_unit_takes_it(command: str, action: argparse.Action) -> None:
    words = f"{action.help}".lower()
    told = re.search(r"\b(seconds|hours?|at which checkpoints|so long|sound)\b|per second", words)
    if action.metavar == "GOAL":
        return
    if isinstance(action.type, Quantity):
        text, expected = UNITS[action.type.kind]
        assert action.type(text) == pytest.approx(expected)
    elif isinstance(action.type, Settings):
        for key, (field, kind) in action.type.keys.items():
            text, expected = UNITS.get(kind, ("Word", "word"))
            assert action.type(f"{key.upper()}={text}") == {
                field: pytest.approx(expected) if kind != WORD else expected
            }
    elif told and not isinstance(action.type, Whole | Several) and action.type is None:
        assert action.dest in ("price",), f"{command} --{action.dest} is a number with a unit and takes a text"


@NAMED
def test_numbers_have_a_type_of_the_grammar(command: str, action: argparse.Action) -> None:
    """Python's own int and float would know neither units nor sentences."""
    assert action.type not in (int, float)
    if action.metavar in ("N", "S", "H", "X", "TIME", "B") and action.dest not in ("input", "output", "schedule"):
        known = (Quantity, Whole, Several, Prices)
        assert isinstance(action.type, known) or action.dest in ("strategy", "sharding"), f"{command} {action.dest}"


@NAMED
def test_what_cannot_be_read_is_one_sentence(
    command: str, action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    if action.type is None or isinstance(action.type, Names):
        return
    words = [command, action.option_strings[-1], "" if isinstance(action.type, OutFile | OutFolder) else "1x!,?=,"]
    with pytest.raises(SystemExit) as stop:
        parser().parse_known_args(words)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and action.option_strings[-1] in err, err


@NAMED
def test_degrees_are_spelt_and_explained_alike(command: str, action: argparse.Action) -> None:
    if action.dest in DEGREES:
        assert action.option_strings == [f"--{action.dest}"]
        first = {"tp": "tensor parallel degree", "pp": "pipeline stages", "ep": "expert parallel degree"}
        assert str(action.help).startswith(first.get(action.dest, "")), f"{command} --{action.dest}"
        assert action.type != Quantity("count"), "8k is no example of a degree"


@pytest.mark.parametrize("command", ADAPTERS)
def test_every_command_with_adapters_has_the_same_option(command: str) -> None:
    action = option(command, "--lora")
    assert action.metavar == "SPEC" and action.type is None


def test_every_command_takes_every_degree_of_inference() -> None:
    for command in ("run", "lora", "fit", "sweep", "best", "serve", "explain", "explore", "export", "sensitivity"):
        for name in DEGREES:
            assert option(command, f"--{name}")
    assert {"--cp", "--zero", "--dp", "--tp", "--pp", "--ep", "--sp"} <= set(COMMANDS["train"]._option_string_actions)


def test_devices_may_stand_apart_or_between_commas() -> None:
    for words in (["l4", "h100-sxm"], ["l4,h100-sxm"]):
        for command in ("sweep", "best"):
            found = parser().parse_args([command, "gpt-2", "--hardware", *words])
            assert found.hardware == ["l4", "h100-sxm"] and found.models == ["gpt-2"]
            assert isinstance(option(command, "--hardware"), Listed)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> object:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two PEFT adapters alike but for their rank, and one of other modules."""
    for name, rank, modules in (("a", 8, ["c_attn"]), ("b", 16, ["c_attn"]), ("c", 8, ["c_fc"])):
        (tmp_path / name).mkdir()
        data = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": modules}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "d.yaml").write_text("rank: 8\ntarget_modules: [c_attn]\n", encoding="utf-8")
    return [str(tmp_path / name) for name in ("a", "b", "c", "d.yaml")]


FORMS = {
    "run": ["gpt-2", "--hardware", "l4"],
    "sweep": ["gpt-2", "--hardware", "l4"],
    "best": ["gpt-2", "--hardware", "l4"],
    "explain": ["gpt-2", "--hardware", "l4"],
    "sensitivity": ["gpt-2", "--hardware", "l4"],
    "fit": ["gpt-2", "--hardware", "l4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", FORMS)
def test_an_adapter_means_the_same_in_every_form(
    command: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spelt = [
        "rank=8,targets=c_attn",
        "Rank=8,Target_Modules=c_attn,Strategy=Dynamic,dtype=BF16",
        folders[0],
        folders[3],
    ]
    answers = [told(capsys, command, *FORMS[command], "--lora", text) for text in spelt]
    numbers = [
        re.sub(r'"(lora|targets|target_modules|alpha)": [^\n]*', "", json.dumps(one, indent=1)) for one in answers
    ]
    if command == "run":  # the settings of an estimate hold all fields of its adapter
        numbers = [str({key: one[key] for key in ("ttft_s", "tpot_s", "memory")}) for one in answers]  # type: ignore[index]
    assert len(set(numbers)) == 1
    without = told(capsys, command, *FORMS[command])
    assert without != answers[0]


@pytest.mark.slow
def test_several_folders_are_adapters_of_one_batch(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "gpt-2", "--hardware", "l4", "--batch", "4"]
    both = told(capsys, *words, "--lora", f"{folders[0]},{folders[1]},max_loras=4")
    spelt = told(capsys, *words, "--lora", "targets=c_attn,mixed_ranks=8+16,adapters=2,max_loras=4")
    assert isinstance(both, dict) and isinstance(spelt, dict)
    assert both["tpot_s"] == spelt["tpot_s"] and both["memory"] == spelt["memory"]
    assert main([*words, "--lora", f"{folders[0]},{folders[2]}"]) == 2
    err = capsys.readouterr().err
    assert "differ in target_modules" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_of_adapters_is_what_each_of_them_gives(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "gpt-2", "--hardware", "l4", "--batch", "1-2"]
    rows = told(capsys, *words, "--lora", "none", folders[0], "rank=8,targets=c_fc,variant=dora")
    assert isinstance(rows, list) and len(rows) == 6
    assert [row["strategy"] for row in rows] == ["base"] * 2 + ["dynamic"] * 4
    dora = gs.LoraConfig(rank=8, target_modules=["c_fc"], variant="dora")
    for row, lora in zip(rows, [None, None, *[gs.LoraConfig.from_peft(folders[0])] * 2, dora, dora], strict=True):
        try:
            expected = gs.simulate("gpt-2", "l4", row["batch"], lora=lora, engine="vllm").tpot_s
        except gs.InfeasibleError as error:
            assert row["reason"] == str(error) and row["tpot_s"] is None
            continue
        assert row["tpot_s"] == pytest.approx(expected, rel=1e-4)
    changed = told(capsys, *words, "--lora", folders[0], "--rank", "8..32*2")
    assert isinstance(changed, list) and [row["rank"] for row in changed] == [8, 16, 32] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("run GPT-2 --hardware L4 --engine VLLM --precision FP8,KV=FP8 --cost Roofline", "run gpt-2 --hardware l4 "
         "--engine vllm --precision fp8,kv=fp8 --cost roofline"),
        ("sweep GPT-2 --hardware L4 --strategy Base,MERGE --engine VLLM --precision BF16",
         "sweep gpt-2 --hardware l4 --strategy base,merge --engine vllm --precision bf16"),
        ("best gpt-2 --hardware L4 --goal TTFT --expert-placement Random",
         "best gpt-2 --hardware l4 --goal ttft --expert-placement random"),
        ("train GPT-2 --hardware L4 --method LoRA --recipe PEFT --recompute Full --sharding FSDP2 --schedule GPipe "
         "--optimizer AdamW --no-advice", "train gpt-2 --hardware l4 --method lora --recipe peft --recompute full "
         "--sharding fsdp2 --schedule gpipe --optimizer adamw --no-advice"),
        ("serve GPT-2 --hardware L4 --rate 4 --requests 9 --adapters 2 --popularity ZIPF:1.2 --strategy Merged:FCFS "
         "--router Round-Robin --no-advice", "serve gpt-2 --hardware l4 --rate 4 --requests 9 --adapters 2 "
         "--popularity zipf:1.2 --strategy merged:fcfs --router round-robin --no-advice"),
    ],
)  # fmt: skip
def test_small_and_capital_letters_are_one(words: str, same: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked, expected = (json.dumps(told(capsys, *text.split())) for text in (words, same))
    assert asked.lower() == expected.lower()


def test_choices_and_commands_come_in_any_case() -> None:
    found = parser().parse_args(["EXPORT", "gpt-2", "--hardware", "l4", "--phase", "Decode", "--to", "x.csv"])
    assert found.command == "export" and found.phase == "decode"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("best gpt-2 --hardware l4 --goal cost_per_token", "needs --price: one number, or one for each device, HW=X"),
        ("best gpt-2 --hardware l4 --goal cost_per_token --price h100=2", "--price names 'h100"),
        ("best gpt-2 --hardware l4 --price l4=-2", "--price of 'l4' = -2.0 is not allowed"),
        ("train gpt-2 --hardware l4 --tokens 1e9 --price h100=2", "--price has no price for 'l4'"),
        ("train gpt-2 --hardware l4 --vary batch=1,2 --goal cost --tokens 1B", "needs --price"),
        ("run gpt-2 --hardware l4 --batch 1-8", "'1-8' holds several values, but one is expected; `graphsim sweep`"),
        ("run gpt-2 --hardware l4 --batch 1,8", "'1,8' holds several values, but one is expected"),
        ("best gpt-2 --hardware l4 --tpot 30mm", "'30mm' is not a time; write 0.5, 500ms or 2min"),
        ("run gpt-2 --hardware l4 --cp two", "argument --cp: 'two' is not a number; write 1, 2 or 8; see"),
        ("train gpt-2 --hardware l4 --zero x", "argument --zero: 'x' is not a number; write 1, 2 or 8; see"),
        ("run gpt-2 --hardware l4 --lora rank=x", "--lora: rank = 'x' is not a number; write 1, 2 or 8"),
        ("run gpt-2 --hardware l4 --lora rank=8,share=x", "share = 'x' is not a share; write 0.99 or 99%"),
        ("run gpt-2 --hardware l4 --lora rank=8,shares=x+y", "shares = 'x' is not a share; write 0.99 or 99%"),
        ("serve gpt-2 --hardware l4 --rate 4 --sessions turns=x", "turns = 'x' is not a number; write 1, 2 or 8"),
        ("serve gpt-2 --hardware l4 --rate 2:ten", "'ten' is not a time"),
        ("serve gpt-2 --hardware l4 --rate 4 --slo ttft=soon", "ttft = 'soon' is not a time"),
        ("sweep gpt-2 --hardware l4 --batch 8-1", "'8-1' runs from 8 down to 1"),
        ("fleet gpt-2 --hardware l4 --rate 4 --slo ttft=1 --replicas 0-4", "expected whole numbers from 1"),
    ],
)
def test_mistakes_name_the_option(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = status_of(words.split())
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and said in err and err.count("\n") == 1, err
    assert "price_per_hour" not in err


@pytest.mark.slow
def test_limits_mean_the_same_with_and_without_units(capsys: pytest.CaptureFixture[str]) -> None:
    best = ["best", "gpt-2", "--hardware", "l4", "--batch", "1,8,64"]
    assert told(capsys, *best, "--tpot", "2ms") == told(capsys, *best, "--tpot", "0.002")
    serve = ["serve", "gpt-2", "--hardware", "l4", "--rate", "4", "--requests", "20", "--no-advice"]
    assert told(capsys, *serve, "--slo", "ttft=500ms,tpot=50ms") == told(capsys, *serve, "--slo", "ttft=0.5,tpot=0.05")


def test_suggestions_are_near_in_spelling() -> None:
    names = [*gs.list_models(), *gs.list_hardware(), *gs.list_engines(), "bf16", "fp8", "int4", "dynamic", "merge"]
    for command in COMMANDS.values():
        names += command._option_string_actions
    draw = random.Random(26)
    nonsense = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(5, 12))) for _ in range(400)]
    suggested = {word: near for word in [*nonsense, "zzz", "???", "", "banana"] if (near := nearest(word, names))}
    assert len(suggested) <= 4, suggested
    for name in names:
        if len(name.lstrip("-")) < 4:
            continue
        swapped = name[:-2] + name[-1] + name[-2]
        assert swapped == name or nearest(swapped, names) in (name, swapped) or nearest(swapped, [name]) == name


BASE = {
    "serve": "--rate 8 --requests 5 --input 8 --output 4 --no-advice",
    "fleet": "--rate 8 --requests 5 --input 8 --output 4 --slo ttft=1",
    "train": "--method full --no-advice",
    "explore": "--degrees 1 --out page.html",
    "export": "--to graph.json",
}


@pytest.mark.parametrize("command", [name for name in ADAPTERS if name != "lora"])
def test_no_adapter_is_the_base_model_in_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (command, "gpt-2", "--hardware", "l4", *BASE.get(command, "").split())
    plain = told(capsys, *words)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    none = told(capsys, *words, "--lora", "NONE")
    if command in ("sweep", "best"):  # where `lora` is then a column
        none = json.loads(re.sub(r'\s*"lora": "none",', "", json.dumps(none)))
    assert none == plain
    assert left == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_without_an_adapter_only_the_base_model_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("lora", "gpt-2", "--hardware", "l4")
    base = told(capsys, *words, "--lora", "none")["strategies"]  # type: ignore[index]
    assert [*base] == ["base"] and base["base"] == told(capsys, *words)["strategies"]["base"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "said"),
    [("train gpt-2 --hardware l4 --lora none", "method 'lora' trains an adapter; give --method full or pretrain"),
     ("lora gpt-2 --hardware l4 --lora none --modules", "--modules lists the modules of an adapter"),
     ("explain gpt-2 --hardware l4 --against lora=of", "lora = 'of' is not allowed; expected none")],
)  # fmt: skip
def test_where_an_adapter_is_needed_none_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(words.split()) == 2
    assert said in capsys.readouterr().err
