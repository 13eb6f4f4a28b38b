from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.score.embedded import FOLDER, embedded_scorers
from stg_tune.score.weights import read_weights, tensors_of, write_weights

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_weights(tmp_path, "net", tensors_of(net=_net()), {"width": 3})
    return tmp_path


def _net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_round_trip_at_half_precision(folder: Path) -> None:
    weights, net = read_weights(folder, "net"), nn.Linear(3, 2)
    weights.fill(net, "net")
    assert torch.equal(net.weight, _net().weight.half().float())
    assert weights.setting("width") == 3
    assert not net.training
    assert not net.weight.requires_grad


def test_changed_file_is_refused(folder: Path) -> None:
    path = folder / "net.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        StgTuneError, match=r"net\.safetensors has the checksum .*: the file is damaged or was replaced"
    ):
        read_weights(folder, "net")


def test_pickle_is_never_read(folder: Path) -> None:
    import hashlib

    torch.save({"net.weight": torch.ones(2, 3)}, folder / "net.safetensors")
    index = json.loads((folder / "scorers.json").read_text())
    index["files"]["net"]["sha256"] = hashlib.sha256((folder / "net.safetensors").read_bytes()).hexdigest()
    (folder / "scorers.json").write_text(json.dumps(index))
    with pytest.raises(StgTuneError, match="is not a safetensors file"):
        read_weights(folder, "net")


def test_missing_file_folder_and_entry(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReachableError, match="has no scorer 'ghost'; it has net"):
        read_weights(folder, "ghost")
    with pytest.raises(NotReachableError, match="scorer weights are missing"):
        read_weights(tmp_path / "nowhere", "net")
    (folder / "net.safetensors").unlink()
    with pytest.raises(NotReachableError, match=r"scorer weights are missing: .*net\.safetensors"):
        read_weights(folder, "net")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1", "files": {}}', "[" * 100_000])
def test_broken_index(folder: Path, text: str) -> None:
    (folder / "scorers.json").write_text(text)
    with pytest.raises(StgTuneError, match=r"scorers\.json is not"):
        read_weights(folder, "net")


def test_weights_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(StgTuneError, match="scorer weights 'net' do not fit their configuration"):
        read_weights(folder, "net").fill(nn.Linear(4, 2), "net")


def test_missing_setting(folder: Path) -> None:
    with pytest.raises(StgTuneError, match="has no field 'depth'"):
        read_weights(folder, "net").setting("depth")


def test_shipped_weights_are_small_and_verified() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= 3_000_000
    names = {kind.name: kind.weights for kind in embedded_scorers().kinds}
    assert names["aesthetic"] == names["alignment"] == read_weights(FOLDER, "clip").short
