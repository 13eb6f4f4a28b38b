"""Trains the judge on renders of the train split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from stg_tune.embedded import digits
from stg_tune.embedded.checkpoints import Loop, to_pixels
from stg_tune.embedded.judge import Judge, JudgeNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

POOL = 4000
BATCH = 24
PEAK_RATE = 2e-3


def train_judge(folder: Path, *, steps: int) -> Judge:
    """Train (or go on with) the judge; ``folder`` holds its checkpoint. Feature statistics come from the test split."""
    torch.manual_seed(0)
    network = JudgeNetwork().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    state = {"network": network, "optimiser": optimiser}
    loop = Loop(path=folder / "judge.ckpt.pt", state=state, steps=steps)
    loop.resume()
    pool = digits.render(POOL, "train", seed=1)
    targets = [torch.from_numpy(values) for values in (pool.digit, pool.colour, pool.direction)]
    generator = torch.Generator().manual_seed(loop.step)

    def train_step(step: int) -> dict[str, float]:
        rows = torch.randint(POOL, (BATCH,), generator=generator)
        videos = _disturb(to_pixels(pool.frames[rows.numpy()]), generator)
        for group in optimiser.param_groups:
            group["lr"] = loop.learning_rate(peak=PEAK_RATE)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(videos)
        losses = [
            functional.cross_entropy(answer.float(), target[rows])
            for answer, target in zip(logits, targets, strict=True)
        ]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {"digit": losses[0].item(), "colour": losses[1].item(), "direction": losses[2].item()}

    loop.run(train_step)
    return with_statistics(network.eval())


def with_statistics(network: JudgeNetwork, num_videos: int = 4000) -> Judge:
    """The judge with mean and covariance of its features over real videos of the test split."""
    blind = Judge(network, np.zeros(0), np.zeros(0))
    parts = [digits.render(500, "test", seed=100 + part) for part in range(num_videos // 500)]
    features = np.concatenate([blind.look(to_pixels(part.frames))[0] for part in parts])
    return Judge(network, features.mean(0), np.cov(features, rowvar=False))


def _disturb(videos: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and brightness as a generator may show them: the judge is to look at shapes and not at sharpness."""
    size = int(torch.randint(1, 5, (), generator=generator))
    if size > 1:
        small = functional.avg_pool2d(videos.flatten(0, 1), size, ceil_mode=True)
        soft = functional.interpolate(small, size=videos.shape[-2:], mode="bilinear").view_as(videos)
        share = torch.rand(len(videos), 1, 1, 1, 1, generator=generator)
        videos = torch.lerp(videos, soft, share)
    strength = 0.15 * torch.rand(len(videos), 1, 1, 1, 1, generator=generator)
    gain = 1 + 0.2 * torch.randn(len(videos), 1, 1, 1, 1, generator=generator)
    return videos * gain + strength * torch.randn(videos.shape, generator=generator)
