"""Weights from files: every format, and everything that can be wrong with one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.state import build, check_state, fit_caption_length, read_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


def _shards(folder: Path, suffix: str, save: Callable[[dict[str, Any], Path], None]) -> None:
    names = {"weight": f"model-00001-of-00002.{suffix}", "bias": f"model-00002-of-00002.{suffix}"}
    for key, name in names.items():
        save({key: STATE[key]}, folder / name)
    (folder / f"model.{suffix}.index.json").write_text(json.dumps({"weight_map": names}))


FORMATS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda folder: save_file(STATE, folder / "model.safetensors"),
    "sharded safetensors": lambda folder: _shards(folder, "safetensors", save_file),
    "pth": lambda folder: torch.save(STATE, folder / "model.pth"),
    "wrapped pth": lambda folder: torch.save({"ema": STATE, "step": 3}, folder / "ema.pt"),
    "data parallel": lambda folder: torch.save({f"module.{k}": v for k, v in STATE.items()}, folder / "model.pth"),
    "sharded bin": lambda folder: _shards(folder, "bin", torch.save),
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_tensors(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    state = read_state(tmp_path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_safetensors_are_preferred_and_a_file_can_be_named(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_state(tmp_path).keys() == STATE.keys()
    assert read_state(tmp_path / "pytorch_model.bin").keys() == {"weight"}


class Attack:
    """Would write a file if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return self.target.write_text, ("executed",)


def _truncated(folder: Path) -> None:
    save_file(STATE, folder / "model.safetensors")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def _missing_shard(folder: Path) -> None:
    _shards(folder, "safetensors", save_file)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _two(folder: Path) -> None:
    for name in ("a", "b"):
        save_file(STATE, folder / f"{name}.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: None, "holds no weights"),
    "two files": (_two, "holds several weights (a.safetensors, b.safetensors)"),
    "truncated": (_truncated, "model.safetensors is damaged"),
    "garbage": (lambda folder: (folder / "model.pth").write_bytes(b"garbage"), "model.pth is damaged"),
    "empty": (lambda folder: (folder / "model.pth").write_bytes(b""), "model.pth is damaged"),
    "not tensors": (lambda folder: torch.save({"weight": 3}, folder / "model.pth"), "must hold tensors by name"),
    "a list": (lambda folder: torch.save([torch.ones(1)], folder / "model.pth"), "must hold tensors by name"),
    "shard missing": (_missing_shard, "lacks 1 of 2 shards"),
    "index no JSON": (lambda folder: (folder / "m.safetensors.index.json").write_text("{"), "is not JSON"),
    "index a list": (lambda folder: (folder / "m.safetensors.index.json").write_text("[]"), "must hold a JSON object"),
    "index without files": (lambda folder: (folder / "m.safetensors.index.json").write_text("{}"), "weight_map must"),
    "index leaves the folder": (
        lambda folder: (folder / "m.bin.index.json").write_text('{"weight_map": {"a": "../x.bin"}}'),
        "same folder",
    ),
}


@pytest.mark.parametrize(("write", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_one_clear_error(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(StgTuneError) as caught:
        read_state(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    torch.save({"weight": Attack(tmp_path / "trace")}, tmp_path / "model.bin")
    with pytest.raises(StgTuneError, match="nothing in it was executed"):
        read_state(tmp_path)
    assert not (tmp_path / "trace").exists()


def test_the_null_caption_is_cut_or_extended_by_its_last_row() -> None:
    caption = torch.arange(6.0).view(3, 2)
    state = {"y_embedder.y_embedding": caption, "x": torch.ones(1)}
    longer = fit_caption_length(state, 5)["y_embedder.y_embedding"]
    assert torch.equal(longer, torch.cat([caption, caption[-1:], caption[-1:]]))
    assert torch.equal(fit_caption_length(state, 2)["y_embedder.y_embedding"], caption[:2])
    assert fit_caption_length(state, 3)["y_embedder.y_embedding"] is caption


def test_all_that_does_not_fit_is_named_at_once_with_counts() -> None:
    wanted = {name: torch.empty(2, 3, device="meta") for name in ("a", "b", "c", "d", "e", "shape")}
    found = {"e": torch.empty(2, 3), "shape": torch.empty(3, 2), "new": torch.empty(1)}
    with pytest.raises(StgTuneError) as caught:
        check_state(wanted, found, "the transformer in DIR")
    message = str(caught.value)
    assert "the transformer in DIR does not fit the model (6 keys)" in message
    assert "4 missing ('a', 'b', 'c' and 1 more)" in message
    assert "1 not known to the model ('new')" in message
    assert "1 misshapen ('shape' has shape [3, 2] in place of [2, 3])" in message


def test_build_takes_the_tensors_over_in_the_asked_precision() -> None:
    layer = build(lambda: nn.Linear(3, 2), STATE, "the layer", dtype=torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert layer.weight.device.type == "cpu"
    assert layer.weight.float().equal(STATE["weight"])
    assert not layer.training
