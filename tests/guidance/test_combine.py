from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stg_tune.guidance.combine import combine, orthogonalised, relative_effect, rescaled
from stg_tune.guidance.passes import plan

CASE = "b_mask_nonsquare"


def predictions(golden, mode):
    names = (f"{CASE}.cond", f"{CASE}.uncond", f"{CASE}.{mode}.s1", f"{CASE}.{mode}.t2", f"{CASE}.{mode}.s1_t2")
    return [golden[name][:, :4] for name in names]


@pytest.mark.parametrize("mode", ["A", "R"])
@pytest.mark.parametrize(
    ("name", "cfg", "w1", "w2", "settings"),
    [
        ("eq20_nocfg_w1_0.5_w2_2", 1.0, 0.5, 2.0, {}),
        ("eq20_cfg7_w1_1_w2_1", 7.0, 1.0, 1.0, {}),
        ("eq21_persample_nocfg_w1_1_w2_1", 1.0, 1.0, 1.0, {"combination": "orthogonal"}),
        ("eq21_persample_cfg7_w1_0.5_w2_2", 7.0, 0.5, 2.0, {"combination": "orthogonal"}),
        ("eq20_cfg7_w1_1_w2_1_rescale0.7_persample", 7.0, 1.0, 1.0, {"rescale": 0.7}),
    ],
)
def test_formulas_on_the_official_predictions(harness, golden_preds, mode, name, cfg, w1, w2, settings):
    c, u, p_s, p_t, _ = predictions(golden_preds, mode)
    terms = (harness.term("s", scale=w1, spatial=[1]), harness.term("t", scale=w2, temporal=[2]))
    step = plan(harness.spec(*terms, cfg=cfg, **settings), 0, 1)
    out = combine(step, c, u if cfg != 1 else None, [p_s, p_t])
    torch.testing.assert_close(out, golden_preds[f"guided.{mode}.{name}"], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", ["A", "R"])
def test_one_sample_has_the_whole_tensor_rescale_of_the_official_code(harness, golden_preds, mode):
    """Folding the batch into one sample turns ours into the std over the whole tensor."""
    c, u, p_s, p_t, _ = (x.flatten(0, 1)[None] for x in predictions(golden_preds, mode))
    terms = (harness.term("s", spatial=[1]), harness.term("t", temporal=[2]))
    out = combine(plan(harness.spec(*terms, rescale=0.7), 0, 1), c, u, [p_s, p_t])
    expected = golden_preds[f"guided.{mode}.eq20_cfg7_w1_1_w2_1_rescale0.7_globalstd"]
    torch.testing.assert_close(out[0], expected.flatten(0, 1), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", ["A", "R"])
def test_orthogonalised_direction_is_the_official_one(golden_preds, mode):
    c, _, p_s, p_t, _ = predictions(golden_preds, mode)
    found = orthogonalised([c - p_s, c - p_t])[1]
    torch.testing.assert_close(found, golden_preds[f"guided.{mode}.At_orth_persample"], atol=1e-6, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 4), samples=st.integers(1, 3), seed=st.integers(0, 99))
def test_directions_become_orthogonal_in_every_sample_and_span_the_same(count, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    deltas = list(torch.randn(count, samples, 3, 2, 4, generator=generator, dtype=torch.float64))
    found = torch.stack(orthogonalised(deltas)).flatten(2).transpose(0, 1)
    gram = found @ found.transpose(1, 2)
    assert (gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs().max() < 1e-9
    assert torch.equal(found[:, 0], deltas[0].flatten(1))
    volume = torch.linalg.det(gram)  # Gram determinants agree when only multiples of earlier directions were taken
    before = torch.stack(deltas).flatten(2).transpose(0, 1)
    torch.testing.assert_close(volume, torch.linalg.det(before @ before.transpose(1, 2)), rtol=1e-6, atol=1e-9)


def test_a_direction_that_is_zero_takes_nothing_and_gives_no_nan():
    zero, other = torch.zeros(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(orthogonalised([zero, other])[1], other)
    assert torch.equal(rescaled(torch.ones(1, 3, 4), torch.randn(1, 3, 4), 0.7), torch.ones(1, 3, 4))
    assert float(relative_effect(zero, zero)) == 0.0


def test_full_rescale_gives_the_std_of_the_prompted_prediction_per_sample():
    c, x = torch.randn(3, 4, 5), 9 * torch.randn(3, 4, 5)
    out = rescaled(x, c, 1.0)
    torch.testing.assert_close(out.std(dim=(1, 2)), c.std(dim=(1, 2)))
    torch.testing.assert_close(rescaled(x, c, 0.25), 0.25 * out + 0.75 * x)


def test_relative_effect_is_the_mean_over_samples():
    c = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    p = torch.tensor([[3.0, 3.0], [0.0, 0.0]])
    assert float(relative_effect(c, p)) == pytest.approx((1 / 5 + 1) / 2)
