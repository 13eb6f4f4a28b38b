"""An independent way to guide any pipeline: full passes, blocks swapped by hand, the identity map as an explicit mask.

It shares nothing with the package but the records. The text of the negative call is learnt from a plain run.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from stg_tune.guidance.families import architecture_of

SDPA = functional.scaled_dot_product_attention


class Unchanged(nn.Module):
    def __init__(self, streams):
        super().__init__()
        self.streams = streams

    def forward(self, *args, **kwargs):
        inputs = (*args, *kwargs.values())[: self.streams]
        return inputs[0] if self.streams == 1 else inputs


class IdentityMap(nn.Module):
    """Runs an attention with a mask in which video tokens see themselves alone."""

    def __init__(self, inner, text):
        super().__init__()
        self.inner, self.text = inner, text

    def forward(self, *args, **kwargs):
        num_video = (*args, *kwargs.values())[0].shape[-2]

        def masked(query, key, value, attn_mask=None, **options):
            tokens = query.shape[-2]
            first = {"none": 0, "after": 0, "before": tokens - num_video}[self.text]
            own = torch.eye(tokens, dtype=torch.bool)
            own[:first] = own[first + num_video :] = True
            if attn_mask is not None:
                shown = attn_mask if attn_mask.dtype == torch.bool else attn_mask == 0
                rows = torch.zeros(tokens, 1, dtype=torch.bool)
                rows[first : first + num_video] = True
                own = torch.where(rows, own, own & shown)
            return SDPA(query, key, value, attn_mask=own)

        with mock.patch.object(functional, "scaled_dot_product_attention", masked):
            return self.inner(*args, **kwargs)


def blocks_of(denoiser, record, stack):
    """The modules of a stack, spelled out."""
    if not record.unet:
        return list(getattr(denoiser, stack.path))
    name = "transformer_blocks" if stack.name == "spatial" else "temporal_transformer_blocks"
    places = [*denoiser.down_blocks, denoiser.mid_block, *denoiser.up_blocks]
    stages = [stage for place in places for stage in getattr(place, "attentions", [])]
    return [block for stage in stages for block in getattr(stage, name)]


@contextmanager
def skipped(denoiser, record, term):
    with ExitStack() as undo:
        for stack in record.stacks:
            blocks = blocks_of(denoiser, record, stack)
            for index in term.skip_layers.get(stack.name, ()):
                for owner, name, stand_in in stand_ins(denoiser, blocks[index], stack, term.skip_op):
                    undo.callback(setattr, owner, name, getattr(owner, name))
                    setattr(owner, name, stand_in)
        yield


def stand_ins(denoiser, block, stack, op):
    if op == "attention":
        for name in stack.attention.split(","):
            yield block, name, IdentityMap(getattr(block, name), stack.text)
        return
    owner = next(module for module in denoiser.modules() if any(child is block for child in module.children()))
    name = next(key for key, child in owner.named_children() if child is block)
    yield owner, name, Unchanged(stack.streams)


class Reference:
    """The guided forward of a denoiser, with every pass in full and on all rows."""

    def __init__(self, pipe, denoiser, terms, cfg, negative):
        self.record = architecture_of(pipe)
        self.denoiser, self.terms, self.cfg, self.negative = denoiser, terms, cfg, negative
        self.inner = denoiser.forward
        self.pending = None

    def __call__(self, *args, **kwargs):
        if self.record.calls == "batched":
            return self.batched(args, kwargs)
        if self.pending is not None:
            answer, self.pending = self.pending, None
            return answer
        output = self.inner(*args, **kwargs)
        c = first_of(output)
        u = first_of(self.inner(*args, **{**kwargs, **self.negative})) if self.negative else c
        x = self.combined(c, u, [first_of(self.without(term, args, kwargs)) for term in self.terms])
        self.pending = with_first(output, x) if self.negative else None
        return with_first(output, x)

    def batched(self, args, kwargs):
        output = self.inner(*args, **kwargs)
        outputs = [self.without(term, args, kwargs) for term in self.terms]
        weak = [first_of(item) for item in outputs]
        if self.record.side_outputs:
            output = (output[0], *self.sides(output, outputs))
        if not self.negative:
            return with_first(output, self.combined(first_of(output), first_of(output), weak))
        u, c = first_of(output).chunk(2)
        x = self.combined(c, u, [p.chunk(2)[1] for p in weak])
        return with_first(output, torch.cat([x, x]))

    def sides(self, output, weak):
        """Audio: its CFG is the pipeline's, the direction of every term is added to all rows."""
        found = []
        for which in range(1, 1 + self.record.side_outputs):
            full = output[which]
            for term, p in zip(self.terms, weak, strict=True):
                rows = 2 if self.negative else 1
                delta = (output[which] - p[which]).chunk(rows)[-1]
                full = full + term.stg_scale * delta.repeat(rows, 1, 1)
            found.append(full)
        return found

    def without(self, term, args, kwargs):
        with skipped(self.denoiser, self.record, term):
            return self.inner(*args, **kwargs)

    def combined(self, c, u, weak):
        x = u + self.cfg * (c - u)
        for term, p in zip(self.terms, weak, strict=True):
            x = x + term.stg_scale * (c - p)
        return x


def first_of(output):
    return output[0] if isinstance(output, tuple) else output.sample


def with_first(output, x):
    return (x, *output[1:]) if isinstance(output, tuple) else type(output)(sample=x)


def negative_text(case, pipe, prompts):
    """The arguments in which the negative call of a pipeline differs from the prompted one."""
    calls = []
    denoisers = case.denoisers(pipe)
    with ExitStack() as undo:
        for denoiser in denoisers:
            inner = denoiser.forward
            undo.callback(denoiser.__dict__.pop, "forward")

            def spy(*args, _inner=inner, **kwargs):
                calls.append(kwargs)
                return _inner(*args, **kwargs)

            denoiser.forward = spy
        case.run(pipe, prompts=prompts)
    names = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections", "encoder_hidden_states_2",
             "encoder_attention_mask_2", "text_rope_pos", "condition_mask")  # fmt: skip
    return {name: calls[1][name] for name in names if calls[1].get(name) is not None}


def run(case, terms, *, cfg, prompts=1, pipeline_cfg=None):
    """What a pipeline gives that takes guided steps in the slow way; ``cfg`` is g of eq. 6."""
    pipe = case.pipe()
    has_cfg = pipeline_cfg != 1
    negative = negative_text(case, pipe, prompts) if has_cfg else None
    pipe = case.pipe()
    for denoiser in case.denoisers(pipe):
        denoiser.forward = Reference(pipe, denoiser, terms, cfg, negative)
    return case.run(pipe, prompts=prompts, cfg=pipeline_cfg)
