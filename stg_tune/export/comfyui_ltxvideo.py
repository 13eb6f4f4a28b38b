"""ComfyUI-LTXVideo: an entry of ``stg_advanced_presets.json``, or the node STGGuiderAdvanced.

Read from Lightricks/ComfyUI-LTXVideo at aceeae9, ``stg.py``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stg_tune.errors import StgTuneError
from stg_tune.export import comfyui, fields, layouts, sigmas
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import check_space, note_whole_batch
from stg_tune.export.timeline import Span, spans, term_of, to_spec
from stg_tune.preset.file import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, SkipTerm

URL = "https://github.com/Lightricks/ComfyUI-LTXVideo"
FAMILIES = ("ltx",)
NO_SKIPPED_STEPS = 100.0
"""``skip_steps_sigma_threshold`` that no sigma reaches; above it the tool returns zeros."""
_LISTS = ("sigmas", "cfg_values", "stg_scale_values", "stg_rescale_values", "stg_layers_indices")


def write_preset(preset: Preset, journal: Journal) -> str:
    """A list with one object, as ``presets/stg_advanced_presets.json`` is a list of such objects."""
    return fields.pretty([{"name": preset.name, **_lists(preset, journal)}]) + "\n"


def read_preset(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """One object of the presets file, alone or in a list of one."""
    data = parse_json(text, "STG presets")
    entries = data if isinstance(data, list) else [data]
    if len(entries) != 1 or not isinstance(entries[0], dict):
        names = ", ".join(str(item.get("name"))[:40] for item in entries[:8] if isinstance(item, dict))
        raise StgTuneError(
            f"one STG preset is expected, the file holds {len(entries)} ({names}): cut out the one you want"
        )
    return _spec(entries[0], preset, journal)


def write_node(preset: Preset, journal: Journal) -> str:
    """STGGuiderAdvanced, whose lists are texts."""
    data = _lists(preset, journal)
    texts = {name: ", ".join(map(json.dumps, data[name])) for name in _LISTS}
    links = {"model": comfyui.MODEL, "positive": comfyui.POSITIVE, "negative": comfyui.NEGATIVE}
    made = comfyui.node("STGGuiderAdvanced", {**links, **data, **texts}, preset.name)
    return fields.pretty({"guider": made}) + "\n"


def read_node(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A workflow with one STGGuiderAdvanced, or with the simple pair of LTXVApplySTG and STGGuider."""
    nodes = comfyui.nodes_of(text)
    if any(item["class_type"] == "STGGuider" for item in nodes.values()):
        return _simple(nodes, preset, journal)
    inputs = comfyui.find(nodes, "STGGuiderAdvanced")
    if "preset" in inputs:
        journal.refuse("the node takes its lists from STGAdvancedPresets: import that entry of the presets file")
    if fields.flag(inputs, "apply_apg", default=False):
        journal.lose("APG is left out: a preset has none")
    lists = {name: parse_json(f"[{fields.word(inputs, name)}]", name) for name in _LISTS}
    return _spec({**inputs, **lists}, preset, journal)


def _simple(nodes: comfyui.Nodes, preset: Preset, journal: Journal) -> GuidanceSpec:
    """One setting for all steps."""
    layouts.need_family(preset, journal, FAMILIES)
    guider, patch = comfyui.find(nodes, "STGGuider"), comfyui.find(nodes, "LTXVApplySTG")
    numbers = [fields.number(guider, name, usual) for name, usual in (("cfg", 1.0), ("stg", 1.0), ("rescale", 0.7))]
    layers = fields.indices_text(patch.get("block_indices", "14, 19"), "block_indices")
    steps = preset.generation.num_inference_steps
    return to_spec([_at(_read_span((*numbers, list(layers))), 0, steps - 1)], steps)


def _lists(preset: Preset, journal: Journal) -> dict[str, Any]:
    layouts.need_family(preset, journal, FAMILIES)
    runs = spans(preset, journal)
    terms = [_term(span, journal) for span in runs]
    if any(span.rescale for span in runs):
        check_space(preset, journal, "x0")
        note_whole_batch(1.0, journal)
    if any(terms):
        journal.note(comfyui.BYPASS_NOTE)
    if len(runs) > 1:
        journal.note("the sigmas fit this preset's schedule and number of steps only")
    return {
        "skip_steps_sigma_threshold": NO_SKIPPED_STEPS,
        "cfg_star_rescale": False,
        "sigmas": sigmas.levels(preset, runs, journal, rule="least_above"),
        "cfg_values": [span.cfg_scale for span in runs],
        "stg_scale_values": [float(term.stg_scale) if term else 0.0 for term in terms],
        "stg_rescale_values": [span.rescale for span in runs],
        "stg_layers_indices": [list(layouts.only_stack(term, journal, ("blocks",))) if term else [] for term in terms],
    }


def _term(span: Span, journal: Journal) -> SkipTerm | None:
    terms = sorted(span.terms, key=lambda term: -abs(term.stg_scale))
    for term in terms[1:]:
        journal.lose(f"the term {term.name!r} in {span.steps} is left out: one weak prediction is possible")
    if terms and terms[0].branch != "cond":
        journal.refuse(f"its weak prediction sees the prompt; the branch {terms[0].branch} cannot be said")
    if terms and terms[0].skip_op not in ("attention", "attention_all"):
        journal.refuse(f"it does attention, not {terms[0].skip_op}: the same numbers would mean something else")
    return terms[0] if terms else None


def _spec(data: dict[str, Any], preset: Preset, journal: Journal) -> GuidanceSpec:
    layouts.need_family(preset, journal, FAMILIES)
    if fields.flag(data, "cfg_star_rescale", default=True):
        journal.lose("cfg_star_rescale (CFG-Zero*) is left out: a preset has none")
    lists = [_list(data, name) for name in _LISTS]
    if len({len(items) for items in lists}) != 1:
        raise StgTuneError(
            f"the lists {', '.join(_LISTS)} must have one length, they have {[len(items) for items in lists]}"
        )
    _check_zeros(fields.number(data, "skip_steps_sigma_threshold", 0.998), preset, journal)
    entries = [fields.number({"sigmas": item}, "sigmas") for item in lists[0]]
    rows = [_read_span(row) for row in zip(*lists[1:], strict=True)]
    steps = preset.generation.num_inference_steps
    if len(rows) == 1:
        return to_spec([_at(rows[0], 0, steps - 1)], steps)
    pick = sigmas.looked_up(entries, rule="least_above")
    chosen = [rows[pick(sigma)] for sigma in sigmas.known(preset, journal)]
    return to_spec([_at(span, step, step) for step, span in enumerate(chosen)], steps)


def _check_zeros(threshold: float, preset: Preset, journal: Journal) -> None:
    levels: Sequence[float] = preset.sigmas or (1.0,)
    count = sum(sigma > threshold for sigma in levels)
    if count:
        at_least = "" if preset.sigmas else "at least "
        journal.lose(
            f"{at_least}{count} of the first steps return zeros (sigma above {threshold:g}); a preset does not say that"
        )


def _list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list) or not value:
        raise StgTuneError(f"{name} must be a list with entries, got {str(value)[:60]!r}")
    return value


def _read_span(row: tuple[Any, ...]) -> Span:
    cfg, scale, rescale = (fields.number({name: value}, name) for name, value in zip(_LISTS[1:4], row[:3], strict=True))
    layers = fields.indices(row[3], "stg_layers_indices")
    terms = (term_of({"blocks": layers}, "attention", scale),) if scale and layers else ()
    return Span(first=0, last=0, cfg_scale=cfg, terms=terms, rescale=rescale if terms or cfg != 1 else 0.0)


def _at(span: Span, first: int, last: int) -> Span:
    return Span(first=first, last=last, cfg_scale=span.cfg_scale, terms=span.terms, rescale=span.rescale)


_SAYS = "attention, branch cond, any schedule, by sigma; rescale of x0"
TARGETS = (
    Target(
        name="comfyui-ltxvideo",
        tool="ComfyUI-LTXVideo, STG advanced preset",
        url=URL,
        suffix=".json",
        families=FAMILIES,
        says=_SAYS,
        loses="a second term in a step; rescale of the prediction",
        paste="append the object to presets/stg_advanced_presets.json, restart ComfyUI, pick it in STGAdvancedPresets",
        write=write_preset,
        read=read_preset,
    ),
    Target(
        name="comfyui-ltxvideo-node",
        tool="ComfyUI-LTXVideo, node STGGuiderAdvanced",
        url=URL,
        suffix=".json",
        families=FAMILIES,
        says=_SAYS,
        loses="a second term in a step; rescale of the prediction",
        paste=comfyui.PASTE,
        write=write_node,
        read=read_node,
    ),
)
