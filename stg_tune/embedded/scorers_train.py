"""Trains the embedded scorers: ``python -m stg_tune.embedded.train scorers`` (minutes on one core, seeded)."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stg_tune.embedded import digits
from stg_tune.embedded.scorers_data import (
    TIMES,
    UNREADABLE,
    Clean,
    Sample,
    Supply,
    draw_samples,
    render_clean,
    vocabulary,
)
from stg_tune.score.clip import TemporalHead
from stg_tune.score.embedded import FOLDER, Vocabulary, build_clip, words_of
from stg_tune.score.perceptual import LpipsOverTrunk, SmallTrunk
from stg_tune.score.quality import QualityNet
from stg_tune.score.saturation import chroma
from stg_tune.score.weights import tensors_of, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from open_clip.model import CLIP

VAE_FOLDER = Path(__file__).parent / "weights" / "open-sora-tiny" / "vae"
"""The autoencoder whose latents are damaged; without it the scorers see damaged pictures only."""
PREPROCESSING = {"size": digits.SIZE, "mode": "bilinear", "mean": [0.4, 0.4, 0.4], "std": [0.25, 0.25, 0.25]}
STRIDE, PAIR_FRAMES = 2, 8
"""CLIP looks at every second frame; the temporal head compares frames that are eight apart."""
CONTEXT = 12
MOST_LOGIT_SCALE = 20.0
"""Bound on the inverse temperature: cosines then spread over a visible range."""

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Train all scorers, or those of ``--only``, and write their weights."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.train scorers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(TRAINERS), default=list(TRAINERS), help="which to train")
    parser.add_argument("--out", type=Path, default=FOLDER, help="weights folder")
    parser.add_argument("--vae", type=Path, default=VAE_FOLDER, help="autoencoder folder; may be missing")
    parser.add_argument("--videos", type=int, default=1600, help="renders to train on")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the number of steps")
    parser.add_argument("--seed", type=int, default=0, help="of data and initial weights")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    clean = render_clean(args.videos, "train", args.seed)
    samples = draw_samples(clean, 3 * args.videos, args.seed), _decoded(args.vae, clean, args.seed)
    for name in args.only:
        torch.manual_seed(args.seed)
        begin = time.monotonic()
        TRAINERS[name](clean, Supply(*samples, seed=args.seed), args.out, args.effort)
        log.info("%s done in %.0f s", name, time.monotonic() - begin)


def _decoded(folder: Path, clean: Clean, seed: int) -> Sample | None:
    if not folder.exists():
        log.info("no autoencoder at %s: training on damaged pictures only", folder)
        return None
    from stg_tune.embedded.scorers_latents import decode_damaged
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    return decode_damaged(OpenSoraVAE.from_pretrained(folder).eval(), clean, len(clean.frames) // 3, seed)


def train_clip(clean: Clean, supply: Supply, out: Path, effort: float) -> None:
    """Reading frames, then contrastive training on videos and captions, then the linear aesthetic head."""
    words = words_of(vocabulary())
    tokenize = Vocabulary(words, CONTEXT)
    model: dict[str, Any] = {
        "embed_dim": 64,
        "tower": {"channels": [16, 32, 64, 128], "places": 4, "hidden": 192},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": tokenize.size, "width": 64, "heads": 4, "layers": 1},
    }
    clip, head, hints = build_clip(**model), TemporalHead(64, 96, lag=1), Hints(64)
    nn.init.zeros_(head.out.weight)

    def reading(step: int) -> Tensor:
        sample = supply.batch(128, (TIMES[step % len(TIMES)],), single=True)
        loss: Tensor = hints(_frame_features(clip, sample.frames)[:, 0], sample, attributes=2)
        return loss

    def contrast(step: int) -> Tensor:
        sample = supply.batch(64, (TIMES[0], TIMES[2], TIMES[3]))
        features = _frame_features(clip, sample.frames)
        videos = F.normalize(head(features), dim=-1)
        spare = [digits.captions()[i] for i in supply.pick(48, len(digits.captions())).tolist()]
        scale = clip.logit_scale.exp().clamp_max(MOST_LOGIT_SCALE)
        whole = _contrast(clip, tokenize, videos, sample.captions, spare, scale)
        frames = _contrast(clip, tokenize, features.mean(1), sample.short, [], scale)
        read: Tensor = hints(videos, sample, attributes=3)
        return whole + frames / 2 + read

    _optimise([clip.visual, hints], reading, steps=round(1800 * effort), rate=3e-3, name="clip, reading")
    _optimise([clip, head, hints], contrast, steps=round(600 * effort), rate=2e-3, name="clip, contrast")
    _round_to_stored(clip, head)
    weight, bias = _fit_aesthetic(clip, supply)
    tensors = {**tensors_of(clip=clip, temporal_head=head), "aesthetic.weight": weight, "aesthetic.bias": bias}
    config = {
        "model": model,
        "vocabulary": {"words": words, "context_length": CONTEXT},
        "preprocessing": PREPROCESSING,
        "stride": STRIDE,
        "temporal_head": {"dim": 64, "hidden": 96, "lag": PAIR_FRAMES // STRIDE},
    }
    write_weights(out, "clip", tensors, config)


def _frame_features(clip: CLIP, videos: Tensor) -> Tensor:
    """(batch, frames, 3, height, width) in [0, 1] -> unit-length features (batch, frames, dim)."""
    mean, std = (torch.tensor(PREPROCESSING[key]).view(3, 1, 1) for key in ("mean", "std"))
    inputs = ((videos.flatten(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = clip.encode_image(inputs)
    return F.normalize(features.float(), dim=-1).view(*videos.shape[:2], -1)


class Hints(nn.Module):
    """Linear layers that read digit, colour, direction and damage off unit-length features; thrown away in the end.

    Captions alone teach a small network colours at once, digits late and damage hardly at all.

    Args:
        dim: width of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        names = (digits.DIGITS, digits.COLOURS, digits.DIRECTIONS)
        self.attributes = nn.ModuleList(nn.Linear(dim, len(each)) for each in names)
        self.damage = nn.Linear(dim, 1)

    def forward(self, features: Tensor, sample: Sample, attributes: int) -> Tensor:
        """Cross-entropy of the first ``attributes`` where they can be seen, and of the damage everywhere."""
        wide, visible = 10 * features, sample.damage < UNREADABLE
        loss = F.binary_cross_entropy_with_logits(self.damage(wide)[:, 0], sample.damage)
        for i, read in enumerate(self.attributes[:attributes]):
            loss = loss + F.cross_entropy(read(wide[visible]), sample.attributes[visible, i]) / attributes
        return loss


def _contrast(
    clip: CLIP, tokenize: Vocabulary, videos: Tensor, captions: list[str], spare: list[str], scale: Tensor
) -> Tensor:
    """Cross-entropy video -> caption (against spare captions too) and caption -> its videos (there may be several)."""
    texts = sorted({*captions, *spare})
    target = torch.tensor([texts.index(caption) for caption in captions])
    logits = scale * F.normalize(videos, dim=-1) @ clip.encode_text(tokenize(texts), normalize=True).T
    belongs = F.one_hot(target, len(texts)).T.float()
    present = belongs.sum(1) > 0
    wanted = belongs[present] / belongs[present].sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T[present], wanted)) / 2


def _fit_aesthetic(clip: CLIP, supply: Supply) -> tuple[Tensor, Tensor]:
    """Ridge regression from unit-length frame features to ten points for clean, none for ruined."""
    clip.eval()
    with torch.inference_mode():
        samples = [supply.batch(100, TIMES[1:3], single=True) for _ in range(30)]
        features = torch.cat([_frame_features(clip, sample.frames).flatten(0, 1) for sample in samples]).double()
    points = torch.cat([10 * (1 - sample.damage.repeat_interleave(2)) for sample in samples]).double()
    centred, mean = features - features.mean(0), points.mean()
    normal = centred.T @ centred + 1e-3 * len(points) * torch.eye(features.shape[1]) / features.shape[1]
    weight = torch.linalg.solve(normal, centred.T @ (points - mean))
    bias = mean - features.mean(0) @ weight
    log.info("aesthetic: r = %.3f", torch.corrcoef(torch.stack([features @ weight, points]))[0, 1])
    return weight.float(), bias.float()


def train_temporal_lpips(clean: Clean, supply: Supply, out: Path, effort: float) -> None:
    """Trunk and non-negative heads: no distance along natural motion, the known strength to a damaged next frame."""
    channels = [16, 32, 64, 64]
    metric = LpipsOverTrunk(SmallTrunk(channels)).to(memory_format=torch.channels_last)
    _keep_non_negative(metric)

    def loss(step: int) -> Tensor:
        sample = supply.batch(48, TIMES[1:3])
        now, then, damaged = sample.before[:, 0], sample.before[:, 1], sample.frames[:, 1]
        pair = [torch.cat([now, now]), torch.cat([then, damaged])]
        distance = metric(*(x.contiguous(memory_format=torch.channels_last) for x in pair), normalize=True).flatten()
        return F.smooth_l1_loss(distance, torch.cat([torch.zeros(len(now)), sample.damage]), beta=0.1)

    _optimise(
        [metric],
        loss,
        steps=round(480 * effort),
        rate=2e-3,
        name="temporal_lpips",
        after=lambda: _keep_non_negative(metric),
    )
    write_weights(out, "temporal_lpips", tensors_of(lpips=metric), {"channels": channels})


def _keep_non_negative(metric: LpipsOverTrunk) -> None:
    """A distance must not fall where features differ more."""
    for weight in metric.lins.parameters():
        weight.data.abs_()


def train_imaging_quality(clean: Clean, supply: Supply, out: Path, effort: float) -> None:
    """The share of clean that is left in single frames."""
    channels, hidden = [16, 32, 64, 96], 64
    net = QualityNet(channels, hidden).to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        sample = supply.batch(128, (TIMES[step % len(TIMES)],), single=True)
        with torch.autocast("cpu", torch.bfloat16):
            quality = net(sample.frames[:, 0].contiguous(memory_format=torch.channels_last))
        return F.binary_cross_entropy(quality.float(), 1 - sample.damage)

    _optimise([net], loss, steps=round(1400 * effort), rate=3e-3, name="imaging_quality")
    write_weights(
        out,
        "imaging_quality",
        tensors_of(net=net),
        {"net": {"channels": channels, "hidden": hidden}, "size": digits.SIZE},
    )


def measure_saturation(clean: Clean, supply: Supply, out: Path, effort: float) -> None:
    """The chroma that one natural pixel in twenty exceeds."""
    pixels = chroma(clean.frames[:400, 8].float() / 255).flatten()
    write_weights(out, "saturation", {"natural_chroma": torch.quantile(pixels[::3], 0.95)}, {"quantile": 0.95})


TRAINERS = {
    "clip": train_clip,
    "temporal_lpips": train_temporal_lpips,
    "imaging_quality": train_imaging_quality,
    "saturation": measure_saturation,
}


def _optimise(
    modules: Sequence[nn.Module],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    name: str,
    after: Callable[[], None] = lambda: None,
) -> None:
    """AdamW with a one-cycle rate; leaves the modules in eval mode."""
    parameters = [p for module in modules for p in module.train().parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 2), pct_start=0.1)
    recent = 0.0
    for step in range(steps):
        value = loss(step)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        after()
        recent += value.item() / 50
        if step % 50 == 49:
            log.info("%s step %d/%d loss %.4f", name, step + 1, steps, recent)
            recent = 0.0
    for module in modules:
        module.eval()


def _round_to_stored(*modules: nn.Module) -> None:
    """Round to what the file will hold, so that the head is fitted to the features that will be computed."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data.copy_(tensor.data.half().float())
