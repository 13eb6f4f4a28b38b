import pytest
import torch

from stg_tune.embedded import denoiser_train
from stg_tune.embedded.denoiser_train import cached, parts_of, train_averaged


def test_parts_are_whole_and_never_share_a_seed(monkeypatch):
    monkeypatch.setattr(denoiser_train, "PART", 4)
    assert parts_of(10) == [(4, 10_000), (4, 10_004), (2, 10_008)]


def test_a_cache_is_extended_and_never_made_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(denoiser_train, "PART", 4)
    made = []

    def make(number, seed):
        made.append((number, seed))
        return {"latents": torch.full((number, 2), float(seed))}

    path = tmp_path / "new" / "cache.pt"
    assert cached(path, 6, make)["latents"][:, 0].tolist() == [10_000.0] * 4 + [10_004.0] * 2
    assert len(cached(path, 6, make)["latents"]) == 6
    assert made == [(4, 10_000), (2, 10_004)]
    assert len(cached(path, 12, make)["latents"]) == 12
    assert made[2:] == [(4, 10_004), (4, 10_008)], "the part that was cut short is made again"


def _line(path, steps, helpers=None):
    torch.manual_seed(0)
    line = torch.nn.Linear(1, 1)
    seen = []

    def loss_of(generator):
        x = torch.rand(32, 1, generator=generator)
        seen.append(x)
        return {"loss": (line(x).float() - 3 * x).square().mean()}

    train_averaged(line, loss_of, path, steps=steps, peak_rate=0.1, helpers=helpers, warmup=1)
    return line, seen


def test_it_learns_and_ends_with_the_average_of_the_weights(tmp_path):
    line, _ = _line(tmp_path / "a.pt", 200)
    assert line.weight.item() == pytest.approx(3, abs=0.3)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)["state"]
    assert line.weight.item() == saved["average"]["module.weight"].item()
    assert line.weight.item() != saved["modules"]["weight"].item()


def test_a_run_goes_on_where_it_was_ended_with_other_numbers(tmp_path):
    _, first = _line(tmp_path / "a.pt", 3)
    _, second = _line(tmp_path / "a.pt", 5)
    assert (len(first), len(second)) == (3, 2)
    assert not torch.equal(first[0], second[0])
    assert torch.load(tmp_path / "a.pt", weights_only=True)["step"] == 5


def test_helpers_are_trained_beside(tmp_path):
    helper = torch.nn.Linear(1, 1)
    before = helper.weight.item()
    torch.manual_seed(0)
    line = torch.nn.Linear(1, 1)

    def loss_of(generator):
        x = torch.rand(8, 1, generator=generator)
        return {"loss": line(x).float().square().mean(), "lesson": (helper(line(x)).float() - 1).square().mean()}

    train_averaged(line, loss_of, tmp_path / "a.pt", steps=2, peak_rate=0.1, helpers=helper, warmup=1)
    assert helper.weight.item() != before
    assert torch.load(tmp_path / "a.pt", weights_only=True)["state"]["helpers"].keys() == {"weight", "bias"}
