"""Where the stacks of a family lie in other tools (standard library only)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.models.families import FAMILIES

if TYPE_CHECKING:
    from stg_tune.export.base import Journal
    from stg_tune.models.base import Stack
    from stg_tune.preset import Preset
    from stg_tune.records import SkipTerm

STACKS: dict[str, tuple[Stack, ...]] = {record.family: record.stacks for record in FAMILIES}
"""Family -> its stacks in diffusers."""

COMFYUI: dict[str, dict[str, str]] = {
    "mochi": {"blocks": "double_layers"},
    "wan": {"blocks": "double_layers"},
    "ltx": {"blocks": "double_layers"},
    "sd3": {"blocks": "double_layers"},
    "hunyuan-video": {"double": "double_layers", "single": "single_layers"},
}
"""Family -> stack -> input of ComfyUI's skip-layer nodes."""


def fqn(family: str, stack: str, journal: Journal) -> str:
    """Dotted path of a stack inside the diffusers model."""
    known = {item.name: item.path for item in STACKS.get(family, ())}
    path = known.get(stack, "")
    if not path or "*" in path:
        journal.refuse(f"the blocks {stack!r} of {family} are no list of blocks that diffusers can name")
    return path


def stack_at(path: str, preset: Preset) -> str | None:
    """Name of the stack at a path inside the diffusers model."""
    return next((item.name for item in STACKS.get(preset.family, ()) if item.path == path), None)


def only_stack(term: SkipTerm, journal: Journal, allowed: tuple[str, ...]) -> tuple[int, ...]:
    """The layers of a term of which the tool knows one stack."""
    strange = [stack for stack in term.skip_layers if stack not in allowed]
    if strange:
        journal.refuse(f"it skips {' or '.join(allowed)} only, not {', '.join(strange)}")
    return next(iter(term.skip_layers.values()))


def need_family(preset: Preset, journal: Journal, families: tuple[str, ...]) -> None:
    """The tool must be able to skip layers of this family."""
    if preset.family not in families:
        journal.refuse(f"it is for {', '.join(families)}, not for {preset.family}")
