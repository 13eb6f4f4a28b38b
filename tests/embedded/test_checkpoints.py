import pytest
import torch

from stg_tune.embedded.checkpoints import Loop, to_pixels


def _training(path, steps):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    loop = Loop(path=path, state={"model": model, "optimiser": optimiser}, steps=steps, save_every=0.0)
    loop.resume()

    def train_step(step):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    return model, loop, train_step


def test_an_ended_training_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, loop, step = _training(tmp_path / "whole.pt", 120)
    loop.run(step)

    _, loop, step = _training(tmp_path / "parts.pt", 120)

    def dies_at_70(number):
        if number == 70:
            raise KeyboardInterrupt
        return step(number)

    with pytest.raises(KeyboardInterrupt):
        loop.run(dies_at_70)
    resumed, loop, step = _training(tmp_path / "parts.pt", 120)
    assert loop.step == 70
    loop.run(step)
    assert torch.equal(whole.weight, resumed.weight)
    assert [entry["step"] for entry in loop.log] == [50, 100]


def test_the_learning_rate_warms_up_stays_and_falls(tmp_path):
    loop = Loop(path=tmp_path / "x.pt", state={}, steps=1000)
    rates = []
    for step in (0, 99, 300, 600, 1000):
        loop.step = step
        rates.append(loop.learning_rate(peak=1.0))
    assert rates == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.02])


def test_pixels_are_channels_first_from_minus_one_to_one():
    frames = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8).numpy()
    assert to_pixels(frames).shape == (1, 3, 1, 1)
    assert to_pixels(frames).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])
