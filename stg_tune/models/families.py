"""The video families of diffusers as architecture records (standard library only)."""

from __future__ import annotations

from stg_tune.models.base import Architecture, Stack

_UNET_BLOCKS = ("down_blocks.*.attentions.*", "mid_block.attentions.*", "up_blocks.*.attentions.*")


def _in_unet(name: str) -> str:
    return ",".join(f"{place}.{name}.*" for place in _UNET_BLOCKS)


MOCHI = Architecture(
    family="mochi",
    pipeline="diffusers:MochiPipeline",
    denoiser="transformer",
    stacks=(
        Stack(
            name="blocks",
            path="transformer_blocks",
            attention="attn1",
            streams=2,
            text="after",
            feed_forward="ff,ff_context",
        ),
    ),
    interleaved=False,
    rows="uncond_first",
    wide=True,
)

SVD = Architecture(
    family="svd",
    pipeline="diffusers:StableVideoDiffusionPipeline",
    denoiser="unet",
    stacks=(
        Stack(name="spatial", path=_in_unet("transformer_blocks"), attention="attn1", feed_forward="ff", axes="space"),
        Stack(
            name="temporal",
            path=_in_unet("temporal_transformer_blocks"),
            attention="attn1",
            feed_forward="ff",
            axes="time",
        ),
    ),
    interleaved=True,
    rows="uncond_first",
    latents="bfchw",
    unet=True,
)

LTX = Architecture(
    family="ltx",
    pipeline="diffusers:LTXPipeline",
    variants=("LTXImageToVideoPipeline", "LTXConditionPipeline"),
    denoiser="transformer",
    stacks=(Stack(name="blocks", path="transformer_blocks", attention="attn1", feed_forward="ff"),),
    interleaved=False,
    rows="uncond_first",
    wide=True,
    latents="tokens",
)

LTX2 = Architecture(
    family="ltx2",
    pipeline="diffusers:LTX2Pipeline",
    variants=("LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"),
    denoiser="transformer",
    stacks=(
        Stack(
            name="blocks",
            path="transformer_blocks",
            attention="attn1,audio_attn1",
            streams=2,
            feed_forward="ff,audio_ff",
        ),
    ),
    interleaved=False,
    rows="uncond_first",
    wide=True,
    side_outputs=1,
    own_passes=("isolate_modalities",),
    own_stg="spatio_temporal_guidance_blocks",
    latents="tokens",
)

COGVIDEOX = Architecture(
    family="cogvideox",
    pipeline="diffusers:CogVideoXPipeline",
    variants=("CogVideoXImageToVideoPipeline", "CogVideoXVideoToVideoPipeline"),
    denoiser="transformer",
    stacks=(
        Stack(name="blocks", path="transformer_blocks", attention="attn1", streams=2, text="before", feed_forward="ff"),
    ),
    interleaved=False,
    rows="uncond_first",
    wide=True,
    latents="bfchw",
)

HUNYUAN_VIDEO = Architecture(
    family="hunyuan-video",
    pipeline="diffusers:HunyuanVideoPipeline",
    variants=("HunyuanVideoImageToVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"),
    denoiser="transformer",
    stacks=(
        Stack(
            name="double",
            path="transformer_blocks",
            attention="attn",
            streams=2,
            text="after",
            feed_forward="ff,ff_context",
        ),
        Stack(name="single", path="single_transformer_blocks", attention="attn", streams=2, text="after"),
    ),
    interleaved=False,
    rows="cond_first",
    calls="separate",
    scale_names=("",),
)

HUNYUAN_VIDEO_1_5 = Architecture(
    family="hunyuan-video-1.5",
    pipeline="diffusers:HunyuanVideo15Pipeline",
    variants=("HunyuanVideo15ImageToVideoPipeline",),
    denoiser="transformer",
    stacks=(
        Stack(
            name="blocks",
            path="transformer_blocks",
            attention="attn",
            streams=2,
            text="after",
            feed_forward="ff,ff_context",
        ),
    ),
    interleaved=False,
    rows="cond_first",
    calls="separate",
    scale_names=("guider.guidance_scale",),
)

WAN = Architecture(
    family="wan",
    pipeline="diffusers:WanPipeline",
    variants=("WanImageToVideoPipeline", "WanVideoToVideoPipeline"),
    denoiser="transformer",
    experts=("transformer_2",),
    stacks=(Stack(name="blocks", path="blocks", attention="attn1", feed_forward="ffn"),),
    interleaved=False,
    rows="cond_first",
    calls="separate",
    scale_names=("_guidance_scale", "_guidance_scale_2"),
)

SKYREELS_V2 = Architecture(
    family="skyreels-v2",
    pipeline="diffusers:SkyReelsV2Pipeline",
    variants=("SkyReelsV2ImageToVideoPipeline",),
    denoiser="transformer",
    stacks=(Stack(name="blocks", path="blocks", attention="attn1", feed_forward="ffn"),),
    interleaved=False,
    rows="cond_first",
    calls="separate",
)

LATTE = Architecture(
    family="latte",
    pipeline="diffusers:LattePipeline",
    denoiser="transformer",
    stacks=(
        Stack(name="spatial", path="transformer_blocks", attention="attn1", feed_forward="ff", axes="space"),
        Stack(name="temporal", path="temporal_transformer_blocks", attention="attn1", feed_forward="ff", axes="time"),
    ),
    interleaved=True,
    rows="uncond_first",
    prediction_channels=4,
)

ALLEGRO = Architecture(
    family="allegro",
    pipeline="diffusers:AllegroPipeline",
    denoiser="transformer",
    stacks=(Stack(name="blocks", path="transformer_blocks", attention="attn1", feed_forward="ff"),),
    interleaved=False,
    rows="uncond_first",
)

COSMOS = Architecture(
    family="cosmos",
    pipeline="diffusers:CosmosTextToWorldPipeline",
    variants=("CosmosVideoToWorldPipeline",),
    denoiser="transformer",
    stacks=(Stack(name="blocks", path="transformer_blocks", attention="attn1", feed_forward="ff"),),
    interleaved=False,
    rows="cond_first",
    calls="separate",
    scale_offset=1.0,
    converts=True,
)

COSMOS_2 = Architecture(
    family="cosmos-2",
    pipeline="diffusers:Cosmos2VideoToWorldPipeline",
    variants=("Cosmos2_5_PredictBasePipeline",),
    denoiser="transformer",
    stacks=COSMOS.stacks,
    interleaved=False,
    rows="cond_first",
    calls="separate",
    scale_offset=1.0,
    clock="scheduler",
    converts=True,
)

KANDINSKY5 = Architecture(
    family="kandinsky5",
    pipeline="diffusers:Kandinsky5T2VPipeline",
    variants=("Kandinsky5I2VPipeline",),
    denoiser="transformer",
    stacks=(
        Stack(name="blocks", path="visual_transformer_blocks", attention="self_attention", feed_forward="feed_forward"),
    ),
    interleaved=False,
    rows="cond_first",
    calls="separate",
    latents="bfhwc",
)

EASYANIMATE = Architecture(
    family="easyanimate",
    pipeline="diffusers:EasyAnimatePipeline",
    denoiser="transformer",
    stacks=(
        Stack(
            name="blocks",
            path="transformer_blocks",
            attention="attn1",
            streams=2,
            text="before",
            feed_forward="ff,txt_ff",
        ),
    ),
    interleaved=False,
    rows="uncond_first",
)

FAMILIES = (
    MOCHI,
    SVD,
    LTX,
    LTX2,
    COGVIDEOX,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO_1_5,
    WAN,
    SKYREELS_V2,
    LATTE,
    ALLEGRO,
    COSMOS,
    COSMOS_2,
    KANDINSKY5,
    EASYANIMATE,
)
"""Every family whose pipelines diffusers ships and the runtime guides."""
