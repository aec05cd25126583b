"""Plain English: words that made readers stumble are not used again."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
AVOIDED = {
    r"anew": "again",
    r"sooner|soon(?! as)": "earlier, faster",
    r"hangs? on|hanging on": "depends on",
    r"lenders?|lends?|lent|lending": "reference device, borrowed",
    r"byte[- ]movers?|byte[- ]moving": "memory-bound",
    r"gone on with|go on with": "resumed, continue with",
    r"as they come": "in order of appearance, unchanged",
    r"in the place of": "in place of, instead of",
    r"but for": "except for, up to",
    r"with less ado": "faster",
    r"work(?:s|ed)? out": "compute",
    r"at hand": "current, available",
    r"what else(?! \d)": "further",
    r"whoever": "say who",
    r"nobody (?:measured|recorded|knows|says|asked)": "was not measured, unknown",
    r"what it leaves|by whose it is": "say what is meant",
    r"matrix products?|grouped products?|batched products?": "GEMM",
    r"dealt out": "distributed, assigned",
    r"in the mean": "on average",
    r"a row a": "one row per",
    r"steps? of generation": "decode step",
    r"to beware of": "caveats",
    r"(?:servers|workers|replicas) alike": "identical",
    r"somebody|anybody": "say who",
    r"all the same": "nevertheless",
    r"upon|hence|ought|shall|likewise,": "on, so, should, also",
    r"thereof|therein|whereof|wherein|thereupon|apiece": "of it, in it, each",
    r"looked at": "examined, checked",
    r"so many(?! (?:that|as))": "that many",
    r"hands? on|handed on": "passes on, passed on",
    r"is no (?:whole|list|mapping|multiple|number|distribution|regular)": "is not a",
    r"be it by": "or only by",
    r"whose it is": "say what is meant",
    r"nothing but": "only",
    r"in vain|as it were|to be had": "say it plainly",
    r"lies? beside": "is next to",
    r"things? costs? of which": "turn the sentence round",
}
"""Words not to be used, as regular expressions, and what to write instead."""
ALLOWED = {
    "graphsim/models/capture/": r"(matrix|grouped|batched) products?",  # PyTorch's mm, _grouped_mm and bmm
    "README.md": "nobody measured",
}
"""What stays allowed, by the path of a file or folder."""
FILES = sorted([*ROOT.glob("graphsim/**/*.py"), *ROOT.glob("graphsim/**/*.md"), ROOT / "README.md"])


ANY = re.compile(rf"(?<!\.)\b(?:{'|'.join(AVOIDED)})(?![\w=(-])".replace(" ", r"\s+"))


def _hits(text: str) -> list[tuple[str, str, str]]:
    """The word, its surroundings and what to write instead, of each word in a text that is avoided."""
    found = []
    for hit in ANY.finditer(text.lower()):
        word = " ".join(hit[0].split())
        where = " ".join(text[max(0, hit.start() - 40) : hit.end() + 40].split())
        found.append((word, where, next(new for old, new in AVOIDED.items() if re.match(old, word))))
    return found


def _is_allowed(path: str, word: str) -> bool:
    return any(path.startswith(place) and re.fullmatch(words, word) for place, words in ALLOWED.items())


def test_words_that_readers_stumble_over_are_not_used() -> None:
    found = [
        f"{name}: '{word}' in '…{where}…'; write: {instead}"
        for name, path in ((path.relative_to(ROOT).as_posix(), path) for path in FILES)
        for word, where, instead in _hits(path.read_text(encoding="utf-8"))
        if not _is_allowed(name, word)
    ]
    assert not found, "\n".join(found)


def test_a_word_is_seen_across_a_line_break_and_not_within_another() -> None:
    text = "It hangs\n    on this. Silent talent, as soon as it can."
    assert [word for word, _, _ in _hits(text)] == ["hangs on"]
