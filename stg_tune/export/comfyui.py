"""What the ComfyUI targets share: nodes in API format, links that the user connects, layers as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stg_tune.export.base import Journal
    from stg_tune.preset import Preset

Nodes = dict[str, dict[str, Any]]

MODEL, POSITIVE, NEGATIVE = ["MODEL", 0], ["POSITIVE", 0], ["NEGATIVE", 0]
"""Links to nodes of the user's workflow: to be replaced by the ids of his model and text nodes."""
PASTE = "a workflow in API format; replace the links MODEL, POSITIVE, NEGATIVE by your nodes"
BYPASS_NOTE = "attention that other nodes replace (SageAttention), and First-Block-Cache, can bypass it in silence"
SCHEDULE_NOTE = "the window is exact for {steps} steps of a schedule that is shift(linspace), such as simple"


def node(kind: str, inputs: Mapping[str, Any], title: str) -> dict[str, Any]:
    """One node."""
    return {"class_type": kind, "inputs": dict(inputs), "_meta": {"title": title}}


def with_cfg(skip: dict[str, Any], cfg_scale: float) -> str:
    """A node that patches the model, and the guider that runs it with CFG."""
    inputs = {"model": ["stg", 0], "positive": POSITIVE, "negative": NEGATIVE, "cfg": cfg_scale}
    return fields.pretty({"stg": skip, "guider": node("CFGGuider", inputs, "CFG")}) + "\n"


def nodes_of(text: str) -> Nodes:
    """The nodes of a workflow in API format."""
    data = fields.json_object(text, "workflow")
    broken = [name for name, item in data.items() if not _is_node(item)]
    if broken or not data:
        raise StgTuneError(
            f"workflow: {(broken or ['the file'])[0]!r} is no node of the API format (class_type, inputs): in "
            "ComfyUI use Workflow > Export (API)"
        )
    return data


def find(nodes: Nodes, kind: str) -> dict[str, Any]:
    """Inputs of the one node of a class."""
    found = [item["inputs"] for item in nodes.values() if item["class_type"] == kind]
    if len(found) != 1:
        raise StgTuneError(f"workflow: exactly one node {kind} is expected, found {len(found)}")
    inputs: dict[str, Any] = found[0]
    return inputs


def cfg_of(nodes: Nodes, preset: Preset, journal: Journal) -> float:
    """The CFG scale of the workflow's guider or sampler; else that of the preset it is read for."""
    found = {item["inputs"]["cfg"] for item in nodes.values() if _is_number(item["inputs"].get("cfg"))}
    if len(found) == 1:
        return fields.number({"cfg": found.pop()}, "cfg")
    journal.note(f"the workflow does not say one CFG scale; {preset.spec.cfg_scale:g} is taken from {preset.name}")
    return float(preset.spec.cfg_scale)


def note_window(bounds: tuple[float, float], preset: Preset, journal: Journal) -> None:
    """Percents are positions on the model's time axis, not steps."""
    if bounds != (0.0, 1.0):
        journal.note(SCHEDULE_NOTE.format(steps=preset.generation.num_inference_steps))


def _is_node(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("class_type"), str) and isinstance(item.get("inputs"), dict)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
