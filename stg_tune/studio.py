"""Model and scorers of one process, and the recipe by which a worker comes by the same."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from typing import TYPE_CHECKING

import torch

import stg_tune
from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.generate import Films, Generated, GenerationFailedError, Generator, Previews
from stg_tune.models.loras import Lora, identity, parse_loras
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.score import CompositeScorer, default_scorers, embedded_scorers
from stg_tune.score.choice import NOTHING_ELSE, ScorerChoice, kept_choice
from stg_tune.score.registry import DEFAULT
from stg_tune.search.fidelity import steps_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stg_tune.folder import RunFolder
    from stg_tune.models.base import ModelEntry
    from stg_tune.score import Score, Scorer
    from stg_tune.search import Evaluate, SearchPlan

LIBRARIES = ("torch", "diffusers", "transformers", "optuna", "numpy")
PROPOSING = ("optuna",)
"""Libraries that decide what is tried next; the others decide what an evaluation gives."""


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """How a worker comes by model and scorers: names and numbers only, the model itself never travels."""

    model: str
    """A name of ``models.names()``, or a folder."""
    path: Path | None = None
    """Local folder with the model's files, the same on every machine."""
    num_inference_steps: int | None = None
    """Denoising steps; ``None``: the model's own."""
    loras: tuple[Lora, ...] = ()
    """Loaded into the model, the same files on every machine."""
    previews: Previews | None = None
    """Where clips for Optuna's dashboard are kept."""
    films: Films | None = None
    """Where whole videos are kept, and of which pairs."""
    scorers: ScorerChoice = NOTHING_ELSE
    """What judges the videos beyond the model's own scorers, and where their files are."""

    @classmethod
    def of(cls, plan: SearchPlan, folder: RunFolder) -> ModelRecipe:
        """The recipe behind a run that is there already; raises ``StgTuneError`` when its LoRAs have changed."""
        loras = parse_loras(folder.loras)
        _check_loras(plan.loras, identity(loras))
        return cls(
            model=plan.model,
            path=folder.model_path,
            num_inference_steps=plan.num_steps,
            loras=loras,
            scorers=kept_choice(folder.path),
        )

    def __call__(self, threads: int) -> Evaluate:
        """Load model and scorers in a worker that may use ``threads`` threads."""
        torch.set_num_threads(threads)
        return Studio(self).evaluate

    def identity(self) -> Mapping[str, str]:
        """Versions and checksums that decide the numbers."""
        return numbers_identity(scorer_for(models.entry(self.model), self.scorers)) | identity(self.loras)


class Studio:
    """Model and scorers of this process, each loaded when it is first used.

    Args:
        recipe: What to load.
        generator: Used in place of loading the model.
        scorer: Used in place of the model's own scorers.
    """

    def __init__(
        self, recipe: ModelRecipe, *, generator: Generator | None = None, scorer: Scorer | None = None
    ) -> None:
        self.recipe = recipe
        self._given = generator, scorer

    @cached_property
    def generator(self) -> Generator:
        """The model."""
        given, recipe = self._given[0], self.recipe
        if given is not None:
            return given
        entry = models.entry(recipe.model)
        pipe = models.load(entry, recipe.path, recipe.loras)
        return Generator(pipe, entry, num_inference_steps=recipe.num_inference_steps)

    @cached_property
    def scorer(self) -> Scorer:
        """The scorers."""
        return self._given[1] or scorer_for(models.entry(self.recipe.model), self.recipe.scorers)

    @cached_property
    def evaluate(self) -> Evaluate:
        """Generates and scores one pair."""
        return Evaluator(self.generator, self.scorer, self.recipe.previews, self.recipe.films)

    def previewing(self, folder: Path, pair: Pair) -> Studio:
        """The same studio, whose evaluations leave clips of a pair in a folder."""
        previews = Previews(folder=folder.absolute(), pair=pair.key)
        return Studio(replace(self.recipe, previews=previews), generator=self._given[0], scorer=self.scorer)


class Evaluator:
    """``(spec, pair) -> Evaluation``: all that the search ever sees of a model.

    Args:
        generator: Makes videos.
        scorer: Judges them.
        previews: Keeps clips of one pair.
        films: Keeps whole videos of some pairs.
    """

    def __init__(
        self, generator: Generator, scorer: Scorer, previews: Previews | None = None, films: Films | None = None
    ) -> None:
        self._generator, self._scorer, self._previews, self._films = generator, scorer, previews, films

    def __call__(self, spec: GuidanceSpec, pair: Pair) -> Evaluation:
        """Generate and score one pair; a failed generation is ``Evaluation.error``."""
        begun = time.perf_counter()
        try:
            return self._together(spec, [pair], begun)[0]
        except GenerationFailedError as error:
            return Evaluation(config=spec.hash(), pair=pair, error=str(error), seconds=time.perf_counter() - begun)

    def at(self, fidelity: str) -> Evaluator:
        """The same model and scorers, videos of another fidelity (``stg_tune.search.fidelity``)."""
        return Evaluator(at_fidelity(self._generator, fidelity), self._scorer, self._previews)

    def many(self, spec: GuidanceSpec, pairs: Sequence[Pair]) -> list[Evaluation]:
        """Generate and score several pairs at once, or one by one where the batch fails."""
        try:
            return self._together(spec, pairs, time.perf_counter())
        except GenerationFailedError:
            return [self(spec, pair) for pair in pairs]

    def _together(self, spec: GuidanceSpec, pairs: Sequence[Pair], begun: float) -> list[Evaluation]:
        with warnings.catch_warnings():
            # the search meets settings without effect by itself; the effect is in every row
            warnings.simplefilter("ignore", UserWarning)
            made = self._generator.many(spec, pairs)
        videos = torch.stack([one.video.to_float() for one in made])
        scores = self._scorer(videos, [pair.prompt for pair in pairs])
        seconds = (time.perf_counter() - begun) / len(pairs)
        for pair, one in zip(pairs, made, strict=True):
            if self._previews is not None:
                self._previews.keep(spec, pair, one.video)
            if self._films is not None:
                self._films.keep(spec, pair, one)
        return [_scored(spec, *each, seconds) for each in zip(pairs, made, scores, strict=True)]


def at_fidelity(generator: Generator, fidelity: str) -> Generator:
    """The same loaded pipeline with as many steps as the fidelity has (``stg_tune.search.fidelity``)."""
    usual = generator.defaults
    return Generator(
        generator.pipeline,
        generator.entry,
        num_inference_steps=steps_at(fidelity, usual.num_inference_steps),
        height=usual.height,
        width=usual.width,
        num_frames=usual.num_frames,
        image_source=generator.image_source,
    )


def _scored(spec: GuidanceSpec, pair: Pair, made: Generated, scores: Mapping[str, Score], seconds: float) -> Evaluation:
    return Evaluation(
        config=spec.hash(),
        pair=pair,
        scores={name: score.value for name, score in scores.items() if score.value is not None},
        unscored={name: score.reason for name, score in scores.items() if score.value is None},
        seconds=seconds,
        forwards=made.forwards,
        effects=made.effects,
    )


def scorer_for(entry: ModelEntry, choice: ScorerChoice = NOTHING_ELSE) -> Scorer:
    """The scorers that know what the model shows, and those that were chosen beside them.

    Raises:
        NotReachableError: The files behind the scorers of real models are neither on this machine nor reachable.
    """
    real = partial(
        default_scorers,
        fast=choice.fast,
        fps=float(entry.defaults.fps),
        weights=choice.weights,
        offer=f"A model that brings its own scorers needs no files: stg-tune search --model {_embedded_name()}",
    )
    if not entry.embedded:
        return real(names=(*DEFAULT, *choice.more))
    own = embedded_scorers()
    return CompositeScorer([*own.measures, *real("cpu", names=choice.more).measures]) if choice.more else own


def _embedded_name() -> str:
    return next(name for name in models.names() if models.entry(name).embedded)


def versions() -> dict[str, str]:
    """Library versions of this process."""
    return {"stg-tune": stg_tune.__version__, **{name: metadata.version(name) for name in LIBRARIES}}


def numbers_identity(scorer: Scorer) -> dict[str, str]:
    """Name -> version or checksum of everything that decides what an evaluation gives."""
    libraries = {name: version for name, version in versions().items() if name not in PROPOSING}
    return {**libraries, **{f"scorer {kind.name}": kind.weights for kind in scorer.kinds}}


def _check_loras(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = next((name for name in {**then, **now} if then.get(name) != now.get(name)), None)
    if changed is not None:
        raise StgTuneError(
            f"the run was begun with {changed} ({then.get(changed, 'none')}), here it is {now.get(changed, 'none')}: "
            "numbers of both must not be mixed; put the file back, or start anew in another folder"
        )


def check_same(plan: SearchPlan, scorer: Scorer) -> None:
    """Raise ``StgTuneError`` when this process would give other numbers than those that a run holds already."""
    then = {name: version for name, version in plan.versions.items() if name not in PROPOSING}
    then |= {f"scorer {kind.name}": kind.weights for kind in plan.scorers}
    now = numbers_identity(scorer)
    changed = [name for name in then if now.get(name) != then[name]] + [
        name for name in now if name.startswith("scorer ") and name not in then
    ]
    if changed:
        name = changed[0]
        raise StgTuneError(
            f"the run was begun with {name} {then.get(name, 'missing')}, here it is {now.get(name, 'missing')}: "
            "numbers of both must not be mixed; install what it was begun with, or start anew in another folder"
        )
