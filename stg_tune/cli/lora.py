"""The option by which commands take LoRAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stg_tune.cli.output import complain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def add_loras(parser: argparse.ArgumentParser) -> None:
    """``--lora FILE[=SCALE]``, which fills ``lora`` with words for ``stg_tune.models.loras.parse_loras``."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[=SCALE]",
        help="LoRA to load into the model, .safetensors, with its strength (default: 1; may be repeated)",
    )


def warn_of_other_loras(preset: str, loras: Sequence[str]) -> None:
    """Say so when a preset was found for a model with other LoRAs: its evidence tells nothing about this one."""
    from stg_tune.models.loras import identity, parse_loras
    from stg_tune.preset import open_preset

    found = open_preset(preset)
    own = "; ".join(identity(parse_loras(loras)).values())
    if " + lora " in found.checkpoint and found.revision != own[: len(found.revision)]:
        complain(
            f"warning: the preset was found for {found.checkpoint} ({found.revision}), and this video is made with "
            f"{own or 'no LoRA'}: give the same --lora, or do not expect what its evidence says"
        )
