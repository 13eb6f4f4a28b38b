"""Mochi's joint attention for a whole batch at once, for training.

The processor of diffusers goes through the rows one by one and cuts each to its valid text tokens; here all rows are
computed together, and padded text is masked. Video tokens and valid text tokens come out the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class JointAttention:
    """A processor for ``MochiAttention``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            attn: The module with the projections.
            hidden_states: (batch, video tokens, width).
            encoder_hidden_states: (batch, text tokens, text width).
            attention_mask: (batch, text tokens), true where the text is valid.
            image_rotary_emb: Cosines and sines (video tokens, heads, half of the head's width).

        Returns:
            Video and text after their output projections; the text of padded places has no meaning.
        """
        video = hidden_states.shape[1]
        q, k, v = (layer(hidden_states).unflatten(2, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v))
        q, k = rotated(attn.norm_q(q), *image_rotary_emb), rotated(attn.norm_k(k), *image_rotary_emb)
        layers = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        text_q, text_k, text_v = (layer(encoder_hidden_states).unflatten(2, (attn.heads, -1)) for layer in layers)
        text_q, text_k = attn.norm_added_q(text_q), attn.norm_added_k(text_k)
        parts = ((q, text_q), (k, text_k), (v, text_v))
        q, k, v = (torch.cat([one, other], 1).transpose(1, 2) for one, other in parts)
        hidden = torch.cat([attention_mask.new_zeros(len(q), video), ~attention_mask], 1)
        # written out: the fused one's backward pass takes most of a bfloat16 step on a CPU
        scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).masked_fill(hidden[:, None, None], -torch.inf)
        mixed = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        text = mixed[:, video:]
        return attn.to_out[0](mixed[:, :video]), attn.to_add_out(text) if hasattr(attn, "to_add_out") else text


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels of ``x`` (batch, tokens, heads, width) by its angle; arXiv:2104.09864."""
    one, other = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([one * cosine - other * sine, one * sine + other * cosine], -1)
    return turned.flatten(-2).to(x.dtype)
