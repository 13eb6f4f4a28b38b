import pytest

from stg_tune.errors import StgTuneError
from stg_tune.preset.schedules import linear_quadratic, parse, uniform


@pytest.mark.parametrize("steps", [2, 3, 7, 30, 64])
def test_linear_quadratic_is_that_of_mochi(steps):
    mochi = pytest.importorskip("diffusers.pipelines.mochi.pipeline_mochi")
    expected = mochi.linear_quadratic_schedule(steps, 0.025)
    assert linear_quadratic(steps) == pytest.approx(tuple(expected)[:steps], abs=1e-6)


def test_uniform_and_shift():
    assert uniform(4) == (1.0, 0.75, 0.5, 0.25)
    assert uniform(2, shift=3.0) == (1.0, 0.75)


def test_parse():
    assert parse("linear-quadratic", 30) == linear_quadratic(30)
    assert parse("uniform:3", 2) == uniform(2, shift=3.0)
    assert parse("1, 0.5", 2) == (1.0, 0.5)


@pytest.mark.parametrize("text", ["", "x", "uniform:x", "1,2,x", "linear-quadratic:2", "uniform:nan:"])
def test_other_words_are_refused(text):
    with pytest.raises(StgTuneError, match="--sigmas"):
        parse(text, 3)


def test_too_few_steps():
    with pytest.raises(StgTuneError, match="at least 2 steps"):
        linear_quadratic(1)
