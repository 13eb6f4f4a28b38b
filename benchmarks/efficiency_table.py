"""The numbers and the table of ``benchmarks.efficiency``: what each way of searching has after how many evaluations."""

from __future__ import annotations

import math
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rivals import GRID, OURS, RAY
from stg_tune.search.statistics import paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Trail = Sequence[tuple[int, float]]

SHARE = 0.95
"""Of the best mean gain of any method: the goal."""
SPENDINGS = (300, 600, 1200, 2400, 4800, 9600)
"""Evaluations after which gains are compared."""
BARS: Mapping[str, float] = {"random search": 5.0, "TPE, include-bits": 10.0, GRID: 50.0}
"""Method -> how many times as many evaluations as ours it must need to the goal."""
NEVER_WORSE = ("TPE, free slots", RAY)
"""Methods than which ours must at no spending be worse beyond noise."""
DRAWS = 1000
"""Of the seeds, for the intervals of ratios."""


def curve(trail: Trail, spent: int) -> float:
    """True gain of the setting that a method would have handed over after ``spent`` evaluations."""
    return next((gain for at, gain in reversed(trail) if at <= spent), 0.0)


def reached(trail: Trail, goal: float) -> float:
    """Evaluations after which a method has, and keeps, at least ``goal``; infinite when it never does."""
    below = max((i for i, (_, gain) in enumerate(trail) if gain < goal), default=-1)
    return trail[below + 1][0] if below + 1 < len(trail) else math.inf


def mean_reaches(trails: Sequence[Trail], goal: float) -> float:
    """Evaluations after which the mean over the runs has, and keeps, at least ``goal``."""
    times, gains = _grid(trails)
    return float(_kept_from(times, gains.mean(0)[None], goal)[0])


def _grid(trails: Sequence[Trail]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every time at which any run has another setting, and the gain of each run then, (runs, times)."""
    times = np.array(sorted({at for trail in trails for at, _ in trail}), dtype=np.float64)
    gains = [_held([(0, 0.0), *trail], times) for trail in trails]
    return times, np.array(gains)


def _held(trail: Trail, times: NDArray[np.float64]) -> NDArray[np.float64]:
    since, gains = (np.array(column) for column in zip(*trail, strict=True))
    return np.asarray(gains[np.searchsorted(since, times, side="right") - 1])


def _kept_from(times: NDArray[np.float64], curves: NDArray[np.float64], goal: float) -> NDArray[np.float64]:
    """The time from which on each of ``curves`` (curves, times) is never below ``goal`` again; else infinite."""
    below = curves < goal
    first = np.where(below.any(1), curves.shape[1] - np.argmax(below[:, ::-1], axis=1), 0)
    return np.append(times, math.inf)[first]


def summary(runs: Mapping[str, Sequence[Trail]]) -> dict[str, Any]:
    """Evaluations to the goal of every method, gains by spending, and the bars.

    Args:
        runs: Method -> one trail a seed; the same seeds in the same order for all.
    """
    finals = {name: fmean(trail[-1][1] for trail in trails) for name, trails in runs.items()}
    goal = SHARE * max(finals.values())
    methods = {name: _method(runs[OURS], trails, goal) for name, trails in runs.items()}
    bars = [_times_bar(name, least, runs, goal) for name, least in BARS.items()]
    bars += [_never_worse_bar(name, methods) for name in NEVER_WORSE]
    return {"goal": round(goal, 4), "methods": methods, "bars": [bar for bar in bars if bar is not None]}


def _method(ours: Sequence[Trail], trails: Sequence[Trail], goal: float) -> dict[str, Any]:
    spent = _spent(trails)
    until = min(spent, _spent(ours))
    return {
        "runs": len(trails),
        "spent": spent,
        "final_gain": round(fmean(trail[-1][1] for trail in trails), 4),
        "evaluations_to_goal": _finite(mean_reaches(trails, goal)),
        "median_evaluations_to_goal": _finite(median(reached(trail, goal) for trail in trails)),
        "runs_that_reach_it": sum(math.isfinite(reached(trail, goal)) for trail in trails),
        "gains": {str(at): round(fmean(curve(trail, at) for trail in trails), 4) for at in SPENDINGS if at <= spent},
        "ours_less_this": {str(at): _difference(ours, trails, at) for at in SPENDINGS if at <= until},
    }


def _spent(trails: Sequence[Trail]) -> int:
    return max(trail[-1][0] for trail in trails)


def _difference(ours: Sequence[Trail], trails: Sequence[Trail], at: int) -> dict[str, float]:
    gaps = [curve(mine, at) - curve(other, at) for mine, other in zip(ours, trails, strict=True)]
    interval = paired_interval(gaps, [str(i) for i in range(len(gaps))])
    return {name: round(getattr(interval, name), 4) for name in ("mean", "low", "high")}


def _times_bar(group: str, least: float, runs: Mapping[str, Sequence[Trail]], goal: float) -> dict[str, Any] | None:
    """How many times as many evaluations the better variant of a method needs."""
    variants = {name: trails for name, trails in runs.items() if name.startswith(group)}
    if not variants:
        return None
    need = {name: mean_reaches(trails, goal) for name, trails in variants.items()}
    if group == GRID:  # has an end
        name = min(variants, key=lambda each: (need[each], -_spent(variants[each])))
    else:  # who has not arrived may do so with the next evaluation
        name = min(variants, key=lambda each: min(need[each], _spent(variants[each])))
    own, spent = mean_reaches(runs[OURS], goal), _spent(variants[name])
    arrives = math.isfinite(need[name])
    times = (need[name] if arrives else spent) / own if math.isfinite(own) else math.inf
    draws = _ratio_draws(runs[OURS], variants[name], goal)
    ended = not arrives and group == GRID
    return {
        "against": name,
        "bar": f"at least {least:g} times as many evaluations",
        "arrives": arrives,
        "times" if arrives else "times_at_least": _finite(times),
        "low": _finite(draws[round(0.025 * (DRAWS - 1))]),
        "share_of_goal": round(fmean(trail[-1][1] for trail in variants[name]) / goal, 3),
        "met": math.isfinite(own) and (times >= least or ended),
        **({"ended": f"all of its settings are evaluated after {spent} evaluations"} if ended else {}),
    }


def _ratio_draws(ours: Sequence[Trail], other: Sequence[Trail], goal: float) -> list[float]:
    """Ratios over seeds drawn anew, sorted; who does not arrive counts with what it has spent."""
    count = len(ours)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
    needs = []
    for trails in (ours, other):
        times, gains = _grid(trails)
        needs.append(np.minimum(_kept_from(times, drawn @ gains, goal), _spent(trails)))
    own, need = needs
    return sorted((need / np.maximum(own, 1)).tolist())


def _never_worse_bar(group: str, methods: Mapping[str, Any]) -> dict[str, Any] | None:
    variants = {name: item["ours_less_this"] for name, item in methods.items() if name.startswith(group)}
    if not variants:
        return None
    worst = min((gap["high"], name, int(at)) for name, gaps in variants.items() for at, gap in gaps.items())
    return {
        "against": group,
        "bar": "at no spending worse beyond noise",
        "worst": {"variant": worst[1], "after": worst[2], **variants[worst[1]][str(worst[2])]},
        "met": worst[0] >= 0,
    }


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def table(found: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """For people.

    Args:
        found: Emulator -> ``summary``.
        facts: Of the runs.
    """
    parts = [_section(name, item, facts["emulators"][name]) for name, item in found.items()]
    return (
        "# Which way of searching needs the fewest evaluations?\n\n"
        f"Every method searches the same emulated {facts['model']}, on the same pairs and with the same objective:\n"
        f"{facts['measured']} measured settings (`../landscape`, `../exhaustive`), between which a regression fills\n"
        "in, under noise as measured. A gain is the emulator's own, without noise, in standard deviations of the\n"
        "default; a setting that truly breaks a guard is worth nothing. An evaluation is one setting on one pair; the\n"
        "baseline's are counted, the held-out confirmation, which only ours has, is not.\n"
        f"Repeat with `python -m benchmarks.efficiency --model {facts['model']}`.\n\n" + "\n".join(parts)
    )


def _section(name: str, found: Mapping[str, Any], told: Mapping[str, float]) -> str:
    spendings = [str(at) for at in SPENDINGS]
    head = ["method", "runs", "evaluations to the goal", *(f"gain after {at}" for at in spendings)]
    rows = [_row(method, item, spendings) for method, item in found["methods"].items()]
    bars = "\n".join(f"* {_bar_in_words(bar)}" for bar in found["bars"])
    return (
        f"## Emulator: {name}\n\nSpearman's correlation of the objective of settings that it has not seen: "
        f"{told['spearman']:.2f}. Goal: {found['goal']:.2f}, 95 % of the best final gain of any method.\n\n"
        f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n" + "\n".join(rows) + f"\n\n{bars}\n"
    )


def _row(name: str, item: Mapping[str, Any], spendings: Sequence[str]) -> str:
    needed = item["evaluations_to_goal"]
    shown = f"{needed:.0f}" if needed is not None else f"not after {item['spent']}"
    gains = [f"{item['gains'][at]:.2f}" if at in item["gains"] else "" for at in spendings]
    return f"| {' | '.join([name, str(item['runs']), shown, *gains])} |"


def _bar_in_words(bar: Mapping[str, Any]) -> str:
    met = "met" if bar["met"] else "**not met**"
    if "worst" in bar:
        worst = bar["worst"]
        return (
            f"{bar['against']}, {bar['bar']}: {met}. Ours less this where it is least: {worst['mean']:+.2f} "
            f"[{worst['low']:+.2f}, {worst['high']:+.2f}] after {worst['after']} ({worst['variant']})"
        )
    times = bar.get("times", bar.get("times_at_least"))
    ratio = "ours does not arrive" if times is None else f"{'' if bar['arrives'] else 'more than '}{times:.1f} times"
    low = f", at least {bar['low']:.1f} over seeds drawn anew" if bar["low"] is not None else ""
    ended = f"; it never arrives: {bar['ended']}" if "ended" in bar else ""
    return f"{bar['against']}, {bar['bar']}: {met}, {ratio}{low}; ends at {bar['share_of_goal']:.0%} of the goal{ended}"
