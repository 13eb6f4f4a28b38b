"""The records of Open-Sora, and of folders of its family."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import pytest

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.record import ARCHITECTURE, ENTRIES, embedded_folder

if TYPE_CHECKING:
    from pathlib import Path

    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline


def _folder(path: Path, index: object, config: object) -> Path:
    (path / "transformer").mkdir()
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "transformer" / "config.json").write_text(json.dumps(config))
    return path


def test_the_architecture_is_that_of_the_pipeline(pipe: OpenSoraPipeline) -> None:
    denoiser = getattr(pipe, ARCHITECTURE.denoiser)
    assert f"{type(pipe).__module__}:{type(pipe).__name__}" == ARCHITECTURE.pipeline
    assert ARCHITECTURE.prediction_channels == denoiser.config.in_channels
    for stack in ARCHITECTURE.stacks:
        blocks = denoiser.get_submodule(stack.path)
        assert len(blocks) == denoiser.config.depth
        assert blocks[0].get_submodule(stack.attention)


def test_entries_survive_pickling_and_name_their_loader() -> None:
    for entry in ENTRIES:
        assert pickle.loads(pickle.dumps(entry)) == entry
        assert entry.loader.startswith("stg_tune.models.open_sora.checkpoint:load_")


def test_the_embedded_weights_lie_in_the_package() -> None:
    folder = embedded_folder("open-sora-tiny")
    assert folder.parts[-4:] == ("stg_tune", "embedded", "weights", "open-sora-tiny")


def test_a_folder_says_its_depth_and_sizes_and_takes_the_rest_from_its_kin(tmp_path: Path) -> None:
    index = {"_class_name": "OpenSoraPipeline", "default_height": 32, "default_fps": 12}
    entry = models.entry(str(_folder(tmp_path, index, {"depth": 8})))
    tiny = models.entry("open-sora-tiny").defaults
    assert entry.depths == {"spatial": 8, "temporal": 8}
    assert (entry.defaults.height, entry.defaults.width, entry.defaults.fps) == (32, tiny.width, 12)
    assert entry.defaults.cfg_scale == tiny.cfg_scale
    assert not entry.embedded


@pytest.mark.parametrize(
    ("index", "config", "message"),
    [
        ({"_class_name": "FluxPipeline"}, {"depth": 2}, "OpenSoraPipeline, .*, found 'Flux"),
        ([], {"depth": 2}, "found None"),
        ({"_class_name": "OpenSoraPipeline"}, {}, "depth must be 1 to 1000, got None"),
        ({"_class_name": "OpenSoraPipeline"}, {"depth": 10**9}, "depth must be 1 to 1000"),
        ({"_class_name": "OpenSoraPipeline"}, {"depth": "4"}, "depth must be a whole number"),
        ({"_class_name": "OpenSoraPipeline", "default_fps": -1}, {"depth": 4}, "default_fps must be a whole number"),
        ({"_class_name": "OpenSoraPipeline"}, [], "must hold a JSON object"),
    ],
)
def test_a_folder_that_is_no_model_is_one_clear_error(
    index: object, config: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(StgTuneError, match=message) as caught:
        models.entry(str(_folder(tmp_path, index, config)))
    assert str(tmp_path) in str(caught.value)
