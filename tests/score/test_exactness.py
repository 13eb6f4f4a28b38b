"""Each scorer against the reference's computation, written again slowly and independently, with the same weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms

from stg_tune.score.base import View
from stg_tune.score.clip_models import VARIANTS, build_clip, configuration
from stg_tune.score.loading import fill, read_state
from stg_tune.score.musiq import Musiq, MusiqQuality, hashed_positions
from stg_tune.score.parts import Parts
from stg_tune.score.placement import Placement
from tests.score.asking import ask, film

if TYPE_CHECKING:
    from open_clip.model import CLIP

TINY_SIDE = 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(144, 160), (160, 90), (97, 131), (32, 32)]
"""Height and width: landscape, portrait, odd, the tower's own."""


@pytest.fixture(scope="module")
def clip(parts: Parts) -> CLIP:
    """The same weights in a CLIP that ``open_clip`` made itself."""
    from open_clip.model import CLIP

    assert parts._clip_config is not None
    model = CLIP(**parts._clip_config)
    model.load_state_dict(read_state(parts.library.get("clip-vit-l-14").path))
    return model.eval()


@torch.inference_mode()
def vbench_features(clip: CLIP, levels: Tensor, side: int = TINY_SIDE) -> Tensor:
    """VBench's ``load_video``, whose ``torch.Tensor`` makes floats of 8-bit frames, its clip_transform, unit length."""
    transform = transforms.Compose(
        [
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC, antialias=False),
            transforms.CenterCrop(side),
            transforms.Lambda(lambda picture: picture.float().div(255.0)),
            transforms.Normalize(MEAN, STD),
        ]
    )
    rows = [clip.encode_image(transform(torch.Tensor(frame.numpy()))[None])[0] for frame in levels]
    return torch.stack([row / row.norm() for row in rows])


@pytest.mark.parametrize("size", SIZES)
def test_aesthetic_is_vbenchs(parts: Parts, clip: CLIP, size: tuple[int, int]) -> None:
    head = read_state(parts.library.get("laion-aesthetic-v1-vit-l-14").path)
    features = vbench_features(clip, film(*size))
    expected = float(F.linear(features, head["weight"], head["bias"]).mean()) / 10
    assert ask("aesthetic", parts, film(*size)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("antialias", "least"), [(True, 1e-2), (False, 5e-5)])
def test_another_resizing_would_show(clip: CLIP, *, antialias: bool, least: float) -> None:
    """Antialiasing, or rounding to whole levels, matters by more than the tolerance of the test above."""
    bicubic = transforms.InterpolationMode.BICUBIC
    other = transforms.Resize(TINY_SIDE, interpolation=bicubic, antialias=antialias)(film(*SIZES[0]))
    assert other.dtype == torch.uint8
    assert (vbench_features(clip, film(*SIZES[0])) - vbench_features(clip, other)).abs().max() > least


def test_aesthetic_v2_is_the_perceptron_without_activations(parts: Parts, clip: CLIP) -> None:
    state = read_state(parts.library.get("laion-aesthetic-v2-vit-l-14").path)
    points = vbench_features(clip, film(*SIZES[0]))
    for layer in (0, 2, 4, 6, 7):
        points = F.linear(points, state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"])
    assert ask("aesthetic_v2", parts, film(*SIZES[0])) == pytest.approx(float(points.mean()) / 10, abs=1e-5)


@torch.inference_mode()
def test_alignment_is_the_cosine_of_prompt_and_mean_feature(parts: Parts, clip: CLIP) -> None:
    from open_clip import get_tokenizer

    text = clip.encode_text(get_tokenizer("ViT-L-14-quickgelu")(["a red ball"]))[0]
    video = vbench_features(clip, film(*SIZES[0])).mean(0)
    expected = float(text @ video / text.norm() / video.norm())
    assert ask("alignment", parts, film(*SIZES[0]), "a red ball") == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_imaging_quality_is_clip_iqa(parts: Parts, clip: CLIP) -> None:
    from open_clip import get_tokenizer

    tokenizer = get_tokenizer("ViT-L-14-quickgelu")
    probabilities = []
    for good, bad in (
        ("Good photo.", "Bad photo."),
        ("Sharp photo.", "Blurry photo."),
        ("Clean photo.", "Noisy photo."),
    ):
        texts = clip.encode_text(tokenizer([good, bad]))
        texts = texts / texts.norm(dim=-1, keepdim=True)
        for feature in vbench_features(clip, film(*SIZES[0])):
            right, wrong = (math.exp(100 * float(feature @ text)) for text in texts)
            probabilities.append(right / (right + wrong))
    assert ask("imaging_quality", parts, film(*SIZES[0])) == pytest.approx(np.mean(probabilities), abs=1e-4)


def test_fewer_frames_are_evenly_spaced_and_hold_both_ends(parts: Parts, clip: CLIP) -> None:
    levels = film(64, 64, frames=9)
    fewer = Parts(parts.library, parts.placement, frames=3, clip_config=parts._clip_config)
    head = read_state(parts.library.get("laion-aesthetic-v1-vit-l-14").path)
    expected = F.linear(vbench_features(clip, levels[[0, 4, 8]]), head["weight"], head["bias"]).mean() / 10
    assert ask("aesthetic", fewer, levels) == pytest.approx(float(expected), abs=1e-5)


def test_small_memory_changes_nothing_but_rounding(parts: Parts) -> None:
    little = Placement(device=torch.device("cpu"), dtype=torch.float32, memory=1)
    names = ["aesthetic", "alignment", "imaging_quality", "musiq", "temporal_lpips"]
    for name in names:
        narrow = Parts(parts.library, little, frames=None, clip_config=parts._clip_config)
        assert ask(name, narrow, film(48, 64)) == pytest.approx(ask(name, parts, film(48, 64)), rel=1e-5, abs=1e-6)


def test_clip_is_built_as_open_clip_builds_it(parts: Parts, clip: CLIP) -> None:
    built = build_clip(parts._clip_config or {}, clip.state_dict(), "the same")
    assert torch.equal(built.attn_mask, clip.attn_mask)
    assert {name for name, _ in built.named_buffers()} == {name for name, _ in clip.named_buffers()}
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_published_architectures_have_quick_gelu(variant: object) -> None:
    from open_clip.model import CLIP
    from open_clip.transformer import QuickGELU

    with torch.device("meta"):
        model = CLIP(**configuration(variant))
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    assert all(isinstance(block.mlp.gelu, QuickGELU) for block in blocks)
    assert model.visual.image_size == (224, 224)


def test_a_long_prompt_is_cut_with_a_warning(parts: Parts) -> None:
    words = "ball " * 100
    with pytest.warns(UserWarning, match="CLIP reads 75 tokens of a prompt; this one has 100"):
        cut = ask("alignment", parts, film(48, 64), words)
    assert cut == pytest.approx(ask("alignment", parts, film(48, 64), "ball " * 75), abs=1e-6)


# MUSIQ ---------------------------------------------------------------------------------------------------------------


def same_padding(maps: Tensor, kernel: int, stride: int) -> Tensor:
    sides = []
    for size in (maps.shape[-1], maps.shape[-2]):
        missing = (-(-size // stride) - 1) * stride + kernel - size
        sides += [missing // 2, missing - missing // 2]
    return F.pad(maps, sides)


def slow_conv(state: dict[str, Tensor], name: str, maps: Tensor, stride: int = 1) -> Tensor:
    rows = []
    for row in state[f"{name}.weight"]:
        centred = row - row.mean()
        rows.append(centred / (torch.sqrt((centred**2).sum() / (row.numel() - 1)) + 1e-5))
    return F.conv2d(same_padding(maps, rows[0].shape[-1], stride), torch.stack(rows), stride=stride)


def slow_norm(state: dict[str, Tensor], name: str, maps: Tensor, eps: float) -> Tensor:
    return F.group_norm(maps, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def slow_stem(state: dict[str, Tensor], pictures: Tensor) -> Tensor:
    maps = F.relu(slow_norm(state, "gn_root", slow_conv(state, "conv_root", pictures, 2), 1e-6))
    maps = F.max_pool2d(same_padding(maps, 3, 2), 3, 2)
    short = slow_norm(state, "block1.gn_proj", slow_conv(state, "block1.conv_proj", maps), 1e-4)
    for i in (1, 2, 3):
        maps = slow_norm(state, f"block1.gn{i}", slow_conv(state, f"block1.conv{i}", maps), 1e-4)
        maps = F.relu(maps) if i < 3 else maps
    maps = F.relu(maps + short)
    return F.linear(maps.permute(0, 2, 3, 1).flatten(1), state["embedding.weight"], state["embedding.bias"])


def slow_tokens(state: dict[str, Tensor], frame: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens of a frame, padded to full length with zero pictures as the original does, and the mask."""
    pictures, places, scales, mask = [], [], [], []
    height, width = frame.shape[-2:]
    for scale, longer in enumerate((224, 384, None)):
        ratio = longer / max(height, width) if longer else 1
        size = (round(height * ratio), round(width * ratio))
        level = F.interpolate(frame[None], size, mode="bicubic")[0] if longer else frame
        level = same_padding(level, 32, 32)
        rows, columns = (-(-side // 32) for side in size)
        nearest = [
            F.interpolate(torch.arange(10.0)[None, None], count, mode="nearest").flatten() for count in (rows, columns)
        ]
        for i in range(rows):
            for j in range(columns):
                pictures.append(level[:, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32])
                places.append(int(nearest[0][i] * 10 + nearest[1][j]))
        empty = (-(-longer // 32)) ** 2 - rows * columns if longer else 0
        pictures += [torch.zeros(3, 32, 32)] * empty
        places += [0] * empty
        scales += [scale] * (rows * columns) + [0] * empty
        mask += [1.0] * (rows * columns) + [0.0] * empty
    tokens = (
        slow_stem(state, torch.stack(pictures)) + state["transformer_encoder.posembed_input.position_emb"][0, places]
    )
    return tokens + state["transformer_encoder.scaleembed_input.scale_emb"][scales], torch.tensor(mask)


def slow_musiq(state: dict[str, Tensor], frame: Tensor, heads: int) -> float:
    """One frame in [0, 1], masked attention written out head by head."""
    tokens, mask = slow_tokens(state, 2 * frame - 1)
    tokens = torch.cat([state["transformer_encoder.cls"][0], tokens])
    mask = torch.cat([torch.ones(1), mask])
    for i in range(2):
        prefix = f"transformer_encoder.transformer.encoderblock_{i}"

        def linear(name: str, x: Tensor, prefix: str = prefix) -> Tensor:
            return F.linear(x, state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"])

        def norm(name: str, x: Tensor, prefix: str = prefix) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"], 1e-6)

        inner = norm("norm1", tokens)
        query, key, value = (linear(f"attention.{name}", inner) for name in ("query", "key", "value"))
        mixed = []
        for head in range(heads):
            part = slice(64 * head, 64 * head + 64)
            logits = query[:, part] @ key[:, part].T / math.sqrt(64)
            logits = logits.masked_fill(mask[:, None] * mask[None] == 0, -1e3)
            mixed.append(logits.softmax(-1) @ value[:, part])
        tokens = tokens + linear("attention.out", torch.cat(mixed, dim=1))
        tokens = tokens + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", tokens))))
    name = "transformer_encoder.encoder_norm"
    final = F.layer_norm(tokens[0], tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
    return float(F.linear(final, state["head.weight"], state["head.bias"]))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("size", [(97, 131), (131, 97), (300, 560), (560, 300)])
@torch.inference_mode()
def test_musiq_is_vbenchs(musiq_states: dict[int, dict[str, Tensor]], size: tuple[int, int], heads: int) -> None:
    """Landscape and portrait, below and above 512 pixels; one head and several."""
    state = musiq_states[heads]
    net = Musiq.like(state)
    fill(net, state, "weights of a random network")
    levels = film(*size, frames=2)
    frames = torch.Tensor(levels.numpy())  # VBench's load_video: floats, so that nothing is rounded below
    if max(size) > 512:
        scale = 512.0 / max(size)
        frames = transforms.Resize(size=(int(scale * size[0]), int(scale * size[1])), antialias=False)(frames)
    expected = np.mean([slow_musiq(state, frame / 255.0, heads) for frame in frames]) / 100
    measure = MusiqQuality(net, Placement.automatic("cpu"), weights="0" * 16)
    assert measure(View(levels.float() / 255), "").value == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_musiq_is_built_from_its_file(parts: Parts) -> None:
    state = read_state(parts.library.get("musiq-spaq").path)
    levels = film(97, 131, frames=1)
    expected = slow_musiq(state, levels[0] / 255.0, heads=1) / 100
    assert ask("musiq", parts, levels) == pytest.approx(expected, abs=1e-5)


def test_musiq_has_the_published_shapes() -> None:
    """Keys and sizes of the published program: 14 blocks of width 384 over 256 channels at 8x8 places."""
    with torch.device("meta"):
        net = Musiq()
    state = net.state_dict()
    assert state["embedding.weight"].shape == (384, 16384)
    assert "transformer_encoder.transformer.encoderblock_13.attention.out.bias" in state
    like = Musiq.like({key: torch.empty(t.shape, device="meta") for key, t in state.items()})
    assert {key: t.shape for key, t in like.state_dict().items()} == {key: t.shape for key, t in state.items()}


def test_positions_cover_the_grid_row_by_row() -> None:
    assert hashed_positions(320, 320).tolist() == list(range(100))
    assert hashed_positions(33, 64).tolist() == [0, 5, 50, 55]
