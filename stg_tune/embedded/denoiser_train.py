"""What the training of the embedded denoisers shares: data that is made once, and a loop that averages the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stg_tune.embedded.checkpoints import Loop
from stg_tune.embedded.open_sora_train import warm_average

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from diffusers import ModelMixin
    from torch import Tensor, nn

    Tensors = dict[str, Tensor]
    Losses = dict[str, Tensor]

PART, FIRST_SEED = 500, 10_000
"""Videos that are made at a time, and the seed of the first part."""


def cached(path: Path, count: int, make: Callable[[int, int], Tensors]) -> Tensors:
    """Tensors of ``count`` videos, made in the parts of ``parts_of`` and kept in ``path``.

    Args:
        path: The file; a run that is ended goes on after its last whole part.
        count: Rows of every tensor that is returned.
        make: Number of videos and seed -> the tensors of one part.
    """
    saved: list[Tensors] = torch.load(path, weights_only=True) if path.exists() else []
    plan = parts_of(count)
    whole = [len(next(iter(part.values()))) == number for part, (number, _) in zip(saved, plan, strict=False)]
    saved = saved[: whole.index(False) if False in whole else len(whole)]
    for number, seed in plan[len(saved) :]:
        saved.append(make(number, seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        torch.save(saved, fresh)
        fresh.replace(path)
    return {name: torch.cat([part[name] for part in saved]) for name in saved[0]}


def parts_of(count: int) -> list[tuple[int, int]]:
    """Number of videos and seed of every part, 500 videos each but the last."""
    return [(min(PART, count - start), FIRST_SEED + start) for start in range(0, count, PART)]


def train_averaged(
    modules: nn.Module,
    loss_of: Callable[[torch.Generator], Losses],
    path: Path,
    *,
    steps: int,
    peak_rate: float,
    helpers: nn.Module | None = None,
    warmup: int = 300,
) -> None:
    """Train (or go on with) modules; afterwards they hold the exponential average of their weights.

    Args:
        modules: What is kept.
        loss_of: Generator of random numbers -> named losses of one step; their sum is minimised.
        path: The checkpoint.
        steps: Steps of the whole training.
        peak_rate: Greatest learning rate of AdamW.
        helpers: Trained beside, not averaged, thrown away in the end.
        warmup: Steps in which the rate rises.
    """
    average = torch.optim.swa_utils.AveragedModel(modules, multi_avg_fn=warm_average, use_buffers=False)
    owners = [modules, *([helpers] if helpers is not None else [])]
    optimisers = [_optimiser(owner, peak_rate) for owner in owners]
    named = {f"optimiser_{number}": optimiser for number, optimiser in enumerate(optimisers)}
    state = {"modules": modules, "average": average, **named, **({"helpers": helpers} if helpers is not None else {})}
    loop = Loop(path=path, state=state, steps=steps)
    loop.resume()
    generator = torch.Generator().manual_seed(loop.step)

    def train_step(step: int) -> dict[str, float]:
        rate = loop.learning_rate(peak=peak_rate, warmup=warmup)
        with torch.autocast("cpu", torch.bfloat16):
            losses = loss_of(generator)
        norm = _descend(torch.stack([*losses.values()]).sum(), modules, optimisers, rate)
        average.update_parameters(modules)
        return {**{name: loss.item() for name, loss in losses.items()}, "gradient": norm}

    loop.run(train_step)
    modules.load_state_dict(average.module.state_dict())


def _optimiser(owner: nn.Module, rate: float) -> torch.optim.Optimizer:
    free = [weight for weight in owner.parameters() if weight.requires_grad]
    return torch.optim.AdamW(free, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)


def _descend(loss: Tensor, modules: nn.Module, optimisers: Sequence[torch.optim.Optimizer], rate: float) -> float:
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
        for group in optimiser.param_groups:
            group["lr"] = rate
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
    return norm.item()


def fresh_copy(model: ModelMixin) -> Any:
    """A model of diffusers with the same weights and nothing of what the training has put on it, in eval mode."""
    copy = type(model).from_config(model.config)
    copy.load_state_dict(model.state_dict())
    copy.eval()
    return copy
