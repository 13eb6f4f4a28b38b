"""Folders of pipelines that diffusers has itself: checked before anything in them is looked up."""

import json
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models import folders, svd

SVD_CONFIG = {
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
    "layers_per_block": 2,
}


def _folder(place: Path, pipeline: str, part: str, config: object, **parts: object) -> Path:
    (place / part).mkdir(parents=True)
    (place / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **parts}))
    (place / part / "config.json").write_text(json.dumps(config))
    return place


def test_a_mochi_folder_of_known_depth_takes_the_settings_of_that_model(tmp_path: Path) -> None:
    entry = models.entry(str(_folder(tmp_path, "MochiPipeline", "transformer", {"num_layers": 12})))
    assert entry.depths == {"blocks": 12}
    assert entry.defaults == models.entry("mochi-tiny").defaults
    assert not entry.embedded


def test_the_blocks_of_a_unet_are_counted_from_its_config(tmp_path: Path) -> None:
    assert svd.unet_depth(SVD_CONFIG, tmp_path) == 16
    uneven = {**SVD_CONFIG, "layers_per_block": [1, 2, 1, 1], "transformer_layers_per_block": [1, 1, 2, 1]}
    assert svd.unet_depth(uneven, tmp_path) == (1 + 2 + 2) + 1 + (4 + 3 + 2)
    entry = models.entry(str(_folder(tmp_path, "StableVideoDiffusionPipeline", "unet", SVD_CONFIG)))
    assert entry.depths == models.entry("svd").depths
    assert entry.image_source == models.entry("svd").image_source


def test_the_count_is_that_of_the_module(tmp_path: Path) -> None:
    import torch
    from diffusers import UNetSpatioTemporalConditionModel

    from stg_tune.embedded.svd_train import UNET

    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(**UNET)
    names = [name for name, _ in unet.named_modules() if name.endswith(".transformer_blocks.0")]
    config = json.loads(unet.to_json_string())
    assert svd.unet_depth(config, tmp_path) == len(names) == models.entry("svd-tiny").depths["spatial"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "must hold a JSON object"),
        ({}, "num_layers must be a whole number"),
        ({"num_layers": 0}, "got 0"),
        ({"num_layers": True}, "got True"),
        ({"num_layers": 10**9}, "from 1 to 1000"),
    ],
)
def test_a_config_that_states_no_depth_is_an_error(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(StgTuneError, match=message):
        models.entry(str(_folder(tmp_path, "MochiPipeline", "transformer", config)))


@pytest.mark.parametrize(
    "config",
    [
        {**SVD_CONFIG, "down_block_types": "CrossAttn"},
        {**SVD_CONFIG, "up_block_types": ["x"] * 99},
        {**SVD_CONFIG, "layers_per_block": [1]},
    ],
)
def test_a_unet_config_that_makes_no_sense_is_an_error(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="must"):
        svd.unet_depth(config, tmp_path)


def test_json_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(StgTuneError, match="is not JSON"):
        folders.read(tmp_path / "config.json")


def test_only_parts_of_known_libraries_are_looked_up(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "MochiPipeline", "transformer", {}, transformer=["os", "system"])
    with pytest.raises(StgTuneError, match=r"transformer is \['os', 'system'\]"):
        models.load(models.entry("mochi-tiny"), folder)


def test_the_folder_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "LTXPipeline", "transformer", {})
    with pytest.raises(StgTuneError, match="holds 'LTXPipeline', but mochi needs MochiPipeline"):
        models.load(models.entry("mochi"), folder)


def test_a_folder_without_weights_is_one_message(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "MochiPipeline", "transformer", {}, transformer=["diffusers", "MochiTransformer3DModel"])
    with pytest.raises(StgTuneError, match="cannot be loaded as MochiPipeline") as caught:
        models.load(models.entry("mochi-tiny"), folder)
    assert "\n" not in str(caught.value)
