"""The settings that a suite compares (no torch)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stg_tune.evaluate.suites import CFG_SCALES, STG_FACTORS, Suite
from stg_tune.records import GuidanceSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

BASELINE = "cfg"
"""Name of the first arm, which all others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One setting that is evaluated."""

    name: str
    """For tables: ``cfg``, a preset's name, ``cfg@4.5``."""
    spec: GuidanceSpec
    """The setting."""
    curve: str = ""
    """Which curve it is a point of."""
    scale: float | None = None
    """Where on the curve: CFG scale, or factor of the skip scales."""
    alone: str = ""
    """Name of the arm that is its best CFG alone, which it is compared with, too; empty: none is known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "name": self.name,
            "spec": self.spec.to_dict(),
            "curve": self.curve,
            "scale": self.scale,
            "alone": self.alone,
        }


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A preset, as far as a suite asks."""

    spec: GuidanceSpec
    """Its setting."""
    best_cfg: GuidanceSpec | None = None
    """The best setting without skip guidance that its evidence names; ``None``: it names none."""


def arms_of(suite: Suite, cfg_scale: float, presets: Mapping[str, Candidate]) -> tuple[Arm, ...]:
    """The baseline, then each preset after its best CFG alone; for a curve, CFG and presets at several scales.

    Args:
        suite: Decides whether curves are drawn.
        cfg_scale: The model's own guidance scale.
        presets: Name -> preset.
    """
    baseline = Arm(name=BASELINE, spec=GuidanceSpec(cfg_scale=cfg_scale), curve=BASELINE, scale=cfg_scale)
    if not suite.curve:
        return (baseline, *(arm for name, preset in presets.items() for arm in _with_its_cfg(name, preset)))
    scales = [scale for scale in CFG_SCALES if scale != cfg_scale]
    plain = [
        Arm(name=f"{BASELINE}@{scale:g}", spec=GuidanceSpec(cfg_scale=scale), curve=BASELINE, scale=scale)
        for scale in scales
    ]
    skipping = [
        Arm(name=f"{name} x{factor:g}", spec=times(preset.spec, factor), curve=name, scale=factor)
        for name, preset in presets.items()
        for factor in STG_FACTORS
    ]
    return (baseline, *plain, *skipping)


def _with_its_cfg(name: str, preset: Candidate) -> tuple[Arm, ...]:
    """What the preset's skip guidance adds shows against the CFG that was tuned as much, not against the default."""
    if preset.best_cfg is None:
        return (Arm(name=name, spec=preset.spec),)
    alone = Arm(name=f"{name}: CFG alone", spec=preset.best_cfg)
    return (alone, Arm(name=name, spec=preset.spec, alone=alone.name))


def times(spec: GuidanceSpec, factor: float) -> GuidanceSpec:
    """The setting with every skip scale multiplied."""
    segments = tuple(
        replace(segment, terms=tuple(replace(term, stg_scale=term.stg_scale * factor) for term in segment.terms))
        for segment in spec.segments
    )
    return replace(spec, segments=segments)
