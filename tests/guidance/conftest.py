"""The official implementation's numbers, its tiny random model, and a minimal pipeline around any denoiser."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stg_tune.models.open_sora.record import ARCHITECTURE
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.records import GuidanceSpec, Segment, SkipTerm

GOLDEN = Path(__file__).parent.parent / "golden" / "opensora"


class Skip(nn.Module):
    def forward(self, x, *_args, **_kwargs):
        return x


class Values(nn.Module):
    """Every token attends to itself alone: V through the output projection, from the module's own linear maps."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, *_args, **_kwargs):
        return self.attention.proj(self.attention.qkv(x).chunk(3, -1)[2])


@contextmanager
def slowly_skipped(denoiser, term):
    """An independent way to skip layers, for comparison: swap blocks or attentions, run everything."""
    undo = []
    for stack, indices in term.skip_layers.items():
        blocks = getattr(denoiser, f"{stack}_blocks")
        for index in indices:
            block = blocks[index]
            if term.skip_op == "residual":
                undo.append((blocks, str(index), block))
                setattr(blocks, str(index), Skip())
            else:
                undo.append((block, "attn", block.attn))
                block.attn = Values(block.attn)
    yield
    for owner, name, module in undo:
        setattr(owner, name, module)


class Harness:
    """Helpers that tests take as one fixture, because test modules cannot import each other."""

    golden = GOLDEN
    architecture = ARCHITECTURE

    @staticmethod
    def pipe(denoiser, *, guidance_scale=7.0, timesteps=(900.0,)):
        scheduler = SimpleNamespace(timesteps=torch.tensor(timesteps))
        return SimpleNamespace(transformer=denoiser, scheduler=scheduler, guidance_scale=guidance_scale)

    @staticmethod
    def term(name="term", *, op="residual", scale=1.0, **layers):
        layers = {stack: tuple(indices) for stack, indices in layers.items()}
        return SkipTerm(name=name, skip_layers=layers, skip_op=op, stg_scale=scale)

    @staticmethod
    def spec(*terms, cfg=7.0, **segment):
        return GuidanceSpec(cfg_scale=cfg, segments=(Segment(terms=terms, **segment),))

    @staticmethod
    def slow(denoiser, inputs, term):
        """The weak prediction of a term in one full pass over all rows, first 4 channels."""
        with slowly_skipped(denoiser, term):
            return denoiser(**inputs)[:, :4]

    @staticmethod
    def inputs(*, prompts=2, frames=2, seed=0):
        """Arguments of a call with ``[prompted; negative]`` rows, captions of different lengths."""
        generator = torch.Generator().manual_seed(seed)
        mask = torch.zeros(prompts, 12, dtype=torch.int64)
        for row in range(prompts):
            mask[row, : 4 + 3 * (row % 3)] = 1
        rows = 2 * prompts
        x = torch.randn(prompts, 4, frames, 4, 4, generator=generator)
        return {
            "x": torch.cat([x, x]),
            "timestep": torch.full((rows,), 900.0),
            "y": torch.randn(rows, 1, 12, 32, generator=generator),
            "mask": mask,
            "fps": torch.full((rows,), 24.0),
            "height": torch.full((prompts,), 64.0),
            "width": torch.full((prompts,), 64.0),
        }

    @staticmethod
    def traces(denoiser):
        """Identity of everything that guidance may touch."""
        names = ("spatial_blocks", "temporal_blocks")
        blocks = [block for name in names for block in getattr(denoiser, name)]
        return (
            [id(module) for module in denoiser.modules()],
            [(id(block), id(getattr(block, "attn", None)), sorted(vars(block))) for block in blocks],
            {name: id(value) for name, value in vars(denoiser).items()},
            list(denoiser.state_dict()),
        )


@pytest.fixture(scope="session")
def harness():
    return Harness


@pytest.fixture(scope="session")
def stdit():
    """The official tiny random STDiT3: 4 spatial and 4 temporal blocks."""
    config = json.loads((GOLDEN / "stdit3_tiny.config.json").read_text())
    model = STDiT3(**config)
    model.load_state_dict(load_file(GOLDEN / "stdit3_tiny.state_dict.safetensors"))
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def golden_preds():
    return load_file(GOLDEN / "stg_preds.safetensors")


@pytest.fixture(scope="session")
def golden_sample():
    return load_file(GOLDEN / "stg_sample.safetensors")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
