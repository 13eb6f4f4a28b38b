"""Known faults and limits of other tools: written around, noted beside the file, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.export import export, import_
from stg_tune.preset import find_published
from stg_tune.records import SKIP_OPS


def notes(preset, to, **options):
    return " / ".join(export(preset, to, **options).notes)


def refused(preset, to, says):
    with pytest.raises(StgTuneError, match=says):
        export(preset, to, lossy=True)


def flag(text, name):
    words = text.split()
    return float(words[words.index(name) + 1])


GOLDEN = Path(__file__).parents[1] / "golden" / "stg_official"
RESCALES = {
    "ltx-video": ("ltx", "attention", "velocity", lambda text: float(text.split("rescaling_scale: ")[1].split()[0])),
    "comfyui-ltxvideo": ("ltx", "attention", "sample", lambda text: json.loads(text)[0]["stg_rescale_values"][0]),
    "comfyui-ltxvideo-node": (
        *("ltx", "attention", "sample"),
        lambda text: float(json.loads(text)["guider"]["inputs"]["stg_rescale_values"]),
    ),
    "comfyui-ltxvideo-multimodal": (
        *("ltx2", "attention", "sample"),
        lambda text: json.loads(text)["video"]["inputs"]["rescale"],
    ),
    "ltx-2": ("ltx2", "attention", "sample", lambda text: flag(text, "--video-rescale-scale")),
    "diffusers-ltx2": ("ltx2", "attention", "sample", lambda text: json.loads(text)["guidance_rescale"]),
    "diffusers-ltx2-guider": ("ltx2", "attention", "sample", lambda text: json.loads(text)["guidance_rescale"]),
    "diffusers": ("mochi", "residual", "velocity", lambda text: json.loads(text)["guidance_rescale"]),
    "diffusers-community": ("mochi", "residual", "velocity", lambda text: json.loads(text)["call"]["do_rescaling"]),
    "comfyui-slg": ("mochi", "residual", "sample", lambda text: json.loads(text)["stg"]["inputs"]["rescaling_scale"]),
}
"""Family, operation and space that a tool rescales in, and where its file holds the factor."""
WHOLE_BATCH = ("comfyui-ltxvideo", "comfyui-ltxvideo-node", "comfyui-ltxvideo-multimodal", "ltx-2", "comfyui-slg")


@pytest.mark.parametrize("name", RESCALES)
def test_what_full_and_no_rescale_are_in_each_tool(kit, name):
    family, op, space, read = RESCALES[name]
    subject = kit.preset(family, op=op, cfg=3.0, rescale=1.0, space=space)
    off = read(export(kit.preset(family, op=op, cfg=3.0, rescale=0.0, space=space), name).text)
    if name == "diffusers-community":  # the one factor is 0.7
        assert off is False
        with pytest.raises(StgTuneError, match=r"rescale 1 becomes 0\.7"):
            export(subject, name)
        return
    full = read(export(subject, name).text)
    assert (full, off) == ((0.999999, 1.0) if name == "ltx-video" else (1.0, 0.0))


@pytest.mark.parametrize("name", RESCALES)
def test_standard_deviations_over_the_whole_batch_are_told(kit, name):
    family, op, space, _ = RESCALES[name]
    for rescale in (0.0, 0.7):
        told = "over the whole batch" in notes(kit.preset(family, op=op, cfg=3.0, rescale=rescale, space=space), name)
        assert told == (name in WHOLE_BATCH and rescale > 0)


def test_lists_by_sigma_are_read_off_by_one(kit):
    """Sigma 0.99 is the third entry for LTX-Video and the second for ComfyUI-LTXVideo."""
    like = replace(kit.preset("ltx", steps=2), sigmas=(0.99, 0.5))
    times = "[1.0, 0.9933, 0.985, 0.9767]"
    yaml = (
        f"guidance_timesteps: {times}\nguidance_scale: [1, 2, 3, 4]\nstg_scale: [1, 2, 3, 4]\n"
        "rescaling_scale: [1, 1, 1, 1]\nskip_block_list: [[1], [2], [3], [4]]\n"
    )
    first = kit.meaning(import_(yaml, "ltx-video", like).preset)[0]
    assert (first.cfg, first.scale, first.layers) == (3.0, 3.0, (("blocks", (3,)),))
    entry = {
        "name": "a",
        "skip_steps_sigma_threshold": 1.0,
        "cfg_star_rescale": False,
        "sigmas": json.loads(times),
        "cfg_values": [1, 2, 3, 4],
        "stg_scale_values": [1, 2, 3, 4],
        "stg_rescale_values": [0, 0, 0, 0],
        "stg_layers_indices": [[1], [2], [3], [4]],
    }
    first = kit.meaning(import_(json.dumps([entry]), "comfyui-ltxvideo", like).preset)[0]
    assert (first.cfg, first.scale, first.layers) == (2.0, 2.0, (("blocks", (2,)),))


@pytest.mark.parametrize("family", ["mochi", "ltx", "cogvideox", "hunyuan-video", "wan"])
def test_diffusers_fails_on_attentions_of_most_families(kit, family):
    """AttributeError: is_cross_attention, or ValueError: not registered, in diffusers 0.42.1."""
    subject = kit.preset(family, op="attention_input")
    refused(subject, "diffusers", f"cannot perturb the attentions of {family}, of latte only")
    if family != "wan":
        refused(subject, "diffusers-python", "of latte and wan only")
    assert export(kit.preset("latte", op="attention_input"), "diffusers").text
    uncond = kit.preset(family, op="attention_input", branch="uncond", cfg=3.0)
    refused(uncond, "diffusers", "cannot perturb the attentions")


def test_diffusers_finds_no_feed_forward_in_single_stream_blocks(kit):
    double = kit.preset("hunyuan-video", layers={"double": (1,)}, op="feed_forward")
    assert '"skip_ff": true' in export(double, "diffusers").text
    single = kit.preset("hunyuan-video", layers={"single": (1,)}, op="feed_forward")
    refused(single, "diffusers", "finds no feed-forward in the single blocks of hunyuan-video")


def test_pipelines_that_crash_say_so(kit):
    assert "raises TypeError" in notes(find_published("cogvideox/published"), "diffusers-community")
    assert "raises TypeError" in notes(find_published("hunyuan-video/published"), "diffusers-community")
    assert "raises TypeError" not in notes(find_published("mochi/published"), "diffusers-community")
    refused(kit.preset("mochi", layers={"blocks": (3, 47)}), "diffusers-community", "does not skip the last block")


@pytest.mark.parametrize("name", ["diffusers-ltx2", "diffusers-ltx2-guider"])
def test_ltx_2_0_skips_nothing_as_it_is_converted(name):
    subject = find_published("ltx2/published")
    assert "perturbed_attn=True" in notes(subject, name)
    assert "perturbed_attn=True" in notes(replace(subject, checkpoint="my/copy"), name)
    assert "perturbed_attn" not in notes(find_published("ltx2/published-2-3"), name)
    assert "perturbed_attn" not in notes(find_published("ltx2/hq-2-3"), name)


def test_batches_of_ltx_video_and_wanvideowrapper():
    assert "one prompt in a batch" in notes(find_published("ltx/published"), "ltx-video")
    assert "one prompt in a batch" not in notes(find_published("ltx/distilled"), "ltx-video")
    assert "batched_cfg of the sampler must be off" in notes(find_published("wan/slg-14b"), "wanvideowrapper")
    assert "TeaCacheKJ" in notes(find_published("wan/slg-14b"), "kjnodes")


@pytest.mark.parametrize("name", ["comfyui-ltxvideo", "comfyui-ltxvideo-node", "comfyui-stg"])
def test_attention_that_is_replaced_elsewhere(kit, name):
    assert "SageAttention" in notes(kit.preset("ltx", op="attention"), name)


@pytest.mark.parametrize(
    ("name", "family", "most"),
    [
        ("comfyui-slg", "wan", 10),
        ("comfyui-sd3", "sd3", 10),
        ("comfyui-stg", "ltx", 100),
        ("hunyuanvideowrapper", "", 10),
    ],
)
def test_scales_that_a_node_does_not_take(kit, name, family, most):
    def subject(scale):
        if not family:
            return kit.preset("hunyuan-video", layers={"single": (3,)}, cfg=1.0, scale=scale)
        return kit.preset(family, op="attention" if name == "comfyui-stg" else "residual", scale=scale)

    assert export(subject(float(most)), name).text
    for scale in (most + 0.5, -0.5):
        refused(subject(scale), name, f"stg_scale {scale:g} cannot be entered: the node takes 0 to {most}")


def test_wan2gp_turns_more_off_in_ltx2_than_a_preset_says(kit):
    subject = kit.preset("ltx2", op="attention_off", branch="uncond", cfg=3.0)
    with pytest.raises(StgTuneError, match="between video and sound"):
        export(subject, "wan2gp")
    text = export(subject, "wan2gp", lossy=True).text
    with pytest.raises(StgTuneError, match="between video and sound"):
        import_(text, "wan2gp", subject)
    data = json.loads(text) | {"alt_guidance_scale": 3.0}
    with pytest.raises(StgTuneError, match="modality guidance"):
        import_(json.dumps(data), "wan2gp", subject)


def test_older_settings_of_wan2gp_are_read():
    """Before settings_version 2.54 the keys began with slg_; unread, they would mean that nothing is skipped."""
    like = find_published("wan/slg-14b")
    old = {"settings_version": 2.3, "guidance_scale": 5, "slg_switch": 1, "slg_layers": [9]}
    old |= {"slg_start_perc": 10, "slg_end_perc": 90}
    assert import_(json.dumps(old), "wan2gp", like).preset.spec.hash() == like.spec.hash()
    newer = json.dumps(old | {"perturbation_switch": 0})
    assert import_(newer, "wan2gp", like).preset.spec.segments == ()


def test_what_an_import_does_not_read_is_told(kit):
    like = find_published("ltx2/published-2-3")
    arguments = json.loads(export(like, "diffusers-ltx2").text) | {"audio_guidance_scale": 7.0}
    assert any("sound are not read" in note for note in import_(json.dumps(arguments), "diffusers-ltx2", like).notes)
    text = export(like, "ltx-2").text
    assert any("sound are not read" in note for note in import_(text, "ltx-2", like).notes)
    yaml = "stg_mode: stg_av\nguidance_scale: 3\nstg_scale: 1\nskip_block_list: [19]\nskip_final_inference_steps: 3\n"
    made = import_(yaml, "ltx-video", kit.preset("ltx"))
    assert any("skip_final_inference_steps is not read" in note for note in made.notes)


@pytest.mark.parametrize("op", SKIP_OPS)
def test_no_tool_is_given_the_no_op_of_ltx_video(kit, op):
    """stg_mode residual does nothing there: attention_skip acts only where no block of the transformer is."""
    assert "stg_mode: residual" not in export(kit.preset("ltx", op=op), "ltx-video").text


def test_layers_are_those_of_the_named_checkpoint(kit):
    """Block 35 of 40 is no block of the 30 that Wan 1.3B has, whatever the preset claims."""
    small = find_published("wan/community")
    claimed = replace(kit.preset("wan"), checkpoint=small.checkpoint)
    assert export(claimed, "comfyui-slg").text
    far = replace(claimed, stacks={"blocks": 40}, spec=kit.preset("wan", layers={"blocks": (3,)}).spec)
    refused(far, "comfyui-slg", r"has blocks \{'blocks': 30\}, the preset says \{'blocks': 40\}")
    assert export(replace(far, checkpoint="somebody/model"), "comfyui-slg").text


@pytest.mark.parametrize("family", ["mochi", "cogvideox", "ltx", "wan"])
def test_the_arguments_are_those_of_the_recorded_community_pipelines(kit, family):
    recorded = json.loads((GOLDEN / family / "meta.json").read_text())["community.defaults"]
    call = json.loads(export(kit.preset(family, cfg=3.0), "diffusers-community").text)["call"]
    assert call.keys() == recorded.keys()
