from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stg_tune.errors import StgTuneError
from stg_tune.guidance import guided
from stg_tune.guidance.prefix import Memory, execution_order, prompted_route, weak_route
from stg_tune.models.base import Architecture, Stack

JOINT = Architecture(
    family="joint",
    pipeline="x:Pipe",
    denoiser="transformer",
    stacks=(Stack(name="double", path="double"), Stack(name="single", path="single")),
    interleaved=False,
    rows="uncond_first",
)


def test_blocks_come_in_order_of_execution(harness):
    assert execution_order(harness.architecture, {"spatial": 2, "temporal": 3}) == (
        ("spatial", 0), ("temporal", 0), ("spatial", 1), ("temporal", 1), ("temporal", 2),
    )  # fmt: skip
    assert execution_order(JOINT, {"double": 2, "single": 1}) == (("double", 0), ("double", 1), ("single", 0))


def test_a_weak_pass_starts_at_its_first_skipped_block_and_costs_what_it_runs(harness):
    order = execution_order(harness.architecture, {"spatial": 4, "temporal": 4})
    term = harness.term(spatial=[3], temporal=[2])
    route = weak_route(term, order, prefix_reuse=True)
    assert (route.start, route.ops[5:7], route.share) == (5, ("residual", "residual"), 1 / 8)
    attention = weak_route(harness.term(op="attention", temporal=[2]), order, prefix_reuse=True)
    assert (attention.start, attention.share) == (5, 3 / 8)
    whole = weak_route(term, order, prefix_reuse=False)
    assert (whole.start, whole.share) == (0, 6 / 8)
    assert prompted_route(8, [route, attention, whole]).remember == {5}


def test_memory_keeps_a_copy_of_the_prompted_rows_alone():
    memory = Memory()
    memory.rows, memory.total = slice(2, 4), 4
    activation = torch.randn(8, 3)  # two entries a row
    expected = activation[4:8].clone()
    memory.remember(5, (activation,))
    activation.zero_()
    (recalled,) = memory.recall(5)
    assert torch.equal(recalled, expected)
    recalled.zero_()
    (again,) = memory.recall(5)
    assert torch.equal(again, expected)
    assert again.untyped_storage().nbytes() == activation.untyped_storage().nbytes() // 2
    memory.clear()
    assert len(memory) == 0


def test_activations_that_do_not_belong_to_rows_are_refused():
    memory = Memory()
    memory.total = 4
    with pytest.raises(StgTuneError, match="prefix_reuse=False"):
        memory.remember(1, (torch.randn(7, 3),))


subsets = st.lists(st.integers(0, 3), unique=True, max_size=4)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.tuples(subsets, subsets).filter(any),
    op=st.sampled_from(["attention", "residual"]),
    prompts=st.integers(1, 3),
    cfg=st.sampled_from([1.0, 4.0]),
)
def test_prefix_reuse_equals_the_full_weak_pass(harness, stdit, layers, op, prompts, cfg):
    """The bar: max abs difference 1e-5 in fp32, for the weak prediction itself."""
    inputs = harness.inputs(prompts=prompts)
    spatial, temporal = layers
    term = harness.term(op=op, scale=-1.0, spatial=spatial, temporal=temporal)
    only_prompted = harness.slow(stdit, {name: value[:prompts] for name, value in inputs.items()}, term)
    pipe = harness.pipe(stdit)
    c, u = stdit(**inputs)[:, :4].chunk(2)
    expected = u + cfg * (c - u) - (c - only_prompted)
    for prefix_reuse in (True, False):
        with guided(pipe, harness.spec(term, cfg=cfg), architecture=harness.architecture, prefix_reuse=prefix_reuse):
            found = stdit(**inputs)[:prompts, :4]
        assert (found - expected).abs().max() <= 1e-5 * (1 if cfg == 1 else 3)


def test_terms_with_one_start_share_an_activation_and_nothing_is_kept_after_the_step(harness, stdit, monkeypatch):
    kept = []
    remember = Memory.remember

    def spy(self, position, streams):
        remember(self, position, streams)
        kept.append((self, position))

    monkeypatch.setattr(Memory, "remember", spy)
    terms = [
        harness.term("a", spatial=[2], temporal=[3]),
        harness.term("b", op="attention", spatial=[2]),
        harness.term("c", temporal=[3]),
        harness.term("d", spatial=[0]),
    ]
    inputs = harness.inputs()
    with guided(harness.pipe(stdit), harness.spec(*terms), architecture=harness.architecture) as run:
        stdit(**inputs)
        assert [position for _, position in kept] == [4, 7]
        assert len(kept[0][0]) == 0
    assert set(run.effects()) == {"a", "b", "c", "d"}


def test_forwards_count_rows_and_shares(harness, stdit):
    inputs = harness.inputs(prompts=2)
    late = harness.term("late", op="attention", temporal=[3])
    block = harness.term("block", spatial=[2])
    for spec, expected in [
        (harness.spec(), 4),
        (harness.spec(late), 4 + 2 * 1 / 8),
        (harness.spec(late, block), 4 + 2 * 1 / 8 + 2 * 3 / 8),
        (harness.spec(block, cfg=1.0), 2 + 2 * 3 / 8),
    ]:
        with guided(harness.pipe(stdit), spec, architecture=harness.architecture) as run:
            stdit(**inputs)
        assert run.forwards == pytest.approx(expected)


def test_blocks_before_the_start_do_not_run_in_the_weak_pass(harness, stdit):
    """Counts real calls of the attentions, which the arithmetic of `forwards` cannot see."""
    calls = []
    hooks = [
        block.cross_attn.register_forward_hook(lambda *_, name=f"{stack}{index}": calls.append(name))
        for stack, blocks in (("s", stdit.spatial_blocks), ("t", stdit.temporal_blocks))
        for index, block in enumerate(blocks)
    ]
    spec = harness.spec(harness.term(spatial=[2], temporal=[3]))
    with guided(harness.pipe(stdit), spec, architecture=harness.architecture):
        stdit(**harness.inputs())
    for hook in hooks:
        hook.remove()
    assert calls == ["s0", "t0", "s1", "t1", "s2", "t2", "s3", "t3", "t2", "s3"]
