import pytest

from stg_tune.errors import StgTuneError
from stg_tune.search.driver import run_search, snapshot
from stg_tune.search.encoding import is_cfg_only
from stg_tune.search.plan import load_run
from stg_tune.search.stored import find_row, first_row, rows_of


def test_rows_are_found_by_what_people_call_them(finished_run):
    result, plan = snapshot(finished_run), load_run(finished_run).plan
    default = find_row(finished_run, "default", "0")
    assert (default.task.spec, default.task.pair) == (plan.baseline, plan.search_pairs[0])
    assert default.evaluation in result.baseline.rows
    winner = find_row(finished_run, "winner", "h10")
    assert (winner.task.spec, winner.task.pair) == (result.verdict.winner, plan.holdout_pairs[10])
    trial = result.trials[1].measurement
    found = find_row(finished_run, "1", trial.rows[0].pair.key[:6])
    assert found.evaluation == trial.rows[0]
    assert find_row(finished_run, trial.config[:8], trial.rows[0].pair.key).evaluation == trial.rows[0]


def test_workers_are_compared_with_the_oldest_row_that_skips(finished_run):
    reference = first_row(finished_run)
    guided = [row for row in rows_of(finished_run) if not is_cfg_only(row.spec)]
    assert reference.evaluation == guided[0].evaluation
    assert ":" in reference.worker


def test_before_anything_was_skipped_it_is_the_oldest(make_plan, landscape, tmp_path):
    calls = iter(range(9))

    def evaluate(spec, pair):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return landscape()(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        run_search(make_plan(landscape()), evaluate, directory=tmp_path)
    assert first_row(tmp_path).evaluation == rows_of(tmp_path)[0].evaluation


@pytest.mark.parametrize(
    ("config", "pair", "message"),
    [
        ("99999", "0", "there is no trial 99999: the run has"),
        ("nosuch", "0", "no single configuration for 'nosuch': none is stored; there are for instance"),
        ("default", "h99999", "there is no pair h99999"),
        ("default", "zzz", "no single pair of configuration"),
        ("", "0", "no single configuration for ''.* fit"),
        ("default", "", "fit"),
    ],
)
def test_words_that_fit_nothing_or_too_much(finished_run, config, pair, message):
    with pytest.raises(StgTuneError, match=message):
        find_row(finished_run, config, pair)


def test_a_run_without_a_verdict_has_no_winner(stopped_run):
    with pytest.raises(StgTuneError, match="no winner yet"):
        find_row(stopped_run, "winner", "0")
