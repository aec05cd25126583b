"""An argument parser whose errors are one sentence that suggests the nearest valid name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from graphsim.errors import as_allowed, choices_text


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one sentence, misspelt options first.

    given: the words that were parsed last, for error messages
    hands_on: whether unknown options are passed through: they are stored in `handed_on` of the namespace, by name
        without dashes, with the word that follows them or None
    """

    given: Sequence[str] = ()
    hands_on: bool = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Parse as usual; the words are kept for error messages."""
        self.given = list(args or ())
        if not self.hands_on:
            return super().parse_known_args(args, namespace)
        own, others = self._apart(self.given)
        found, extras = super().parse_known_args(own, namespace)
        found.handed_on = others
        return found, extras

    def _apart(self, words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
        """This parser's own words, and the unknown options with their values."""
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
        """Print an error as one sentence and exit with status 2."""
        self.exit(2, f"{self.prog}: {self._misspelt() or message}; see {self.prog} --help\n")

    def _misspelt(self) -> str:
        """A message on the first unknown option with the nearest known one; "" if there is none."""
        known = list(self._option_string_actions)
        for word in self.given:
            option = word.partition("=")[0]
            if option.startswith("--") and len(option) > 2 and option not in known:
                return (
                    f"'{option}' is not an option; {choices_text(option, (name for name in known if name[:2] == '--'))}"
                )
        return ""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Convert as usual; choices are compared without regard to case."""
        found = super()._get_value(action, arg_string)
        return found if action.choices is None else as_allowed(found, action.choices)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"'{value}' is not known; {choices_text(value, action.choices)}")


def _is_value(option: str, word: str) -> bool:
    """Whether a word is the value of the unknown option before it; switches only take true or false."""
    if option.startswith(("--no-", "--enable-", "--disable-")):
        return word.lower() in ("true", "false")
    return not word.startswith("--")


def complain_of(parser: Parser, command: str | None, extras: Sequence[str]) -> NoReturn:
    """Exit with an error on words that the command, or the program itself, does not accept."""
    chosen = subparsers(parser)[command] if command else parser
    chosen.given = list(extras)
    several = all(word.replace(".", "", 1).isdigit() for word in extras)
    hint = "; several values of an option are joined by commas, as in 1,8,64" if several else ""
    chosen.error(f"unrecognized arguments: {' '.join(extras)}{hint}")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parsers of a parser's commands, by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
