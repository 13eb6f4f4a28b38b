"""Generation: the pair decides the noise, the specification decides the guidance, nothing else decides anything."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from stg_tune.errors import StgTuneError
from stg_tune.generate import GenerationFailedError, Generator
from stg_tune.models.base import ModelEntry
from stg_tune.models.open_sora.pipeline import OpenSoraPipeline
from stg_tune.records import GuidanceSpec, Pair, Restart, Segment, SkipTerm
from stg_tune.video import Video

PAIR = Pair(prompt="a red seven moving left", seed=3)
OTHER = Pair(prompt="a blue two moving up", seed=11)
PLAIN = GuidanceSpec(cfg_scale=3.0)


def _stg(scale: float = 2.0, cfg: float = 3.0, **window: float) -> GuidanceSpec:
    term = SkipTerm(name="spatial", skip_layers={"spatial": (2,)}, skip_op="residual", stg_scale=scale)
    return GuidanceSpec(cfg_scale=cfg, segments=(Segment(terms=(term,), **window),))


def _apart(one: Video, two: Video) -> float:
    return float((one.frames.float() - two.frames.float()).abs().max())


@pytest.fixture
def generator(random_pipeline: OpenSoraPipeline, random_entry: ModelEntry) -> Generator:
    return Generator(random_pipeline, random_entry)


def test_the_video_has_the_models_own_size_and_rate(generator: Generator) -> None:
    made = generator(PLAIN, PAIR)
    assert made.video.frames.shape == (5, 32, 32, 3)
    assert made.video.fps == 8
    assert made.seconds > 0


def test_the_same_request_gives_the_same_frames_whatever_came_before(generator: Generator) -> None:
    first = generator(_stg(), PAIR)
    generator(PLAIN, OTHER)
    torch.manual_seed(99)
    torch.randn(7)
    assert torch.equal(generator(_stg(), PAIR).video.frames, first.video.frames)


def test_restarts_draw_the_same_noise_whatever_came_before_and_in_batches(generator: Generator) -> None:
    spec = replace(PLAIN, restart=Restart(start=0.0, stop=1.0))
    first, other = (generator(spec, pair).video.frames for pair in (PAIR, OTHER))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(generator(spec, PAIR).video.frames, first)
    assert torch.equal(torch.get_rng_state(), state)
    both = generator.many(spec, [OTHER, PAIR])
    assert [torch.equal(made.video.frames, known) for made, known in zip(both, (other, first), strict=True)] == [
        True
    ] * 2
    assert _apart(generator(PLAIN, PAIR).video, both[1].video) > 0


def test_seed_prompt_and_guidance_all_matter(generator: Generator) -> None:
    made = generator(PLAIN, PAIR).video
    assert _apart(made, generator(PLAIN, Pair(prompt=PAIR.prompt, seed=4)).video) > 0
    assert _apart(made, generator(PLAIN, Pair(prompt="a white zero moving down", seed=3)).video) > 0
    assert _apart(made, generator(_stg(), PAIR).video) > 0


def test_a_preset_is_followed_with_all_of_its_meaning(generator: Generator) -> None:
    spec = _stg(rescale=0.9)
    preset = SimpleNamespace(spec=spec, stacks=dict(generator.entry.depths), combine_space="velocity")
    assert torch.equal(generator(preset, PAIR).video.frames, generator(spec, PAIR).video.frames)
    preset.combine_space = "sample"
    assert _apart(generator(preset, PAIR).video, generator(spec, PAIR).video) > 0


def test_a_batch_gives_what_single_calls_give(generator: Generator) -> None:
    pairs = [PAIR, OTHER, Pair(prompt=PAIR.prompt, seed=5)]
    batch = generator.many(_stg(), pairs)
    for made, pair in zip(batch, pairs, strict=True):
        single = generator(_stg(), pair)
        assert _apart(made.video, single.video) <= 1  # one of 255 levels: the rounding of a float
        assert made.forwards == pytest.approx(single.forwards)


def test_no_pairs_are_no_videos(generator: Generator) -> None:
    assert generator.many(PLAIN, []) == []


def test_cost_and_effect_are_reported(generator: Generator) -> None:
    plain, guided = generator(PLAIN, PAIR), generator(_stg(), PAIR)
    assert plain.effects == {}
    assert plain.forwards == pytest.approx(4)  # 2 steps, prompted and negative
    assert guided.effects["spatial"] > 0
    assert 4 < guided.forwards < 6  # the weak pass starts at the skipped block


@pytest.mark.parametrize("spec", [GuidanceSpec(cfg_scale=1.0), _stg(cfg=1.0), _stg(cfg=0.5)])
def test_guidance_without_cfg_runs(generator: Generator, spec: GuidanceSpec) -> None:
    assert generator(spec, PAIR).video.frames.shape[0] == 5


def test_without_cfg_the_negative_rows_are_not_paid_for(generator: Generator) -> None:
    assert generator(GuidanceSpec(cfg_scale=1.0), PAIR).forwards == pytest.approx(2)


def test_a_window_with_its_own_cfg_runs_although_the_rest_has_none(generator: Generator) -> None:
    spec = GuidanceSpec(cfg_scale=1.0, segments=(Segment(start=0.0, stop=0.5, cfg_scale=3.0),))
    assert _apart(generator(spec, PAIR).video, generator(GuidanceSpec(cfg_scale=1.0), PAIR).video) > 0


def test_a_schedule_that_needs_more_steps_says_so(random_pipeline: OpenSoraPipeline, random_entry: ModelEntry) -> None:
    entry = replace(random_entry, least_steps=2)
    Generator(random_pipeline, entry, num_inference_steps=2)
    with pytest.raises(StgTuneError, match=r"cannot denoise in 1 step\(s\): its schedule needs at least 2"):
        Generator(random_pipeline, entry, num_inference_steps=1)


def test_steps_and_size_can_be_chosen(random_pipeline: OpenSoraPipeline, random_entry: ModelEntry) -> None:
    small = Generator(random_pipeline, random_entry, num_inference_steps=1, height=16, width=24, num_frames=3)
    made = small(PLAIN, PAIR)
    assert made.video.frames.shape == (3, 16, 24, 3)
    assert made.forwards == pytest.approx(2)


def test_the_pipeline_keeps_quiet(generator: Generator, capfd: pytest.CaptureFixture[str]) -> None:
    generator(PLAIN, PAIR)
    assert capfd.readouterr() == ("", "")


def test_nan_frames_are_a_typed_failure(random_pipeline: OpenSoraPipeline, generator: Generator) -> None:
    with torch.no_grad():
        random_pipeline.transformer.spatial_blocks[1].mlp.fc1.weight.fill_(float("nan"))
    with pytest.raises(GenerationFailedError, match=r"nan: .*red seven.*seed 3") as caught:
        generator(PLAIN, PAIR)
    assert caught.value.kind == "nan"


def test_out_of_memory_is_a_typed_failure(random_pipeline: OpenSoraPipeline, generator: Generator) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    random_pipeline.vae.register_forward_pre_hook(full)
    random_pipeline.transformer.register_forward_pre_hook(full)
    with pytest.raises(GenerationFailedError, match=r"oom: .*80 GiB") as caught:
        generator(PLAIN, PAIR)
    assert caught.value.kind == "oom"


class _Told:
    """Pipelines that ask for other things, as far as the generator looks at them."""

    def set_progress_bar_config(self, **settings: object) -> None:
        pass


class _Continues(_Told):
    def __call__(self, image, height, width, num_frames=None, max_guidance_scale=3.0, fps=7) -> None:
        pass


class _ContinuesByWords(_Told):
    tokenizer = type("Tokenizer", (), {"model_max_length": 16})

    def __call__(self, image=None, prompt=None, guidance_scale=3.0, max_sequence_length=256) -> None:
        pass


def test_a_pipeline_is_told_what_it_asks_for(random_entry: ModelEntry) -> None:
    told = Generator(_Continues(), random_entry, image_source=lambda pair: pair.seed)._own_arguments(
        PLAIN, [PAIR, OTHER]
    )
    assert told == {"image": [3, 11], "max_guidance_scale": 3.0, "fps": 8}
    told = Generator(_ContinuesByWords(), random_entry, image_source=lambda pair: pair.seed)._own_arguments(
        PLAIN, [PAIR]
    )
    assert told == {"image": [3], "prompt": [PAIR.prompt], "guidance_scale": 3.0, "max_sequence_length": 16}


def test_without_a_source_no_picture_is_sent(random_entry: ModelEntry) -> None:
    told = Generator(_ContinuesByWords(), random_entry)._own_arguments(PLAIN, [PAIR])
    assert "image" not in told


def test_the_source_of_pictures_is_that_of_the_record(random_entry: ModelEntry) -> None:
    entry = replace(random_entry, image_source="stg_tune.embedded.digits:first_frame")
    (picture,) = Generator(_Continues(), entry)._own_arguments(PLAIN, [PAIR])["image"]
    assert picture.size == (64, 64)
    with pytest.raises(StgTuneError, match="is no caption of the digits"):
        Generator(_Continues(), entry)._own_arguments(PLAIN, [replace(PAIR, prompt="a dog")])
