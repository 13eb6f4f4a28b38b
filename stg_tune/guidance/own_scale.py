"""The CFG scale that a pipeline itself runs with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    from stg_tune.guidance.schedule import Schedule
    from stg_tune.models.base import Architecture


class OwnScale:
    """What a pipeline does about eq. 6, for one of its denoisers."""

    def __init__(self, pipe: Any, record: Architecture, name: str) -> None:
        """``name``: dotted attribute of the pipeline; empty where the scale is not visible from outside."""
        self._pipe = pipe
        self._offset = record.scale_offset
        self._name = name
        self._run: object = None
        self._first: Any = None
        self._cfg = False
        self._all = False

    def begin(self, run: Schedule) -> None:
        """Reads the pipeline's settings once a run; ``run`` is compared by identity."""
        if run is not self._run:
            self._run, self._first, self._cfg = run, self._now(), runs_cfg(self._pipe)
            alike = all(step.only_cfg and (step.own_scale or self.is_same(step.cfg_scale)) for step in run.plans)
            self._all = alike and (self._cfg or not run.needs_negative)

    def does_all(self) -> bool:
        """Whether the pipeline alone does what every step of the run asks for, so that nobody need look at a call."""
        return self._all and self._now_is_first()

    @property
    def runs_cfg(self) -> bool:
        """Whether the pipeline sends negative rows in this run."""
        return self._cfg

    @property
    def never_negative(self) -> bool:
        """Whether the pipeline says that it makes no negative calls."""
        return getattr(self._pipe, "do_classifier_free_guidance", None) is False

    def is_same(self, scale: float) -> bool:
        """Whether the pipeline's own ``g`` is ``scale``, so that it can be left to it."""
        return isinstance(self._first, int | float) and self._first + self._offset == scale

    def value(self) -> float:
        """``g`` of the pipeline itself; raises ``StgTuneError`` where it cannot be seen."""
        now = self._now()
        if not isinstance(now, int | float):
            raise StgTuneError(
                f"{type(self._pipe).__name__} does not show its guidance scale ({now!r:.40}), which is needed here: "
                "use one of the known families, or cfg_source 'pipeline'"
            )
        return now + self._offset

    def refuse_change(self) -> None:
        """Raises ``StgTuneError`` when the pipeline changes its scale from step to step, which would be lost."""
        now = self._now()
        if isinstance(now, int | float) and now != self._first:
            raise StgTuneError(
                f"the pipeline changes its guidance scale during the run (from {self._first:g} to {now:g}, e.g. "
                "use_dynamic_cfg), and the specification would replace it: set cfg_source to 'pipeline' to keep it, or "
                "call the pipeline without"
            )

    def needs_cfg(self, scale: float) -> StgTuneError:
        """The error for a specification with CFG in a pipeline that runs without."""
        return StgTuneError(
            f"the specification has cfg_scale {scale:g}, but the pipeline runs without CFG, so there is no negative "
            f"prediction: call the pipeline with {self._argument()} > 1 (e.g. {self._argument()}={max(scale, 2):g}; "
            "the specification's scale is the one that is used), or set cfg_scale to 1."
        )

    def _now_is_first(self) -> bool:
        now = self._now()
        return now is self._first or (isinstance(now, int | float) and now == self._first)

    def _argument(self) -> str:
        return "guidance_scale" if self._name else "true_cfg_scale and a negative prompt: true_cfg_scale"

    def _now(self) -> Any:
        found: Any = self._pipe
        for part in self._name.split(".") if self._name else ("",):
            found = getattr(found, part, None)
        return found


def runs_cfg(pipe: Any) -> bool:
    """Whether the pipeline sends negative rows: by its own word, else by its guidance scale, else assumed."""
    word = getattr(pipe, "do_classifier_free_guidance", None)
    if word is not None:
        return bool(word)
    scale = getattr(pipe, "guidance_scale", None)
    return scale is None or bool(scale.max() > 1 if isinstance(scale, Tensor) else scale > 1)
