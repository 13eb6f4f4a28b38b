"""An independent way to guide any pipeline: full passes, blocks swapped by hand, other attention as explicit masks.

It shares nothing with the package but the records. The text of the negative call is learnt from a plain run.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
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


class OtherAttention(nn.Module):
    """Runs an attention with another mask, in which video tokens see themselves alone, or with other queries."""

    def __init__(self, inner, text, op):
        super().__init__()
        self.inner, self.text, self.op = inner, text, op

    def forward(self, *args, **kwargs):
        num_video = (*args, *kwargs.values())[0].shape[-2]

        def answered(query, key, value, attn_mask=None, **options):
            tokens = query.shape[-2]
            first = {"none": 0, "after": 0, "before": tokens - num_video}[self.text]
            video = torch.zeros(tokens, dtype=torch.bool)
            video[first : first + num_video] = True
            if self.op == "blur":
                mean = query[..., video, :].mean(-2, keepdim=True)
                return SDPA(torch.where(video[:, None], mean, query), key, value, attn_mask=attn_mask)
            shown = torch.ones(tokens, tokens, dtype=torch.bool)
            if attn_mask is not None:
                shown = (attn_mask if attn_mask.dtype == torch.bool else attn_mask == 0).expand(-1, -1, tokens, tokens)
            return SDPA(query, key, value, attn_mask=self.map_of(video, shown))

        with mock.patch.object(functional, "scaled_dot_product_attention", answered):
            return self.inner(*args, **kwargs)

    def map_of(self, video, shown):
        alone = torch.eye(len(video), dtype=torch.bool)
        if self.op == "attention_all":
            return alone
        if self.op == "attention_with_text":
            alone = alone | (shown & ~video)
        return torch.where(video[:, None], alone, shown)


class First(nn.Module):
    def forward(self, x, *_args, **_kwargs):
        return x


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
    if op in ("attention", "attention_all", "attention_with_text", "blur"):
        for name in stack.attention.split(","):
            yield block, name, OtherAttention(getattr(block, name), stack.text, op)
        return
    if op == "feed_forward":
        for name in stack.feed_forward.split(","):
            yield block, name, First()
        return
    owner = next(module for module in denoiser.modules() if any(child is block for child in module.children()))
    name = next(key for key, child in owner.named_children() if child is block)
    yield owner, name, Unchanged(stack.streams)


class Reference:
    """The guided forward of a denoiser, with every pass in full and on all rows."""

    def __init__(self, pipe, denoiser, terms, cfg, negative, recipe=None):
        self.record = architecture_of(pipe)
        self.denoiser, self.terms, self.cfg, self.negative = denoiser, terms, cfg, negative
        self.recipe = recipe or Recipe()
        self.inner = denoiser.forward
        self.pending = None

    def __call__(self, *args, **kwargs):
        if self.record.calls == "batched":
            return self.batched(args, kwargs)
        if self.pending is not None:
            answer, self.pending = self.pending, None
            return answer
        self.recipe.begin()
        output = self.inner(*args, **kwargs)
        c = self.first_of(output)
        u = self.first_of(self.inner(*args, **{**kwargs, **self.negative})) if self.negative is not None else c
        x = self.combined(c, u, [self.first_of(self.without(term, args, kwargs)) for term in self.terms])
        self.pending = self.with_first(output, x) if self.negative is not None else None
        return self.with_first(output, x)

    def batched(self, args, kwargs):
        self.recipe.begin()
        output = self.inner(*args, **kwargs)
        outputs = [self.without(term, args, kwargs) for term in self.terms]
        weak = [self.first_of(item) for item in outputs]
        if self.record.side_outputs:
            output = (output[0], *self.sides(output, outputs))
        if self.negative is None:
            return self.with_first(output, self.combined(self.first_of(output), self.first_of(output), weak))
        c, u = self.halves(self.first_of(output))
        x = self.combined(c, u, [self.halves(p)[0] for p in weak])
        return self.with_first(output, torch.cat([x, x]))

    def halves(self, both):
        first, second = both.chunk(2)
        return (first, second) if self.record.rows == "cond_first" else (second, first)

    def sides(self, output, weak):
        """Audio: its CFG is the pipeline's, the directions of the terms are added to all rows."""
        found = []
        for which in range(1, 1 + self.record.side_outputs):
            rows = 2 if self.negative is not None else 1
            c, *own = (item[which].chunk(rows)[-1] for item in (output, *weak))
            found.append(output[which] + self.recipe.directions(c, own, self.terms).repeat(rows, 1, 1))
        return found

    def without(self, term, args, kwargs):
        with skipped(self.denoiser, self.record, term):
            return self.inner(*args, **kwargs)

    def combined(self, c, u, weak):
        return self.recipe.combined(c, u, weak, self.terms, self.cfg() if callable(self.cfg) else self.cfg)

    def first_of(self, output):
        return first_of(output)[:, : self.record.prediction_channels]

    def with_first(self, output, x):
        rest = first_of(output)[:, x.shape[1] :]
        x = torch.cat([x, rest[: len(x)]], dim=1)
        if isinstance(output, torch.Tensor):
            return x
        return (x, *output[1:]) if isinstance(output, tuple) else type(output)(sample=x)


def first_of(output):
    if isinstance(output, torch.Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.sample


class Recipe:
    """Eq. 6 and 20 in every step."""

    def begin(self):
        """A step begins, or the same step with another denoiser of the pipeline."""

    def directions(self, c, weak, terms):
        return sum(term.stg_scale * (c - p) for term, p in zip(terms, weak, strict=True))

    def combined(self, c, u, weak, terms, cfg):
        return u + cfg * (c - u) + self.directions(c, weak, terms)


class LateRecipe(Recipe):
    """Another scale in the first half of the steps; then eq. 21 for two terms and a rescale of 0.7, one by one."""

    def __init__(self, *, num_steps, cfg_before):
        self.num_steps, self.cfg_before, self.step = num_steps, cfg_before, -1

    def begin(self):
        self.step += 1

    def directions(self, c, weak, terms):
        found = torch.zeros_like(c)
        for row in range(len(c) if self.late else 0):
            one, two = (c[row] - p[row] for p in weak)
            two = two - (two * one).sum() / (one * one).sum() * one
            found[row] = terms[0].stg_scale * one + terms[1].stg_scale * two
        return found

    def combined(self, c, u, weak, terms, cfg):
        if not self.late:
            return u + self.cfg_before * (c - u)
        x = super().combined(c, u, weak, terms, cfg)
        return torch.stack([a * (0.7 * b.std() / a.std() + 0.3) for a, b in zip(x, c, strict=True)])

    @property
    def late(self):
        return self.step / self.num_steps >= 0.5


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


def run(case, terms, *, cfg, prompts=1, pipeline_cfg=None, recipe=None):
    """What a pipeline gives that takes guided steps in the slow way.

    ``cfg`` is g of eq. 6, or one function of the pipeline a denoiser for its own scale of the moment.
    """
    pipe = case.pipe()
    has_cfg = pipeline_cfg != 1
    negative = negative_text(case, pipe, prompts) if has_cfg else None
    pipe = case.pipe()
    for which, denoiser in enumerate(case.denoisers(pipe)):
        scale = partial(cfg[which], pipe) if isinstance(cfg, tuple) else cfg
        denoiser.forward = Reference(pipe, denoiser, terms, scale, negative, recipe)
    return case.run(pipe, prompts=prompts, cfg=pipeline_cfg)
