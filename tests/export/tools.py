"""How each tool reads its file, from the tool's own source: no code is shared with ``stg_tune.export``."""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import dataclass

import yaml

SHIFT = 3.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens in one step; fields that make no difference have their first value."""

    cfg: float = 1.0
    layers: tuple = ()
    op: str = ""
    branch: str = ""
    scale: float = 0.0
    rescale: float = 0.0

    def near(self, other):
        same = (self.layers, self.op, self.branch) == (other.layers, other.op, other.branch)
        pairs = ((self.cfg, other.cfg), (self.scale, other.scale), (self.rescale, other.rescale))
        return same and all(abs(a - b) < 2e-5 for a, b in pairs)


def step(cfg, rescale, term=None):
    """``term``: (layers, op, branch, scale) or nothing."""
    if term is None or not term[3]:
        return Step(cfg=cfg, rescale=rescale if abs(cfg - 1) > 1e-5 else 0.0)
    layers, op, branch, scale = term
    pairs = tuple(sorted((stack, tuple(sorted(items))) for stack, items in layers.items() if items))
    return Step(cfg=cfg, layers=pairs, op=op, branch=branch, scale=scale, rescale=rescale)


FQN = {
    ("hunyuan-video", "transformer_blocks"): "double",
    ("hunyuan-video", "single_transformer_blocks"): "single",
    ("latte", "transformer_blocks"): "spatial",
    ("latte", "temporal_transformer_blocks"): "temporal",
    ("wan", "blocks"): "blocks",
    ("skyreels-v2", "blocks"): "blocks",
}
DIFFUSERS_OPS = {
    (True, False, True): "residual",
    (False, True, False): "attention",
    (True, False, False): "attention_input",
}


def _guider(data, preset, start):
    """SkipLayerGuidance._is_cfg_enabled, _is_slg_enabled."""
    count = preset.generation.num_inference_steps
    assert data.get("skip_layer_guidance_layers") is None
    configs = data["skip_layer_config"]
    layers = {FQN.get((preset.family, c["fqn"]), "blocks"): c["indices"] for c in configs}
    assert all(c["fqn"] != "auto" and c["dropout"] == 1 for c in configs)
    (op,) = {DIFFUSERS_OPS[c["skip_attention"], c["skip_attention_scores"], c["skip_ff"]] for c in configs}
    found = []
    for i in range(count):
        on = int(data["start"] * count) <= i < int(data["stop"] * count) and data["guidance_scale"] != 1.0
        skips = int(start * count) < i < int(data["skip_layer_guidance_stop"] * count)
        assert on or not skips, "with CFG off diffusers takes the negative prediction for the weak one"
        term = (layers, op, "cond", data["skip_layer_guidance_scale"]) if skips else None
        found.append(step(data["guidance_scale"] if on else 1.0, data["guidance_rescale"], term))
    return found


def diffusers(text, preset):
    data = json.loads(text)
    return _guider(data, preset, data["skip_layer_guidance_start"])


def diffusers_python(text, preset):
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    (made,) = [node for node in calls if node.func.id == "SkipLayerGuidance"]
    configs = [
        {item.arg: ast.literal_eval(item.value) for item in node.keywords}
        for node in calls
        if node.func.id == "LayerSkipConfig"
    ]
    plain = {item.arg: item.value for item in made.keywords if item.arg != "skip_layer_config"}
    data = {name: ast.literal_eval(value) for name, value in plain.items()} | {"skip_layer_config": configs}
    later = "guider.skip_layer_guidance_start = -1.0" in text
    return _guider(data, preset, -1.0 if later else data["skip_layer_guidance_start"])


def diffusers_ltx2(text, preset):
    data = json.loads(text)
    assert data["modality_scale"] == data["audio_modality_scale"] == 1.0
    audio = data["audio_stg_scale"] or data["stg_scale"]  # the pipeline's own expression
    assert audio < 1e-6, "sound must not be guided"
    term = ({"blocks": data["spatio_temporal_guidance_blocks"]}, "attention", "cond", data["stg_scale"])
    return [step(data["guidance_scale"], data["guidance_rescale"], term)] * data["num_inference_steps"]


def diffusers_ltx2_guider(text, preset):
    data, count = json.loads(text), preset.generation.num_inference_steps
    term = ({"blocks": data["spatio_temporal_guidance_blocks"]}, "attention", "cond", data["stg_scale"])
    inside = [int(data["start"] * count) <= i < int(data["stop"] * count) for i in range(count)]
    on = step(data["guidance_scale"], data["guidance_rescale"], term)
    return [on if held else step(1.0, data["guidance_rescale"]) for held in inside]


def diffusers_community(text, preset):
    call = json.loads(text)["call"]
    hunyuan = preset.family == "hunyuan-video"  # c + s (c - p); its guidance_scale is embedded
    stack = "double" if hunyuan else "blocks"
    term = ({stack: call["stg_applied_layers_idx"]}, "residual", "cond", call["stg_scale"])
    cfg = 1.0 if hunyuan else call["guidance_scale"]
    return [step(cfg, 0.7 if call.get("do_rescaling") else 0.0, term)] * call["num_inference_steps"]


def levels(preset):
    """The sigmas of the steps; where a preset says none, any schedule must do."""
    count = preset.generation.num_inference_steps
    return preset.sigmas or [1 - i / count for i in range(count)]


LTX_OPS = {
    "attention_values": "attention",
    "transformer_block": "residual",
    "attention_skip": "attention_projected_input",
}


def ltx_video(text, preset):
    data = yaml.safe_load(text)
    inner = data.get("first_pass", data)
    assert inner["cfg_star_rescale"] is False
    count = preset.generation.num_inference_steps
    names = ("guidance_scale", "stg_scale", "rescaling_scale", "skip_block_list")
    found = []
    for sigma in levels(preset):
        row = {name: inner[name] for name in names}
        if "guidance_timesteps" in inner:
            times = inner["guidance_timesteps"]
            below = [i for i, value in enumerate(times) if value <= sigma]
            row = {name: inner[name][below[0] if below else len(times) - 1] for name in names}
        cfg = row["guidance_scale"] if row["guidance_scale"] > 1 else 1.0
        skips = row["stg_scale"] > 0
        rescale = row["rescaling_scale"] if skips and row["rescaling_scale"] != 1.0 else 0.0
        term = (
            ({"blocks": row["skip_block_list"]}, LTX_OPS[data["stg_mode"]], "cond", row["stg_scale"]) if skips else None
        )
        found.append(step(cfg, rescale, term))
    assert len(found) == count
    return found


def comfyui_ltxvideo(text, preset):
    (data,) = json.loads(text)
    return _by_sigma(data, preset)


def comfyui_ltxvideo_node(text, preset):
    (made,) = json.loads(text).values()
    data = dict(made["inputs"])
    for name in ("sigmas", "cfg_values", "stg_scale_values", "stg_rescale_values", "stg_layers_indices"):
        data[name] = ast.literal_eval(f"[{data[name]}]")
    return _by_sigma(data, preset)


def comfyui_multimodal(text, preset):
    """MultimodalGuider takes the scales of a modality from its parameters; modality_scale 1 is off."""
    nodes = json.loads(text)
    (guider,) = [node["inputs"] for node in nodes.values() if node["class_type"] == "MultimodalGuider"]
    video = nodes[guider["parameters"][0]]["inputs"]
    assert (video["modality"], video["modality_scale"], video["skip_step"]) == ("VIDEO", 1.0, 0)
    skipped = {"blocks": _parse_layers(guider["skip_blocks"])} if video["perturb_attn"] else {}
    term = (skipped, "attention", "cond", video["stg"]) if skipped else None
    return [step(video["cfg"], video["rescale"], term)] * preset.generation.num_inference_steps


def _by_sigma(data, preset):
    """STGGuiderAdvanced.sigma_to_params_mapping and predict_noise."""
    assert data["cfg_star_rescale"] is False
    found = []
    for sigma in levels(preset):
        assert sigma <= data["skip_steps_sigma_threshold"], "a step would return zeros"
        higher = [value for value in data["sigmas"] if value >= sigma]
        place = data["sigmas"].index(min(higher)) if higher else -1
        term = ({"blocks": data["stg_layers_indices"][place]}, "attention", "cond", data["stg_scale_values"][place])
        found.append(step(data["cfg_values"][place], data["stg_rescale_values"][place], term))
    return found


def _comfy(text, preset, kind, term, *, rescale="rescaling_scale"):
    """percent_to_sigma of a shifted flow model, then an inclusive comparison of sigmas."""
    nodes = json.loads(text)
    (inputs,) = [node["inputs"] for node in nodes.values() if node["class_type"] == kind]
    (cfg,) = [node["inputs"]["cfg"] for node in nodes.values() if node["class_type"] == "CFGGuider"]
    count = preset.generation.num_inference_steps

    def shifted(time):
        return SHIFT * time / (1 + (SHIFT - 1) * time)

    def sigma_of(percent):
        return 1.0 if percent <= 0 else 0.0 if percent >= 1 else shifted(1 - percent)

    found = []
    for i in range(count):
        sigma = shifted(1 - i / count)
        inside = sigma_of(inputs["end_percent"]) <= sigma <= sigma_of(inputs["start_percent"])
        held = term(inputs) if inside else None
        found.append(step(cfg, inputs.get(rescale, 0.0) if held else 0.0, held))
    return found


def _parse_layers(text):
    return [int(word) for word in text.replace(" ", "").split(",") if word]


def _dit(inputs, preset):
    layers = {
        "double_layers": _parse_layers(inputs["double_layers"]),
        "single_layers": _parse_layers(inputs["single_layers"]),
    }
    names = (
        {"double_layers": "double", "single_layers": "single"}
        if preset.family == "hunyuan-video"
        else {"double_layers": "blocks"}
    )
    return {names[name]: items for name, items in layers.items() if items}


def _percent_nodes(text, preset, kind, names):
    """start <= step / steps <= end, on the negative pass only."""
    nodes, count = json.loads(text), preset.generation.num_inference_steps
    (inputs,) = [node["inputs"] for node in nodes.values() if node["class_type"] == kind]
    (cfg,) = [node["inputs"]["cfg"] for node in nodes.values() if "cfg" in node["inputs"]]
    layers = {stack: _parse_layers(inputs[name]) for stack, name in names.items()}
    term = (layers, "residual", "uncond", 1.0)
    inside = [inputs["start_percent"] <= i / count <= inputs["end_percent"] for i in range(count)]
    return [step(cfg, 0.0, term if held else None) for held in inside]


def hunyuanvideowrapper(text, preset):
    (made,) = json.loads(text).values()
    data, count = made["inputs"], preset.generation.num_inference_steps
    op = {"STG-A": "attention_with_text", "STG-R": "residual"}[data["stg_mode"]]
    term = ({"single": [data["stg_block_idx"]]}, op, "cond", data["stg_scale"])
    inside = [data["stg_start_percent"] <= i / count <= data["stg_end_percent"] for i in range(count)]
    return [step(1.0, 0.0, term if held else None) for held in inside]


def wan2gp(text, preset):
    data, count = json.loads(text), preset.generation.num_inference_steps
    assert data["perturbation_switch"] == 1
    first, stop = (int(data[f"perturbation_{end}_perc"] / 100 * count) for end in ("start", "end"))
    assert all(isinstance(data[f"perturbation_{end}_perc"], int) for end in ("start", "end"))
    term = ({"blocks": data["perturbation_layers"]}, "residual", "uncond", 1.0)
    return [step(data["guidance_scale"], 0.0, term if first <= i < stop else None) for i in range(count)]


def _flags(text):
    found, name = {}, ""
    for item in shlex.split(text):
        if item.startswith("--"):
            name = item[2:]
            found[name] = []
        else:
            found[name].append(item)
    return found


def ltx_2(text, preset):
    data = {name: [float(item) for item in items] for name, items in _flags(text).items()}
    assert data["a2v-guidance-scale"] == data["v2a-guidance-scale"] == [1.0]
    assert data["audio-stg-guidance-scale"] == data["video-skip-step"] == [0.0]
    blocks = [int(item) for item in data["video-stg-blocks"]]
    term = ({"blocks": blocks}, "attention", "cond", data["video-stg-guidance-scale"][0])
    count = int(data["num-inference-steps"][0])
    return [step(data["video-cfg-guidance-scale"][0], data["video-rescale-scale"][0], term)] * count


def musubi(text, preset):
    data = {name: items[0] for name, items in _flags(text).items()}
    count = int(data["infer_steps"])
    first, stop = int(float(data["slg_start"]) * count), int(float(data["slg_end"]) * count)
    layers = {"blocks": _parse_layers(data["slg_layers"])}
    branch = {"original": "crossed", "uncond": "uncond"}[data["slg_mode"]]
    term = (layers, "residual", branch, float(data.get("slg_scale", 1.0)))
    return [step(float(data["guidance_scale"]), 0.0, term if first <= i < stop else None) for i in range(count)]


def sd_cpp(text, preset):
    data = {name: items[0] for name, items in _flags(text).items()}
    count = int(data["steps"])
    levels = count + 1  # sigmas.size()
    term = (
        {"blocks": _parse_layers(data["skip-layers"].strip("[]"))},
        "residual",
        "cond",
        float(data["slg-scale"]),
    )
    start, stop = int(float(data["skip-layer-start"]) * levels), int(float(data["skip-layer-end"]) * levels)
    return [step(float(data["cfg-scale"]), 0.0, term if start < i + 1 < stop else None) for i in range(count)]


def _layers_of(name):
    return lambda inputs: ({"blocks": _parse_layers(inputs[name])}, "attention", "cond", inputs["scale"])


TOOLS = {
    "diffusers": diffusers,
    "diffusers-python": diffusers_python,
    "diffusers-ltx2": diffusers_ltx2,
    "diffusers-ltx2-guider": diffusers_ltx2_guider,
    "diffusers-community": diffusers_community,
    "ltx-video": ltx_video,
    "comfyui-ltxvideo": comfyui_ltxvideo,
    "comfyui-ltxvideo-node": comfyui_ltxvideo_node,
    "comfyui-ltxvideo-multimodal": comfyui_multimodal,
    "comfyui-slg": lambda text, preset: _comfy(
        text, preset, "SkipLayerGuidanceDiT", lambda i: (_dit(i, preset), "residual", "cond", i["scale"])
    ),
    "comfyui-slg-simple": lambda text, preset: _comfy(
        text, preset, "SkipLayerGuidanceDiTSimple", lambda i: (_dit(i, preset), "residual", "uncond", 1.0)
    ),
    "comfyui-sd3": lambda text, preset: _comfy(
        text,
        preset,
        "SkipLayerGuidanceSD3",
        lambda i: ({"blocks": _parse_layers(i["layers"])}, "residual", "cond", i["scale"]),
    ),
    "comfyui-stg": lambda text, preset: _comfy(text, preset, "LTXVSpatioTemporalGuidance", _layers_of("blocks")),
    "wanvideowrapper": lambda text, preset: _percent_nodes(text, preset, "WanVideoSLG", {"blocks": "blocks"}),
    "kjnodes": lambda text, preset: _percent_nodes(text, preset, "SkipLayerGuidanceWanVideo", {"blocks": "blocks"}),
    "hunyuanvideowrapper-slg": lambda text, preset: _percent_nodes(
        text, preset, "HunyuanVideoSLG", {"double": "double_blocks", "single": "single_blocks"}
    ),
    "hunyuanvideowrapper": hunyuanvideowrapper,
    "wan2gp": wan2gp,
    "ltx-2": ltx_2,
    "musubi-tuner": musubi,
    "stable-diffusion.cpp": sd_cpp,
}
"""Target -> ``(content, preset) -> what its tool does in each step``."""
