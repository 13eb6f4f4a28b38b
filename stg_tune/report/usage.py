"""How to use the result: the preset, code and commands to copy."""

from __future__ import annotations

import base64
import json
import shlex
from typing import TYPE_CHECKING

from stg_tune.report.markup import code, fold, section
from stg_tune.report.words import describe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stg_tune.report.findings import Findings

PYTHON = """import stg_tune

# pipe: the unmodified diffusers pipeline of this model{loras}
with stg_tune.guided(pipe, "preset.json"):
    video = pipe(prompt="...").frames
"""


def usage_section(findings: Findings) -> str:
    """The preset with its code and commands; without a preset, what to do instead; empty while the run goes on."""
    if not findings.finished:
        return ""
    if findings.improved:
        return _with_preset(findings, findings.preset) if findings.preset is not None else _without_file(findings)
    note = (
        f"There is no preset, because nothing was proved better than the default: keep {describe(findings.default)}. "
        "More pairs or a larger budget may show a gain that was too small to be seen; the same run can be extended."
    )
    return section("How to use it", "use", code("extend", "stg-tune resume DIR --budget LARGER"), note=note)


def _with_preset(findings: Findings, preset: Mapping[str, Any]) -> str:
    text = json.dumps(preset, indent=2, ensure_ascii=False)
    note = (
        "The preset holds the setting and its evidence. Save it as preset.json (it also lies in the folder of the run)."
    )
    parts = [
        code("python", PYTHON.format(loras=_with_loras(findings)), label="In Python"),
        code("generate", _generate(findings), label="On the command line"),
    ]
    if findings.exports:
        commands = "\n".join(f"# {tool}\n{command}" for tool, command in findings.exports)
        parts.append(code("exports", commands, label="For other tools"))
    else:
        parts.append("<p>No other tool that stg-tune writes for can skip layers of this model: use it from Python.</p>")
    parts.append(fold("The preset itself", _download(text), code("preset", text, label="preset.json")))
    return section("How to use it", "use", *parts, note=note)


def _without_file(findings: Findings) -> str:
    setting = f"The setting is: {describe(findings.tuned)}. " if findings.tuned else ""
    note = f"{setting}Its preset.json is not in the folder of the run; this writes it again:"
    return section("How to use it", "use", code("again", "stg-tune resume DIR"), note=note)


def _with_loras(findings: Findings) -> str:
    return f", with {', '.join(findings.loras)}" if findings.loras else ""


def _generate(findings: Findings) -> str:
    words = [findings.model, *(part for lora in findings.loras for part in ("--lora", lora))]
    model = " ".join(map(shlex.quote, words))
    return f'stg-tune generate --model {model} --preset preset.json --prompt "..." --out video.mp4'


def _download(text: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    return f'<p><a download="preset.json" href="data:application/json;base64,{data}">save as preset.json</a></p>'
