import numpy as np
import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.statistics import (
    Interval,
    clearly_below,
    conclude,
    look_level,
    one_sided,
    paired_interval,
    small_sample_factor,
    standard_error,
)


def test_one_pair_a_prompt_is_the_ordinary_t_interval():
    values = [0.1, 0.5, -0.2, 0.9, 0.4]
    found = paired_interval(values, list("abcde"))
    reach = 2.7764451 * np.std(values, ddof=1) / 5**0.5  # t quantile 0.975 with 4 degrees of freedom, from a table
    assert (found.low, found.mean, found.high) == pytest.approx((0.34 - reach, 0.34, 0.34 + reach))
    assert (found.pairs, found.clusters) == (5, 5)


def test_repeating_every_pair_does_not_narrow_the_interval():
    values, names = [0.1, 0.5, -0.2, 0.9, 0.4], list("abcde")
    once, thrice = paired_interval(values, names), paired_interval(values * 3, names * 3)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low)
    assert (thrice.pairs, thrice.clusters) == (15, 5)


def test_one_prompt_falls_back_to_its_seeds():
    found = paired_interval([0.1, 0.5, -0.2, 0.9], ["p"] * 4)
    assert found.clusters == 1
    assert np.isfinite(found.low)


def test_too_little_to_say_anything():
    assert paired_interval([0.3], ["a"]).low == -np.inf
    with pytest.raises(StgTuneError, match="no pair could be compared"):
        paired_interval([], [])


@pytest.mark.parametrize(("prompts", "seeds"), [(100, 1), (50, 2), (15, 4)])
def test_coverage_with_dependent_seeds(prompts, seeds):
    """95 % intervals hold the truth in 93 to 97 % of 2,000 runs; a prompt's gain is shared by its seeds."""
    rng = np.random.default_rng(7)
    runs, names = 2000, [index for index in range(prompts) for _ in range(seeds)]
    hits = naive = 0
    for _ in range(runs):
        shared = rng.normal(0.3, 0.8, prompts).repeat(seeds)
        values = shared + rng.standard_t(5, prompts * seeds) * 0.4
        found = paired_interval(values, names)
        hits += found.low <= 0.3 <= found.high
        naive += abs(values.mean() - 0.3) <= 1.96 * standard_error(values)
    assert 0.93 <= hits / runs <= 0.97
    if seeds == 4:
        assert naive / runs < 0.85  # what ignoring the clusters would give


def test_looks_share_the_error():
    assert look_level(1, 1) == 0.95
    assert look_level(1, 3) == look_level(2, 3) == 0.999
    assert look_level(3, 3) == pytest.approx(0.952)
    assert sum(1 - look_level(look, 3) for look in (1, 2, 3)) == pytest.approx(0.05)


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_looks_of_a_run_that_is_extended_often_keep_to_what_is_left_of_its_error(looks):
    for verdict in range(1, 12):
        error = 0.05 / 2 ** (verdict - 1)
        levels = [look_level(look, looks, level=1 - error) for look in range(1, looks + 1)]
        assert all(1 - error <= level < 1 for level in levels)
        assert sum(1 - level for level in levels) == pytest.approx(error)
        assert np.isfinite(paired_interval([0.1, 0.3, 0.2], "abc", level=levels[-1]).high)


def test_stopping_when_a_gain_is_clear_states_too_much_and_stopping_without_hope_does_not():
    """True gain 0.3 of deviation 1, looks at 100, 150 and 200 pairs: the bias of both rules over 4,000 runs."""
    rng = np.random.default_rng(17)
    clear, hopeless, early = [], [], 0
    for _ in range(4000):
        values = rng.normal(0.3, 1.0, 200)
        found = [paired_interval(values[:n], range(n), level=0.999) for n in (100, 150)]
        clear.append(next((item.mean for item in found if item.low > 0 or item.high < 0), values.mean()))
        hopeless.append(next((item.mean for item in found if item.high < 0), values.mean()))
        early += clear[-1] != values.mean()
    error = 1 / (200 * 4000) ** 0.5
    assert early > 1000
    assert np.mean(clear) - 0.3 > 5 * error
    assert abs(np.mean(hopeless) - 0.3) < 2.5 * error


def test_repeated_looks_on_nothing_rarely_claim():
    """Stopping at the first of three looks that excludes 0: at most 5 % of 1,500 null runs do (2.5 % on each side)."""
    rng = np.random.default_rng(3)
    claims = 0
    for _ in range(1500):
        values = rng.normal(0.0, 1.0, 200)
        for look, count in enumerate((100, 150, 200), start=1):
            found = paired_interval(values[:count], range(count), level=look_level(look, 3))
            if found.low > 0:
                claims += 1
                break
    assert claims / 1500 <= 0.03


def test_power_of_the_small_budget():
    """A true gain of 0.3 deviations of the difference on 100 prompts is claimed in at least 80 % of runs."""
    rng = np.random.default_rng(5)
    wins = sum(paired_interval(rng.normal(0.3, 1.0, 100), range(100)).low > 0 for _ in range(600))
    assert 0.80 <= wins / 600 <= 0.90


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.01, 0.5, "better"),
        (-0.5, -0.01, "worse"),
        (-0.1, 0.1, "equivalent"),
        (-0.1, 0.3, "no worse"),
        (-0.3, 0.1, "undecided"),
        (-0.3, 0.3, "undecided"),
        (-np.inf, np.inf, "undecided"),
    ],
)
def test_one_interval_one_statement(low, high, found):
    interval = Interval(mean=0.0, low=low, high=high, level=0.95, pairs=9, clusters=9)
    assert conclude(interval, margin=0.2) == found


def test_equivalence_is_claimed_of_what_is_equal_and_not_of_what_is_a_margin_apart():
    """100 pairs of deviation 0.5: equal settings are mostly called equivalent, those 0.2 apart in 5 % at most."""
    rng = np.random.default_rng(11)

    def share(gain):
        found = (conclude(paired_interval(rng.normal(gain, 0.5, 100), range(100))) for _ in range(400))
        return sum(item == "equivalent" for item in found) / 400

    assert share(0.0) > 0.9
    assert share(-0.2) <= 0.05
    assert share(0.2) <= 0.05


def test_one_sided_levels_and_the_correction_of_small_samples():
    assert one_sided(0.95) == pytest.approx(0.9)
    assert small_sample_factor(8) == pytest.approx(1 / 1.1259, abs=2e-3)  # Gamma functions: Hedges 1981, eq. 6e


def test_clearly_below():
    assert clearly_below([-1.0, -1.1, -0.9, -1.0])
    assert clearly_below([-1.0, -1.0, -1.0])
    assert not clearly_below([-1.0, -1.0])
    assert not clearly_below([-1.0, 1.2, -0.9, 0.8])
    assert not clearly_below([1.0, 1.1, 0.9])
