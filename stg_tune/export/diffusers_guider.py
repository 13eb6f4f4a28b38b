"""``guider_config.json`` of diffusers: ``SkipLayerGuidance``, ``PerturbedAttentionGuidance``, ``AutoGuidance``.

Read from diffusers 0.42.1, ``guiders/*.py`` and ``hooks/layer_skip.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stg_tune.export import fields, windows
from stg_tune.export.base import Journal, Target
from stg_tune.export.diffusers_layers import ATTENTION_OPS, layer_configs, read_term
from stg_tune.export.single import Window, check_space, one_rescale, one_window
from stg_tune.export.timeline import Span, inside, to_spec

if TYPE_CHECKING:
    from stg_tune.preset import Preset
    from stg_tune.records import GuidanceSpec

VERSION = "0.42.1"
FAMILIES = ("mochi", "ltx", "cogvideox", "hunyuan-video", "wan", "latte")
"""Families whose blocks diffusers can skip without further registration."""
ATTENTION_FAMILIES = ("latte",)
"""Families whose self-attentions it can perturb or leave out."""
ALMOST_ONE = 1.000001
"""At exactly 1 diffusers turns CFG off and then takes the negative prediction for the weak one."""

_SLG = {name: f"skip_layer_guidance_{name}" for name in ("scale", "start", "stop")} | {"config": "skip_layer_config"}
_PAG = {name: f"perturbed_guidance_{name}" for name in ("scale", "start", "stop", "config")}
_CLASSES = {
    "SkipLayerGuidance": _SLG,
    "PerturbedAttentionGuidance": _PAG,
    "AutoGuidance": {"config": "auto_guidance_config"},
}
_UNUSABLE = ("skip_layer_guidance_layers", "perturbed_guidance_layers", "auto_guidance_layers")


@dataclass(frozen=True, kw_only=True)
class Guider:
    """A guider's class and arguments."""

    kind: str
    """Name of the class."""
    arguments: dict[str, Any]
    """What its constructor takes."""
    first_step: bool
    """Whether step 0 should skip, which no argument can say."""
    attention: bool
    """Whether it acts on attentions, whose processors diffusers must know."""


def guider(preset: Preset, journal: Journal, *, attention: tuple[str, ...] = ATTENTION_FAMILIES) -> Guider:
    """The guider of a preset, for file and snippet; ``attention``: families whose attentions it may touch."""
    window = one_window(preset, journal)
    configs = layer_configs(preset, window.term, journal)
    touches = window.term.skip_op in ATTENTION_OPS
    if touches and preset.family not in attention:
        journal.refuse(
            f"diffusers {VERSION} cannot perturb the attentions of {preset.family}, of {' and '.join(attention)} only"
        )
    if window.term.branch == "uncond":
        return _auto(preset, window, journal, configs)
    if window.term.branch != "cond":
        journal.refuse(f"its weak prediction sees the prompt; the branch {window.term.branch} cannot be said")
    kind = (
        "PerturbedAttentionGuidance" if window.term.skip_op in ("attention", "attention_all") else "SkipLayerGuidance"
    )
    names = _CLASSES[kind]
    start, stop = windows.to_strict(window.first, window.last, window.num_steps)
    arguments = {
        "guidance_scale": _guidance_scale(window, journal),
        names["scale"]: float(window.term.stg_scale),
        names["start"]: start,
        names["stop"]: stop,
        names["config"]: configs,
        "guidance_rescale": one_rescale(preset, window, journal, scope="all", space="prediction"),
        "use_original_formulation": False,
        **_cfg_window(window, journal),
        "enabled": True,
    }
    return Guider(kind=kind, arguments=arguments, first_step=window.first == 0, attention=touches)


def write(preset: Preset, journal: Journal) -> str:
    """``guider_config.json``."""
    if preset.family not in FAMILIES:
        journal.refuse(
            f"diffusers {VERSION} cannot skip blocks of {preset.family} from a file; try --to diffusers-python"
        )
    made = guider(preset, journal)
    if made.first_step and windows.from_strict(*_bounds(made), preset.generation.num_inference_steps) is None:
        journal.refuse("diffusers never skips in step 0, and the preset skips nowhere else; use --to diffusers-python")
    if made.first_step:
        journal.note("diffusers never skips in step 0; --to diffusers-python gives a guider that does")
    note_windows(made, preset, journal)
    return fields.pretty({"_class_name": made.kind, "_diffusers_version": VERSION, **made.arguments}) + "\n"


def _bounds(made: Guider) -> windows.Bounds:
    names = _CLASSES[made.kind]
    return made.arguments[names["start"]], made.arguments[names["stop"]]


def note_windows(made: Guider, preset: Preset, journal: Journal) -> None:
    """The bounds are meant for one number of steps."""
    if made.arguments.get("guidance_scale") == ALMOST_ONE:
        journal.note(f"CFG 1 is written as {ALMOST_ONE}: at 1 diffusers takes the negative prediction for the weak one")
    if any(value not in (0.0, 1.0) for name, value in made.arguments.items() if name.endswith(("start", "stop"))):
        journal.note(f"the windows are exact for {preset.generation.num_inference_steps} steps")


def read(text: str, preset: Preset, journal: Journal) -> GuidanceSpec:
    """A ``guider_config.json`` for the model of ``preset``."""
    data = fields.json_object(text, "guider config")
    kind = fields.word(data, "_class_name")
    if kind not in _CLASSES:
        journal.refuse(f"_class_name must be one of {', '.join(_CLASSES)}, got {kind[:60]!r}")
    for name in _UNUSABLE:
        if data.get(name) is not None:
            journal.refuse(f"{name} cannot be run by diffusers {VERSION}: give the layers as a config with an fqn")
    steps = preset.generation.num_inference_steps
    cfg_scale = _read_cfg(data)
    if not fields.flag(data, "enabled", default=True):
        return to_spec((Span(first=0, last=steps - 1, cfg_scale=1.0),), steps)
    if kind == "AutoGuidance":
        return _read_auto(data, cfg_scale, preset, journal)
    return _read_skip(data, cfg_scale, _CLASSES[kind], preset, journal)


def _guidance_scale(window: Window, journal: Journal) -> float:
    scales = {span.cfg_scale for span in window.runs} - {1.0}
    if window.cfg_scale == 1 and scales:
        journal.refuse(
            "it skips in steps with CFG 1 while CFG acts in others: diffusers gets the weak prediction wrong there"
        )
    if not scales:
        return ALMOST_ONE
    for span in window.runs:
        if span.cfg_scale not in (1.0, window.cfg_scale):
            journal.lose(f"CFG is {span.cfg_scale:g} in {span.steps}; {window.cfg_scale:g} is written")
    return window.cfg_scale


def _cfg_window(window: Window, journal: Journal) -> dict[str, float]:
    """``start`` and ``stop`` of CFG: from the first step with CFG to the last."""
    held = [span for span in window.runs if span.cfg_scale != 1]
    if not held:
        return {"start": 0.0, "stop": 1.0}
    for span in window.runs:
        if span.cfg_scale == 1 and held[0].first < span.first < held[-1].last:
            journal.lose(f"CFG is off in {span.steps}, between steps where it is on; it stays on")
    start, stop = windows.to_floored(held[0].first, held[-1].last, window.num_steps)
    return {"start": start, "stop": stop}


def _auto(preset: Preset, window: Window, journal: Journal, configs: list[dict[str, Any]]) -> Guider:
    if window.cfg_scale == 1:
        journal.refuse("it perturbs the negative prediction, which is not computed at CFG 1: nothing would happen")
    for span in window.runs:
        if not span.terms and span.cfg_scale != 1:
            journal.lose(f"CFG is {span.cfg_scale:g} in {span.steps}; outside its window AutoGuidance has none")
        if span.rescale and span.rescale != window.rescale:
            journal.lose(f"rescale is {span.rescale:g} in {span.steps}, but {window.rescale:g} is written")
    if window.rescale:
        check_space(preset, journal, "prediction")
    start, stop = windows.to_floored(window.first, window.last, window.num_steps)
    arguments = {
        "guidance_scale": window.cfg_scale,
        "auto_guidance_config": configs,
        "guidance_rescale": window.rescale,
        "use_original_formulation": False,
        "start": start,
        "stop": stop,
        "enabled": True,
    }
    touches = window.term.skip_op in ATTENTION_OPS
    return Guider(kind="AutoGuidance", arguments=arguments, first_step=False, attention=touches)


def _read_cfg(data: dict[str, Any]) -> float:
    scale = fields.number(data, "guidance_scale", 7.5)
    scale += fields.flag(data, "use_original_formulation", default=False)
    return 1.0 if abs(scale - 1) < 1e-5 and scale != 1 else scale


def _read_skip(
    data: dict[str, Any], cfg_scale: float, names: dict[str, str], preset: Preset, journal: Journal
) -> GuidanceSpec:
    steps = preset.generation.num_inference_steps
    scale, rescale = fields.number(data, names["scale"], 2.8), fields.number(data, "guidance_rescale", 0.0)
    term = read_term(data.get(names["config"]), scale, "cond", preset, journal)
    start, stop = fields.number(data, names["start"], 0.01), fields.number(data, names["stop"], 0.2)
    skips = windows.within(windows.from_strict(start, stop, steps) if scale else None)
    on = windows.within(
        windows.from_floored(fields.number(data, "start", 0.0), fields.number(data, "stop", 1.0), steps)
    )
    runs = []
    for step in range(steps):
        own_cfg = cfg_scale if on(step) else 1.0
        if skips(step) and (not on(step) or data.get("guidance_scale") == 1):
            journal.refuse(
                "where CFG is off diffusers takes the negative prediction for the weak one: no preset says that"
            )
        terms = (term,) if skips(step) else ()
        acts = rescale if terms or own_cfg != 1 else 0.0
        runs.append(Span(first=step, last=step, cfg_scale=own_cfg, terms=terms, rescale=acts))
    return to_spec(runs, steps)


def _read_auto(data: dict[str, Any], cfg_scale: float, preset: Preset, journal: Journal) -> GuidanceSpec:
    steps = preset.generation.num_inference_steps
    term = read_term(data.get("auto_guidance_config"), 1.0, "uncond", preset, journal)
    held = windows.from_floored(fields.number(data, "start", 0.0), fields.number(data, "stop", 1.0), steps)
    off = Span(first=0, last=steps - 1, cfg_scale=1.0)
    if held is None or cfg_scale == 1:
        return to_spec((off,), steps)
    span = Span(
        first=0, last=0, cfg_scale=cfg_scale, terms=(term,), rescale=fields.number(data, "guidance_rescale", 0.0)
    )
    return to_spec(inside(*held, span, outside=off, num_steps=steps), steps)


TARGET = Target(
    name="diffusers",
    tool="diffusers, guiders of modular pipelines",
    url="https://github.com/huggingface/diffusers",
    suffix=".json",
    families=FAMILIES,
    says="residual, feed_forward; Latte also attention, attention_input; branch cond, or uncond with AutoGuidance; "
    "one window, not in step 0; rescale in all steps",
    loses="a second term or window; another CFG scale outside; rescale of x0, or in some steps only",
    paste="a folder of its own as guider_config.json: SkipLayerGuidance.from_pretrained(folder)",
    write=write,
    read=read,
)
