"""The stages together: what a model makes is scored, searched, proved, filmed and reported."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from stg_tune import film, models, tune
from stg_tune.embedded import digits
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.generate import Generator
from stg_tune.guidance.checks import check_terms
from stg_tune.models.base import ModelEntry
from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.outcome import filmed_settings
from stg_tune.outcome.effects import read_effects
from stg_tune.preset import carried_over, load, published
from stg_tune.records import GuidanceSpec, Pair, Score, ScoreKind
from stg_tune.search import SearchPlan, load_space
from stg_tune.search.progress import silent
from stg_tune.search.workers.placement import Placement, lay_out
from stg_tune.studio import Evaluator, ModelRecipe, Studio, check_same, numbers_identity, scorer_for, versions
from stg_tune.tune import Request, default_prompts, draft_plan, read_prompts, with_warm_starts
from stg_tune.video import read_video

PAIR = Pair(prompt="a red seven moving left", seed=3)
NAMES = {"aesthetic": "maximize", "imaging_quality": "maximize", "temporal_lpips": "minimize", "alignment": "maximize"}


class PixelScorer:
    """Likes green and dislikes red; arithmetic on the frames, so that guidance can move it either way."""

    kinds = tuple(
        ScoreKind(name=name, direction=direction, low=0.0, high=1.0, unit="share")
        for name, direction in {**NAMES, "motion": "maximize", "saturation": "minimize"}.items()
    )

    def __call__(self, videos: torch.Tensor, prompts: list[str]) -> list[dict[str, Score]]:
        return [self._one(video) for video in videos]

    def _one(self, video: torch.Tensor) -> dict[str, Score]:
        red, green = float(video[:, 0].mean()), float(video[:, 1].mean())
        values = {kind.name: red if kind.direction == "minimize" else green for kind in self.kinds}
        scores = {kind.name: Score(kind=kind, value=values[kind.name]) for kind in self.kinds}
        motion = replace(scores["motion"], value=1.0)
        unscored = replace(scores["saturation"], value=None, reason="no colour at all")
        return {**scores, "motion": motion} if green else {**scores, "saturation": unscored}


@pytest.fixture
def generator(random_pipeline: OpenSoraPipeline, random_entry: ModelEntry) -> Generator:
    return Generator(random_pipeline, random_entry, num_inference_steps=1, height=16, width=16, num_frames=1)


@pytest.fixture
def evaluate(generator: Generator) -> Callable:
    return Evaluator(generator, PixelScorer())


def test_an_evaluation_carries_scores_cost_and_effects(evaluate: Callable) -> None:
    done = evaluate(GuidanceSpec(cfg_scale=3.0), PAIR)
    assert done.config == GuidanceSpec(cfg_scale=3.0).hash()
    assert set(done.scores) == {kind.name for kind in PixelScorer.kinds}
    assert done.forwards == pytest.approx(2)
    assert done.seconds > 0
    assert done.error == ""


def test_the_same_evaluation_gives_the_same_scores(evaluate: Callable) -> None:
    spec = GuidanceSpec(cfg_scale=3.0)
    assert evaluate(spec, PAIR).scores == evaluate(spec, PAIR).scores


def test_what_cannot_be_scored_is_not_zero(evaluate: Callable, random_pipeline: OpenSoraPipeline) -> None:
    decode = random_pipeline.vae.decode
    random_pipeline.vae.decode = lambda *arguments: decode(*arguments) * 0 - 1
    done = evaluate(GuidanceSpec(cfg_scale=3.0), PAIR)
    assert "saturation" not in done.scores
    assert done.unscored == {"saturation": "no colour at all"}


def test_a_failed_generation_is_a_row_with_its_kind(evaluate: Callable, random_pipeline: OpenSoraPipeline) -> None:
    with torch.no_grad():
        random_pipeline.transformer.spatial_blocks[1].mlp.fc1.weight.fill_(float("nan"))
    done = evaluate(GuidanceSpec(cfg_scale=3.0), PAIR)
    assert done.error.startswith("nan: ")
    assert done.scores == {}


def test_a_batch_gives_what_one_evaluation_each_gives_up_to_rounding(evaluate: Callable) -> None:
    spec = GuidanceSpec(cfg_scale=3.0)
    pairs = [PAIR, replace(PAIR, seed=PAIR.seed + 1), replace(PAIR, prompt="a longer caption of a red seven")]
    together = evaluate.many(spec, pairs)
    for one, pair in zip(together, pairs, strict=True):
        alone = evaluate(spec, pair)
        assert one.pair == pair
        assert one.scores == pytest.approx(alone.scores, abs=0.01)  # one grey level of 256 is 0.004
        assert one.forwards == pytest.approx(alone.forwards)


def test_one_pair_that_fails_does_not_spoil_its_batch(evaluate: Callable, random_pipeline: OpenSoraPipeline) -> None:
    bad, decode = replace(PAIR, seed=PAIR.seed + 1), random_pipeline.vae.decode
    noise = random_pipeline(
        prompt=[bad.prompt],
        generator=[torch.Generator("cpu").manual_seed(bad.seed)],
        output_type="latent",
        num_inference_steps=1,
        height=16,
        width=16,
        num_frames=1,
        guidance_scale=3.0,
    ).frames

    def broken(latents: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        video = decode(latents, *arguments, **named)
        spoiled = [(one - noise[0]).abs().max() < 1e-2 for one in latents.to(noise)]
        return torch.where(torch.tensor(spoiled)[:, None, None, None, None], float("nan"), video)

    random_pipeline.vae.decode = broken
    done = evaluate.many(GuidanceSpec(cfg_scale=3.0), [PAIR, bad])
    assert [row.error[:4] for row in done] == ["", "nan:"]


def test_a_studio_keeps_clips_of_one_pair_wherever_it_works(generator: Generator, tmp_path: Path) -> None:
    recipe, folder = ModelRecipe(model="open-sora-tiny"), RunFolder(path=tmp_path)
    studio = Studio(recipe, generator=generator, scorer=PixelScorer()).previewing(folder.previews, PAIR)
    specs = [GuidanceSpec(cfg_scale=scale) for scale in (2.0, 3.0)]
    for spec in specs:
        studio.evaluate.many(spec, [replace(PAIR, seed=9), PAIR])
    assert sorted(file.name for file in folder.previews.iterdir()) == sorted(spec.hash() for spec in specs)
    travelled = pickle.loads(pickle.dumps(studio.recipe))  # what a worker gets: no frames come back from it
    assert travelled.previews == studio.recipe.previews
    assert travelled.previews.folder.is_absolute()


def test_prompts_are_lines_without_remarks(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# remark\n\n  a red seven  \na blue two\n", encoding="utf-8")
    assert read_prompts(file) == ["a red seven", "a blue two"]


def test_embedded_models_bring_their_captions_and_others_get_the_general_list() -> None:
    assert default_prompts(models.entry("open-sora-tiny")) == digits.captions()
    general = default_prompts(models.entry("open-sora"))
    assert len(set(general)) == len(general) >= 40
    assert not set(general) & set(digits.captions())


def test_embedded_models_get_their_own_scorers_and_others_those_of_real_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    monkeypatch.setattr("stg_tune.studio.default_scorers", lambda *, fps, **_: asked.append(fps))
    scorer_for(models.entry("open-sora"))
    assert asked == [models.entry("open-sora").defaults.fps]
    assert {kind.name for kind in scorer_for(models.entry("open-sora-tiny")).kinds} >= {"aesthetic", "imaging_quality"}
    assert len(asked) == 1


def _plan(entry: ModelEntry, **changes: object) -> SearchPlan:
    return draft_plan(Request(model="open-sora-tiny", **changes), entry)(PixelScorer())


def test_a_plan_keeps_search_and_held_out_apart() -> None:
    plan = _plan(models.entry("open-sora-tiny"))
    search, holdout = ({pair.prompt for pair in pairs} for pairs in (plan.search_pairs, plan.holdout_pairs))
    assert not search & holdout
    seeds = [pair.seed for pair in (*plan.search_pairs, *plan.holdout_pairs)]
    assert len(set(seeds)) == len(seeds)
    assert plan.baseline == GuidanceSpec(cfg_scale=models.entry("open-sora-tiny").defaults.cfg_scale)
    assert set(plan.versions) >= {"stg-tune", "torch", "diffusers"}


def test_published_settings_race_where_they_were_made_for_the_same_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = models.entry("open-sora-tiny")
    prior = published("mochi")[0]
    fitting = replace(prior, stacks=entry.depths, spec=GuidanceSpec(cfg_scale=3.0), name="fitting")
    monkeypatch.setattr("stg_tune.preset.published", lambda family: [prior, fitting])
    assert dict(_plan(entry).published) == {"fitting": GuidanceSpec(cfg_scale=3.0)}


def test_where_none_was_made_for_the_same_blocks_the_nearest_sibling_races_by_relative_depth() -> None:
    entry = models.entry("mochi-tiny")
    (name, spec), *others = tune.published_for(entry).items()
    assert not others
    source = name.removesuffix(", by relative depth")
    (prior,) = [prior for prior in published("mochi") if prior.name == source != name]
    assert spec == carried_over(prior, entry.depths) != prior.spec
    assert tune.published_for(models.entry("open-sora-tiny")) == {}


@pytest.mark.parametrize("model", ["svd", "svd-tiny", "mochi", "mochi-tiny", "open-sora", "open-sora-tiny"])
def test_what_a_search_tries_first_can_be_run(model: str) -> None:
    """SVD's published setting leaves CFG to the pipeline, whose result cannot be rescaled."""
    entry = models.entry(model)
    space = with_warm_starts(load_space(model, entry.depths), entry, [])
    first = {**tune.published_for(entry), **{start.name: start.spec for start in space.warm_starts}}
    for spec in first.values():
        assert spec.cfg_source == "spec"
        check_terms(spec, weak_model=None)
    told = [name for name in first if name.endswith(", one CFG scale 3")]
    assert bool(told) == model.startswith("svd")


def test_the_seed_decides_the_split() -> None:
    entry = models.entry("open-sora-tiny")
    assert _plan(entry, seed=1).search_pairs == _plan(entry, seed=1).search_pairs
    assert _plan(entry, seed=1).search_pairs != _plan(entry, seed=2).search_pairs


@pytest.mark.slow
def test_a_whole_run_leaves_everything_behind_and_can_be_looked_at_again(
    generator: Generator, random_entry: ModelEntry, tmp_path: Path
) -> None:
    space = load_space("open-sora-tiny")
    stacks = {name: replace(stack, max_layers=2, max_offset=1) for name, stack in space.stacks.items()}
    plan = _plan(models.entry("open-sora-tiny"), budget="150")
    plan = replace(plan, depths=random_entry.depths, num_steps=1, space=replace(space, stacks=stacks))
    folder = RunFolder.new(tmp_path / "run")
    folder.make()
    studio = Studio(ModelRecipe(model="random"), generator=generator, scorer=PixelScorer())
    inline = lay_out(Placement(workers=1), gpus=0, worker_bytes=1)
    outcome = tune._search(plan, folder, studio, inline, storage=None, progress=silent)
    films = sorted((tmp_path / "run" / "videos").iterdir())
    verdict = outcome.result.verdict
    terms = {term.name for segment in verdict.winner.segments for term in segment.terms}
    assert set(read_effects(folder.effects, verdict.winner)) == terms
    assert len(films) == 8 * len(filmed_settings(outcome.result))
    assert read_video(films[0]).frames.shape == (1, 16, 16, 3)
    page = outcome.report.read_text(encoding="utf-8")
    assert page.count("<video") == len(films)
    assert outcome.improved == (outcome.preset is not None) == folder.preset.exists()
    if outcome.preset is not None:
        assert load(outcome.preset).spec == outcome.result.verdict.winner
    again = tune._search(plan, folder, studio, inline, storage=None, progress=silent)
    assert again.result.spent == outcome.result.spent
    assert again.result.verdict == outcome.result.verdict


def test_a_recipe_travels_and_sets_the_threads() -> None:
    recipe = pickle.loads(pickle.dumps(ModelRecipe(model="open-sora-tiny", num_inference_steps=1)))
    before = torch.get_num_threads()
    try:
        evaluate = recipe(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    done = evaluate(GuidanceSpec(cfg_scale=2.0), PAIR)
    assert not done.error
    assert {f"scorer {name}" for name in done.scores} <= recipe.identity().keys()


def test_identity_is_what_decides_the_numbers() -> None:
    identity = numbers_identity(PixelScorer())
    assert identity["torch"] == metadata.version("torch")
    assert identity["scorer motion"] == "none"
    assert "optuna" not in identity
    assert "optuna" in versions()


def test_scorers_and_versions_must_not_change_between_sessions() -> None:
    plan = _plan(models.entry("open-sora-tiny"))
    check_same(plan, PixelScorer())
    check_same(replace(plan, versions=dict(plan.versions) | {"optuna": "4.0"}), PixelScorer())
    with pytest.raises(StgTuneError, match=r"begun with torch 1\.0, here it is 2.*must not be mixed"):
        check_same(replace(plan, versions=dict(plan.versions) | {"torch": "1.0"}), PixelScorer())
    other = tuple(replace(kind, weights="f00d") if kind.name == "motion" else kind for kind in plan.scorers)
    with pytest.raises(StgTuneError, match="begun with scorer motion f00d, here it is none"):
        check_same(replace(plan, scorers=other), PixelScorer())
    less = tuple(kind for kind in plan.scorers if kind.name != "motion")
    space = replace(plan.space, objective=replace(plan.space.objective, guards=()))
    with pytest.raises(StgTuneError, match="scorer motion missing, here it is none"):
        check_same(replace(plan, space=space, scorers=less), PixelScorer())


def test_a_preset_of_another_model_is_refused(generator: Generator, tmp_path: Path) -> None:
    from stg_tune.preset import Preset, save

    entry = models.entry("open-sora-tiny")
    preset = Preset(
        name="other",
        family=entry.architecture.family,
        model="other",
        checkpoint="x",
        revision="",
        stacks={"spatial": 28, "temporal": 28},
        spec=GuidanceSpec(cfg_scale=3.0),
        generation=entry.defaults,
    )
    save(preset, tmp_path / "other.json")
    with pytest.raises(StgTuneError, match=r"other\.json is for other"):
        film.render(entry, PAIR, tmp_path / "a.mp4", preset=tmp_path / "other.json")


def test_what_is_published_for_sibling_models_is_tried_first():
    priors = published("ltx")
    [stack] = priors[0].stacks
    architecture = replace(models.entry("open-sora").architecture, family="ltx")
    entry = replace(models.entry("open-sora"), architecture=architecture, depths={stack: 11})
    space = load_space("open-sora-tiny", models.entry("open-sora-tiny").depths)
    warm = with_warm_starts(space, entry, ["mochi/published"] if stack == "blocks" else []).warm_starts
    known = {prior.name: prior for prior in (*priors, *published("mochi"))}
    assert len(warm) >= tune.SIBLINGS
    for start in warm:
        terms = [term for segment in start.spec.segments for term in segment.terms]
        assert start.spec != known[start.source].spec
        assert all(max(layers[stack]) < 11 for layers in (term.skip_layers for term in terms))


def test_a_preset_of_another_architecture_is_no_warm_start():
    with pytest.raises(StgTuneError, match="does not have"):
        draft_plan(Request(model="open-sora-tiny", warm_starts=("mochi/published",)), models.entry("open-sora-tiny"))


def test_without_siblings_the_space_stays_as_it_is():
    entry = models.entry("open-sora-tiny")
    space = load_space("open-sora-tiny", entry.depths)
    assert with_warm_starts(space, entry, []) == space
