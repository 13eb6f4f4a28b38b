"""diffusers guiders as a Python file: with what a configuration file cannot say (step 0, blocks not registered)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stg_tune.export import layouts
from stg_tune.export.base import Journal, Target
from stg_tune.export.diffusers_guider import ATTENTION_FAMILIES, FAMILIES, Guider, guider, note_windows

if TYPE_CHECKING:
    from stg_tune.preset import Preset

REGISTRABLE = ("hunyuan-video-1.5", "skyreels-v2", "allegro", "cosmos", "cosmos-2")
"""Families whose blocks diffusers skips once they are registered."""
KNOWN_PROCESSORS = ("wan",)
"""Families whose attentions it perturbs once their processors are registered."""

_HEAD = '''"""{name}: a diffusers guider, written by stg-tune.

    import this_file
    this_file.attach(pipe)
"""

from diffusers import {kind}
from diffusers.hooks import LayerSkipConfig
'''
_REGISTRY = "from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry\n"
_PROCESSORS = "from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry\n"
_ATTACH = '''

def attach(pipe):
    """Make a pipeline use the guider."""
    prepare(pipe.transformer)
    if hasattr(pipe, "guider") and not hasattr(pipe, "update_components"):
        pipe.guider = guider
    else:
        pipe.update_components(guider=guider)
'''


def write(preset: Preset, journal: Journal) -> str:
    """A module with ``guider``, ``prepare(transformer)`` and ``attach(pipe)``."""
    made = guider(preset, journal, attention=(*ATTENTION_FAMILIES, *KNOWN_PROCESSORS))
    if preset.family not in (*FAMILIES, *REGISTRABLE):
        journal.refuse(f"diffusers cannot skip blocks of {preset.family}; run the preset with stg_tune.guided")
    note_windows(made, preset, journal)
    if preset.family not in REGISTRABLE:
        journal.note("standard pipelines of this family take no guider, modular ones do; stg_tune.guided runs both")
    imports, body = _prepare(preset, needs_processors=made.attention and preset.family in KNOWN_PROCESSORS)
    return _HEAD.format(name=_docstring(preset.name), kind=made.kind) + imports + _guider(made) + body + _ATTACH


def _docstring(name: str) -> str:
    """A name is data: it must not be able to end the docstring or begin an escape."""
    return "".join(sign if sign.isalnum() or sign in " ./+-_" else "?" for sign in name)


def _guider(made: Guider) -> str:
    lines = [f"    {name}={_value(value)}," for name, value in made.arguments.items()]
    text = f"\nguider = {made.kind}(\n" + "\n".join(lines) + "\n)\n"
    if made.first_step:
        text += "# the constructor refuses it, but only so step 0 is inside: int(start * n) < step\n"
        text += "guider.skip_layer_guidance_start = -1.0\n"
    return text


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return repr(value)
    entries = (", ".join(f"{name}={item!r}" for name, item in entry.items()) for entry in value)
    return "[" + ", ".join(f"LayerSkipConfig({entry})" for entry in entries) + "]"


def _prepare(preset: Preset, *, needs_processors: bool) -> tuple[str, str]:
    """Imports, and the function that makes blocks known to diffusers."""
    head = '\n\ndef prepare(transformer):\n    """Make the blocks known to diffusers."""\n'
    if needs_processors:
        body = (
            "    processor = type(transformer.blocks[0].attn1.processor)\n"
            "    known = AttentionProcessorMetadata(skip_processor_output_fn=lambda attention, x, *_, **__: x)\n"
            "    AttentionProcessorRegistry.register(processor, known)\n"
        )
        return _PROCESSORS, head + body
    if preset.family in FAMILIES:
        return "", head.replace("Make the blocks known to diffusers.", "Nothing to do: diffusers knows these blocks.")
    lines = []
    for stack in layouts.STACKS[preset.family]:
        text = 1 if stack.streams == 2 else None
        where = f"return_hidden_states_index=0, return_encoder_hidden_states_index={text}"
        lines.append(f"    known = TransformerBlockMetadata({where})\n")
        lines.append(f"    TransformerBlockRegistry.register(type(transformer.{stack.path}[0]), known)\n")
    return _REGISTRY, head + "".join(lines)


TARGET = Target(
    name="diffusers-python",
    tool="diffusers, guiders, as Python",
    url="https://github.com/huggingface/diffusers",
    suffix=".py",
    families=(*FAMILIES, *REGISTRABLE),
    says="as diffusers, and step 0, and blocks that diffusers does not know by itself; Wan also attention, "
    "attention_input",
    loses="a second term or window; another CFG scale outside; rescale of x0, or in some steps only",
    paste="next to your script; attach(pipe) on a modular pipeline, or one with a guider (HunyuanVideo-1.5, Motif)",
    write=write,
)
