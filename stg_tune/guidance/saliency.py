"""SAG (arXiv:2210.00939): latents blurred where the self-attention of the prompted pass rests.

The prompted pass is watched in the listed blocks. ``x0``, the clean latents it implies, are blurred in space where the
attention paid to a token is above the average; with the noise as predicted the latents become ``x + a (blurred x0 -
x0)``, ``a`` the signal share of the step (eq. 16-18 there). The weak prediction is that of the whole model for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from stg_tune.errors import StgTuneError
from stg_tune.guidance.attention import as_many_heads, first_of, forward_replaced, no_hold, video_tokens
from stg_tune.guidance.blur import blurred
from stg_tune.guidance.grid import canonical
from stg_tune.guidance.noise import level_of
from stg_tune.guidance.places import attentions_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stg_tune.guidance.grid import Grid
    from stg_tune.guidance.perturb import Layout, Stage
    from stg_tune.guidance.rows import Call
    from stg_tune.models.base import Architecture, Stack, Text
    from stg_tune.records import SkipTerm

_MOST_WEIGHTS = 2**24  # so many attention weights are held at once


@contextmanager
def watched(block: nn.Module, stack: Stack, found: list[Tensor]) -> Iterator[None]:
    """Inside the ``with``, the self-attention of ``block`` leaves in ``found`` how much attention each token gets."""
    module = attentions_of(block, stack)[0]
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Watcher(stack.text, first_of(args, kwargs).shape[-2], found):
            output = inner(*args, **kwargs)
        if not found:
            raise no_hold("salient_blur", module)
        return output

    with forward_replaced(module, forward):
        yield


class _Watcher(TorchFunctionMode):
    def __init__(self, text: Text, num_video: int, found: list[Tensor]) -> None:
        super().__init__()
        self._text = text
        self._num_video = num_video
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is scaled_dot_product_attention:
            self._watch(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _watch(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> None:
        video = video_tokens(self._text, query.shape[-2], self._num_video)
        self._found.append(attention_paid(query, as_many_heads(key, query), attn_mask, video, options.get("scale")))


def attention_paid(query: Tensor, key: Tensor, mask: Tensor | None, video: slice, scale: float | None = None) -> Tensor:
    """Attention that video queries pay to each video token, mean over heads, as a multiple of the row's average.

    Args:
        query: ``(rows, heads, tokens, channels)``.
        key: The same shape.
        mask: As ``scaled_dot_product_attention`` takes it.
        video: Which tokens are of the video.
        scale: Of the logits; ``None``: one over the root of the channels.

    Returns:
        ``(rows, video tokens)``, float32.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    rows, heads, tokens = query.shape[0], query.shape[1], key.shape[-2]
    total = query.new_zeros((rows, video.stop - video.start), dtype=torch.float32)
    step = max(1, _MOST_WEIGHTS // (rows * heads * tokens))
    for start in range(video.start, video.stop, step):
        part = slice(start, min(start + step, video.stop))
        logits = (query[..., part, :].float() @ key.float().transpose(-1, -2)) * scale
        weights = _masked(logits, mask, part).softmax(-1)
        total += weights[..., video].sum(-2).mean(1)
    return total / total.mean(-1, keepdim=True)


def _masked(logits: Tensor, mask: Tensor | None, part: slice) -> Tensor:
    if mask is None:
        return logits
    shown = mask if mask.shape[-2] == 1 else mask[..., part, :]
    return logits.masked_fill(~shown, -torch.inf) if shown.dtype == torch.bool else logits + shown


class InputBlur:
    """Makes the call of a weak pass out of the prompted one."""

    def __init__(self, pipe: Any, record: Architecture, layout: Layout, stage: Stage) -> None:
        self._pipe = pipe
        self._record = record
        self._layout = layout
        self._stage = stage

    def __call__(self, call: Call, term: SkipTerm, prompted: Tensor, grid: Grid) -> Call:
        """The call on latents that are blurred where the attention rests.

        Args:
            call: Of the prompted rows.
            term: Names the blocks that were watched.
            prompted: The prediction for these rows.
            grid: Of the call.
        """
        if call.given("x_mask") is not None:
            raise StgTuneError(
                "skip_op 'salient_blur' would blur the given frames (x_mask) as well: use another skip_op, or no "
                "reference"
            )
        level = level_of(self._pipe.scheduler, self._stage.step, call.timestep)
        c = canonical(prompted, self._record, grid).float()
        x = canonical(call.latents, self._record, grid)[:, : c.shape[1]].float()
        x0 = level.clean(x, c)
        change = level.signal * self._salient(term, grid) * (blurred(x0, term.blur_sigma or 0.0, (3, 4)) - x0)
        latents = call.latents.clone()
        view = canonical(latents, self._record, grid)[:, : c.shape[1]]
        view += change.to(view.dtype)
        return call.with_latents(latents)

    def _salient(self, term: SkipTerm, grid: Grid) -> Tensor:
        """``(batch, 1, frames, height, width)``: true where the mean map of the blocks is above its average."""
        places = ((stack, index) for stack, indices in term.skip_layers.items() for index in indices)
        maps = torch.stack([self._map(place, grid) for place in places])
        return maps.mean(0) > 1

    def _map(self, place: tuple[str, int], grid: Grid) -> Tensor:
        axes = self._layout.stacks[place[0]].axes
        paid = self._stage.memory.own(torch.cat(self._stage.watched[self._layout.order.index(place)]))
        height, width = grid.shape(paid.shape[-1], axes)[-2:]
        batch = self._stage.memory.count
        return F.interpolate(paid.reshape(batch, 1, -1, height, width), grid.latents)
