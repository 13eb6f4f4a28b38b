"""``LayerSkipConfig`` of diffusers: what its guiders skip, and where.

Read from diffusers 0.42.1, ``hooks/layer_skip.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.export import fields, layouts
from stg_tune.export.timeline import term_of

if TYPE_CHECKING:
    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset
    from stg_tune.records import SkipTerm

ATTENTION_OPS = ("attention", "attention_all", "attention_input")
"""Operations on the attention alone: diffusers fails on most models, for it does not know their processors."""

_FLAGS = {
    "residual": (True, False, True),
    "attention": (False, True, False),
    "attention_all": (False, True, False),
    "attention_input": (True, False, False),
    "feed_forward": (False, False, True),
}
"""Operation -> skip_attention, skip_attention_scores, skip_ff."""
_NO_FEED_FORWARD = {("hunyuan-video", "single")}
"""Blocks whose feed-forward diffusers does not find, and says nothing."""


def layer_configs(preset: Preset, term: SkipTerm, journal: Journal) -> list[dict[str, Any]]:
    """One configuration a stack, with the list of blocks named: ``auto`` picks one of several by chance."""
    if term.skip_op not in _FLAGS:
        journal.refuse(f"diffusers does {', '.join(_FLAGS)}, not {term.skip_op}")
    if term.skip_op == "attention" and _joint(preset):
        journal.refuse("diffusers passes the values of text tokens through too: that is the operation attention_all")
    return [_config(preset, stack, indices, term.skip_op, journal) for stack, indices in term.skip_layers.items()]


def read_term(configs: object, scale: float, branch: str, preset: Preset, journal: Journal) -> SkipTerm:
    """The term of a guider's configurations, a list or a single one."""
    entries = configs if isinstance(configs, list) else [configs]
    layers: dict[str, tuple[int, ...]] = {}
    ops = set()
    for entry in entries:
        if not isinstance(entry, dict):
            journal.refuse(f"a layer config must be an object, got {str(entry)[:60]!r}")
        if fields.number(entry, "dropout", 1.0) != 1:
            journal.refuse(f"dropout {entry['dropout']!r} skips at random: no preset says that")
        stack = _read_stack(fields.word(entry, "fqn", "auto"), preset, journal)
        layers[stack] = layers.get(stack, ()) + fields.indices(entry.get("indices"), "indices")
        ops.add(_read_op(entry, preset, journal))
    if len(ops) != 1:
        journal.refuse(f"one operation for all layers is expected, got {', '.join(sorted(ops)) or 'none'}")
    return term_of(layers, ops.pop(), scale, branch)


def _config(preset: Preset, stack: str, indices: tuple[int, ...], op: str, journal: Journal) -> dict[str, Any]:
    if op == "feed_forward" and (preset.family, stack) in _NO_FEED_FORWARD:
        journal.refuse(
            f"diffusers finds no feed-forward in the {stack} blocks of {preset.family}: nothing would happen"
        )
    attention, scores, feed_forward = _FLAGS[op]
    return {
        "indices": list(indices),
        "fqn": layouts.fqn(preset.family, stack, journal),
        "skip_attention": attention,
        "skip_attention_scores": scores,
        "skip_ff": feed_forward,
        "dropout": 1.0,
    }


def _joint(preset: Preset) -> bool:
    return any(stack.text != "none" for stack in layouts.STACKS.get(preset.family, ()))


def _read_stack(path: str, preset: Preset, journal: Journal) -> str:
    if path == "auto" and len(preset.stacks) == 1:
        return next(iter(preset.stacks))
    if path == "auto":
        journal.refuse("fqn auto picks one of several lists of blocks at random: name it")
    stack = layouts.stack_at(path, preset)
    if stack is None:
        journal.refuse(f"there are no blocks at fqn {path[:80]!r} in {preset.family}")
    return stack


def _read_op(entry: dict[str, Any], preset: Preset, journal: Journal) -> str:
    defaults = (("skip_attention", True), ("skip_attention_scores", False), ("skip_ff", True))
    found = tuple(fields.flag(entry, name, default=default) for name, default in defaults)
    ops = [op for op, flags in _FLAGS.items() if flags == found]
    if not ops:
        journal.refuse(f"skip_attention, skip_attention_scores, skip_ff = {found} is no operation of a preset")
    return ops[-1] if _joint(preset) else ops[0]
