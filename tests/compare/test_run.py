"""Who is better, or that it is not known; and that an interrupted comparison goes on."""

import json
import random
from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest

from stg_tune.compare.plan import without_terms
from stg_tune.compare.run import BLOCK
from stg_tune.errors import StgTuneError
from stg_tune.records import GuidanceSpec, Segment, SkipTerm


def test_the_better_setting_is_found_from_either_side(kit, tmp_path) -> None:
    preset = kit.preset()
    found = kit.run(kit.plan(preset), kit.evaluate, "a")
    assert found.better == "first"
    assert found.reason == f"{preset} is better than {kit.default}"
    assert found.gain.low > 0
    back = kit.run(kit.plan("cfg", preset), kit.evaluate, "b")
    assert back.better == "second"
    assert back.reason == found.reason
    assert back.gain.high < 0
    assert back.plan.pairs == found.plan.pairs


def test_each_scorer_has_its_own_gain(kit) -> None:
    found = kit.run(kit.plan(kit.preset()), kit.evaluate)
    items = {item.name: item for item in found.scorers}
    assert set(items) == {"aesthetic", "imaging_quality", "temporal_lpips", "alignment", "motion", "saturation"}
    first, second = (
        [kit.evaluate(side.spec, pair).scores["temporal_lpips"] for pair in found.plan.pairs]
        for side in (found.plan.first, found.plan.second)
    )
    lpips = items["temporal_lpips"]
    assert (lpips.value, lpips.baseline) == (pytest.approx(fmean(first)), pytest.approx(fmean(second)))
    assert lpips.value < lpips.baseline
    assert lpips.gain.low > 0, "less is better"
    assert found.relative_cost == pytest.approx(1.1)
    assert found.effects == {"first": {"spatial": pytest.approx(0.1)}, "second": {}}


def test_the_part_of_skip_guidance_is_told_from_that_of_cfg(kit) -> None:
    """A preset at CFG 3 against the default: CFG 3 gains by itself, block 4 by 0.5, block 2 nothing but harm."""
    seen = set()

    def evaluate(spec, pair):
        seen.add(spec.hash())
        done = kit.evaluate(spec, pair)
        lift = 0.8 if spec.cfg_scale == 3.0 else 0.0
        signs = {"aesthetic": 1, "imaging_quality": 1, "alignment": 1, "temporal_lpips": -1}
        return replace(
            done, scores=done.scores | {name: done.scores[name] + sign * lift for name, sign in signs.items()}
        )

    for layer, low, high in ((4, 0.2, 0.9), (2, -0.9, -0.2)):
        seen.clear()
        plan = kit.plan(kit.preset(f"at{layer}", layer))
        first = replace(plan.first, spec=replace(plan.first.spec, cfg_scale=3.0))
        found = kit.run(replace(plan, first=first), evaluate, f"layer{layer}")
        assert low < found.stg_gain.low < found.stg_gain.high < high
        assert found.gain.mean > found.stg_gain.mean + 0.4
        assert len(seen) == 3
        assert found.to_dict()["stg_gain"]["mean"] == found.stg_gain.mean


def test_a_setting_without_its_terms_keeps_everything_else() -> None:
    term = SkipTerm(name="spatial", skip_layers={"spatial": (4,)}, skip_op="attention", stg_scale=0.5)
    parts = (Segment(stop=0.5, terms=(term,)), Segment(start=0.5, cfg_scale=2.0, terms=(term,), rescale=0.3))
    bare = without_terms(GuidanceSpec(cfg_scale=4.0, segments=parts))
    assert bare == GuidanceSpec(cfg_scale=4.0, segments=(Segment(start=0.5, cfg_scale=2.0, rescale=0.3),))
    assert without_terms(GuidanceSpec(cfg_scale=4.0, segments=parts[:1])) == GuidanceSpec(cfg_scale=4.0)


def test_without_a_third_setting_the_part_of_skip_guidance_is_the_gain_or_none(kit) -> None:
    seen = []
    found = kit.run(kit.plan(kit.preset()), lambda spec, pair: seen.append(0) or kit.evaluate(spec, pair), "a")
    assert found.stg_gain == found.gain
    assert len(seen) == 60
    plain = kit.run(kit.plan("cfg=3"), kit.evaluate, "b")
    assert plain.stg_gain is None
    assert plain.to_dict()["stg_gain"] is None


def test_a_guard_that_cannot_be_measured_keeps_a_setting_from_winning(kit) -> None:
    def blind(spec, pair):
        done = kit.evaluate(spec, pair)
        return replace(
            done, scores={k: v for k, v in done.scores.items() if k != "motion"}, unscored={"motion": "dark"}
        )

    found = kit.run(kit.plan(kit.preset()), blind)
    assert found.gain.low > 0
    assert found.better is None
    assert "but the guard 'motion at_least_fraction 0.7' cannot be measured" in found.reason
    assert not next(item for item in found.guards if item.scorer == "motion").measured


def test_where_nothing_differs_nothing_is_claimed(kit) -> None:
    preset = kit.preset()
    found = kit.run(kit.plan(preset), partial(kit.evaluate, lift=0.0))
    assert found.better is None
    assert found.reason == f"{preset} and {kit.default} are equivalent: less than 0.2 standard deviations apart"
    assert found.gain.low < 0 < found.gain.high


def test_where_little_is_known_little_is_said(kit) -> None:
    def noisy(spec, pair):
        noise = random.Random(f"{pair.key} {spec.hash()}").gauss(0, 3)
        done = kit.evaluate(spec, pair, lift=0.0)
        return replace(done, scores={name: value + noise for name, value in done.scores.items()})

    preset = kit.preset()
    found = kit.run(kit.plan(preset), noisy)
    assert found.better is None
    assert found.reason in (
        f"no difference is proven between {preset} and {kit.default}",
        f"{preset} is not proven better than {kit.default}; it is at most 0.2 standard deviations worse",
    )


def test_a_setting_that_freezes_the_video_does_not_win_from_either_side(kit) -> None:
    frozen = partial(kit.evaluate, motion=0.5)
    for number, sides in enumerate([(kit.preset(), "cfg"), ("cfg", kit.preset())]):
        found = kit.run(kit.plan(*sides), frozen, f"out{number}")
        assert found.better is None
        assert f"scores higher than {kit.default}, but breaks the guard 'motion" in found.reason
        broken = [item.name for item in found.guards if item.broken]
        assert broken == (["alignment drop_at_most_sd 0.25"] if number else ["motion at_least_fraction 0.7"])


def test_an_interrupted_comparison_goes_on(kit, tmp_path) -> None:
    plan = kit.plan(kit.preset())
    whole = kit.run(plan, kit.evaluate, "whole")
    seen = []

    def stopping(spec, pair):
        if len(seen) == 25:
            raise KeyboardInterrupt
        seen.append((spec.hash(), pair.key))
        return kit.evaluate(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        kit.run(plan, stopping)
    assert json.loads((tmp_path / "out" / "state.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "out" / "result.json").exists()
    first = list(seen)

    def counting(spec, pair):
        seen.append((spec.hash(), pair.key))
        return kit.evaluate(spec, pair)

    found = kit.run(plan, counting)
    assert len(first) == 25
    assert len(seen) == len(set(seen)) == 60
    assert found.to_dict() == whole.to_dict()
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == found.to_dict()


def test_both_settings_take_turns_so_that_a_stopped_comparison_has_both_on_nearly_all_pairs(kit) -> None:
    seen = []

    def noting(spec, pair):
        seen.append((spec.hash(), pair.key))
        return kit.evaluate(spec, pair)

    kit.run(kit.plan("cfg=3"), noting)
    for at in range(0, len(seen) - 2 * BLOCK, 2 * BLOCK):
        one, other = seen[at : at + BLOCK], seen[at + BLOCK : at + 2 * BLOCK]
        assert len({config for config, _ in one}) == len({config for config, _ in other}) == 1
        assert [pair for _, pair in one] == [pair for _, pair in other]
    assert len(seen) == 60


def _failing(kit, share, config):
    def fails(spec, pair):
        done = kit.evaluate(spec, pair)
        bad = spec.hash() == config and pair.seed % 100 < share
        return replace(done, scores={}, error="nan: made up") if bad else done

    return fails


def test_failed_pairs_are_counted_and_never_win(kit) -> None:
    plan = kit.plan(kit.preset())
    failing = _failing(kit, 20, plan.first.spec.hash())
    count = sum(bool(failing(plan.first.spec, pair).error) for pair in plan.pairs)
    assert 0 < count < 15
    found = kit.run(plan, failing)
    assert found.failures == {"first": count, "second": 0}
    assert found.better is None
    assert plan.second.name in found.reason


@pytest.mark.parametrize("side", ["first", "second"])
def test_a_setting_that_mostly_fails_cannot_be_compared(kit, side) -> None:
    plan = kit.plan(kit.preset())
    with pytest.raises(StgTuneError, match=r"gives no video on 30 of 30 pairs: .* nan: made up"):
        kit.run(plan, _failing(kit, 100, getattr(plan, side).spec.hash()))


def test_a_crash_is_noted_in_the_state(kit, tmp_path) -> None:
    def crashing(spec, pair):
        raise ZeroDivisionError("made up")

    with pytest.raises(ZeroDivisionError):
        kit.run(kit.plan("cfg=3"), crashing)
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert (state["status"], state["message"]) == ("failed", "ZeroDivisionError: made up")
