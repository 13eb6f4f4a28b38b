"""What a perturbed pass does inside a block: to its self-attention, or to its feed-forward.

The modules run as they are. Only the innermost call, ``scaled_dot_product_attention``, is answered differently, so that
projections, norms, gates, LoRA and quantised layers of any family keep working. A backend that computes attention in
another way is noticed, because then nothing was answered.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from stg_tune.errors import StgTuneError
from stg_tune.guidance.places import attentions_of, feed_forwards_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stg_tune.models.base import Stack, Text
    from stg_tune.records import SkipOp

    Inner = Callable[..., Any]

_PASSES_VALUES = ("attention", "attention_all", "attention_with_text")
_ANSWERED = (*_PASSES_VALUES, "blur")


@contextmanager
def perturbed(block: nn.Module, stack: Stack, op: SkipOp) -> Iterator[None]:
    """Inside the ``with``, the attentions (or the feed-forward) of ``block`` follow ``op``; afterwards as before."""
    modules = feed_forwards_of(block, stack) if op == "feed_forward" else attentions_of(block, stack)
    with ExitStack() as undo:
        for module in modules:
            undo.enter_context(_forward_replaced(module, _perturbed_forward(module, stack.text, op)))
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
def _forward_replaced(module: nn.Module, forward: Inner) -> Iterator[None]:
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _perturbed_forward(module: nn.Module, text: Text, op: SkipOp) -> Inner:
    inner: Inner = module.forward
    passes_values = getattr(module, "value_passthrough", None)
    if op in _PASSES_VALUES and passes_values is not None:
        return lambda x, *_, **__: passes_values(x)  # eq. 16-17 of arXiv:2411.18664
    if op in _ANSWERED:
        return lambda *args, **kwargs: _answered(inner, module, text, op, args, kwargs)
    if op == "feed_forward":
        return lambda *args, **kwargs: _first(args, kwargs)
    return lambda *args, **kwargs: _other_output(inner, module, op, args, kwargs)


def _answered(
    inner: Inner, module: nn.Module, text: Text, op: SkipOp, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    with _Answers(op, text, _first(args, kwargs).shape[-2]) as answers:
        output = inner(*args, **kwargs)
    if not answers.count:
        raise StgTuneError(
            f"skip_op {op!r} had no hold on {type(module).__name__}: its backend ("
            f"{type(getattr(module, 'processor', module)).__name__}) does not compute attention with torch's "
            "scaled_dot_product_attention. Use pipe.transformer.set_attention_backend('native') (or the default "
            "processor) with guidance, or skip_op 'residual'."
        )
    return output


def _other_output(inner: Inner, module: nn.Module, op: SkipOp, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    given, output = _first(args, kwargs), inner(*args, **kwargs)
    if op == "attention_off":
        video = torch.zeros_like(given)
    elif op == "attention_input":
        video = given
    else:
        video = module.get_submodule("to_out.0")(given)
    return (video, *output[1:]) if isinstance(output, tuple) else video


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else next(iter(kwargs.values()))
    return found


class _Answers(TorchFunctionMode):
    """Answers every ``scaled_dot_product_attention`` inside the ``with`` in the way of an operation."""

    def __init__(self, op: SkipOp, text: Text, num_video: int) -> None:
        super().__init__()
        self.count = 0
        self._op = op
        self._text = text
        self._num_video = num_video

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
        value = _as_many_heads(value, query)
        key = _as_many_heads(key, query)
        tokens = query.shape[-2]
        if tokens != value.shape[-2]:
            raise StgTuneError(
                f"skip_op {self._op!r} needs a self-attention, but {tokens} queries meet {value.shape[-2]} values "
                "here: use skip_op 'residual'"
            )
        video = self._video(tokens)
        options = {name: option for name, option in options.items() if name in ("scale",)}
        if self._op == "attention_all":
            return value
        if self._op == "blur":
            return scaled_dot_product_attention(_mean_query(query, video), key, value, attn_mask, **options)
        seen = _self_and_text(query, key, value, attn_mask, video) if self._op == "attention_with_text" else value
        return _with_text_rows(seen, query, key, value, attn_mask, video, options)

    def _video(self, tokens: int) -> slice:
        if self._text == "before":
            return slice(tokens - self._num_video, tokens)
        return slice(0, self._num_video if self._text == "after" else tokens)


def _as_many_heads(x: Tensor, query: Tensor) -> Tensor:
    return x if x.shape[-3] == query.shape[-3] else x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3)


def _mean_query(query: Tensor, video: slice) -> Tensor:
    """The blur of arXiv:2408.00760 without end: every video query is their mean."""
    found = query.clone()
    found[..., video, :] = query[..., video, :].mean(-2, keepdim=True)
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
