"""A parser whose complaints are one sentence, with the nearest name that would have done."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from graphsim.errors import as_allowed, choices_text


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; an option that was misspelt is named first.

    hands_on: whether options that it does not know belong to somebody else: they end up in `handed_on` of the
        namespace, by name without dashes, with the word behind them or None
    """

    given: Sequence[str] = ()
    hands_on: bool = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As usual; what was given is kept for the sentence."""
        self.given = list(args or ())
        if not self.hands_on:
            return super().parse_known_args(args, namespace)
        own, others = self._apart(self.given)
        found, extras = super().parse_known_args(own, namespace)
        found.handed_on = others
        return found, extras

    def _apart(self, words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
        """The words of this parser, and the options of somebody else's among them."""
        own: list[str] = []
        others: dict[str, str | None] = {}
        at = 0
        while at < len(words):
            word, value = words[at], None
            name, joined, text = word.partition("=")
            at += 1
            if not name.startswith("--") or len(name) < 3 or name in self._option_string_actions:
                own.append(word)
                continue
            if joined:
                value = text
            elif at < len(words) and _is_value(name, words[at]):
                value, at = words[at], at + 1
            others[name.removeprefix("--")] = value
        return own, others

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {self._misspelt() or message}; see {self.prog} --help\n")

    def _misspelt(self) -> str:
        """The first option that there is none of, with what it may have meant; empty if there is no such."""
        known = list(self._option_string_actions)
        for word in self.given:
            option = word.partition("=")[0]
            if option.startswith("--") and len(option) > 2 and option not in known:
                return (
                    f"'{option}' is not an option; {choices_text(option, (name for name in known if name[:2] == '--'))}"
                )
        return ""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """As usual; where there are names to choose from, in small or capital letters."""
        found = super()._get_value(action, arg_string)
        return found if action.choices is None else as_allowed(found, action.choices)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"'{value}' is not known; {choices_text(value, action.choices)}")


def _is_value(option: str, word: str) -> bool:
    """Whether a word belongs to the option of somebody else's before it; switches take true or false only."""
    if option.startswith(("--no-", "--enable-", "--disable-")):
        return word.lower() in ("true", "false")
    return not word.startswith("--")


def complain_of(parser: Parser, command: str | None, extras: Sequence[str]) -> NoReturn:
    """Exit because of words that a command, or the program itself, has no place for."""
    chosen = subparsers(parser)[command] if command else parser
    chosen.given = list(extras)
    several = all(word.replace(".", "", 1).isdigit() for word in extras)
    hint = "; several values of an option are joined by commas, as in 1,8,64" if several else ""
    chosen.error(f"unrecognized arguments: {' '.join(extras)}{hint}")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The commands of a parser, by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
