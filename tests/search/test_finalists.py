"""Who races: the best trials, and what CFG alone is believed to do, so that skip guidance gets no credit for that."""

import dataclasses
from types import SimpleNamespace

import pytest

from stg_tune.records import Evaluation, GuidanceSpec, Pair, Restart, Segment
from stg_tune.search.bench import Measurement
from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.encoding import build_spec, is_cfg_only, rescale_of
from stg_tune.search.finalists import best_cfg_only, best_trials, without_skips
from stg_tune.search.study import Trial


def test_finalists_are_those_of_the_belief_and_then_those_that_were_measured_to_keep_the_guards(one_term):
    def trial(number, mean, *, keeps=True, pruned=False):
        spec = one_term(layer=number)
        row = Evaluation(config=spec.hash(), pair=Pair(prompt="p", seed=0), scores={})
        measured = Measurement(
            spec=spec, rows=(row,), deltas={"p": mean}, violations={"motion": -0.1 if keeps else 0.1}
        )
        return Trial(number=number, measurement=measured, pruned=pruned, repeated=False, params={})

    trials = [trial(0, 0.1), trial(1, 0.9), trial(2, 0.8, keeps=False), trial(3, 0.7, pruned=True), trial(4, 0.5)]

    def chosen(*sure, strict=False):
        ranking = [(trials[number].measurement, 0.1) for number in sure]
        return [item.number for item in best_trials(trials, SimpleNamespace(ranking=ranking, strict=strict))]

    assert chosen(0) == [0, 1, 4]
    assert chosen(2, 4, 0) == [2, 4, 0]
    assert chosen(3, 0) == [0, 1, 4]
    assert chosen(0, strict=True) == [0]
    assert chosen() == chosen(strict=True) == [1, 4, 0]


def test_a_setting_without_its_skips_keeps_all_else(one_term):
    assert without_skips(one_term(cfg_scale=2.5)) == GuidanceSpec(cfg_scale=2.5)
    (term,) = one_term().segments[0].terms
    first = Segment(start=0.0, stop=0.5, terms=(term,), combination="orthogonal", rescale=0.7)
    second = Segment(start=0.5, stop=0.8, terms=(term,), cfg_scale=5.0)
    third = Segment(start=0.8, stop=1.0, terms=(term,))
    spec = GuidanceSpec(cfg_scale=2.5, segments=(first, second, third), restart=Restart(start=0.2, stop=0.4, count=2))
    bare = without_skips(spec)
    assert is_cfg_only(bare)
    assert bare.segments == (
        Segment(start=0.0, stop=0.5, rescale=0.7),
        Segment(start=0.5, stop=0.8, cfg_scale=5.0),
    )
    assert (bare.cfg_scale, bare.restart) == (2.5, spec.restart)
    assert without_skips(bare) == bare


class TestWhatCfgAloneDoes:
    """The line's best, a trial without skips, and the finalists without theirs."""

    LINE, TRIED, BARE = build_spec(cfg_scale=2.0), build_spec(cfg_scale=3.0), build_spec(cfg_scale=5.0, rescale=0.5)

    def best(self, one_term, line, tried, bare):
        plain = one_term(cfg_scale=5.0)
        chosen = dataclasses.replace(plain, segments=(dataclasses.replace(plain.segments[0], rescale=0.5),))
        worth = {self.LINE: line, self.TRIED: tried, self.BARE: bare}
        measured = (SimpleNamespace(spec=self.TRIED), SimpleNamespace(spec=chosen))
        belief = SimpleNamespace(measured=measured, worth=lambda specs: [worth[spec] for spec in specs])
        return best_cfg_only(belief, self.LINE, [chosen])

    def test_the_one_of_which_most_is_expected(self, one_term):
        assert self.best(one_term, 0.3, 0.2, 0.1) == self.LINE
        assert self.best(one_term, 0.3, 0.4, 0.1) == self.TRIED
        assert self.best(one_term, 0.3, 0.4, 0.5) == self.BARE

    def test_the_line_where_nothing_is_expected_to_beat_the_default(self, one_term):
        assert self.best(one_term, -0.3, -0.1, -0.2) == self.LINE
        assert self.best(one_term, -0.3, -float("inf"), -float("inf")) == self.LINE


class TestRescaleThatTheLineDoesNotSee:
    """It helps at high CFG scales only, where the line does not look for it, and no layer helps."""

    @staticmethod
    def scene(landscape):
        @dataclasses.dataclass
        class Rescaled(landscape):
            def _raw(self, spec):
                helped = sum(part.rescale * (part.stop - part.start) for part in spec.segments)
                return super()._raw(spec) + 0.9 * helped * max(spec.cfg_scale - 3.6, 0.0)

            def layer(self, stack, op, index):
                return -0.1

        return Rescaled(name="r", noise=0.3, cfg_height=0.25, best_cfg=3.5)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_skip_guidance_gets_no_credit(self, landscape, make_plan, tmp_path, seed):
        scene = self.scene(landscape)
        plan = make_plan(scene, budget="400", prompts=200, seed=seed)
        result = run_search(plan, scene, directory=tmp_path)
        verdict = result.verdict
        assert verdict.improved
        assert scene.quality(result.cfg_line.best) < 0.1
        assert rescale_of(verdict.best_cfg) > 0
        assert not verdict.stg_proved
        assert scene.quality(verdict.best_cfg) > 0.5 * scene.quality(verdict.winner)
        assert result.spent <= 400
        assert snapshot(tmp_path).verdict == verdict

    def test_runs_of_before_end_as_they_were_begun(self, landscape, make_plan, tmp_path):
        scene = self.scene(landscape)
        result = run_search(make_plan(scene, budget="400", prompts=200, rules=2), scene, directory=tmp_path)
        assert result.verdict.best_cfg == result.cfg_line.best
