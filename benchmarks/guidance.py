"""Time of a guided step against plain CFG and against the official three-row step: ``python -m benchmarks.guidance``.

One process, random weights at realistic depth and small width, denoiser calls only (everything else of a step is the
same in all variants). The variants take turns within a repetition, forwards and backwards, and ratios are taken within
repetitions, so that other load on the machine and drift hit all of them alike. Times are processor time of one thread.

The official pipelines send three rows ``[negative, prompted, prompted]`` through every block, the skipped one included.

The overhead at scale 0 is stated twice: as the ratio of whole steps, with the interval in which its median lies (95 %,
order statistics), and as the time the wrapper itself takes, measured inside the call. The bar holds when the second is
below it and the first is not proven to be above it. Beside the measured ratio stands that of the floating-point
operations, which no load on the machine can change.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.guidance_models import MODELS, Model
from benchmarks.machine import machine
from benchmarks.medians import median_interval
from stg_tune.guidance import guided
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CFG = 4.5
SLACK = 0.05
MAX_OVERHEAD = 0.01


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured for one model."""

    model: str
    skipped: str
    op: str
    share: float
    repetitions: int
    plain_seconds: float
    three_rows_seconds: float
    guided_seconds: float
    ratio_to_plain: float
    ratio_to_three_rows: float
    operations_to_three_rows: float
    bar_three_rows: float
    overhead_at_scale_0: float
    overhead_low: float
    overhead_high: float
    wrapper_seconds: float
    bar_overhead: float
    holds: bool


@contextmanager
def guidance(model: Model, denoiser: torch.nn.Module, scale: float) -> Iterator[None]:
    """The denoiser under guidance, with the term at ``scale``."""
    term = SkipTerm(name="stg", skip_layers=model.term.skip_layers, skip_op=model.term.skip_op, stg_scale=scale)
    spec = GuidanceSpec(cfg_scale=CFG, segments=(Segment(terms=(term,)),))
    scheduler = SimpleNamespace(timesteps=torch.tensor([500.0]))
    pipe = SimpleNamespace(transformer=denoiser, scheduler=scheduler, guidance_scale=CFG)
    with guided(pipe, spec, architecture=model.record):
        yield


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def operations(work: Callable[[], Any]) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


@torch.no_grad()
def operations_ratio(model: Model, denoiser: torch.nn.Module) -> float:
    """Operations of a guided step over those of the three-row step."""
    two, three = model.inputs(2), model.inputs(3)
    with guidance(model, denoiser, 1.0):
        found = operations(lambda: denoiser(**two))
    return found / operations(lambda: denoiser(**three))


@torch.no_grad()
def measured(model: Model, repetitions: int) -> Row:
    """All variants of one model, in turns."""
    torch.manual_seed(0)
    denoiser = model.build().eval()
    variants = variants_of(model, denoiser)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for work in variants.values():
        work()  # warms up
    for repetition in range(repetitions):
        names = list(variants)[:: -1 if repetition % 2 else 1]
        for name in names:
            times[name].append(variants[name]())
    return row_of(model, denoiser, times, wrapper_seconds(model, denoiser))


def variants_of(model: Model, denoiser: torch.nn.Module) -> dict[str, Callable[[], float]]:
    """Seconds of one call in every way."""
    two, three = model.inputs(2), model.inputs(3)

    def under(scale: float) -> float:
        with guidance(model, denoiser, scale):
            return seconds(lambda: denoiser(**two))

    return {
        "off": lambda: under(0.0),
        "plain": lambda: seconds(lambda: denoiser(**two)),
        "guided": lambda: under(1.0),
        "three": lambda: seconds(lambda: denoiser(**three)),
    }


@torch.no_grad()
def wrapper_seconds(model: Model, denoiser: torch.nn.Module, calls: int = 200) -> float:
    """Median time of a call at scale 0 that is not spent in the denoiser, which does nothing here."""
    two = model.inputs(2)
    answer = torch.zeros(2, 1)
    denoiser.forward = lambda *_, **__: (answer,)
    try:
        empty = statistics.median(seconds(lambda: denoiser(**two)) for _ in range(calls))
        with guidance(model, denoiser, 0.0):
            whole = statistics.median(seconds(lambda: denoiser(**two)) for _ in range(calls))
    finally:
        del denoiser.forward
    return max(whole - empty, 0.0)


def row_of(model: Model, denoiser: torch.nn.Module, times: dict[str, list[float]], wrapper: float) -> Row:
    """Medians, and the bars they have to meet."""

    def ratios(above: str, below: str) -> list[float]:
        return sorted(a / b for a, b in zip(times[above], times[below], strict=True))

    share = running_share(model, denoiser)
    off = [ratio - 1 for ratio in ratios("off", "plain")]
    low, high = median_interval(off)
    to_three, bar = statistics.median(ratios("guided", "three")), (2 + share) / 3 + SLACK
    plain = statistics.median(times["plain"])
    return Row(
        model=model.name,
        skipped=str({stack: list(indices) for stack, indices in model.term.skip_layers.items()}),
        op=model.term.skip_op,
        share=round(share, 4),
        repetitions=len(times["plain"]),
        plain_seconds=plain,
        three_rows_seconds=statistics.median(times["three"]),
        guided_seconds=statistics.median(times["guided"]),
        ratio_to_plain=statistics.median(ratios("guided", "plain")),
        ratio_to_three_rows=to_three,
        operations_to_three_rows=operations_ratio(model, denoiser),
        bar_three_rows=bar,
        overhead_at_scale_0=statistics.median(off),
        overhead_low=low,
        overhead_high=high,
        wrapper_seconds=wrapper,
        bar_overhead=MAX_OVERHEAD,
        holds=to_three <= bar and wrapper / plain <= MAX_OVERHEAD and low <= MAX_OVERHEAD,
    )


def running_share(model: Model, denoiser: torch.nn.Module) -> float:
    """Share of the blocks from the first skipped one on."""
    from stg_tune.guidance.perturb import layout_of

    order = layout_of(denoiser, model.record).order
    skipped = {(stack, index) for stack, indices in model.term.skip_layers.items() for index in indices}
    first = min(position for position, place in enumerate(order) if place in skipped)
    return (len(order) - first) / len(order)


def main() -> None:
    """Measures, prints and, with ``--out``, writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--models", nargs="*", default=[model.name for model in MODELS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measured(model, options.repetitions) for model in MODELS if model.name in options.models]
    for row in rows:
        sys.stdout.write(
            f"{row.model:16} share {row.share:.3f}  guided/three rows {row.ratio_to_three_rows:.3f} "
            f"(bar {row.bar_three_rows:.3f}, in operations {row.operations_to_three_rows:.3f})  "
            f"guided/plain {row.ratio_to_plain:.3f}  "
            f"overhead at scale 0 {row.overhead_at_scale_0:+.2%} [{row.overhead_low:+.2%}, {row.overhead_high:+.2%}], "
            f"of the wrapper itself {row.wrapper_seconds / row.plain_seconds:.3%} (bar {row.bar_overhead:.0%})  "
            f"{'holds' if row.holds else 'MISSED'}\n"
        )
    if options.out:
        facts = {"benchmark": "guidance", "machine": machine(), "threads": options.threads}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        document = {**facts, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
