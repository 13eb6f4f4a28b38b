"""Exported guiders are loaded by the installed diffusers; on tiny random models both runtimes predict the same."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import stg_tune
from stg_tune.export import export
from stg_tune.models.families import FAMILIES
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

diffusers = pytest.importorskip("diffusers")
COUNT = 4
TIMES = (900.0, 700.0, 500.0, 300.0)
RECORDS = {record.family: record for record in FAMILIES}
BATCHED = ("mochi", "ltx", "cogvideox", "latte")


def wan(kind="WanTransformer3DModel"):
    model = getattr(diffusers, kind)(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    return model, {"hidden_states": torch.randn(1, 4, 2, 4, 4)}, torch.randn(2, 8, 16), {"blocks": 3}


def mochi():
    model = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=8,
    )
    inputs = {"hidden_states": torch.randn(1, 4, 2, 4, 4), "encoder_attention_mask": torch.ones(1, 8, dtype=torch.bool)}
    return model, inputs, torch.randn(2, 8, 16), {"blocks": 3}


def hunyuan():
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    inputs = {
        "hidden_states": torch.randn(1, 4, 1, 4, 4),
        "encoder_attention_mask": torch.ones(1, 8, dtype=torch.long),
        "pooled_projections": torch.randn(1, 8),
        "guidance": torch.full((1,), 6000.0),
    }
    return model, inputs, torch.randn(2, 8, 16), {"double": 2, "single": 2}


def latte():
    model = diffusers.LatteTransformer3DModel(
        sample_size=4,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=4,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        video_length=2,
    )
    return model, {"hidden_states": torch.randn(1, 4, 2, 4, 4)}, torch.randn(2, 8, 16), {"spatial": 2, "temporal": 2}


def ltx():
    model = diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=3,
        caption_channels=16,
    )
    inputs = {"hidden_states": torch.randn(1, 12, 4), "encoder_attention_mask": torch.ones(1, 8, dtype=torch.long)}
    return model, inputs | {"num_frames": 3, "height": 2, "width": 2}, torch.randn(2, 8, 16), {"blocks": 3}


def cogvideox():
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=16,
        num_layers=3,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=8,
    )
    return model, {"hidden_states": torch.randn(1, 2, 4, 4, 4)}, torch.randn(2, 8, 16), {"blocks": 3}


MODELS = {
    "ltx": ltx,
    "cogvideox": cogvideox,
    "wan": wan,
    "mochi": mochi,
    "hunyuan-video": hunyuan,
    "latte": latte,
    "skyreels-v2": lambda: wan("SkyReelsV2Transformer3DModel"),
}


@pytest.fixture(scope="module")
def tiny():
    made = {}

    def build(family):
        if family not in made:
            torch.manual_seed(0)
            model, *rest = MODELS[family]()
            for weight in model.parameters():  # gates that begin at zero would hide what is skipped
                torch.nn.init.normal_(weight, std=0.2) if weight.abs().max() == 0 else None
            model = model.eval().requires_grad_(requires_grad=False)
            # diffusers leaves a replaced forward on blocks when it takes its hooks off, so it works on a copy
            made[family] = (model, *rest, copy.deepcopy(model))
        return made[family]

    return build


def call(model, inputs, text, time):
    rows = text.shape[0]
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    repeated = inputs | {name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in tensors.items()}
    return model(**repeated, encoder_hidden_states=text, timestep=torch.full((rows,), time), return_dict=False)[0]


def by_diffusers(guider, tiny_model, place):
    _, inputs, text, _, model = tiny_model
    guider.set_state(step=place, num_inference_steps=COUNT, timestep=TIMES[place])
    batches = guider.prepare_inputs({"encoder_hidden_states": (text[:1], text[1:])})
    for batch in batches:
        guider.prepare_models(model)
        batch.noise_pred = call(model, inputs, batch.encoder_hidden_states, TIMES[place])
        guider.cleanup_models(model)
    return guider(batches).pred


def by_stg_tune(preset, tiny_model, place):
    """As the family's own pipeline calls its model, inside ``guided``."""
    model, inputs, text, *_ = tiny_model
    scale = 3.0
    scheduler = SimpleNamespace(timesteps=torch.tensor(TIMES))
    pipe = SimpleNamespace(
        transformer=model,
        scheduler=scheduler,
        guidance_scale=scale,
        _guidance_scale=scale,
        do_classifier_free_guidance=True,
    )
    with stg_tune.guided(pipe, preset, architecture=RECORDS[preset.family]):
        if preset.family in BATCHED:
            u, c = call(model, inputs, text.flip(0), TIMES[place]).chunk(2)
        else:
            c, u = (call(model, inputs, text[row : row + 1], TIMES[place]) for row in (0, 1))
    return u + scale * (c - u)


def by_hand(preset, tiny_model, place):
    """CFG alone."""
    model, inputs, text, *_ = tiny_model
    c, u = (call(model, inputs, text[row : row + 1], TIMES[place]) for row in (0, 1))
    return u + preset.spec.cfg_scale * (c - u)


def preset_of(kit, tiny_model, family, *, op="residual", cfg=4.0, layers=None, branch="cond", scale=1.5, **segment):
    layers = layers or {next(iter(tiny_model[3])): (1,)}
    term = SkipTerm(name="t", skip_layers=layers, skip_op=op, stg_scale=scale, branch=branch)
    spec = GuidanceSpec(cfg_scale=cfg, segments=(Segment(terms=(term,), **segment),))
    return replace(kit.build(family, steps=COUNT, spec=spec), stacks=tiny_model[3])


def load(text, folder):
    (folder / "guider_config.json").write_text(text)
    return getattr(diffusers, json.loads(text)["_class_name"]).from_pretrained(folder)


def assert_equal(ours, theirs):
    torch.testing.assert_close(theirs, ours, atol=1e-5 * max(1.0, float(ours.abs().max())), rtol=0)


CASES = [
    ("wan", {}),
    ("wan", {"rescale": 0.7, "cfg": 6.0}),
    ("wan", {"op": "feed_forward"}),
    ("mochi", {"layers": {"blocks": (0, 2)}}),
    ("ltx", {"rescale": 0.7}),
    ("cogvideox", {"layers": {"blocks": (0, 2)}}),
    ("hunyuan-video", {"layers": {"double": (1,), "single": (0,)}}),
    ("latte", {"layers": {"spatial": (1,), "temporal": (0,)}}),
    ("latte", {"op": "attention", "layers": {"temporal": (1,)}}),
    ("latte", {"op": "attention_input", "layers": {"spatial": (1,)}}),
]


@pytest.mark.parametrize(("family", "fields"), CASES)
@torch.no_grad()
def test_the_file_is_loaded_and_predicts_the_same(kit, tiny, tmp_path, family, fields):
    subject = tiny(family)
    preset = preset_of(kit, subject, family, **fields)
    made = export(preset, "diffusers")
    guider = load(made.text, tmp_path)
    for place in (1, COUNT - 1):
        ours = by_stg_tune(preset, subject, place)
        assert_equal(ours, by_diffusers(guider, subject, place))
        assert (ours - by_hand(preset, subject, place)).abs().max() > 1e-3, "the skip must matter"


@torch.no_grad()
def test_the_file_does_not_skip_in_step_0_and_says_so(kit, tiny, tmp_path):
    subject = tiny("wan")
    preset = preset_of(kit, subject, "wan")
    made = export(preset, "diffusers")
    assert any("never skips in step 0" in note for note in made.notes)
    guider = load(made.text, tmp_path)
    assert_equal(by_hand(preset, subject, 0), by_diffusers(guider, subject, 0))


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("wan", {}),
        ("wan", {"op": "attention"}),
        ("wan", {"op": "attention_input"}),
        ("wan", {"start": 0.0, "stop": 0.25}),
        ("skyreels-v2", {}),
    ],
)
@torch.no_grad()
def test_the_snippet_runs_and_predicts_the_same_in_every_step(kit, tiny, family, fields):
    subject = tiny(family)
    preset = preset_of(kit, subject, family, **fields)
    namespace = {}
    exec(compile(export(preset, "diffusers-python").text, "snippet.py", "exec"), namespace)
    pipe = SimpleNamespace(transformer=subject[-1], guider=None)
    namespace["attach"](pipe)
    for place in range(COUNT):
        assert_equal(by_stg_tune(preset, subject, place), by_diffusers(pipe.guider, subject, place))


@torch.no_grad()
def test_the_branch_uncond_becomes_autoguidance(kit, tiny, tmp_path):
    subject = tiny("wan")
    preset = preset_of(kit, subject, "wan", branch="uncond", scale=1.0)
    guider = load(export(preset, "diffusers").text, tmp_path)
    assert type(guider).__name__ == "AutoGuidance"
    for place in (0, 2):
        assert_equal(by_stg_tune(preset, subject, place), by_diffusers(guider, subject, place))


@torch.no_grad()
def test_cfg_off_is_right_although_diffusers_is_wrong_at_1(kit, tiny, tmp_path):
    subject = tiny("hunyuan-video")
    preset = preset_of(kit, subject, "hunyuan-video", cfg=1.0)
    made = export(preset, "diffusers")
    assert any("CFG 1 is written as 1.000001" in note for note in made.notes)
    ours = by_stg_tune(preset, subject, 2)
    assert_equal(ours, by_diffusers(load(made.text, tmp_path), subject, 2))
    naive = json.loads(made.text) | {"guidance_scale": 1.0}
    wrong = by_diffusers(load(json.dumps(naive), tmp_path), subject, 2)
    assert (wrong - ours).abs().max() > 1e-3, "diffusers has been repaired: the way around can go"
