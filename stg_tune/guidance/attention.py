"""What a perturbed pass does inside a block: to its self-attention, or to its feed-forward.

The modules run as they are. Only the innermost call, ``scaled_dot_product_attention``, is answered differently, so that
projections, norms, gates, LoRA and quantised layers of any family keep working. A backend that computes attention in
another way is noticed, because then nothing was answered.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from stg_tune.errors import StgTuneError
from stg_tune.guidance.blur import blurred
from stg_tune.guidance.places import attentions_of, feed_forwards_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stg_tune.guidance.grid import Grid
    from stg_tune.models.base import Axes, Stack, Text
    from stg_tune.records import SkipOp

    Inner = Callable[..., Any]
    Blur = Callable[[Tensor, slice], Tensor]

_PASSES_VALUES = ("attention", "attention_all", "attention_with_text")
_ANSWERED = (*_PASSES_VALUES, "blur")


@contextmanager
def perturbed(
    block: nn.Module, stack: Stack, op: SkipOp, *, sigma: float | None = None, grid: Grid | None = None
) -> Iterator[None]:
    """Inside the ``with``, the attentions (or the feed-forward) of ``block`` follow ``op``; afterwards as before.

    Args:
        block: A block of ``stack``.
        stack: Names its parts.
        op: What they do.
        sigma: Of ``blur``, in tokens; ``None``: infinite.
        grid: Where tokens lie; needed with ``sigma``. Only the first attention is on it, further ones run over time.
    """
    modules = feed_forwards_of(block, stack) if op == "feed_forward" else attentions_of(block, stack)
    with ExitStack() as undo:
        for module in modules:
            on_grid = grid if module is modules[0] else None
            blur = partial(_blurred_queries, sigma=sigma, grid=on_grid, axes=stack.axes) if sigma else _mean_query
            undo.enter_context(forward_replaced(module, _perturbed_forward(module, stack.text, op, blur)))
        yield


def can(block: nn.Module, stack: Stack, op: SkipOp) -> bool:
    """Whether a block has what ``op`` acts on."""
    if op == "feed_forward":
        return bool(feed_forwards_of(block, stack))
    found = attentions_of(block, stack)
    if op == "attention_projected_input":
        return bool(found) and all(isinstance(getattr(part, "to_out", None), nn.ModuleList) for part in found)
    return bool(found) and all(hasattr(part, "processor") or hasattr(part, "value_passthrough") for part in found)


@contextmanager
def forward_replaced(module: nn.Module, forward: Inner) -> Iterator[None]:
    """Inside the ``with``, ``module`` computes ``forward``; afterwards what it did before."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _perturbed_forward(module: nn.Module, text: Text, op: SkipOp, blur: Blur) -> Inner:
    inner: Inner = module.forward
    passes_values = getattr(module, "value_passthrough", None)
    if op in _PASSES_VALUES and passes_values is not None:
        return lambda x, *_, **__: passes_values(x)  # eq. 16-17 of arXiv:2411.18664
    if op in _ANSWERED:
        return lambda *args, **kwargs: _answered(inner, module, _Answers(op, text, blur), args, kwargs)
    if op == "feed_forward":
        return lambda *args, **kwargs: first_of(args, kwargs)
    return lambda *args, **kwargs: _other_output(inner, module, op, args, kwargs)


def _answered(
    inner: Inner, module: nn.Module, answers: _Answers, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    answers.begin(first_of(args, kwargs).shape[-2])
    with answers:
        output = inner(*args, **kwargs)
    if not answers.count:
        raise no_hold(answers.op, module)
    return output


def no_hold(op: SkipOp, module: nn.Module) -> StgTuneError:
    """The error for an attention that is computed in a way that nobody here can answer."""
    return StgTuneError(
        f"skip_op {op!r} had no hold on {type(module).__name__}: its backend ("
        f"{type(getattr(module, 'processor', module)).__name__}) does not compute attention with torch's "
        "scaled_dot_product_attention. Use pipe.transformer.set_attention_backend('native') (or the default "
        "processor) with guidance, or skip_op 'residual'."
    )


def _other_output(inner: Inner, module: nn.Module, op: SkipOp, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    given, output = first_of(args, kwargs), inner(*args, **kwargs)
    if op == "attention_off":
        video = torch.zeros_like(given)
    elif op == "attention_input":
        video = given
    else:
        video = module.get_submodule("to_out.0")(given)
    return (video, *output[1:]) if isinstance(output, tuple) else video


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first argument of a call, however it was given."""
    found: Tensor = args[0] if args else next(iter(kwargs.values()))
    return found


class _Answers(TorchFunctionMode):
    """Answers every ``scaled_dot_product_attention`` inside the ``with`` in the way of an operation."""

    def __init__(self, op: SkipOp, text: Text, blur: Blur) -> None:
        super().__init__()
        self.op = op
        self.count = 0
        self._text = text
        self._blur = blur
        self._num_video = 0

    def begin(self, num_video: int) -> None:
        """A call of the attention on so many video tokens."""
        self.count, self._num_video = 0, num_video

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch calls this in place of every function."""
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.count += 1
        return self._answer(*args, **(kwargs or {}))

    def _answer(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        value = as_many_heads(value, query)
        key = as_many_heads(key, query)
        tokens = query.shape[-2]
        if tokens != value.shape[-2]:
            raise StgTuneError(
                f"skip_op {self.op!r} needs a self-attention, but {tokens} queries meet {value.shape[-2]} values "
                "here: use skip_op 'residual'"
            )
        video = video_tokens(self._text, tokens, self._num_video)
        options = {name: option for name, option in options.items() if name in ("scale",)}
        if self.op == "attention_all":
            return value
        if self.op == "blur":
            return scaled_dot_product_attention(self._blur(query, video), key, value, attn_mask, **options)
        seen = _self_and_text(query, key, value, attn_mask, video) if self.op == "attention_with_text" else value
        return _with_text_rows(seen, query, key, value, attn_mask, video, options)


def video_tokens(text: Text, tokens: int, num_video: int) -> slice:
    """Which of the tokens of a (joint) attention are of the video."""
    if text == "before":
        return slice(tokens - num_video, tokens)
    return slice(0, num_video if text == "after" else tokens)


def as_many_heads(x: Tensor, query: Tensor) -> Tensor:
    """Keys or values that several heads of the queries share, once for each of them."""
    return x if x.shape[-3] == query.shape[-3] else x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3)


def _mean_query(query: Tensor, video: slice) -> Tensor:
    """The blur of arXiv:2408.00760 without end: every video query is their mean."""
    found = query.clone()
    found[..., video, :] = query[..., video, :].mean(-2, keepdim=True)
    return found


def _blurred_queries(query: Tensor, video: slice, *, sigma: float, grid: Grid | None, axes: Axes) -> Tensor:
    """The same with a finite Gaussian over every axis that the attention runs over."""
    number = video.stop - video.start
    shape = (number,) if grid is None else grid.shape(number, axes)
    there = query[..., video, :].unflatten(-2, shape)
    found = query.clone()
    found[..., video, :] = blurred(there, sigma, range(-1 - len(shape), -1)).flatten(-1 - len(shape), -2)
    return found


def _self_and_text(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, video: slice) -> Tensor:
    """Values of all tokens, where a video token has attended to itself and to the valid text."""
    text = _outside(query.shape[-2], video)
    q = query[..., video, :] * query.shape[-1] ** -0.5
    own = (q * key[..., video, :]).sum(-1, keepdim=True)
    others = q @ key[..., text, :].transpose(-1, -2)
    if mask is not None:
        shown = mask.expand(*mask.shape[:-2], query.shape[-2], mask.shape[-1])[..., video, text]
        others = others.masked_fill(~shown, -torch.inf) if shown.dtype == torch.bool else others + shown
    weights = torch.cat([own, others], dim=-1).softmax(-1)
    found = value.clone()
    found[..., video, :] = weights[..., :1] * value[..., video, :] + weights[..., 1:] @ value[..., text, :]
    return found


def _with_text_rows(
    seen: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    video: slice,
    options: Mapping[str, Any],
) -> Tensor:
    """``seen``, with the usual attention in the rows of the text."""
    text = _outside(query.shape[-2], video)
    if text.start == text.stop:
        return seen
    if mask is not None and mask.shape[-2] != 1:
        mask = mask[..., text, :]
    found = seen.clone()
    found[..., text, :] = scaled_dot_product_attention(query[..., text, :], key, value, mask, **options)
    return found


def _outside(tokens: int, video: slice) -> slice:
    return slice(video.stop, tokens) if video.start == 0 else slice(0, video.start)
