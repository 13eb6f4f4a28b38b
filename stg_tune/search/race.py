"""Finalists race on held-out pairs: some choose the winner, other pairs, never used for any choice, measure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stg_tune.search.bench import Bench
from stg_tune.search.budget import CONFIRM_PAIRS
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.statistics import LEVEL, Interval, clearly_below, look_level
from stg_tune.search.verdict import Arms, Verdict, judge_arms

if TYPE_CHECKING:
    from stg_tune.records import Evaluation, GuidanceSpec, Pair
    from stg_tune.search.bench import Measurement

Origin = Literal["cfg", "published", "search"]

LOOKS_AT = (0.5, 0.75, 1.0)
"""Shares of the confirmation after which a race without hope stops; looks before ``CONFIRM_PAIRS`` pairs are left
out."""

Announce = Callable[[str, Interval | None], None]
"""Called with the name of the leader and its held-out gain."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A setting that may become the preset."""

    name: str
    """``trial 12``, ``best CFG``, ``published: ...``."""
    origin: Origin
    """Where it comes from."""
    in_sample: Measurement
    """What it gave on the search pairs; optimistic, because it was chosen by that."""

    @property
    def spec(self) -> GuidanceSpec:
        """The setting."""
        return self.in_sample.spec

    @property
    def config(self) -> str:
        """Hash of the setting."""
        return self.in_sample.config


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One round of the choice among finalists."""

    pairs: tuple[Pair, ...]
    """Held-out pairs of this round."""
    standing: Mapping[str, float]
    """Finalist -> mean gain over all rounds so far, best first."""
    dropped: tuple[str, ...]
    """Finalists that left after this round."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """How the winner was chosen and what it is worth."""

    finalists: tuple[Finalist, ...]
    """All that raced."""
    heats: tuple[Heat, ...]
    """The choice."""
    winner: Finalist | None
    """Chosen on the pairs of the heats; ``None`` when there was no finalist."""
    verdict: Verdict | None
    """Measured on the confirmation pairs."""
    confirm: tuple[Pair, ...] = ()
    """The confirmation pairs that were looked at: neither the search nor the choice has seen any of them."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """The held-out pairs and how they are used."""

    select: tuple[Pair, ...]
    """Pairs of the choice."""
    select_budget: int
    """Most evaluations of the choice."""
    confirm: tuple[Pair, ...]
    """Pairs of the confirmation."""
    level: float = LEVEL
    """Joint confidence level of the intervals (above ``LEVEL`` when this is not the first verdict of the run)."""
    warning: str = ""
    """What is wrong with the held-out prompts, for the user."""
    until_clear: bool = False
    """Stop as soon as the gain is decided, as runs of ``SearchPlan.rules`` 1 do."""
    hasty_default: bool = False
    """Let the default take the place of a best CFG-only setting that only looks worse, as runs of ``SearchPlan.rules``
    3 and before do."""


def run_race(
    bench: Bench,
    baseline: GuidanceSpec,
    best_cfg: GuidanceSpec,
    finalists: Sequence[Finalist],
    track: Track,
    *,
    announce: Announce,
    on_confirm: Callable[[], None],
) -> Race:
    """Choose among the finalists by successive halving, then compare default, best CFG and the chosen one on new pairs.

    Args:
        bench: Measures.
        baseline: The model's default.
        best_cfg: The best CFG-only setting; compared at the end whether it is chosen or not, unless the selection
            pairs show clearly that the default is better (which is a CFG-only setting as well).
        finalists: Settings that may win; the baseline itself is left out.
        track: Held-out pairs and their use.
        announce: Told about the leader.
        on_confirm: Called when the choice is made and the confirmation begins.
    """
    choice = _Choice(bench, baseline, finalists, track, announce)
    heats = choice.run()
    ranking = choice.ranking
    if not ranking:
        return Race(finalists=tuple(finalists), heats=(), winner=None, verdict=None)
    stg = next((item.spec for item in ranking if not is_cfg_only(item.spec)), None)
    reference = choice.reference(best_cfg)
    arms = Arms(baseline=baseline, winner=ranking[0].spec, best_cfg=reference, best_stg=stg)
    on_confirm()
    verdict = _confirm(bench, arms, track, lambda interval: announce(ranking[0].name, interval))
    return Race(
        finalists=tuple(finalists),
        heats=tuple(heats),
        winner=ranking[0],
        verdict=verdict,
        confirm=track.confirm[: looks_at(len(track.confirm))[verdict.look - 1]] if verdict else (),
    )


class _Choice:
    """Rounds on the selection pairs; whoever leaves is ranked behind whoever stays."""

    def __init__(
        self, bench: Bench, baseline: GuidanceSpec, finalists: Sequence[Finalist], track: Track, announce: Announce
    ) -> None:
        self._bench, self._baseline, self._track, self._announce = bench, baseline, track, announce
        self._alive = list({item.config: item for item in finalists if item.config != baseline.hash()}.values())
        self._left: list[Finalist] = []
        self._rows: dict[str, list[Evaluation]] = {item.config: [] for item in self._alive}

    @property
    def ranking(self) -> list[Finalist]:
        """Best first."""
        return self._alive + self._left

    def reference(self, best_cfg: GuidanceSpec) -> GuidanceSpec:
        """What skip guidance must beat: a CFG-only winner, else ``best_cfg``, unless that is clearly below the default.

        A bad ``best_cfg``, chosen on few pairs, would make the gain of skip guidance look larger than it is; the
        default in place of a good one would give skip guidance all that CFG has gained, which is worse.
        """
        if is_cfg_only(self.ranking[0].spec):
            return self.ranking[0].spec
        found = next((item for item in self.ranking if item.config == best_cfg.hash()), None)
        if found is None:
            return best_cfg
        measured = self._bench.judged(best_cfg, [*found.in_sample.rows, *self._rows[found.config]])
        worse = measured.mean < 0 if self._track.hasty_default else clearly_below([*measured.deltas.values()])
        return self._baseline if worse else best_cfg

    def run(self) -> list[Heat]:
        heats: list[Heat] = []
        size = round_size(len(self._alive), self._track.select_budget)
        pairs = list(self._track.select)
        while len(self._alive) > 1 and size and pairs:
            heats.append(self._heat(tuple(pairs[:size])))
            pairs = pairs[size:]
        return heats

    def _heat(self, pairs: tuple[Pair, ...]) -> Heat:
        self._bench.know_baseline(self._baseline, pairs, "holdout")
        for item, new in zip(
            self._alive, self._bench.measure([item.spec for item in self._alive], pairs, "holdout"), strict=True
        ):
            self._rows[item.config].extend(new.rows)
        self._alive.sort(key=self._merit, reverse=True)
        standing = {item.name: self._measured(item).mean for item in self._alive}
        keep = self._survivors()
        dropped, self._alive = self._alive[keep:], self._alive[:keep]
        self._left = dropped + self._left
        self._announce(self._alive[0].name, self._measured(self._alive[0]).interval())
        return Heat(pairs=pairs, standing=standing, dropped=tuple(item.name for item in dropped))

    def _survivors(self) -> int:
        """The better half, less those whose difference to the leader is clearly negative."""
        half = self._alive[: (len(self._alive) + 1) // 2]
        leader = self._measured(half[0]).deltas
        return 1 + sum(not clearly_below(_minus(self._measured(item).deltas, leader)) for item in half[1:])

    def _measured(self, item: Finalist) -> Measurement:
        return self._bench.judged(item.spec, self._rows[item.config])

    def _merit(self, item: Finalist) -> tuple[bool, float]:
        """Guards on all pairs that were seen, because they need many; the mean on held-out pairs only."""
        everything = [*item.in_sample.rows, *self._rows[item.config]]
        return self._bench.judged(item.spec, everything).feasible, self._measured(item).mean


def round_size(finalists: int, budget: int) -> int:
    """Pairs of one round, so that halving ``finalists`` down to one, the baseline running along, fits ``budget``."""
    weight, alive = 0, finalists
    while alive > 1:
        weight += alive + 1
        alive = (alive + 1) // 2
    return budget // weight if weight else 0


def looks_at(pairs: int) -> list[int]:
    """Numbers of confirmation pairs after which the race may stop; the last is ``pairs``."""
    early = {round(pairs * share) for share in LOOKS_AT}
    return sorted({count for count in early if CONFIRM_PAIRS <= count < pairs} | {pairs})


def _confirm(bench: Bench, arms: Arms, track: Track, announce: Callable[[Interval], None]) -> Verdict | None:
    looks = looks_at(len(track.confirm)) if track.confirm else []
    verdict = None
    for number, count in enumerate(looks, start=1):
        pairs = track.confirm[:count]
        bench.know_baseline(arms.baseline, pairs, "holdout")
        judge = bench.judge.in_units_of(pairs)
        measured = Bench(bench.ledger, judge).measure(arms.distinct(), pairs, "holdout")
        level = look_level(number, len(looks), level=track.level)
        verdict = judge_arms(judge, arms, measured, level=level, looks=len(looks), look=number, warning=track.warning)
        announce(verdict.gain)
        if verdict.hopeless or (track.until_clear and verdict.clear):
            break
    return verdict


def _minus(mine: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    return [value - other[key] for key, value in mine.items() if key in other]
