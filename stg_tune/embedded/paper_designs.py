"""Which settings each table of arXiv:2411.18664 compares on an embedded model, and what the paper says: data."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from stg_tune.embedded.truth import single_layer
from stg_tune.errors import StgTuneError
from stg_tune.records import Combination, GuidanceSpec, Restart, Segment, SkipOp, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CFG_FACTORS = (1.0, 2.0, 4.0)
"""Of the best plain CFG scale above 1, in the figure of diversity."""
STG_FACTORS = (1.0, 2.0, 4.0)
"""Of the chosen strength, in the figure and at high scales."""
RESTART = Restart(start=0.4, stop=0.7, count=1)
RESCALE = 0.7


@dataclass(frozen=True, kw_only=True)
class Best:
    """A single layer as the layers table has it."""

    stack: str
    """Its stack."""
    index: int
    """Its number."""
    op: SkipOp
    """What happens in it."""
    cfg_scale: float
    """Beside which CFG scale."""
    stg_scale: float
    """How strongly."""
    joint: float
    """Frechet joint distance of the videos; lower is better."""

    def term(self, factor: float = 1.0) -> SkipTerm:
        """The term, its strength times ``factor``."""
        spec = single_layer(self.stack, self.index, self.op, round(factor * self.stg_scale, 4), 1.0)
        (term,) = spec.segments[0].terms
        return term


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the layers table says is best."""

    cfg_scale: float
    """Of plain CFG."""
    layers: tuple[Best, ...]
    """All single layers, best first."""

    @classmethod
    def read(cls, path: Path) -> Chosen:
        """From ``layers.csv``; of an arm with several rows, the one with most videos counts."""
        if not path.is_file():
            raise StgTuneError(f"{path} is missing: make it with `python -m stg_tune.embedded.layers_table --model M`")
        with path.open(encoding="utf-8", newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: int(row["videos"]))
        plain = [row for row in rows if row["arm"] == "cfg"]
        most = [row for row in plain if row["videos"] == plain[-1]["videos"]]
        single = {(row["arm"], row["cfg_scale"], row["stg_scale"]): row for row in rows if row["arm"] != "cfg"}
        return cls(
            cfg_scale=float(min(most, key=lambda row: float(row["joint"]))["cfg_scale"]),
            layers=tuple(sorted((_best(row) for row in single.values()), key=lambda best: best.joint)),
        )

    def best(self, *, stack: str | None = None, op: str | None = None, alone: bool = False) -> Best:
        """The best single layer, of a stack and an operation if they are given.

        Args:
            stack: Its stack.
            op: Its operation.
            alone: Without CFG; else of those that were tried beside the CFG scale nearest to the best one.
        """
        wanted = 1.0 if alone else self.cfg_scale
        nearest = min((item.cfg_scale for item in self.layers), key=lambda scale: (abs(scale - wanted), -scale))
        fitting = (item for item in self.layers if item.cfg_scale == nearest)
        return next(item for item in fitting if stack in (None, item.stack) and op in (None, item.op))


def _best(row: Mapping[str, str]) -> Best:
    stack, index, op = row["arm"].split(".")
    numbers = {name: float(row[name]) for name in ("cfg_scale", "stg_scale", "joint")}
    return Best(stack=stack, index=int(index), op=cast("SkipOp", op), **numbers)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper as a comparison of two arms."""

    text: str
    """What the paper says."""
    arm: str
    """The arm it speaks of."""
    other: str
    """The arm it is compared with."""
    measure: str = "joint"
    """What is compared."""
    higher: bool = False
    """Whether the paper says that the measure is higher in ``arm``."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """One table."""

    name: str
    """Of the file."""
    arms: Mapping[str, GuidanceSpec]
    """Name -> setting."""
    baseline: str
    """The arm that all others are compared with."""
    claims: tuple[Claim, ...]
    """What the paper says."""


def designs(chosen: Chosen, depths: Mapping[str, int], default_cfg: float, tuned: GuidanceSpec | None) -> list[Design]:
    """All tables that a model with these stacks can have."""
    both = [_terms(chosen, depths), _orthogonal(chosen, depths)] if len(depths) > 1 else []
    return [_guidance(chosen, default_cfg, tuned), _operations(chosen), *both, _diversity(chosen), _high(chosen)]


def _plain(scale: float) -> GuidanceSpec:
    return GuidanceSpec(cfg_scale=scale)


def _with(
    scale: float,
    *terms: SkipTerm,
    rescale: float = 0.0,
    restart: Restart | None = None,
    combination: Combination = "independent",
) -> GuidanceSpec:
    segment = Segment(terms=terms, rescale=rescale, combination=combination)
    return GuidanceSpec(cfg_scale=scale, segments=(segment,), restart=restart)


def _guidance(chosen: Chosen, default_cfg: float, tuned: GuidanceSpec | None) -> Design:
    """Tables 1 and 2: classifier-free guidance with and without skip guidance."""
    term = chosen.best().term()
    arms = {
        "no guidance": _plain(1.0),
        "default CFG": _plain(default_cfg),
        "best CFG": _plain(chosen.cfg_scale),
        "STG alone": _with(1.0, chosen.best(alone=True).term()),
        "best CFG + STG": tuned or _with(chosen.cfg_scale, term),
    }
    claims = (
        Claim(text="STG improves on CFG (table 1)", arm="best CFG + STG", other="best CFG"),
        Claim(
            text="imaging quality rises (table 1)",
            arm="best CFG + STG",
            other="best CFG",
            measure="imaging_quality",
            higher=True,
        ),
        Claim(
            text="aesthetic quality rises (table 1)",
            arm="best CFG + STG",
            other="best CFG",
            measure="aesthetic",
            higher=True,
        ),
        Claim(text="STG improves on no guidance", arm="STG alone", other="no guidance"),
    )
    return Design(name="table1-guidance", arms=arms, baseline="best CFG", claims=claims)


def _operations(chosen: Chosen) -> Design:
    """Table 3: whole residual blocks (STG-R) or attention alone (STG-A)."""
    cfg = chosen.cfg_scale
    arms = {
        "best CFG": _plain(cfg),
        "STG-R": _with(cfg, chosen.best(op="residual").term()),
        "STG-A": _with(cfg, chosen.best(op="attention").term()),
    }
    claims = (Claim(text="whole blocks are better skipped than attention (table 3)", arm="STG-R", other="STG-A"),)
    return Design(name="table3-operations", arms=arms, baseline="best CFG", claims=claims)


def _pair(chosen: Chosen, depths: Mapping[str, int], factor: float = 1.0) -> tuple[SkipTerm, ...]:
    return tuple(chosen.best(stack=stack).term(factor) for stack in depths)


def _terms(chosen: Chosen, depths: Mapping[str, int]) -> Design:
    """Table 4: spatial, temporal, both."""
    cfg = chosen.cfg_scale
    single = {f"{term.name} alone": _with(cfg, term) for term in _pair(chosen, depths)}
    arms = {"best CFG": _plain(cfg), **single, "both": _with(cfg, *_pair(chosen, depths))}
    claims = tuple(Claim(text="both together are best (table 4)", arm="both", other=name) for name in single)
    return Design(name="table4-terms", arms=arms, baseline="best CFG", claims=claims)


def _orthogonal(chosen: Chosen, depths: Mapping[str, int]) -> Design:
    """Eq. 20 (terms added) or eq. 21 (the later one without its part along the earlier)."""
    cfg, arms, claims = chosen.cfg_scale, {"best CFG": _plain(chosen.cfg_scale)}, []
    for factor in STG_FACTORS:
        terms = _pair(chosen, depths, factor)
        added, cleared = f"eq. 20, {factor:g} x", f"eq. 21, {factor:g} x"
        arms |= {added: _with(cfg, *terms), cleared: _with(cfg, *terms, combination="orthogonal")}
        claims.append(Claim(text="eq. 21 is as good as eq. 20 or better", arm=cleared, other=added))
    return Design(name="eq20-eq21", arms=arms, baseline="best CFG", claims=tuple(claims))


def _diversity(chosen: Chosen) -> Design:
    """Figure 4: quality and spread over the two scales."""
    base = max(chosen.cfg_scale, 1.5)
    cfg = {f"CFG {factor * base:g}": _plain(round(factor * base, 4)) for factor in CFG_FACTORS}
    skip = {f"STG {factor:g} x": _with(1.0, chosen.best(alone=True).term(factor)) for factor in STG_FACTORS}
    strongest_cfg, strongest_stg = list(cfg)[-1], list(skip)[-1]
    claims = (
        Claim(text="a high CFG scale costs spread (figure 4)", arm=strongest_cfg, other="none", measure="spread"),
        Claim(
            text="STG keeps more spread than CFG (figure 4)",
            arm=strongest_stg,
            other=strongest_cfg,
            measure="spread",
            higher=True,
        ),
        Claim(text="STG raises quality at the spread it keeps (figure 4)", arm=next(iter(skip)), other="none"),
    )
    return Design(name="figure4-diversity", arms={"none": _plain(1.0), **cfg, **skip}, baseline="none", claims=claims)


def _high(chosen: Chosen) -> Design:
    """Rescale (arXiv:2305.08891) and Restart (arXiv:2306.14878) where the scale is too high."""
    cfg, term = chosen.cfg_scale, chosen.best().term(STG_FACTORS[-1])
    arms = {
        "best CFG": _plain(cfg),
        "best CFG, restart": GuidanceSpec(cfg_scale=cfg, restart=RESTART),
        "high scale": _with(cfg, term),
        "high scale, rescale": _with(cfg, term, rescale=RESCALE),
        "high scale, restart": _with(cfg, term, restart=RESTART),
        "high scale, both": _with(cfg, term, rescale=RESCALE, restart=RESTART),
    }
    mended = tuple(
        Claim(text=f"{word} mends a skip scale that is too high", arm=f"high scale, {name}", other="high scale")
        for name, word in (("rescale", "rescale"), ("restart", "Restart"), ("both", "rescale with Restart"))
    )
    alone = Claim(text="Restart improves on CFG", arm="best CFG, restart", other="best CFG")
    return Design(name="high-scales", arms=arms, baseline="best CFG", claims=(alone, *mended))
