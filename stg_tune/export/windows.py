"""Windows of steps in the rules of other tools, and back: every tool counts the ends in its own way.

Written bounds lie half a step away from the nearest step, so that rounding and the kind of an end decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Steps = tuple[int, int]
"""First and last step, from 0, both inside."""
Bounds = tuple[float, float]
"""Start and stop as fractions, 0 to 1."""


def to_inclusive(first: int, last: int, num_steps: int) -> Bounds:
    """For ``start <= step / n <= stop``: WanVideoWrapper, and ComfyUI with schedules that are shift(linspace)."""
    start = 0.0 if first == 0 else _digits((first - 0.5) / num_steps)
    return start, 1.0 if last == num_steps - 1 else _digits((last + 0.5) / num_steps)


def from_inclusive(start: float, stop: float, num_steps: int) -> Steps | None:
    """The steps of ``start <= step / n <= stop``."""
    return _steps(num_steps, lambda step: start <= step / num_steps <= stop)


def to_strict(first: int, last: int, num_steps: int) -> Bounds:
    """For ``int(start n) < step < int(stop n)``: skip windows of diffusers. Step 0 cannot be inside."""
    start = 0.0 if first <= 1 else _digits((first - 0.5) / num_steps)
    return start, 1.0 if last == num_steps - 1 else _digits((last + 1.5) / num_steps)


def from_strict(start: float, stop: float, num_steps: int) -> Steps | None:
    """The steps of ``int(start n) < step < int(stop n)``."""
    first, last = _floored(start, num_steps), _floored(stop, num_steps)
    return _steps(num_steps, lambda step: first < step < last)


def to_floored(first: int, last: int, num_steps: int) -> Bounds:
    """For ``int(start n) <= step < int(stop n)``: CFG windows of diffusers, musubi-tuner."""
    start = 0.0 if first == 0 else _digits((first + 0.5) / num_steps)
    return start, 1.0 if last == num_steps - 1 else _digits((last + 1.5) / num_steps)


def from_floored(start: float, stop: float, num_steps: int) -> Steps | None:
    """The steps of ``int(start n) <= step < int(stop n)``."""
    first, last = _floored(start, num_steps), _floored(stop, num_steps)
    return _steps(num_steps, lambda step: first <= step < last)


def to_counted(first: int, last: int, num_steps: int) -> Bounds:
    """For ``int(start (n + 1)) < step + 1 < int(stop (n + 1))``: stable-diffusion.cpp counts steps from 1."""
    start = 0.0 if first == 0 else _digits((first + 0.5) / (num_steps + 1))
    return start, 1.0 if last == num_steps - 1 else _digits((last + 2.5) / (num_steps + 1))


def from_counted(start: float, stop: float, num_steps: int) -> Steps | None:
    """The steps of ``int(start (n + 1)) < step + 1 < int(stop (n + 1))``."""
    first, last = _floored(start, num_steps + 1), _floored(stop, num_steps + 1)
    return _steps(num_steps, lambda step: first < step + 1 < last)


def to_percent(first: int, last: int, num_steps: int) -> tuple[int, int] | None:
    """Whole percents for ``int(a n / 100) <= step < int(b n / 100)`` (Wan2GP); ``None``: no two give these steps."""
    start = _percent(first, num_steps)
    stop = 100 if last == num_steps - 1 else _percent(last + 1, num_steps)
    return None if start is None or stop is None else (start, stop)


def from_percent(start: int, stop: int, num_steps: int) -> Steps | None:
    """The steps of ``int(a n / 100) <= step < int(b n / 100)``."""
    return from_floored(start / 100, stop / 100, num_steps)


def within(steps: Steps | None) -> Callable[[int], bool]:
    """Whether a step is inside; ``None``: none is."""
    return lambda step: steps is not None and steps[0] <= step <= steps[1]


def _percent(step: int, num_steps: int) -> int | None:
    fitting = [percent for percent in range(101) if int(percent / 100 * num_steps) == step]
    return fitting[len(fitting) // 2] if fitting and step else (0 if step == 0 else None)


def _steps(num_steps: int, active: Callable[[int], bool]) -> Steps | None:
    held = [step for step in range(num_steps) if active(step)]
    return (held[0], held[-1]) if held else None


def _floored(bound: float, count: int) -> int:
    """``int(bound * count)``; beyond -1 and 2 nothing changes, and a product could be infinite."""
    return int(min(max(bound, -1.0), 2.0) * count)


def _digits(value: float) -> float:
    return round(value, 9)
