"""Time of a guided step against plain CFG and against the official three-row step: ``python -m benchmarks.guidance``.

One process, random weights at realistic depth and small width, denoiser calls only (everything else of a step is the
same in all variants). The variants take turns within a repetition, and ratios are taken within repetitions, so that
other load on the machine hits all of them. Times are processor time.

The official pipelines send three rows ``[negative, prompted, prompted]`` through every block, the skipped one included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from stg_tune.guidance import guided
from stg_tune.models.families import LTX, MOCHI
from stg_tune.models.open_sora.record import ARCHITECTURE
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stg_tune.models.base import Architecture

CFG = 4.5
SLACK = 0.05
MAX_OVERHEAD = 0.01


@dataclass(frozen=True, kw_only=True)
class Model:
    """A denoiser with the arguments of a call for so many rows."""

    name: str
    record: Architecture
    build: Callable[[], torch.nn.Module]
    inputs: Callable[[int], dict[str, Any]]
    term: SkipTerm


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
    bar_three_rows: float
    overhead_at_scale_0: float
    bar_overhead: float

    @property
    def holds(self) -> bool:
        """Whether both bars are met."""
        return self.ratio_to_three_rows <= self.bar_three_rows and self.overhead_at_scale_0 <= self.bar_overhead


def mochi() -> torch.nn.Module:
    """48 blocks."""
    return diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=4, attention_head_dim=64, num_layers=48, pooled_projection_dim=128,
        in_channels=12, text_embed_dim=128, time_embed_dim=64, activation_fn="swiglu", max_sequence_length=64,
    )  # fmt: skip


def mochi_inputs(rows: int) -> dict[str, Any]:
    """3 latent frames of 16x24: 288 video tokens, 64 text tokens."""
    return {
        "hidden_states": torch.randn(rows, 12, 3, 16, 24),
        "encoder_hidden_states": torch.randn(rows, 64, 128),
        "timestep": torch.full((rows,), 500.0),
        "encoder_attention_mask": torch.ones(rows, 64, dtype=torch.bool),
        "return_dict": False,
    }


def ltx() -> torch.nn.Module:
    """28 blocks."""
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=32, out_channels=32, num_attention_heads=6, attention_head_dim=64, cross_attention_dim=384,
        num_layers=28, caption_channels=128,
    )  # fmt: skip


def ltx_inputs(rows: int) -> dict[str, Any]:
    """4 latent frames of 8x12: 384 tokens."""
    return {
        "hidden_states": torch.randn(rows, 384, 32),
        "encoder_hidden_states": torch.randn(rows, 64, 128),
        "timestep": torch.full((rows,), 500.0),
        "encoder_attention_mask": torch.ones(rows, 64, dtype=torch.int64),
        "num_frames": 4,
        "height": 8,
        "width": 12,
        "return_dict": False,
    }


def open_sora() -> torch.nn.Module:
    """28 spatial and 28 temporal blocks."""
    return STDiT3(hidden_size=192, depth=28, num_heads=4, caption_channels=64, model_max_length=64)


def open_sora_inputs(rows: int) -> dict[str, Any]:
    """5 latent frames of 16x24."""
    return {
        "x": torch.randn(rows, 4, 5, 16, 24),
        "timestep": torch.full((rows,), 500.0),
        "y": torch.randn(rows, 1, 64, 64),
        "mask": torch.ones(rows, 64, dtype=torch.int64),
        "fps": torch.full((rows,), 24.0),
        "height": torch.full((rows,), 128.0),
        "width": torch.full((rows,), 192.0),
    }


def skip(op: str, **layers: tuple[int, ...]) -> SkipTerm:
    """One term of scale 1."""
    return SkipTerm(name="stg", skip_layers=layers, skip_op=op, stg_scale=1.0)  # type: ignore[arg-type]


MODELS = (
    Model(name="mochi-like", record=MOCHI, build=mochi, inputs=mochi_inputs, term=skip("residual", blocks=(34,))),
    Model(name="ltx-like", record=LTX, build=ltx, inputs=ltx_inputs, term=skip("attention", blocks=(19,))),
    Model(
        name="open-sora-like",
        record=ARCHITECTURE,
        build=open_sora,
        inputs=open_sora_inputs,
        term=skip("attention", spatial=(14,), temporal=(14,)),
    ),
)


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


@torch.no_grad()
def measured(model: Model, repetitions: int) -> Row:
    """All variants of one model, in turns."""
    torch.manual_seed(0)
    denoiser = model.build().eval()
    two, three = model.inputs(2), model.inputs(3)
    times: dict[str, list[float]] = {name: [] for name in ("plain", "three", "guided", "off")}

    def repeat() -> None:
        times["plain"].append(seconds(lambda: denoiser(**two)))
        with guidance(model, denoiser, 0.0):
            times["off"].append(seconds(lambda: denoiser(**two)))
        times["three"].append(seconds(lambda: denoiser(**three)))
        with guidance(model, denoiser, 1.0):
            times["guided"].append(seconds(lambda: denoiser(**two)))

    repeat()  # warms up
    for values in times.values():
        values.clear()
    for _ in range(repetitions):
        repeat()
    return row_of(model, denoiser, times)


def row_of(model: Model, denoiser: torch.nn.Module, times: dict[str, list[float]]) -> Row:
    """Medians, and the bars they have to meet."""

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    share = running_share(model, denoiser)
    return Row(
        model=model.name,
        skipped=str({stack: list(indices) for stack, indices in model.term.skip_layers.items()}),
        op=model.term.skip_op,
        share=round(share, 4),
        repetitions=len(times["plain"]),
        plain_seconds=statistics.median(times["plain"]),
        three_rows_seconds=statistics.median(times["three"]),
        guided_seconds=statistics.median(times["guided"]),
        ratio_to_plain=ratio("guided", "plain"),
        ratio_to_three_rows=ratio("guided", "three"),
        bar_three_rows=(2 + share) / 3 + SLACK,
        overhead_at_scale_0=ratio("off", "plain") - 1,
        bar_overhead=MAX_OVERHEAD,
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
            f"(bar {row.bar_three_rows:.3f})  guided/plain {row.ratio_to_plain:.3f}  "
            f"overhead at scale 0 {row.overhead_at_scale_0:+.2%} (bar {row.bar_overhead:.0%})  "
            f"{'holds' if row.holds else 'MISSED'}\n"
        )
    if options.out:
        about = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        }
        document = {**about, "threads": options.threads, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
