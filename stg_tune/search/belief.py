"""What a search believes of settings after what it has measured: gain, and whether the guards hold.

One process learns the gain, one each the violation of a guard. Pairs differ, and settings see different numbers of
them, so what all settings gain, or break, on a pair is estimated and taken off first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from stg_tune.search.objective import FAILED_PAIRS
from stg_tune.search.statistics import standard_error
from stg_tune.search.surrogate import MEDIANS, Distances, Observations, Surrogate, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stg_tune.records import GuidanceSpec
    from stg_tune.search.bench import Measurement
    from stg_tune.search.features import Features

FITS = (8, 12, 20, 32, 50, 80, 120)
"""Numbers of settings at which the processes' numbers are fitted; more of them hardly move the fit and cost time."""
MOST = 400
"""Settings that a process remembers; its cost grows with their third power."""
FLOOR = -1.0
"""Gains below this count by their logarithm: how bad a bad setting is does not matter."""
PAIR_VARIANCE = 0.15
"""Prior variance of what all settings gain on a pair."""
PAIR_PART = 0.4
"""The same of what they break of a guard there, in parts of the variance that the pairs of one setting have."""
FAILURES = 0.05
"""Expected share of failed pairs that still counts as none."""
LEAST_SURE = 0.2
"""Probability of keeping all guards below which a setting cannot lead."""
SURE = 0.8
"""The same for a strict belief, which asks for nothing more."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of settings, (settings,) each."""

    gain: NDArray[np.float64]
    """Mean gain over the baseline, in its standard deviations."""
    deviation: NDArray[np.float64]
    """Standard deviation of that."""
    keeps: NDArray[np.float64]
    """Probability that every guard holds."""


@dataclass(frozen=True, kw_only=True)
class _Guard:
    surrogate: Surrogate
    unit: float
    baseline: float
    doubt: float
    """Standard error, over pairs, of what all settings have in common."""

    def keeps(self, distances: Distances) -> NDArray[np.float64]:
        mean, deviation = self.surrogate(distances)
        error = np.hypot(deviation * self.unit, self.doubt)
        return np.asarray(ndtr(-(mean * self.unit + self.baseline) / error), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Gains and guards, learnt from measurements."""

    features: Features
    """Of settings."""
    measured: tuple[Measurement, ...]
    """What it was learnt from, without the baseline."""
    _rows: NDArray[np.float64]
    _inside: Distances
    _gain: Surrogate
    _guards: tuple[_Guard, ...]
    strict: bool = False
    """Rank by expected gain alone those that keep the guards with ``SURE``, as runs of ``SearchPlan.rules`` 1 do."""

    def __call__(self, specs: Sequence[GuidanceSpec]) -> Outlook:
        """What is expected of ``specs``."""
        return self._at(Distances.between(self.features(specs), self._rows, self.features.likeness))

    def _at(self, distances: Distances) -> Outlook:
        gain, deviation = self._gain(distances)
        keeps = np.ones(len(gain))
        for guard in self._guards:
            keeps = keeps * guard.keeps(distances)
        return Outlook(gain=gain, deviation=deviation, keeps=keeps)

    def leader(self) -> tuple[Measurement, float] | None:
        """The first of ``ranking``, and its expected gain.

        Returns:
            ``None`` when there is none that is expected to be better than the baseline.
        """
        return self.ranking[0] if self.ranking and self.ranking[0][1] > 0 else None

    @cached_property
    def ranking(self) -> list[tuple[Measurement, float]]:
        """The measured settings with what they are expected to gain, best first.

        A gain counts by the probability that the guards are kept: on the few pairs of a search, guards are too noisy to
        pass over for good whoever looks as if one were broken. Choice and verdict see more pairs.
        """
        found = self._at(self._inside)
        worth = self._weighted(found)
        order = sorted(range(len(self.measured)), key=lambda at: -worth[at])
        return [(self.measured[at], float(found.gain[at])) for at in order if worth[at] > -math.inf]

    def worth(self, specs: Sequence[GuidanceSpec]) -> list[float]:
        """What counts of settings, measured or not: see ``ranking``. Minus infinity: too likely to break a guard."""
        return [float(value) for value in self._weighted(self(specs))]

    def _weighted(self, found: Outlook) -> NDArray[np.float64]:
        weight = np.where((found.gain > 0) & (not self.strict), found.keeps, 1.0)
        least = SURE if self.strict else LEAST_SURE
        return np.where(found.keeps >= least, found.gain * weight, -math.inf)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What was measured, as the processes have it in common: the baseline first."""

    rows: NDArray[np.float64]
    pairs: NDArray[np.float64]
    whole: Distances
    inside: Distances
    """Without the baseline on the left side."""


class Learner:
    """Learns beliefs; the numbers of its processes are fitted now and then and kept between.

    Args:
        features: Of settings.
        baseline: The model's default, whose gain is 0.
        strict: Of the beliefs.
    """

    def __init__(self, features: Features, baseline: Measurement, *, strict: bool = False) -> None:
        self._features, self._baseline, self._strict = features, baseline, strict
        self._numbers: dict[bytes, NDArray[np.float64]] = {}

    def learn(self, measured: Sequence[Measurement]) -> Belief:
        """What is to be believed after measurements; the same ones in the same order give the same belief.

        Args:
            measured: Settings other than the baseline in the order they were measured, each once; those without any
                compared pair are left out, and of more than ``MOST`` the worst.
        """
        known = _most_telling([item for item in measured if item.deltas])
        rows = self._features([self._baseline.spec, *(item.spec for item in known)])
        pairs = np.array([math.inf, *(len(item.deltas) for item in known)])
        whole = Distances.between(rows, rows, self._features.likeness)
        place = _Place(
            rows=rows, pairs=pairs, whole=whole, inside=Distances.between(rows[1:], rows, self._features.likeness)
        )
        return Belief(
            features=self._features,
            measured=known,
            _rows=rows,
            _inside=place.inside,
            _gain=self._gains(known, place),
            _guards=tuple(self._guard(name, known, place) for name in _told_apart(self._baseline, known)),
            strict=self._strict,
        )

    def _gains(self, known: Sequence[Measurement], place: _Place) -> Surrogate:
        """Learn twice: first as if all pairs were alike, then with what each of them gives to everybody taken off."""
        first = self._process(place, _column(known, {}))
        shrink = first.noise**2 / PAIR_VARIANCE
        luck = _luck([item.deltas for item in known], first(place.inside)[0], shrink)
        return first.with_values(_column(known, luck))

    def _guard(self, name: str, known: Sequence[Measurement], place: _Place) -> _Guard:
        start = self._baseline.violations[name]
        values = np.array([0.0, *(item.violations[name] - start for item in known)])
        unit = float(values[: fitted_at(len(values)) or None].std()) or float(values.std())
        surrogate = self._process(place, values / unit)
        parts = [] if self._strict else [item.breaches.get(name, {}) for item in known]
        if any(parts):
            luck = _luck(parts, surrogate(place.inside)[0] * unit, 1 / PAIR_PART)
            values[1:] -= [_mean_luck(part, luck) for part in parts]
            surrogate = surrogate.with_values(values / unit)
        return _Guard(
            surrogate=surrogate,
            unit=unit,
            baseline=start - (FAILURES if name == FAILED_PAIRS else 0.0),
            doubt=_common_doubt(parts),
        )

    def _process(self, place: _Place, values: NDArray[np.float64]) -> Surrogate:
        """Fitted numbers are kept by what they were fitted to: a resumed run must come to the same ones."""
        seen = Observations(features=place.rows, values=values, pairs=place.pairs)
        part = seen.first(fitted_at(len(values)))
        key = part.digest()
        if key not in self._numbers:
            self._numbers[key] = fit(part, self._features.likeness) if len(part.values) else MEDIANS
        return Surrogate.given(seen, place.whole, self._numbers[key])


def fitted_at(count: int) -> int:
    """How many of ``count`` observations the numbers are fitted to: ``FITS`` with growing gaps."""
    return max((at for at in FITS if at <= count), default=0)


def _most_telling(known: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """All of them, or those the numbers are fitted to and the best of the others, in the order they were measured."""
    first = FITS[-1]
    best = sorted(range(first, len(known)), key=lambda at: -known[at].mean)[: MOST - first]
    return (*known[:first], *(known[at] for at in sorted(best)))


def _column(known: Sequence[Measurement], luck: Mapping[str, float]) -> NDArray[np.float64]:
    """Gains of the baseline and of all others, what their pairs give to everybody taken off."""
    lucky = [_mean_luck(item.deltas, luck) for item in known]
    return np.array([0.0, *(_bounded(item.mean - part) for item, part in zip(known, lucky, strict=True))])


def _luck(parts: Sequence[Mapping[str, float]], expected: NDArray[np.float64], shrink: float) -> Mapping[str, float]:
    """Pair key -> what all settings have there beyond what is expected of them, shrunk towards 0.

    Args:
        parts: For each setting, pair key -> what it has there.
        expected: For each setting, what is expected of it.
        shrink: Variance of the noise of a pair over that of what all settings have in common there.
    """
    beyond: dict[str, list[float]] = {}
    for part, value in zip(parts, expected, strict=True):
        for key, found in part.items():
            beyond.setdefault(key, []).append(found - float(value))
    return {key: math.fsum(values) / (len(values) + shrink) for key, values in beyond.items()}


def _mean_luck(part: Mapping[str, float], luck: Mapping[str, float]) -> float:
    return math.fsum(luck.get(key, 0.0) for key in part) / len(part) if part else 0.0


def _common_doubt(parts: Sequence[Mapping[str, float]]) -> float:
    """What no number of settings averages out, because all of them see the same few pairs.

    Where the default happens to move much, every setting moves less, and seems to break a guard that it keeps. The
    median standard error of settings that saw most pairs stands for it: an upper bound, since it holds their own noise
    too.
    """
    most = max(map(len, parts), default=0)
    errors = [standard_error(list(part.values())) for part in parts if len(part) == most] if most > 1 else []
    return float(np.median(errors)) if errors else 0.0


def _told_apart(baseline: Measurement, known: Sequence[Measurement]) -> list[str]:
    """Guards that settings keep or break differently; of others nothing can be learnt."""
    return [
        name for name, value in baseline.violations.items() if any(item.violations[name] != value for item in known)
    ]


def _bounded(gain: float) -> float:
    return gain if gain >= FLOOR else FLOOR - math.log1p(FLOOR - gain)
