"""Reads search-space files: safe YAML with limits, checked, with the line of what is wrong."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stg_tune.documents import MAX_DEPTH, find_problem, load_schema, read_limited
from stg_tune.errors import StgTuneError
from stg_tune.search.space import FieldError, SearchSpace, check_depths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

MAX_BYTES = 65_536
"""Larger files are refused unread."""

_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)

Lines = dict[str, int]
"""Dotted field -> line in the file, from 1."""


def space_names() -> list[str]:
    """Names of the search spaces that ship with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))


def load_space(name_or_path: str | Path, depths: Mapping[str, int] | None = None) -> SearchSpace:
    """Load a shipped space by name (``open-sora-tiny``) or a YAML file by path.

    Args:
        name_or_path: A name of ``space_names()`` or a path that ends in ``.yaml`` or ``.yml``.
        depths: Stack name -> number of blocks; given, the layers are checked against it.

    Raises:
        StgTuneError: Not there, not YAML, not a space, or out of range; names file, line, field and what is allowed.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return parse_space(read_limited(path, MAX_BYTES, "search space"), str(path), depths)
    if str(name_or_path) not in space_names():
        near = difflib.get_close_matches(str(name_or_path), space_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise StgTuneError(
            f"there is no search space {str(name_or_path)!r}; {hint}shipped: {', '.join(space_names())}; "
            "or give the path of a .yaml file"
        )
    file = _folder() / f"{name_or_path}.yaml"
    return parse_space(file.read_text(encoding="utf-8"), file.name, depths)


def parse_space(text: str, where: str, depths: Mapping[str, int] | None = None) -> SearchSpace:
    """Parse the YAML ``text`` of a space; ``where`` names it in errors. See ``load_space``."""
    data, lines = _parse(text, where)
    problem = find_problem(data, load_schema("stg_tune.search", "space.schema.json"))
    if problem is not None:
        raise StgTuneError(f"{_place(where, lines, problem.field)}: {problem.field}: {problem.message}")
    try:
        space = SearchSpace.from_dict(data)
        if depths is not None:
            check_depths(space, depths)
    except FieldError as error:
        raise StgTuneError(f"{_place(where, lines, error.field)}: {error}") from None
    return space


def _folder() -> Traversable:
    """``spaces`` inside the installed package, or ``search_spaces`` of the checkout."""
    packaged = resources.files("stg_tune.search").joinpath("spaces")
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).parents[2] / "search_spaces"
    if checkout.is_dir():
        return checkout
    raise StgTuneError(f"the search spaces are neither in the package nor in {checkout}; install stg-tune again")


def _place(where: str, lines: Lines, field: str) -> str:
    while field and field not in lines:
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return f"{where}, line {lines[field]}" if field else where


def _parse(text: str, where: str) -> tuple[Any, Lines]:
    try:
        _check_tokens(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: Lines = {}
        _walk(node, "", lines, where)
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise StgTuneError(f"{where}{line}: not valid YAML: {problem}") from None
    except ValueError as error:  # a date or number that YAML recognises and Python cannot build
        raise StgTuneError(f"{where}: not valid YAML: {error}") from None


def _check_tokens(text: str, where: str) -> None:
    """Refuse what would cost time or memory out of proportion before anything is built from it."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
            raise StgTuneError(f"{where}, line {line}: anchors and aliases are not allowed here")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise StgTuneError(f"{where}, line {line}: nested more than {MAX_DEPTH} levels deep")


def _walk(node: Any, field: str, lines: Lines, where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{field}.{key.value}".removeprefix(".")
            if inner in lines:
                raise StgTuneError(f"{where}, line {key.start_mark.line + 1}: the field {inner} is given twice")
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{field}[{index}]"] = value.start_mark.line + 1
            _walk(value, f"{field}[{index}]", lines, where)
