"""``stg-tune completion``: what the shell needs to complete commands, options and names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.tree import arguments as arguments_of
from stg_tune.cli.tree import options, walk

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from stg_tune.cli.tree import Command

BASH = """# stg-tune completion for bash. Put into ~/.bashrc:  eval "$(stg-tune completion bash)"
_stg_tune() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" path="" each choices=""
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $each" in
{deeper}
        esac
    done
    case "$path:$before" in
{values}
        *) case "$path" in
{words}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}}
complete -o default -o bashdefault -F _stg_tune stg-tune
"""
ZSH = """# stg-tune completion for zsh. Put into ~/.zshrc:  eval "$(stg-tune completion zsh)"
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""
FISH = """# stg-tune completion for fish. Type once:
#   stg-tune completion fish > ~/.config/fish/completions/stg-tune.fish
"""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("completion", help="print what a shell needs to complete commands and names")
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from stg_tune.cli.main import parser

    tree = list(walk(parser()))
    sys.stdout.write(
        fish(tree) if arguments.shell == "fish" else (ZSH if arguments.shell == "zsh" else "") + bash(tree)
    )
    return 0


def bash(tree: Sequence[Command]) -> str:
    """A function that follows the words to the command, then offers its actions, options or values."""
    deeper = [
        f'            "{_joined(command.path[:-1])} {name}") path="{_joined(command.path)}" ;;'
        for command in tree
        for name in (command.path[-1], *command.aliases)
    ]
    values = [
        f'        "{_joined(command.path)}:{option}") choices="{" ".join(known)}" ;;'
        for command in tree
        for option, known in _values(command)
    ]
    words = [f'            "{path}") choices="{" ".join(known)}" ;;' for path, known in _words(tree)]
    return BASH.format(deeper="\n".join(deeper), values="\n".join(values), words="\n".join(words))


def fish(tree: Sequence[Command]) -> str:
    """One line a command, an option, and an option's values."""
    lines = []
    for command in tree:
        seen = " ".join(command.path[:-1])
        where = f"__fish_seen_subcommand_from {seen}" if seen else "__fish_use_subcommand"
        lines += [
            f"complete -c stg-tune -f -n '{where}' -a {name} -d {_quoted(command.help)}"
            for name in (command.path[-1], *command.aliases)
        ]
        inside = " ".join((command.path[-1], *command.aliases))
        known = dict(_values(command))
        for option in options(command.parser):
            choices = f" -x -a {_quoted(' '.join(known[option]))}" if option in known else ""
            name = option.removeprefix("--")
            lines.append(f"complete -c stg-tune -n '__fish_seen_subcommand_from {inside}' -l {name}{choices}")
    return FISH + "\n".join(lines) + "\n"


def _words(tree: Sequence[Command]) -> Iterator[tuple[str, list[str]]]:
    yield "", [command.path[0] for command in tree if len(command.path) == 1] + ["--help", "--version"]
    for command in tree:
        actions = [other.path[-1] for other in tree if other.path[:-1] == command.path]
        places = [name for action in arguments_of(command.parser) for name in _place_names(action)]
        yield _joined(command.path), [*actions, *places, *options(command.parser)]


def _place_names(action: argparse.Action) -> list[str]:
    if action.option_strings:
        return []
    if action.metavar == "NAME" and action.dest == "name":
        return models.names()
    return [str(choice) for choice in action.choices or ()]


def _values(command: Command) -> Iterator[tuple[str, list[str]]]:
    """Option -> what it can be given, where that is known."""
    for action in arguments_of(command.parser):
        known = [str(choice) for choice in action.choices or ()] or _names(action.dest)
        for option in action.option_strings:
            if known and action.nargs != 0:
                yield option, known


def _names(dest: str) -> list[str]:
    if dest == "model":
        return models.names()
    if dest in ("to", "source"):
        from stg_tune.export import target_names

        return target_names()
    if dest == "budget":
        return ["small", "medium", "large"]
    if dest == "suite":
        from stg_tune.evaluate.suites import SUITES

        return [suite.name for suite in SUITES]
    return []


def _joined(path: Sequence[str]) -> str:
    return "/".join(path)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
