"""Maps, fronts and prompts: means are over the right configurations, and fronts hold what nothing beats."""

from dataclasses import replace
from statistics import fmean

import pytest

from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.report import Findings, Trial
from stg_tune.report.fronts import cost_front, motion_front
from stg_tune.report.map_figures import front_figure, knob_figure, map_figure, scatter_figure, surface_figure
from stg_tune.report.maps import map_facts, surface_facts
from stg_tune.report.prompts import prompt_facts, scatter_facts


def _skip(scale: float, *layers: int, stack: str = "spatial") -> GuidanceSpec:
    term = SkipTerm(name=stack, skip_layers={stack: layers}, skip_op="attention", stg_scale=scale)
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=(term,)),))


def _tried(spec: GuidanceSpec, *gains: float, **more: object) -> Trial:
    return Trial(stage="search", spec=spec, gains=gains, **more)


def _only(findings: Findings, *trials: Trial) -> Findings:
    return replace(findings, trials=trials, layers=())


def test_a_cell_is_the_mean_over_its_configurations_weighted_by_pairs(findings: Findings) -> None:
    trials = (_tried(_skip(0.1, 3), 1.0), _tried(_skip(0.1, 3, 4), 0.0, 0.0, 0.0), _tried(_skip(1.6, 4), 0.5))
    found = map_facts(_only(findings, *trials))
    cells = {(cell.layer, cell.band): cell for cell in found.cells}
    assert cells[3, 0].gain == pytest.approx(0.25)
    assert (cells[3, 0].configurations, cells[3, 0].pairs) == (2, 4)
    assert cells[4, 0].gain == 0.0
    assert cells[4, 5].gain == 0.5
    assert found.edges[0] == pytest.approx(0.1)
    assert found.edges[-1] == pytest.approx(1.6)
    assert found.edges[3] == pytest.approx(0.4)


def test_single_layers_of_the_screen_count_over_the_default(findings: Findings) -> None:
    layer = findings.layers[0]
    found = map_facts(replace(findings, trials=(), layers=(layer,), screen_gain=0.2))
    (cell,) = found.cells
    assert cell.gain == pytest.approx(layer.gain + 0.2)
    assert len(found.edges) == 2
    assert found.edges[0] < layer.scale < found.edges[1]


def test_places_that_nobody_tried_stay_empty(findings: Findings) -> None:
    trace = map_figure(map_facts(_only(findings, _tried(_skip(0.1, 3), 1.0), _tried(_skip(1.6, 4), 0.5)))).data[0]
    assert trace.z[0][3] == 1.0
    assert trace.z[5][4] == 0.5
    assert sum(value is not None for row in trace.z for value in row) == 2
    assert "1 configurations, 1 pairs" in trace.text[0][3]


def test_zero_is_in_the_middle_of_the_colours(findings: Findings) -> None:
    for figure in (map_figure(map_facts(findings)), surface_figure(surface_facts(findings))):
        assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax


def test_the_surface_has_two_stacks_and_is_smooth_near_its_points(findings: Findings) -> None:
    found = surface_facts(findings)
    assert found is not None
    assert found.stacks == ("spatial", "temporal")
    assert any(point.x > 0 and point.y > 0 for point in found.points)
    assert any(value is None for row in found.smooth for value in row)
    gains = [point.gain for point in found.points]
    known = [value for row in found.smooth for value in row if value is not None]
    assert min(gains) - 1e-9 <= min(known) <= max(known) <= max(gains) + 1e-9


def test_one_stack_has_no_surface(findings: Findings) -> None:
    assert surface_facts(_only(findings, *[_tried(_skip(0.1 * n, 3), 1.0) for n in range(1, 9)])) is None


def test_the_front_holds_what_nothing_beats_in_both(findings: Findings) -> None:
    costs = ((1.0, 0.0), (1.2, 0.5), (1.3, 0.4), (1.5, 0.9), (1.5, 0.7))
    trials = [_tried(_skip(0.1 * n, 3), gain, cost=cost) for n, (cost, gain) in enumerate(costs, start=1)]
    stopped = _tried(_skip(0.9, 3), 5.0, cost=1.1, pruned=True)
    broken = _tried(_skip(0.8, 3), 5.0, cost=1.1, broken=("motion",))
    found = cost_front(_only(findings, *trials, stopped, broken))
    assert [(point.x, point.gain) for point in found.front] == [(1.0, 0.0), (1.2, 0.5), (1.5, 0.9)]
    assert len(found.points) == 5


def test_more_motion_is_better(findings: Findings) -> None:
    moves = ((1.0, 0.0), (0.8, 0.9), (0.9, 0.5), (0.7, 0.4))
    trials = [_tried(_skip(0.1 * n, 3), gain, motion=motion) for n, (motion, gain) in enumerate(moves, start=1)]
    found = motion_front(_only(findings, *trials, _tried(_skip(0.9, 3), 9.0)))
    assert [(point.x, point.gain) for point in found.front] == [(0.8, 0.9), (0.9, 0.5), (1.0, 0.0)]
    assert len(found.points) == 4


def test_default_tuned_and_published_are_told_apart(findings: Findings) -> None:
    tuned = replace(findings.trials[0], stage="search", spec=findings.tuned)
    paper = replace(findings.trials[0], stage="published", spec=findings.published["paper"])
    found = cost_front(replace(findings, trials=(*findings.trials, tuned, paper)))
    kinds = {point.kind for point in found.points}
    assert kinds == {"default", "CFG only", "search", "tuned", "published"}
    symbols = {trace.name: trace.marker.symbol for trace in front_figure(found, "work").data if trace.name != "front"}
    assert len(set(symbols.values())) > 3


def test_prompts_are_ranked_with_all_their_seeds(findings: Findings) -> None:
    found = prompt_facts(findings)
    means = {
        f"digit {n}": fmean(pair.gain for pair in findings.prompts if pair.prompt == f"digit {n}") for n in range(12)
    }
    ranked = sorted(means, key=lambda name: -means[name])
    assert [row.prompt for row in found.best] == ranked[:5]
    assert [row.prompt for row in found.worst] == ranked[::-1][:5]
    assert found.best[0].seeds == tuple(p.seed for p in findings.prompts if p.prompt == ranked[0])
    assert (found.better, found.total) == (sum(mean > 0 for mean in means.values()), 12)


def test_few_prompts_are_not_shown_at_both_ends(findings: Findings) -> None:
    found = prompt_facts(replace(findings, prompts=findings.prompts[:12]))
    assert (len(found.best), len(found.worst)) == (5, 1)


def test_a_scatter_knows_which_way_its_scorer_points(findings: Findings) -> None:
    found = {item.scorer: item for item in scatter_facts(findings)}
    assert next(iter(found)) == "aesthetic"
    assert found["saturation"].better == 0
    assert found["aesthetic"].better == sum(pair.gain > 0 for pair in findings.prompts)
    better, others = scatter_figure(found["aesthetic"]).data
    assert len(better.x) == found["aesthetic"].better
    assert len(better.x) + len(others.x) == 24
    assert better.marker.symbol != others.marker.symbol


def test_importance_shows_what_chance_reaches(findings: Findings) -> None:
    bars, chance = knob_figure(findings.knobs).data
    assert list(bars.x) == [0.6, 0.4]
    assert list(chance.x) == [0.3, 0.5]
    assert bars.marker.color[0] != bars.marker.color[1]
