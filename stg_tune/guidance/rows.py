"""Rows of a denoiser call: which are prompted, how a call is cut to them, where its output has the prediction."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stg_tune.models.base import Architecture, RowOrder


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How the batch of one call is made up."""

    total: int
    """All rows."""
    prompted: slice
    """Rows with the prompt."""
    negative: slice | None
    """Rows with the negative prompt; ``None`` when the pipeline runs without CFG."""

    def arranged(self, prompted: Tensor, negative: Tensor) -> Tensor:
        """One batch of both, in the order of the pipeline."""
        first, second = (prompted, negative) if self.prompted.start == 0 else (negative, prompted)
        return torch.cat([first, second])

    @property
    def count(self) -> int:
        """Number of prompted rows: prompts times videos per prompt."""
        return self.total if self.negative is None else self.total // 2


def rows_of(total: int, order: RowOrder, *, batched: bool) -> Rows:
    """Splits ``total`` rows; ``batched`` means that the pipeline sends both predictions in one call.

    Raises:
        StgTuneError: An odd number of rows cannot hold both.
    """
    if not batched:
        return Rows(total=total, prompted=slice(0, total), negative=None)
    half, odd = divmod(total, 2)
    if odd:
        raise StgTuneError(
            f"the denoiser was called with {total} rows, but a pipeline with guidance_scale > 1 batches prompted and "
            "negative rows, an even number: the architecture record does not fit this pipeline."
        )
    first, second = slice(0, half), slice(half, total)
    prompted, negative = (first, second) if order == "cond_first" else (second, first)
    return Rows(total=total, prompted=prompted, negative=negative)


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one denoiser call."""

    args: tuple[Any, ...]
    """Positional arguments."""
    kwargs: Mapping[str, Any]
    """Arguments by name."""
    names: tuple[str, ...]
    """Names of the denoiser's parameters, in order."""

    @property
    def total(self) -> int:
        """Rows of the batch: dim 0 of the latents, the first parameter."""
        return int(self.latents.shape[0])

    @property
    def latents(self) -> Tensor:
        """What the denoiser is to denoise, its first parameter."""
        found: Tensor = self._argument(self.names[0])
        return found

    def with_latents(self, latents: Tensor) -> Call:
        """The same call on other latents."""
        name = self.names[0]
        if name in self.kwargs:
            return replace(self, kwargs={**self.kwargs, name: latents})
        return replace(self, args=(latents, *self.args[1:]))

    @property
    def timestep(self) -> Tensor:
        """What the denoiser takes for the noise level."""
        return torch.as_tensor(self._argument("timestep"))

    def only(self, rows: slice) -> Call:
        """The call for some of its rows: every tensor argument with as many rows as the latents is cut.

        Tensors with fewer rows (a text mask that the denoiser repeats, a rotary table) stay whole.
        """
        total = self.total
        return Call(
            args=tuple(_cut(value, rows, total) for value in self.args),
            kwargs={name: _cut(value, rows, total) for name, value in self.kwargs.items()},
            names=self.names,
        )

    def given(self, name: str) -> Any:
        """An argument by name, or ``None`` where the call has none."""
        try:
            return self._argument(name)
        except StgTuneError:
            return None

    def _argument(self, name: str) -> Any:
        if name in self.kwargs:
            return self.kwargs[name]
        position = self.names.index(name) if name in self.names else len(self.args)
        if position >= len(self.args):
            raise StgTuneError(f"the denoiser was called without {name!r}, which guidance needs.")
        return self.args[position]


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of a module's own ``forward``, without ``self``."""
    return tuple(inspect.signature(type(module).forward).parameters)[1:]


def _cut(value: Any, rows: slice, total: int) -> Any:
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == total:
        return value[rows]
    return value


def outputs_of(output: Any, number: int = 1) -> tuple[Tensor, ...]:
    """The first tensors in what a denoiser returns: a tensor, a tuple that begins with them, or ``.sample``.

    Raises:
        StgTuneError: They are not there.
    """
    if isinstance(output, Tensor):
        found: tuple[Any, ...] = (output,)
    else:
        found = tuple(output) if isinstance(output, tuple) else (getattr(output, "sample", None),)
    if len(found) < number or not all(isinstance(item, Tensor) for item in found[:number]):
        raise StgTuneError(
            f"the denoiser returned {type(output).__name__}, in which guidance finds no {number} prediction(s): call "
            "the pipeline, which asks for a tuple"
        )
    return found[:number]


def predictions_of(output: Any, record: Architecture) -> tuple[Tensor, ...]:
    """The prediction in what a denoiser returns, without further channels, and its side outputs."""
    first, *side = outputs_of(output, 1 + record.side_outputs)
    return (first[:, : record.prediction_channels], *side)


def with_outputs(output: Any, tensors: Sequence[Tensor]) -> Any:
    """``output`` in its own form with other tensors in the places of ``outputs_of``."""
    if isinstance(output, Tensor):
        return tensors[0]
    if isinstance(output, tuple):
        return (*tensors, *output[len(tensors) :])
    return type(output)(**{**vars(output), "sample": tensors[0]})
