"""LTX-Video: the guidance keys of a pipeline's YAML file.

Read from Lightricks/LTX-Video at 5260738, ``configs`` and ``ltx_video/pipelines/pipeline_ltx_video.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from stg_tune.errors import StgTuneError
from stg_tune.export import fields, layouts, sigmas
from stg_tune.export.base import Journal, Target
from stg_tune.export.single import check_space
from stg_tune.export.timeline import Span, spans, term_of, to_spec
from stg_tune.export.yaml_file import read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec, SkipTerm

FAMILIES = ("ltx",)
OFF = 1.0
"""``rescaling_scale`` 1 is off."""
ALMOST_FULL = 0.999999
"""Full rescale: 1 cannot say it."""
_MODES = {
    "attention": ("attention_values", "stg_av"),
    "residual": ("transformer_block", "stg_t"),
    "attention_projected_input": ("attention_skip", "stg_as"),
}
_LISTS = ("guidance_scale", "stg_scale", "rescaling_scale", "skip_block_list")


def write(preset: Preset, journal: Journal) -> str:
    """The keys: scalars when nothing changes over the steps, else lists by sigma."""
    layouts.need_family(preset, journal, FAMILIES)
    runs = spans(preset, journal)
    entries = [_entry(span, preset, journal) for span in runs]
    if any(span.terms for span in runs):
        journal.note("one prompt in a batch: with more, LTX-Video perturbs rows of the wrong videos")
    head = {"stg_mode": _mode(runs, journal)}
    if len(runs) == 1:
        return _yaml({**head, **entries[0], "cfg_star_rescale": False})
    lists: dict[str, Any] = {name: [entry[name] for entry in entries] for name in _LISTS}
    first_pass = {"guidance_timesteps": sigmas.levels(preset, runs, journal, rule="first_below"), **lists}
    first_pass |= {"cfg_star_rescale": False, "num_inference_steps": preset.generation.num_inference_steps}
    journal.note("the sigmas fit this preset's schedule and number of steps only")
    return _yaml(head) + "first_pass:\n" + "".join(f"  {line}\n" for line in _yaml(first_pass).splitlines())


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A pipeline's YAML file, of which only the guidance is read, for the model of ``preset``."""
    layouts.need_family(preset, journal, FAMILIES)
    data = read_yaml(text, "LTX-Video configuration")
    part = data.get("first_pass", data)
    if not isinstance(part, dict):
        journal.refuse(f"first_pass must hold named fields, got {str(part)[:60]!r}")
    if "second_pass" in data:
        journal.lose("the second pass is left out")
    for name in ("skip_initial_inference_steps", "skip_final_inference_steps"):
        if fields.number(part, name, 0):
            journal.note(f"{name} is not read: a preset's windows count all steps of the schedule")
    if fields.flag(part, "cfg_star_rescale", default=fields.flag(data, "cfg_star_rescale", default=False)):
        journal.lose("cfg_star_rescale (CFG-Zero*) is left out: a preset has none")
    op = _read_mode(fields.word({**data, **part}, "stg_mode", "attention_values"), journal)
    return to_spec(_read_runs({**data, **part}, op, preset, journal), preset.generation.num_inference_steps)


def _mode(runs: Sequence[Span], journal: Journal) -> str:
    ops = {term.skip_op for span in runs for term in span.terms} or {"attention"}
    if len(ops) > 1 or not ops <= set(_MODES):
        journal.refuse(f"stg_mode is one of {', '.join(_MODES)} for all steps, not {', '.join(sorted(ops))}")
    return _MODES[ops.pop()][0]


def _entry(span: Span, preset: Preset, journal: Journal) -> dict[str, Any]:
    term = _one_term(span, journal)
    if 0 < span.cfg_scale < 1 or span.cfg_scale < 0:
        journal.lose(f"CFG {span.cfg_scale:g} in {span.steps} is off: it must be above 1")
    scale = term.stg_scale if term else 0.0
    if scale < 0:
        journal.refuse(f"stg_scale {scale:g} in {span.steps} is negative: LTX-Video then skips nothing")
    return {
        "guidance_scale": span.cfg_scale,
        "stg_scale": float(scale),
        "rescaling_scale": _rescale(span, preset, journal),
        "skip_block_list": list(layouts.only_stack(term, journal, ("blocks",))) if term else [],
    }


def _one_term(span: Span, journal: Journal) -> SkipTerm | None:
    terms = sorted(span.terms, key=lambda term: -abs(term.stg_scale))
    for term in terms[1:]:
        journal.lose(f"the term {term.name!r} in {span.steps} is left out: one weak prediction is possible")
    if terms and terms[0].branch != "cond":
        journal.refuse(f"its weak prediction sees the prompt; the branch {terms[0].branch} cannot be said")
    return terms[0] if terms else None


def _rescale(span: Span, preset: Preset, journal: Journal) -> float:
    if not span.rescale:
        return OFF
    if not span.terms:
        journal.lose(f"rescale {span.rescale:g} in {span.steps} is left out: it acts only where layers are skipped")
        return OFF
    check_space(preset, journal, "prediction")
    if span.rescale == 1:
        journal.note(f"full rescale is written as {ALMOST_FULL}, because 1 is off")
    return min(span.rescale, ALMOST_FULL)


def _read_mode(mode: str, journal: Journal) -> str:
    if mode in ("residual", "stg_r"):
        journal.refuse("stg_mode residual does nothing in LTX-Video; transformer_block skips blocks")
    op = next((name for name, words in _MODES.items() if mode in words), None)
    if op is None:
        journal.refuse(f"stg_mode must be one of {', '.join(word for words in _MODES.values() for word in words)}")
    return op


def _read_runs(part: dict[str, Any], op: str, preset: Preset, journal: Journal) -> list[Span]:
    steps = preset.generation.num_inference_steps
    if "guidance_timesteps" not in part:
        return [_read_span(part, op, 0, steps - 1)]
    entries = part["guidance_timesteps"]
    if not isinstance(entries, list) or not entries:
        journal.refuse(f"guidance_timesteps must be a list of sigmas, got {str(entries)[:60]!r}")
    times = [fields.number({"guidance_timesteps": entry}, "guidance_timesteps") for entry in entries]
    pick = sigmas.looked_up(times, rule="first_below")
    chosen = [pick(sigma) for sigma in sigmas.known(preset, journal)]
    rows = [
        {name: _at(part, name, place, len(times)) for name in _LISTS if name in part} for place in range(len(times))
    ]
    return [_read_span(rows[place], op, step, step) for step, place in enumerate(chosen)]


def _at(part: dict[str, Any], name: str, place: int, count: int) -> Any:
    value = part[name]
    nested = isinstance(value, list) and (name != "skip_block_list" or any(isinstance(item, list) for item in value))
    if not nested:
        return value
    if len(value) != count:
        raise StgTuneError(f"{name} has {len(value)} entries, guidance_timesteps {count}: give one for each")
    return value[place]


def _read_span(row: dict[str, Any], op: str, first: int, last: int) -> Span:
    scale = fields.number(row, "stg_scale", 1.0)
    layers = fields.indices(row.get("skip_block_list") or [], "skip_block_list")
    cfg_scale = fields.number(row, "guidance_scale", 3.0)
    terms = (term_of({"blocks": layers}, op, scale),) if scale > 0 and layers else ()
    return Span(
        first=first, last=last, cfg_scale=max(cfg_scale, 1.0), terms=terms, rescale=_read_rescale(row, bool(terms))
    )


def _read_rescale(row: dict[str, Any], skips: bool) -> float:
    value = fields.number(row, "rescaling_scale", OFF)
    if value == OFF or not skips:
        return 0.0
    return 1.0 if value == ALMOST_FULL else value


def _yaml(data: dict[str, Any]) -> str:
    """One line a key, lists within the line."""
    lines = (yaml.safe_dump({name: value}, default_flow_style=True, width=10**6) for name, value in data.items())
    return "".join(f"{line.strip()[1:-1]}\n" for line in lines)


TARGET = Target(
    name="ltx-video",
    tool="LTX-Video, pipeline configuration",
    url="https://github.com/Lightricks/LTX-Video",
    suffix=".yaml",
    families=FAMILIES,
    says="attention, residual or attention_projected_input; branch cond; any schedule by sigma; rescale where it skips",
    loses="a second term in a step; rescale of x0, or where nothing is skipped; CFG below 1",
    paste="over the keys of the same name in configs/*.yaml (first_pass: in multi-scale files)",
    write=write,
    read=read,
)
