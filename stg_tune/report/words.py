"""Settings, gains and doubts in words (standard library only)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stg_tune.records import GuidanceSpec, SkipTerm
    from stg_tune.report.findings import Gain

UNIT = "baseline standard deviations"
"""Unit of the gain of a whole setting."""


def terms(spec: GuidanceSpec) -> Iterator[SkipTerm]:
    """Every term of every segment whose scale is not zero."""
    return (term for segment in spec.segments for term in segment.terms if term.stg_scale)


def describe(spec: GuidanceSpec) -> str:
    """A specification on one line: ``CFG 3; attention of spatial 4, 5 at 0.5 in [0, 0.8)``."""
    parts = [f"CFG {spec.cfg_scale:.3g}"]
    for segment in spec.segments:
        window = "" if (segment.start, segment.stop) == (0, 1) else f" in [{segment.start:.3g}, {segment.stop:.3g})"
        if segment.cfg_scale not in (None, spec.cfg_scale):
            parts.append(f"CFG {segment.cfg_scale:.3g}{window}")
        parts += [f"{_describe_term(term)}{window}" for term in segment.terms if term.stg_scale]
        if segment.rescale:
            parts.append(f"rescale {segment.rescale:.3g}{window}")
    return "; ".join(parts)


def places(spec: GuidanceSpec) -> str:
    """The layers alone: ``attention of spatial blocks 3, 4``; empty for plain CFG."""
    found = dict.fromkeys(f"{term.skip_op} of {_layers(term)}" for term in terms(spec))
    return "; ".join(found)


def interval(gain: Gain, digits: int = 2) -> str:
    """``+0.42 [+0.10, +0.74]``."""
    return f"{gain.mean:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"


def own_interval(gain: Gain) -> str:
    """An interval in a scorer's own unit, three significant digits."""
    return f"{gain.mean:+.3g} [{gain.low:+.3g}, {gain.high:+.3g}]"


def judgement(gain: Gain) -> str:
    """What a gain says: ``better``, ``worse``, ``equivalent within ±0.2``, ``not told apart`` ..."""
    if gain.conclusion:
        return _CONCLUSIONS[gain.conclusion].format(margin=gain.margin)
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not told apart"


def judged(gain: Gain) -> str:
    """``+0.42 [+0.10, +0.74], better``."""
    return f"{interval(gain)}, {judgement(gain)}"


_CONCLUSIONS = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent within ±{margin:g}",
    "no worse": "no worse by more than {margin:g}, not shown to be better",
    "undecided": "undecided",
}


def doubt(gain: Gain) -> str:
    """What to add to a gain that does not speak for itself."""
    if gain.low > 0:
        return ""
    if gain.high < 0:
        return ": the videos get worse"
    return f": {judgement(gain)}" if gain.conclusion else ", not told apart from zero"


def standing(gain: Gain) -> str:
    """A gain as a place among the default's videos (for normal scores, Cohen's U3): ``73 %``."""
    return f"{100 * NormalDist().cdf(gain.mean):.0f} %" if math.isfinite(gain.mean) else "an unknown share"


def net_of(price: float) -> str:
    """What a gain is net of, when the objective prices denoiser work; else nothing."""
    if not price:
        return ""
    return f"Gains are net of a price: {price:g} {UNIT} for the denoiser work of each further default video."


def plural(count: int, word: str) -> str:
    """``1 pair``, ``2 pairs``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _describe_term(term: SkipTerm) -> str:
    layers = " + ".join(f"{stack} {', '.join(map(str, indices))}" for stack, indices in term.skip_layers.items())
    branch = "" if term.branch == "cond" else f" on the {term.branch} branch"
    drawn = f" ({term.draw} of them drawn anew each step)" if term.draw else ""
    return f"{term.skip_op} of {layers or 'the weak model'}{drawn} at {term.stg_scale:.3g}{branch}"


def blocks_of(stack: str, count: int = 2) -> str:
    """``spatial blocks``, ``spatial block`` of one; of the stack that is called ``blocks`` nothing more."""
    kind = "block" if count == 1 else "blocks"
    return kind if stack == "blocks" else f"{stack} {kind}"


def _layers(term: SkipTerm) -> str:
    return (
        " and ".join(
            f"{blocks_of(stack, len(indices))} {', '.join(map(str, indices))}"
            for stack, indices in term.skip_layers.items()
        )
        or "the weak model"
    )
