"""The differences between tools that have names: each is asserted, in one direction or both."""

import json
from dataclasses import replace

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.export import export, import_, sigmas, target_names
from stg_tune.preset import find_published
from stg_tune.preset.schedules import linear_quadratic
from stg_tune.records import GuidanceSpec, Restart, Segment, SkipTerm


def refused(preset, to, says, **options):
    with pytest.raises(StgTuneError, match=says) as error:
        export(preset, to, **options)
    return str(error.value)


def term(name="a", op="residual", scale=1.0, **layers):
    return SkipTerm(name=name, skip_layers={k: tuple(v) for k, v in layers.items()}, skip_op=op, stg_scale=scale)


@pytest.mark.parametrize(
    ("factor", "ltx_video", "comfyui", "diffusers"),
    [(0.0, 1.0, 0.0, 0.0), (1.0, 0.999999, 1.0, 1.0), (0.7, 0.7, 0.7, 0.7)],
)
def test_rescale_one_is_off_in_ltx_video_and_full_elsewhere(kit, factor, ltx_video, comfyui, diffusers):
    velocity = kit.preset("ltx", op="attention", cfg=3.0, rescale=factor)
    assert f"rescaling_scale: {ltx_video}\n" in export(velocity, "ltx-video").text
    x0 = replace(velocity, combine_space="sample")
    assert json.loads(export(x0, "comfyui-ltxvideo").text)[0]["stg_rescale_values"] == [comfyui]
    residual = kit.preset("ltx", cfg=3.0, rescale=factor)
    assert json.loads(export(residual, "diffusers").text)["guidance_rescale"] == diffusers


@pytest.mark.parametrize(("written", "factor"), [(1.0, 0.0), (0.999999, 1.0), (0.5, 0.5), (0, 0.0)])
def test_rescale_of_ltx_video_is_read_in_its_own_sense(kit, written, factor):
    like = kit.preset("ltx")
    text = f"stg_mode: stg_av\nguidance_scale: 3\nstg_scale: 1\nrescaling_scale: {written}\nskip_block_list: [19]\n"
    (segment,) = import_(text, "ltx-video", like).preset.spec.segments
    assert segment.rescale == factor


def test_rescale_in_another_space_is_a_loss_in_both_directions(kit):
    velocity = kit.preset("ltx", op="attention", cfg=3.0, rescale=0.7)
    assert "standard deviations of the x0 here" in refused(velocity, "comfyui-ltxvideo", "--lossy")
    x0 = replace(velocity, combine_space="sample")
    assert "of the x0 in the preset" in refused(x0, "ltx-video", "--lossy")
    assert export(x0, "ltx-video", lossy=True).losses


def test_the_lookups_of_lightricks_tools_differ_by_one_at_099():
    entries = [1.0, 0.9933, 0.985, 0.9767]
    assert sigmas.looked_up(entries, rule="first_below")(0.99) == 2
    assert sigmas.looked_up(entries, rule="least_above")(0.99) == 1


def test_the_same_schedule_is_written_shifted(kit):
    segments = (
        Segment(start=0.0, stop=0.2, terms=(term(op="attention", scale=4.0, blocks=[11]),)),
        Segment(start=0.2, stop=1.0, terms=(term(op="attention", scale=2.0, blocks=[19]),)),
    )
    levels = linear_quadratic(10)
    preset = kit.build("ltx", steps=10, spec=GuidanceSpec(cfg_scale=3.0, segments=segments), sigmas=levels)
    edge = (levels[1] + levels[2]) / 2
    (comfy,) = json.loads(export(preset, "comfyui-ltxvideo").text)
    assert comfy["sigmas"] == pytest.approx([1.0, edge])
    assert f"guidance_timesteps: [{round(edge, 9)}, 0.0]" in export(preset, "ltx-video").text
    assert comfy["stg_scale_values"] == [4.0, 2.0]


def test_a_schedule_needs_sigmas(kit):
    preset = replace(find_published("ltx/13b-dev"), sigmas=())
    refused(preset, "ltx-video", "add --sigmas linear-quadratic")
    refused(preset, "comfyui-ltxvideo", "add --sigmas linear-quadratic", lossy=True)


def test_layers_are_checked_when_a_file_is_read(kit):
    """ltxv-2b-0.9.8-distilled.yaml lists block 42 of 28."""
    text = "stg_mode: attention_values\nguidance_scale: 3\nstg_scale: 1\nskip_block_list: [42]\n"
    with pytest.raises(StgTuneError, match="there is no layer 42; allowed: 0 to 27"):
        import_(text, "ltx-video", kit.preset("ltx"))


def test_an_audio_scale_of_zero_is_never_written_as_zero():
    arguments = json.loads(export(find_published("ltx2/published-2-3"), "diffusers-ltx2").text)
    assert 0 < arguments["audio_stg_scale"] < 1e-6
    assert (arguments["audio_stg_scale"] or arguments["stg_scale"]) < 1e-6


def test_ltx_2_0_needs_perturbable_attention():
    notes = export(find_published("ltx2/published"), "diffusers-ltx2").notes
    assert any("perturbed_attn=True" in note for note in notes)
    assert not any("perturbed_attn" in n for n in export(find_published("ltx2/published-2-3"), "diffusers-ltx2").notes)


@pytest.mark.parametrize("name", ["wanvideowrapper", "kjnodes", "wan2gp", "comfyui-slg-simple"])
def test_the_scale_is_not_lost_in_silence(kit, name):
    preset = kit.preset("wan", scale=2.5)
    assert "the scale 2.5 is lost" in refused(preset, name, "--lossy")
    made = export(preset, name, lossy=True)
    assert ["the scale 2.5 is lost" in loss for loss in made.losses] == [True]
    refused(kit.preset("wan", cfg=1.0), name, "nothing would happen", lossy=True)


@pytest.mark.parametrize("name", ["comfyui-slg", "diffusers-community", "stable-diffusion.cpp"])
def test_no_scale_is_made_up_for_the_branch_without_one(kit, name):
    refused(kit.preset("wan", branch="uncond"), name, "no scale makes that equal", lossy=True)


def test_the_authors_wan_setting_is_musubi_s_with_another_cfg():
    """x + 2 (x - p) with x = u + 5 (c - u) is u + 13 (c - u) + 2 (c - p)."""
    text = export(find_published("wan/official"), "musubi-tuner").text
    assert "--guidance_scale 13.0 --slg_mode original --slg_layers 2 --slg_scale 2.0" in text
    c, u, p = 0.3, -1.1, 0.7
    x = u + 5 * (c - u)
    assert x + 2 * (x - p) == pytest.approx(u + 13 * (c - u) + 2 * (c - p))


def test_musubi_original_is_not_the_paper_s(kit):
    assert "sees the negative prompt" in refused(kit.preset("wan"), "musubi-tuner", "--lossy")


def test_other_operations_are_refused(kit):
    attention = kit.preset("wan", op="attention")
    for name in ("diffusers-community", "comfyui-slg", "stable-diffusion.cpp"):
        refused(attention, name, "the same numbers would mean something else", lossy=True)
    refused(attention, "diffusers", "cannot perturb the attentions of wan", lossy=True)
    refused(kit.preset("mochi", op="attention"), "diffusers", "attention_all", lossy=True)


def test_wan2gp_turns_attentions_of_ltx2_off():
    made = export(find_published("ltx2/published-2-3"), "wan2gp", lossy=True)
    data = json.loads(made.text)
    assert (data["perturbation_switch"], data["alt_scale"], data["alt_guidance_scale"]) == (2, 0.7, 1.0)
    assert any("attention_off" in loss for loss in made.losses)
    back = import_(made.text, "wan2gp", find_published("ltx2/published-2-3"))
    (segment,) = back.preset.spec.segments
    assert segment.terms[0].skip_op == "attention_off"


def test_every_loss_is_listed(kit):
    other = Segment(
        start=0.5, stop=0.8, cfg_scale=2.0, rescale=0.4, terms=(term("b", blocks=[7]), term("c", blocks=[9]))
    )
    first = Segment(start=0.0, stop=0.5, terms=(term("a", blocks=[3]),), rescale=0.5)
    spec = GuidanceSpec(cfg_scale=5.0, segments=(first, other), restart=Restart(start=0.1, stop=0.3, count=2))
    preset = kit.build("wan", steps=10, spec=spec)
    message = refused(preset, "stable-diffusion.cpp", "--lossy")
    made = export(preset, "stable-diffusion.cpp", lossy=True)
    assert all(loss in message for loss in made.losses)
    for words in ("Restart", "steps 5 to 7 is left out", "CFG is 2 in steps 5 to 7", "rescale 0.5", "rescale 0.4"):
        assert any(words in loss for loss in made.losses), words


def test_a_stack_that_is_no_list_cannot_be_named():
    refused(find_published("svd/published"), "diffusers", "cannot skip blocks of svd", lossy=True)


def test_two_terms_in_one_window(kit):
    spec = GuidanceSpec(
        cfg_scale=5.0, segments=(Segment(terms=(term("weak", scale=0.5, blocks=[1]), term("strong", blocks=[2]))),)
    )
    made = export(kit.build("wan", steps=10, spec=spec), "stable-diffusion.cpp", lossy=True)
    assert made.losses == ("the term 'weak' (scale 0.5) is left out: one weak prediction is possible",)
    assert "[2]" in made.text


def test_random_blocks_are_refused_everywhere(kit):
    drawn = SkipTerm(name="s2", skip_layers={"blocks": (1, 2, 3)}, skip_op="residual", stg_scale=1.0, draw=1)
    preset = kit.build("wan", steps=10, spec=GuidanceSpec(cfg_scale=5.0, segments=(Segment(terms=(drawn,)),)))
    for name in target_names():
        with pytest.raises(StgTuneError):
            export(preset, name, lossy=True)
    refused(preset, "comfyui-slg", "draws 1 blocks anew", lossy=True)


def test_diffusers_layers_as_numbers_are_refused(kit):
    text = export(kit.preset("wan"), "diffusers").text
    assert "skip_layer_guidance_layers" not in text
    bad = json.loads(text) | {"skip_layer_guidance_layers": [3]}
    with pytest.raises(StgTuneError, match="cannot be run by diffusers"):
        import_(json.dumps(bad), "diffusers", kit.preset("wan"))


def test_diffusers_picks_of_chance_are_refused(kit):
    data = json.loads(export(kit.preset("wan"), "diffusers").text)
    data["skip_layer_config"][0]["fqn"] = "auto"
    assert import_(json.dumps(data), "diffusers", kit.preset("wan")).preset.spec.segments
    like = kit.preset("hunyuan-video", layers={"double": (1,)}, cfg=1.0)
    with pytest.raises(StgTuneError, match="at random"):
        import_(json.dumps(data), "diffusers", like)
    data["skip_layer_config"][0] |= {"fqn": "blocks", "dropout": 0.5}
    with pytest.raises(StgTuneError, match="at random"):
        import_(json.dumps(data), "diffusers", kit.preset("wan"))


def test_a_window_of_cfg_itself(kit):
    """CFG off at the ends, as in CFG intervals; layers skipped inside."""
    inner = Segment(start=0.2, stop=0.8, cfg_scale=6.0, terms=(term(blocks=[4]),))
    preset = kit.build("wan", steps=10, spec=GuidanceSpec(cfg_scale=1.0, segments=(inner,)))
    made = export(preset, "diffusers")
    assert kit.tools["diffusers"](made.text, preset) == kit.meaning(preset)
    assert kit.meaning(import_(made.text, "diffusers", preset).preset) == kit.meaning(preset)
    outer = GuidanceSpec(cfg_scale=6.0, segments=(replace(inner, cfg_scale=1.0),))
    refused(replace(preset, spec=outer), "diffusers", "gets the weak prediction wrong", lossy=True)


def test_what_ltx_tools_say_beyond_a_preset_is_a_loss(kit):
    like = kit.preset("ltx")
    text = "stg_mode: stg_av\nguidance_scale: 3\nstg_scale: 1\nskip_block_list: [19]\ncfg_star_rescale: true\n"
    with pytest.raises(StgTuneError, match="CFG-Zero"):
        import_(text, "ltx-video", like)
    assert import_(text, "ltx-video", like, lossy=True).losses
    with pytest.raises(StgTuneError, match="does nothing in LTX-Video"):
        import_("stg_mode: residual\nskip_block_list: [19]\n", "ltx-video", like)


def test_published_schedules_of_comfyui_are_read(kit):
    text = json.dumps(
        [
            {
                "name": "13b Dynamic",
                "skip_steps_sigma_threshold": 0.997,
                "cfg_star_rescale": True,
                "sigmas": [1.0, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180],
                "cfg_values": [1, 6, 8, 6, 1, 1],
                "stg_scale_values": [0, 4, 4, 4, 2, 1],
                "stg_rescale_values": [1, 0.5, 0.5, 1, 1, 1],
                "stg_layers_indices": [[11, 25, 35, 39], [22, 35, 39], [28], [28], [28], [28]],
            }
        ]
    )
    like = find_published("ltx/13b-dynamic")
    made = import_(text, "comfyui-ltxvideo", like, lossy=True)
    assert kit.meaning(made.preset) == kit.meaning(like)
    assert any("CFG-Zero" in loss for loss in made.losses)
    assert any("return zeros" in loss for loss in made.losses)


def test_the_simple_nodes_of_ltxvideo_are_read(kit):
    """Their defaults: CFG 1, STG 1, rescale 0.7 of x0, blocks 14 and 19."""
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]}
    nodes = {
        "4": {"class_type": "LTXVApplySTG", "inputs": {"model": ["1", 0], "block_indices": "14, 19"}},
        "5": {"class_type": "STGGuider", "inputs": {**links, "cfg": 3.0, "stg": 2.0, "rescale": 0.5}},
    }
    like = kit.preset("ltx")
    made = import_(json.dumps(nodes), "comfyui-ltxvideo-node", like)
    wanted = kit.step(3.0, 0.5, ({"blocks": (14, 19)}, "attention", "cond", 2.0))
    assert kit.meaning(made.preset) == [wanted] * like.generation.num_inference_steps
    nodes["5"]["inputs"], nodes["4"]["inputs"] = links, {"model": ["1", 0]}
    usual = import_(json.dumps(nodes), "comfyui-ltxvideo-node", like).preset
    assert kit.meaning(usual)[0] == kit.step(1.0, 0.7, ({"blocks": (14, 19)}, "attention", "cond", 1.0))
    del nodes["4"]
    with pytest.raises(StgTuneError, match="exactly one node LTXVApplySTG is expected, found 0"):
        import_(json.dumps(nodes), "comfyui-ltxvideo-node", like)


def test_the_sound_of_ltx_2_is_not_taken_for_its_video():
    like = find_published("ltx2/published-2-3")
    nodes = json.loads(export(like, "comfyui-ltxvideo-multimodal").text)
    sound = {**nodes["video"]["inputs"], "modality": "AUDIO", "cfg": 7.0}
    both = {"sound": {"class_type": "GuiderParameters", "inputs": sound}, **nodes}
    assert import_(json.dumps(both), "comfyui-ltxvideo-multimodal", like).preset.spec.cfg_scale == 3.0
    nodes["video"]["inputs"] |= {"modality_scale": 3.0, "skip_step": 2, "cross_attn": False}
    with pytest.raises(
        StgTuneError, match=r"modality_scale is left out.*skip_step is left out.*cross_attn is left out"
    ):
        import_(json.dumps(nodes), "comfyui-ltxvideo-multimodal", like)
    del nodes["video"]
    with pytest.raises(StgTuneError, match="modality VIDEO is expected, found 0"):
        import_(json.dumps(nodes), "comfyui-ltxvideo-multimodal", like)


def test_families_are_checked(kit):
    refused(find_published("mochi/published"), "wan2gp", "not for mochi", lossy=True)
    refused(find_published("mochi/published"), "nothing", "there is no target 'nothing'")
    refused(find_published("mochi/published"), "diffuser", "did you mean diffusers")
