import numpy as np
import torch

from stg_tune.embedded import digits
from stg_tune.embedded.open_sora_train import TRANSFORMER, compile_blocks, plain_attention, warm_average
from stg_tune.embedded.tutor import PLACE_UNIT, Tutor, lesson_of, listening_block
from stg_tune.models.open_sora.transformer import STDiT3


def _transformer():
    torch.manual_seed(0)
    return STDiT3(**{**TRANSFORMER, "hidden_size": 24, "depth": 2, "num_heads": 3})


def _tutor(transformer):
    return Tutor(transformer.temporal_blocks[listening_block(transformer)], transformer.hidden_size)


def _predict(transformer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    side = torch.full((2,), 64.0)
    return transformer(
        torch.randn(2, 4, 5, 8, 8, generator=generator),
        torch.tensor([300.0, 700.0]),
        torch.randn(2, 1, 16, TRANSFORMER["caption_channels"], generator=generator),
        fps=torch.full((2,), 8.0),
        height=side,
        width=side,
    )


def test_a_layout_is_that_of_the_rendered_videos():
    plan, batch = digits.layout(5, "test", seed=3), digits.render(5, "test", seed=3)
    assert np.array_equal(plan.digit, batch.digit)
    rows, columns = np.mgrid[: digits.SIZE, : digits.SIZE]
    for frames, colour, centres in zip(batch.frames.astype(float), plan.colour, plan.centres, strict=True):
        likeness = np.exp(-np.square((frames - digits.RGB[colour]) / 40).sum(-1))
        weight = likeness.sum((1, 2))
        seen = np.stack([(likeness * axis).sum((1, 2)) / weight for axis in (columns, rows)], -1)
        assert np.abs(seen - centres).max() < 8, "the strokes lie around the centre of the scan"


def test_the_lesson_says_where_the_digit_is_as_seen_from_each_token():
    plan = digits.layout(3, "train", seed=0)
    lesson = lesson_of([plan])
    assert lesson.places.shape == (3, 80, 3)
    assert lesson.scans.shape == (3, 64)
    first = lesson.places[1].unflatten(0, (5, 4, 4))[0]
    for row in range(4):
        for column in range(4):
            token = np.array([16 * column + 8, 16 * row + 8])
            assert np.allclose(first[row, column, :2].numpy() * PLACE_UNIT + token, plan.centres[1, 0], atol=1e-4)
    last = lesson.places[1].unflatten(0, (5, 4, 4))[4, 0, 0, :2].numpy() * PLACE_UNIT + 8
    assert np.allclose(last, plan.centres[1, 13:17].mean(0), atol=1e-4)


def test_the_tutor_teaches_the_layers_before_it_and_none_after():
    transformer = _transformer()
    tutor = _tutor(transformer)
    _predict(transformer)
    tutor.loss(lesson_of([digits.layout(2, "train", seed=0)]), torch.tensor([0.3, 0.7])).backward()
    assert transformer.x_embedder.proj.weight.grad.abs().sum() > 0
    assert transformer.temporal_blocks[listening_block(transformer) + 1].mlp.fc1.weight.grad is None


def test_the_place_counts_less_in_a_noisy_video_and_the_scan_does_not():
    transformer = _transformer()
    tutor = _tutor(transformer)
    _predict(transformer)
    lesson = lesson_of([digits.layout(2, "train", seed=0)])
    with torch.no_grad():
        clean, noise = (tutor.loss(lesson, torch.full((2,), level)) for level in (0.0, 1.0))
        scans = tutor.head(tutor.heard).flatten(1, -2)[..., 3:]
    assert noise < clean
    assert torch.isclose(noise, (scans - lesson.scans[:, None]).square().mean())


def test_attention_written_out_is_the_fused_one():
    transformer = _transformer()
    for block in (*transformer.spatial_blocks, *transformer.temporal_blocks):
        torch.nn.init.normal_(block.cross_attn.proj.weight, std=0.1)
    torch.nn.init.normal_(transformer.final_layer.linear.weight, std=0.1)
    fused = torch.nn.functional.scaled_dot_product_attention
    with torch.no_grad():
        expected = _predict(transformer)
        with plain_attention():
            assert torch.nn.functional.scaled_dot_product_attention is not fused
            assert torch.allclose(_predict(transformer), expected, atol=1e-5)
    assert torch.nn.functional.scaled_dot_product_attention is fused


def test_the_block_that_is_listened_to_is_not_compiled():
    transformer = _transformer()
    compile_blocks(transformer)
    compiled = [block._compiled_call_impl is not None for block in transformer.temporal_blocks]
    assert compiled == [False, True]


def test_the_average_forgets_its_beginning():
    average, weight = [torch.tensor(100.0)], [torch.tensor(1.0)]
    for count in range(1, 60):
        warm_average(average, weight, torch.tensor(count))
    assert abs(average[0].item() - 1) < 0.01
