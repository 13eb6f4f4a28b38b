"""The command reference, made from the parsers: ``python -m stg_tune.cli.reference`` writes what has changed.

It makes ``docs/cli.md`` anew, and the blocks of ``README.md`` that show the help of a command.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stg_tune.cli.examples import EXAMPLES
from stg_tune.cli.output import say
from stg_tune.cli.tree import Command, arguments, is_group, walk

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

COLUMNS = "100"
"""Width of the help in README."""
HEAD = """# Command reference

Made from the program by `python -m stg_tune.cli.reference`; a test compares both.

Exit codes: 0 done; 1 something you can fix, said in one message; 2 wrong usage; 3 finished, no improvement found;
130 stopped by Ctrl-C, 143 by SIGTERM, everything finished is kept. Tables go to standard output, messages and progress
to standard error; `--json` prints data in place of a table. `NAME --help` prints what stands here.
"""
_BLOCK = re.compile(r"^\$ stg-tune (\w+) --help\n.*?(?=^```$)", flags=re.MULTILINE | re.DOTALL)


def reference(parser: argparse.ArgumentParser) -> str:
    """The page ``docs/cli.md``."""
    tree = list(walk(parser))
    rows = [f"| [`{name}`](#{'-'.join(c.path)}) | {c.help} |" for c in tree for name in [" ".join(c.path)]]
    index = "\n".join(["| command | what it does |", "|---|---|", *rows])
    return "\n".join([HEAD, index, "", *(line for command in tree for line in _section(command))])


def renewed(readme: str, parser: argparse.ArgumentParser) -> str:
    """README with the help of the commands that it shows."""
    found = {command.path[0]: command.parser for command in walk(parser) if len(command.path) == 1}

    def block(match: re.Match[str]) -> str:
        return f"$ stg-tune {match[1]} --help\n{found[match[1]].format_help().rstrip()}\n"

    return _BLOCK.sub(block, readme)


def main(root: Path) -> int:
    """Write both files below ``root``, the folder of the checkout."""
    from stg_tune.cli.main import parser

    os.environ["COLUMNS"] = COLUMNS
    readme, page = root / "README.md", root / "docs" / "cli.md"
    new = {page: reference(parser()), readme: renewed(readme.read_text(encoding="utf-8"), parser())}
    for file, text in new.items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            say(str(file))
    return 0


def _section(command: Command) -> Iterator[str]:
    name = " ".join(command.path)
    yield f"## {name}\n" if len(command.path) == 1 else f"### {name}\n"
    also = f" Also: {', '.join(f'`{alias}`' for alias in command.aliases)}." if command.aliases else ""
    yield f"{_sentence(command)}{also}\n"
    if not is_group(command.parser):
        yield f"```\n{' '.join(_usage(command))}\n```\n"
        rows = [f"| {_cell(_signature(item))} | {_cell(item.help or '')} |" for item in arguments(command.parser)]
        if rows:
            yield "\n".join(["| argument | meaning |", "|---|---|", *rows, ""])
        yield "\n".join(["```", *EXAMPLES.get(name, ()), "```", ""])


def _sentence(command: Command) -> str:
    return f"{command.help[:1].upper()}{command.help[1:]}."


def _usage(command: Command) -> Iterator[str]:
    """``stg-tune search --model M [options]``: what must be given."""
    yield f"stg-tune {' '.join(command.path)}"
    optional = False
    either = [group._group_actions for group in command.parser._mutually_exclusive_groups if group.required]
    for group in either:
        yield f"{{{', '.join(f'{item.option_strings[-1]} {_value(item)}' for item in group)}}}"
    for item in arguments(command.parser):
        if any(item in group for group in either):
            continue
        if item.option_strings and item.required:
            yield f"{item.option_strings[-1]} {_value(item)}"
        elif not item.option_strings:
            yield {"?": f"[{_value(item)}]", "*": f"[{_value(item)}...]", "+": f"{_value(item)}..."}.get(
                str(item.nargs), _value(item)
            )
        else:
            optional = True
    if optional:
        yield "[options]"


def _signature(item: argparse.Action) -> str:
    if not item.option_strings:
        return f"`{_value(item)}`"
    return f"`{', '.join(item.option_strings)}{'' if item.nargs == 0 else f' {_value(item)}'}`"


def _value(item: argparse.Action) -> str:
    if item.choices:
        return "{" + ",".join(map(str, item.choices)) + "}"
    return str(item.metavar or item.dest.upper())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("%%", "%")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
