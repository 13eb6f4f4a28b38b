"""OpenSoraPipeline: parity with recorded runs, then what a caller relies on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.pipeline import OpenSoraPipeline, OpenSoraPipelineOutput
from stg_tune.models.open_sora.schedule import OpenSoraScheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

RUNS = ("main", "realres", "notransform", "discrete_gs3", "oddsize", "image")
STEPS = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}


def _run(golden: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    tensors = load_file(golden / "rflow_sample.safetensors")
    run = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    return run, json.loads((golden / "rflow_sample.meta.json").read_text())[name], tensors


def _arguments(run: dict[str, Tensor], meta: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    sizes = {name: int(run[f"args.{name}"][0]) for name in ("height", "width", "num_frames", "fps")}
    return {
        **sizes,
        "latents": run["z0"],
        "prompt_embeds": tensors["text.y"][: meta["n"]],
        "prompt_attention_mask": tensors["text.mask"][: meta["n"]],
        "num_inference_steps": meta["steps"],
        "guidance_scale": meta["sample"].get("guidance_scale", 7.0),
        "output_type": "latent",
    }


def _record_calls(pipe: OpenSoraPipeline) -> list[dict[str, Any]]:
    """Puts a wrapper in the place of ``transformer.forward``, as guidance does."""
    calls: list[dict[str, Any]] = []
    inner = pipe.transformer.forward

    def forward(x: Tensor, timestep: Tensor, y: Tensor, **rest: Any) -> Tensor:
        calls.append({"x": x, "timestep": timestep, "y": y, **rest, "out": inner(x, timestep, y, **rest)})
        return calls[-1]["out"]

    pipe.transformer.forward = forward
    return calls


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_the_recorded_official_one_step_by_step(
    name: str, golden: Path, make_pipeline: Callable[..., OpenSoraPipeline]
) -> None:
    run, meta, tensors = _run(golden, name)
    settings = {k: v for k, v in meta["sched"].items() if k.startswith("use_")}
    pipe = make_pipeline(scheduler=OpenSoraScheduler(**settings))
    calls = _record_calls(pipe)
    out = pipe(**_arguments(run, meta, tensors)).frames
    for index, call in enumerate(calls):
        torch.testing.assert_close(call["x"], run[f"step{index}.z_in"], atol=1e-4, rtol=0)
        torch.testing.assert_close(call["timestep"], run[f"step{index}.t"], atol=1e-3, rtol=0)
        torch.testing.assert_close(call["out"], run[f"step{index}.pred"], atol=1e-4, rtol=0)
    assert len(calls) == meta["steps"]
    torch.testing.assert_close(out, run["out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("own_generator", [True, False])
def test_a_masked_run_equals_the_recorded_one_with_noise_drawn_in_order(
    own_generator: bool, golden: Path, pipe: OpenSoraPipeline
) -> None:
    run, meta, tensors = _run(golden, "masked")
    calls = _record_calls(pipe)
    generator = torch.manual_seed(meta["seed"])
    out = pipe(
        **_arguments(run, meta, tensors),
        conditioning_latents=run["z0"],
        conditioning_mask=run["mask"],
        generator=torch.Generator().manual_seed(meta["seed"]) if own_generator else None,
    ).frames
    assert generator is torch.default_generator
    for index, call in enumerate(calls):
        assert torch.equal(call["x_mask"], run[f"step{index}.x_mask"])
        torch.testing.assert_close(call["x"], run[f"step{index}.z_in"], atol=1e-4, rtol=0)
    torch.testing.assert_close(out, run["out"], atol=1e-4, rtol=0)


def test_bfloat16_weights_see_bfloat16_latents_once_and_sizes_rounded_as_recorded(
    golden: Path, make_pipeline: Callable[..., OpenSoraPipeline]
) -> None:
    run, meta, tensors = _run(golden, "bf16")
    pipe = make_pipeline()
    pipe.transformer.to(torch.bfloat16)
    calls = _record_calls(pipe)
    arguments = _arguments(run, meta, tensors) | {"height": 240, "width": 426, "num_frames": 17, "fps": 24}
    out = pipe(**arguments).frames
    assert [str(call["x"].dtype) for call in calls] == meta["z_in_dtypes"]
    assert str(out.dtype) == meta["out_dtype"]
    for index, call in enumerate(calls):
        assert torch.equal(call["timestep"], run[f"step{index}.t"])
    for name in ("height", "width", "fps"):
        assert torch.equal(calls[0][name], run[f"args.{name}"].repeat(2))
    # bfloat16 keeps 8 bits: one step agrees to a few hundredths of the prediction's spread of about 1.3.
    torch.testing.assert_close(calls[0]["out"], run["step0.pred"], atol=0.1, rtol=0)
    assert out.std().item() == pytest.approx(meta["out_std"], rel=0.1)


def test_one_call_computes_cond_and_uncond_rows_and_the_null_caption_has_the_prompts_mask(
    pipe: OpenSoraPipeline,
) -> None:
    calls = _record_calls(pipe)
    pipe(["a red seven", "two"], **STEPS)
    first = calls[0]
    assert len(calls) == 2
    assert len(first["x"]) == 4
    null = pipe.transformer.y_embedder.y_embedding
    assert torch.equal(first["y"][2:], null[None, None].expand(2, -1, -1, -1))
    assert torch.equal(first["mask"][:2], first["mask"][2:])
    assert {name: first[name].shape for name in ("fps", "height", "width")} == dict.fromkeys(
        ("fps", "height", "width"), (4,)
    )


def test_without_guidance_only_cond_rows_are_computed(pipe: OpenSoraPipeline) -> None:
    calls = _record_calls(pipe)
    pipe("a red seven", negative_prompt="two", **STEPS | {"guidance_scale": 1.0})
    assert [len(call["x"]) for call in calls] == [1, 1]


def test_a_negative_prompt_is_encoded_with_its_own_mask_and_changes_the_video(pipe: OpenSoraPipeline) -> None:
    noise = torch.randn(1, 4, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = pipe("a red seven", latents=noise, **STEPS).frames
    calls = _record_calls(pipe)
    negative = pipe("a red seven", negative_prompt="two", latents=noise, **STEPS).frames
    embeds, mask = pipe.encode_prompt("two")
    assert torch.equal(calls[0]["y"][1:], embeds)
    assert torch.equal(calls[0]["mask"][1:], mask)
    assert not torch.allclose(plain, negative)
    given = pipe(
        "a red seven", negative_prompt_embeds=embeds, negative_prompt_attention_mask=mask, latents=noise, **STEPS
    ).frames
    assert torch.equal(negative, given)


def test_two_prompts_in_one_call_equal_two_calls(pipe: OpenSoraPipeline) -> None:
    prompts = ["a red seven moving left", "a blue two"]
    together = pipe(prompts, generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)], **STEPS).frames
    for index, seed in enumerate((3, 4)):
        alone = pipe(prompts[index], generator=torch.Generator().manual_seed(seed), **STEPS).frames
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=0)


def test_videos_of_one_prompt_lie_next_to_each_other(pipe: OpenSoraPipeline) -> None:
    noise = torch.randn(4, 4, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    many = pipe(["a red seven", "two"], num_videos_per_prompt=2, latents=noise, **STEPS).frames
    spelled = pipe(["a red seven", "a red seven", "two", "two"], latents=noise, **STEPS).frames
    torch.testing.assert_close(many, spelled, atol=1e-5, rtol=0)


def test_scores_reach_the_text_encoder(pipe: OpenSoraPipeline) -> None:
    calls = _record_calls(pipe)
    pipe("a", aesthetic_score=6.5, **STEPS)
    pipe("a aesthetic score: 6.5.", **STEPS)
    assert torch.equal(calls[0]["y"], calls[2]["y"])
    assert not torch.equal(calls[0]["y"][:1], pipe.encode_prompt("a")[0])


def test_a_seed_gives_one_video_and_another_seed_another(pipe: OpenSoraPipeline) -> None:
    first, again, other = (
        pipe("two", generator=torch.Generator().manual_seed(seed), **STEPS).frames for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_seed_means_the_same_noise_in_every_precision(pipe: OpenSoraPipeline) -> None:
    calls = _record_calls(pipe)
    settings = STEPS | {"num_inference_steps": 1, "guidance_scale": 1.0}
    pipe("two", generator=torch.Generator().manual_seed(5), **settings)
    pipe.transformer.to(torch.bfloat16)
    pipe("two", generator=torch.Generator().manual_seed(5), **settings)
    assert torch.equal(calls[0]["x"].to(torch.bfloat16), calls[1]["x"])


def test_given_first_frames_stay_and_the_rest_is_made(pipe: OpenSoraPipeline) -> None:
    frames = torch.rand(17, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    given = pipe.encode_frames(frames[:1], pipe.video_size())
    plain = pipe("two", generator=torch.Generator().manual_seed(5), **STEPS).frames
    out = pipe("two", conditioning_frames=frames[:1], generator=torch.Generator().manual_seed(5), **STEPS).frames
    torch.testing.assert_close(out[:, :, :1], given)
    assert not torch.allclose(out[:, :, 1:], plain[:, :, 1:])
    same = pipe("two", conditioning_latents=given, generator=torch.Generator().manual_seed(5), **STEPS).frames
    assert torch.equal(out, same)


def test_a_callback_sees_and_replaces_tensors_and_can_stop(pipe: OpenSoraPipeline) -> None:
    seen = []

    def callback(pipe: OpenSoraPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, float(timestep), sorted(tensors)))
        pipe._interrupt = step == 1
        return {"latents": torch.full_like(tensors["latents"], 7.0)}

    out = pipe(
        "two",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        **STEPS | {"num_inference_steps": 4},
    ).frames
    assert [(step, names) for step, _, names in seen] == [
        (0, ["latents", "prompt_embeds"]),
        (1, ["latents", "prompt_embeds"]),
    ]
    assert seen[0][1] == pytest.approx(1000.0)
    assert torch.equal(out, torch.full_like(out, 7.0))
    assert pipe.current_timestep is None


def test_output_forms_agree(pipe: OpenSoraPipeline) -> None:
    noise = torch.randn(1, 4, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    settings = STEPS | {"latents": noise, "height": 16, "width": 24}
    pt, array, images = (pipe("two", **settings | {"output_type": form}).frames for form in ("pt", "np", "pil"))
    assert pt.shape == (1, 17, 3, 16, 24)
    assert array.shape == (1, 17, 16, 24, 3)
    assert pt.min() >= 0
    assert pt.max() <= 1
    torch.testing.assert_close(pt.permute(0, 1, 3, 4, 2), torch.from_numpy(array))
    assert (len(images), len(images[0]), images[0][0].size) == (1, 17, (24, 16))
    (frames,) = pipe("two", **settings | {"output_type": "pt"}, return_dict=False)
    assert torch.equal(frames, pt)
    assert isinstance(pipe("two", **settings), OpenSoraPipelineOutput)


def test_slicing_and_tiling_are_switched_on_the_autoencoder(pipe: OpenSoraPipeline) -> None:
    noise = torch.randn(2, 4, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    whole = pipe.decode_latents(noise, 1)
    pipe.enable_vae_slicing()
    torch.testing.assert_close(pipe.decode_latents(noise, 1), whole, atol=1e-4, rtol=0)
    pipe.disable_vae_slicing()
    pipe.enable_vae_tiling()
    tiled = pipe.decode_latents(noise, 1)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    pipe.disable_vae_tiling()
    assert torch.equal(pipe.decode_latents(noise, 1), whole)


def test_an_offloaded_autoencoder_is_loaded_before_it_decodes(pipe: OpenSoraPipeline) -> None:
    class Hook:
        loaded = 0

        def pre_forward(self, module: torch.nn.Module) -> None:
            self.loaded += module is pipe.vae

    pipe.vae._hf_hook = Hook()
    pipe.decode_latents(torch.zeros(1, 4, 1, 2, 2), 1)
    assert pipe.vae._hf_hook.loaded == 1
    assert pipe.model_cpu_offload_seq.split("->") == ["text_encoder", "transformer", "vae"]
    assert set(pipe.components) == {"tokenizer", "text_encoder", "vae", "transformer", "scheduler"}


def test_save_and_load_keep_every_bit(pipe: OpenSoraPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = OpenSoraPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    for name in ("text_encoder", "vae", "transformer"):
        ours, theirs = getattr(pipe, name).state_dict(), getattr(loaded, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("num_timesteps", "use_discrete_timesteps", "use_timestep_transform", "transform_scale"):
        assert loaded.scheduler.config[name] == pipe.scheduler.config[name]
    assert loaded.video_size() == pipe.video_size()
    settings = STEPS | {"output_type": "pt", "height": 16, "width": 16}
    ours, theirs = (
        p("a red seven", generator=torch.Generator().manual_seed(1), **settings).frames for p in (pipe, loaded)
    )
    assert torch.equal(ours, theirs)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "OpenSoraPipeline"
    assert index["transformer"][1] == "STDiT3"


def test_a_pipeline_without_text_parts_runs_on_embeddings_and_says_what_it_lacks(
    make_pipeline: Callable[..., OpenSoraPipeline], pipe: OpenSoraPipeline, tmp_path: Path
) -> None:
    embeds, mask = pipe.encode_prompt("two")
    bare = make_pipeline(tokenizer=None, text_encoder=None, default_height=48, default_width=64, default_num_frames=17)
    bare.save_pretrained(tmp_path)
    bare = OpenSoraPipeline.from_pretrained(tmp_path)
    assert bare(prompt_embeds=embeds, prompt_attention_mask=mask, **STEPS).frames.shape == (1, 4, 5, 6, 8)
    with pytest.raises(StgTuneError, match="no tokenizer or no text encoder"):
        bare("two", **STEPS)


def test_sizes_come_from_the_call_then_the_pipeline_then_the_transformer(
    make_pipeline: Callable[..., OpenSoraPipeline],
) -> None:
    pipe = make_pipeline()
    size = pipe.video_size()
    assert (size.num_frames, size.height, size.width, size.fps) == (51, 240, 426, 24)
    pipe.transformer.register_to_config(input_size=[5, 8, 8])
    size = pipe.video_size(height=72)
    assert (size.num_frames, size.height, size.width) == (17, 72, 64)
    pipe.transformer.register_to_config(input_size=[1, 8, 8])
    assert pipe.video_size().num_frames == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither is given"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 1, 12, 32)}, "both is given"),
        ({"prompt": 3}, "prompt must be a text"),
        ({"prompt": []}, "prompt must be a text"),
        ({"prompt": "a", "height": 0}, "height must be a whole number"),
        ({"prompt": "a", "height": 7}, "at least 8 pixels"),
        ({"prompt": "a", "num_frames": 2.5}, "num_frames must be a whole number"),
        ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps must be"),
        ({"prompt": "a", "num_videos_per_prompt": 0}, "num_videos_per_prompt must be"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale must be a finite"),
        ({"prompt": "a", "output_type": "mp4"}, "output_type must be one of pil, np, pt, latent, got 'mp4'"),
        ({"prompt": "a", "callback_on_step_end_tensor_inputs": ["noise"]}, "unknown 'noise'"),
        ({"prompt_embeds": torch.zeros(1, 1, 5, 32)}, r"\(1, 1, 5, 32\), this call needs \(1, 1, 12, 32\)"),
        ({"prompt_embeds": torch.zeros(1, 1, 12, 32)}, "prompt_attention_mask has shape None"),
        ({"prompt": "a", "negative_prompt": ["b", "c"]}, "2 negative prompts for 1 prompts"),
        ({"prompt": "a", "latents": torch.zeros(2, 4, 5, 6, 8)}, r"latents has shape \(2, 4, 5, 6, 8\)"),
        ({"prompt": "a", "latents": torch.zeros(1, 4, 5, 9, 9), "output_type": "pt"}, "latents has shape"),
        ({"prompt": "a", "generator": [torch.Generator()] * 2}, "2 generators for 1 videos"),
        ({"prompt": "a", "conditioning_mask": torch.zeros(5)}, "conditioning_mask needs"),
        ({"prompt": "a", "conditioning_latents": torch.zeros(1, 4, 6, 6, 8)}, "given latents have shape"),
        (
            {"prompt": "a", "conditioning_latents": torch.zeros(1, 4, 1, 6, 8), "conditioning_mask": torch.zeros(5)},
            "below 1 after the 1 latent frames",
        ),
        (
            {"prompt": "a", "conditioning_latents": torch.zeros(1, 4, 1, 6, 8), "conditioning_mask": torch.ones(5) * 2},
            "one number in",
        ),
    ],
)
def test_a_wrong_argument_is_one_clear_error(arguments: dict[str, Any], message: str, pipe: OpenSoraPipeline) -> None:
    with pytest.raises(StgTuneError, match=message):
        pipe(**STEPS | arguments)
