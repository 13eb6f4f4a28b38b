"""What was found is stored before it is filmed, and filmed by whoever has the model."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch

from stg_tune import film, models, tune
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.generate import Films, Generated
from stg_tune.outcome import filmed_pairs, filmed_settings, report
from stg_tune.outcome.effects import read_effects
from stg_tune.preset import load
from stg_tune.records import GuidanceSpec, Pair
from stg_tune.search import load_run, snapshot
from stg_tune.search.executor import InlineExecutor
from stg_tune.search.progress import silent
from stg_tune.search.result import SearchResult
from stg_tune.search.workers.placement import Placement, lay_out
from stg_tune.studio import Evaluator, ModelRecipe
from stg_tune.video import Video, read_video
from tests.conftest import evaluate, plan
from tests.test_tune import PixelScorer

INLINE = lay_out(Placement(workers=1), gpus=0, worker_bytes=1)


class Painter:
    """In place of a generator: grey clips with an effect in every step, or what ``error`` says."""

    entry = models.entry("open-sora-tiny")

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.made = error, 0

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Generated:
        if self.error:
            raise self.error
        self.made += 1
        names = [term.name for segment in spec.segments for term in segment.terms]
        video = Video(frames=torch.full((3, 32, 32, 3), 90, dtype=torch.uint8), fps=8)
        return Generated(
            video=video, effects={}, forwards=8.0, seconds=0.1, effect_series=dict.fromkeys(names, (0.25,) * 8)
        )

    def many(self, spec: GuidanceSpec, pairs: list[Pair]) -> list[Generated]:
        return [self(spec, pair) for pair in pairs]


class Scene:
    """A studio that evaluates without a model."""

    recipe = ModelRecipe(model="open-sora-tiny")
    evaluate = staticmethod(evaluate)

    def __init__(self, generator: Painter) -> None:
        self.generator = generator

    def previewing(self, folder: Path, pair: Pair) -> "Scene":
        return self


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    folder = Path(copytree(finished_run, tmp_path / "run"))
    rmtree(folder / "videos", ignore_errors=True)
    return folder


def _wanted(result: SearchResult) -> int:
    return len(filmed_pairs(result.plan)) * len(filmed_settings(result))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("much too large")])
def test_a_preset_that_is_proven_outlives_a_filming_that_fails(tmp_path: Path, error: Exception) -> None:
    folder = RunFolder.new(tmp_path / "run")
    with pytest.warns(UserWarning, match="filming what was found has failed") as told:
        outcome = tune._search(plan(), folder, Scene(Painter(error)), INLINE, storage=None, progress=silent)
    words = [str(item.message) for item in told]
    assert any(f"filming what was found has failed ({type(error).__name__}: {error})" in word for word in words)
    assert any(f"missing from the page: `stg-tune resume {folder.path}` makes them" in word for word in words)
    assert outcome.improved
    assert load(folder.preset).spec == outcome.result.verdict.winner
    assert outcome.report.exists()
    again = Painter()
    tune._search(plan(), folder, Scene(again), INLINE, storage=None, progress=silent)
    assert again.made == _wanted(outcome.result)


def test_the_report_says_when_videos_are_missing_and_not_otherwise(run: Path, recwarn: pytest.WarningsRecorder) -> None:
    report(run)
    assert "8 of 8 pairs are missing from the page" in str(recwarn.pop(UserWarning).message)
    result, films = snapshot(run), film.films_of(load_run(run).plan, RunFolder(path=run))
    film.film_result(result, films, film.here(Scene(Painter()), films))
    report(run)
    assert not [item for item in recwarn if issubclass(item.category, UserWarning)]


def test_workers_film_and_the_driver_needs_no_model(run: Path) -> None:
    result, folder = snapshot(run), RunFolder(path=run)
    films, painter = film.films_of(result.plan, folder), Painter()
    workers = InlineExecutor(Evaluator(painter, PixelScorer(), films=films))  # what a worker has in it
    film.film_result(result, films, film.by_workers(workers))
    clips = sorted((run / "videos").iterdir())
    assert len(clips) == _wanted(result) == painter.made
    assert read_video(clips[0]).frames.shape == (3, 32, 32, 3)
    assert set(read_effects(folder.effects, result.verdict.winner).values()) == {(0.25,) * 8}
    film.film_result(result, films, film.by_workers(workers))
    assert painter.made == len(clips)


def test_workers_that_cannot_film_cost_the_videos_only(run: Path) -> None:
    result, films = snapshot(run), film.films_of(load_run(run).plan, RunFolder(path=run))
    workers = InlineExecutor(Evaluator(Painter(MemoryError("no room")), PixelScorer(), films=films))
    with pytest.warns(UserWarning, match=r"has failed \(StgTuneError: \d+ of \d+ videos cannot be made; oom: no room"):
        film.film_result(result, films, film.by_workers(workers))
    assert not (run / "videos").exists()


def test_only_the_filmed_pairs_leave_videos_and_a_full_disk_fails_no_evaluation(tmp_path: Path) -> None:
    mine, other = Pair(prompt="a", seed=1), Pair(prompt="a", seed=2)
    default = GuidanceSpec(cfg_scale=2.0)
    films = Films(folder=tmp_path, pairs=frozenset({mine.key}), default=default.hash())
    worker = Evaluator(Painter(), PixelScorer(), films=films)
    assert [row.error for row in worker.many(default, [mine, other])] == ["", ""]
    assert [path.name for path in (tmp_path / "videos").iterdir()] == [f"{mine.key}-default.mp4"]
    (tmp_path / "blocked").write_text("")
    blocked = replace(films, folder=tmp_path / "blocked")
    assert Evaluator(Painter(), PixelScorer(), films=blocked)(default, mine).error == ""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "videos").write_text("a file where the folder should be")
    full = replace(films, folder=tmp_path / "full")
    assert Evaluator(Painter(), PixelScorer(), films=full)(default, mine).error == ""
    with pytest.raises(StgTuneError, match="cannot write"):
        full.write(default, mine, Painter()(default, mine))


def test_a_damaged_effect_file_costs_a_warning(run: Path) -> None:
    result, folder = snapshot(run), RunFolder(path=run)
    films = film.films_of(result.plan, folder)
    film.film_result(result, films, film.here(Scene(Painter()), films))
    file = folder.effect_series(result.verdict.winner, filmed_pairs(result.plan)[0])
    assert set(json.loads(file.read_text())) == set(read_effects(folder.effects, result.verdict.winner))
    file.write_text("{torn")
    (next(iter((run / "videos").iterdir()))).unlink()
    with pytest.warns(UserWarning, match="JSONDecodeError"):
        film.film_result(result, films, film.here(Scene(Painter()), films))


def test_real_models_are_loaded_by_workers_even_by_one_alone() -> None:
    real, tiny = models.entry("open-sora"), models.entry("open-sora-tiny")
    assert tune.layout_of(Placement(workers=1), real, None).executor == "ray"
    assert tune.layout_of(Placement(executor="inline"), real, None).executor == "inline"
    assert tune.layout_of(Placement(workers=1), tiny, None).executor == "inline"
    assert tune.layout_of(Placement(workers=2), tiny, None).executor == "ray"
