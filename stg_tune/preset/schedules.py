"""Noise levels of common schedules, for tools that count their windows in sigmas (1 = pure noise; no torch)."""

from __future__ import annotations

from stg_tune.errors import StgTuneError


def linear_quadratic(num_steps: int, *, threshold: float = 0.025) -> tuple[float, ...]:
    """Sigma of every step: a slow linear half, then a quadratic one (arXiv:2410.13720, section 3.4.2).

    Mochi and LTX-Video 13B sample on it. Half of the steps lie above ``1 - threshold``.

    Args:
        num_steps: At least 2.
        threshold: Noise that the linear half removes, 0 to 1.
    """
    _check(num_steps, least=2)
    linear = num_steps // 2
    rest = num_steps - linear
    bend = (linear - threshold * num_steps) / (linear * rest**2)
    slope = threshold / linear
    removed = [slope * step for step in range(linear)]
    removed += [threshold + slope * step + bend * step**2 for step in range(rest)]
    return tuple(round(1 - value, 6) for value in removed)


def uniform(num_steps: int, *, shift: float = 1.0) -> tuple[float, ...]:
    """Sigma of every step: evenly spaced times ``1 - i / n``, shifted by ``s t / (1 + (s - 1) t)`` (arXiv:2403.03206).

    Args:
        num_steps: At least 1.
        shift: ``s``; 1 leaves the times as they are.
    """
    _check(num_steps, least=1)
    times = (1 - step / num_steps for step in range(num_steps))
    return tuple(round(shift * time / (1 + (shift - 1) * time), 6) for time in times)


def parse(text: str, num_steps: int) -> tuple[float, ...]:
    """What ``--sigmas`` takes: ``linear-quadratic``, ``uniform``, ``uniform:SHIFT`` or one number a step.

    Raises:
        StgTuneError: It is none of these.
    """
    name, _, shift = text.partition(":")
    try:
        if name == "linear-quadratic" and not shift:
            return linear_quadratic(num_steps)
        if name == "uniform":
            return uniform(num_steps, shift=float(shift or 1))
        return tuple(float(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise StgTuneError(
            f"--sigmas {text[:60]!r}: give linear-quadratic, uniform, uniform:SHIFT, or {num_steps} numbers with commas"
        ) from None


def _check(num_steps: int, *, least: int) -> None:
    if num_steps < least:
        raise StgTuneError(f"a schedule needs at least {least} steps, got {num_steps}")
