"""YAML files of other tools, read safely and with limits."""

from __future__ import annotations

from typing import Any

import yaml

from stg_tune.documents import MAX_DEPTH, nesting
from stg_tune.errors import StgTuneError

_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_yaml(text: str, what: str) -> dict[str, Any]:
    """A YAML mapping with texts as keys.

    Raises:
        StgTuneError: It is not that, has anchors, tags that build objects, duplicate keys, or is nested too deep.
    """
    try:
        _check_tokens(text, what)
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), what)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise StgTuneError(f"{what}{line}: not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    except ValueError as error:  # a date or number that YAML recognises and Python cannot build
        raise StgTuneError(f"{what}: not valid YAML: {str(error)[:80]}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise StgTuneError(f"{what}: named fields are expected, got {str(data)[:60]!r}")
    if nesting(data) > MAX_DEPTH:
        raise StgTuneError(f"{what}: nested more than {MAX_DEPTH} levels deep")
    return data


def _check_tokens(text: str, what: str) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
            raise StgTuneError(f"{what}, line {token.start_mark.line + 1}: anchors and aliases are not allowed here")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise StgTuneError(f"{what}, line {token.start_mark.line + 1}: nested more than {MAX_DEPTH} levels deep")


def _check_keys(node: Any, what: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                shown = str(key.value)[:60]
                raise StgTuneError(
                    f"{what}, line {key.start_mark.line + 1}: the field {shown!r} is given twice, or is no name"
                )
            seen.add(key.value)
            _check_keys(value, what)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, what)
