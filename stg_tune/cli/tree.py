"""The command line as a tree of parsers, for everything that is made from it: examples, completion, reference."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from stg_tune.cli.examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(NamedTuple):
    """One command, or one action of a command."""

    path: tuple[str, ...]
    """``("presets", "show")``."""
    help: str
    """What it does, in one line."""
    aliases: tuple[str, ...]
    """Other names of it."""
    parser: argparse.ArgumentParser


class Parser(argparse.ArgumentParser):
    """Says what a misspelt command, action or option may have meant."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit with status 2."""
        super().error(f"{message}{self._hint(message)}")

    def _hint(self, message: str) -> str:
        _, found, rest = message.partition("invalid choice: ")
        if found:
            wrong = rest.split(" (choose from", maxsplit=1)[0].strip("'\"")
            known = [name for action in self._actions if action.choices for name in action.choices]
        else:
            unknown = message.partition("unrecognized arguments: ")[2].split()
            wrong = next((word.partition("=")[0] for word in unknown if word.startswith("--")), "")
            known = sorted({option for command in walk(self) for option in options(command.parser)})
        close = get_close_matches(wrong, map(str, known), n=3)
        return f"; did you mean {' or '.join(close)}?" if close else ""


def walk(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """Every command, its actions after it, in the order of ``--help``."""
    for group in parser._actions:
        if not isinstance(group, argparse._SubParsersAction):
            continue
        helps = {item.dest: item.help or "" for item in group._choices_actions}
        names: dict[int, list[str]] = {}
        for name, each in group.choices.items():
            names.setdefault(id(each), []).append(name)
        for first, *aliases in names.values():
            child = group.choices[first]
            yield Command((*path, first), helps.get(first, ""), tuple(aliases), child)
            yield from walk(child, (*path, first))


def options(parser: argparse.ArgumentParser) -> list[str]:
    """The long options of a parser."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Everything a parser takes, ``--help`` and actions apart."""
    skipped = (argparse._SubParsersAction, argparse._HelpAction)
    return [action for action in parser._actions if not isinstance(action, skipped)]


def is_group(parser: argparse.ArgumentParser) -> bool:
    """Whether a command is there for its actions only."""
    return any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)


def explain(parser: argparse.ArgumentParser) -> None:
    """Give every command its one line and its examples in ``--help``."""
    for command in walk(parser):
        each = command.parser
        each.description = each.description or f"{command.help[:1].upper()}{command.help[1:]}."
        shown = EXAMPLES.get(" ".join(command.path), ())
        if shown:
            each.formatter_class = argparse.RawDescriptionHelpFormatter
            each.epilog = "\n".join(["examples:" if len(shown) > 1 else "example:", *(f"  {line}" for line in shown)])
