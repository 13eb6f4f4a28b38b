"""What the end of each ``--help`` shows: lines that can be typed as they are, or with names of one's own."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "models": ("stg-tune models", "stg-tune models open-sora-tiny"),
    "search": (
        "stg-tune search --model open-sora-tiny --dry-run",
        "stg-tune search --model open-sora-tiny --budget small --out runs/demo",
        "stg-tune search --model open-sora --prompts captions.txt --budget 8h --workers 4",
        "stg-tune search --model open-sora --prompts captions.txt --budget large --objective cost=0.1 --fidelity auto",
    ),
    "resume": (
        "stg-tune resume runs/demo",
        "stg-tune resume runs/demo --budget medium",
        "stg-tune resume runs/mine --takeover --ray-address auto",
    ),
    "show": ("stg-tune show runs/demo", "stg-tune status runs/demo --json"),
    "replay": ("stg-tune replay runs/demo winner h0", "stg-tune replay runs/demo default 3 -o again.mp4"),
    "generate": (
        'stg-tune generate --model open-sora-tiny --prompt "a red seven moving left" -o seven.mp4',
        'stg-tune generate --model open-sora-tiny --preset runs/demo/preset.json --prompt "a red seven" -o seven.mp4',
    ),
    "score": ('stg-tune score seven.mp4 --prompt "a red seven moving left"', "stg-tune score --list"),
    "compare": (
        "stg-tune compare --model open-sora-tiny --preset runs/demo/preset.json --preset cfg",
        "stg-tune compare --model mochi --lora style.safetensors=0.8 --preset runs/base/preset.json",
    ),
    "evaluate": ("stg-tune evaluate --model open-sora-tiny --suite t2v --preset runs/demo/preset.json",),
    "report": ("stg-tune report runs/demo", "stg-tune report runs/demo -o page.html"),
    "serve": ("stg-tune serve runs/demo", "stg-tune serve runs/demo --port 9000 --open"),
    "vote": (
        "stg-tune vote runs/demo --voter Ada",
        "stg-tune vote runs/demo --preset runs/demo/preset.json --preset other.json --pairs 12",
        "stg-tune vote runs/demo --result",
        "stg-tune vote runs/demo --into-preset",
    ),
    "presets": ("stg-tune presets list",),
    "presets list": ("stg-tune presets list", "stg-tune presets list runs --json"),
    "presets show": ("stg-tune presets show mochi/published",),
    "presets diff": ("stg-tune presets diff mochi/published runs/demo/preset.json",),
    "presets validate": ("stg-tune presets validate runs/demo/preset.json",),
    "export": (
        "stg-tune export --list",
        "stg-tune export mochi/published --to diffusers -o guider_config.json",
    ),
    "import": ("stg-tune import guider_config.json --from diffusers --like mochi/published -o preset.json",),
    "weights": ("stg-tune weights list",),
    "weights list": ("stg-tune weights list", "stg-tune weights list --json"),
    "weights fetch": ("stg-tune weights fetch", "stg-tune weights fetch --fast"),
    "weights verify": ("stg-tune weights verify",),
    "doctor": ("stg-tune doctor", "stg-tune doctor --offline --json"),
    "completion": ('eval "$(stg-tune completion bash)"',),
}
"""Command, with its action if it has one -> lines."""
