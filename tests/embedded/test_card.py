import json
import shutil

import pytest

from stg_tune import preset
from stg_tune.embedded import WEIGHTS
from stg_tune.embedded.card import card
from stg_tune.embedded.checkpoints import curve
from stg_tune.embedded.presets_table import load_for
from stg_tune.errors import StgTuneError
from stg_tune.models.base import GenerationDefaults
from stg_tune.records import GuidanceSpec


def test_a_curve_keeps_its_end_and_about_as_many_points_as_asked_for():
    log = [{"step": float(step)} for step in range(50, 2650, 50)]
    short = curve(log, points=10)
    assert short[-1] == log[-1]
    assert 10 <= len(short) <= 13
    assert curve(log[:3]) == log[:3]


def test_the_card_quotes_the_best_judged_rows_and_the_last_loss(tmp_path):
    shutil.copytree(WEIGHTS / "open-sora-tiny", tmp_path / "m")
    log = [{"step": 50.0, "loss": 0.9}, {"step": 4150.0, "loss": 0.12345}]
    (tmp_path / "m" / "loss.json").write_text(json.dumps(log))
    measures = {"digit": "0.875", "colour": "1", "direction": "0.99", "frechet": "23.456"}
    rows = [{"cfg_scale": "2", "videos": "256", **measures}, {"cfg_scale": "3", "videos": "1024", **measures}]
    text = card("open-sora-tiny", tmp_path / "m", rows, "layers.csv")
    assert "| 4150 | 0.1235 |" in text
    assert "| 3 | 87.5% | 100.0% | 99.0% | 23.5 |" in text
    assert "| 2 |" not in text, "the row with fewer videos"
    assert "4,150 steps" in text


@pytest.mark.parametrize(
    ("name", "folder", "words"),
    [
        ("mochi-tiny", "mochi_folder", "12 joint blocks of width 96"),
        ("svd-tiny", "svd_folder", "9 spatial and 9 temporal"),
    ],
)
def test_the_other_models_have_cards_too(name, folder, words, request, tmp_path):
    shutil.copytree(request.getfixturevalue(folder), tmp_path / "m")
    (tmp_path / "m" / "loss.json").write_text(json.dumps([{"step": 2500.0, "loss": 0.5}]))
    row = {"cfg_scale": "2", "videos": "256", "digit": "0.5", "colour": "1", "direction": "0.25", "frechet": "30"}
    text = card(name, tmp_path / "m", [row], "layers.csv")
    assert words in text
    assert "2,500 steps" in text
    assert "{" not in text
    assert max(map(len, text.splitlines())) <= 130


def test_a_preset_of_another_model_is_refused(tmp_path):
    other = preset.Preset(
        name="other",
        family="open-sora",
        model="open-sora",
        checkpoint="somewhere",
        revision="",
        stacks={"spatial": 28, "temporal": 28},
        spec=GuidanceSpec(cfg_scale=7.0),
        generation=GenerationDefaults(
            height=240, width=426, num_frames=51, num_inference_steps=30, cfg_scale=7.0, fps=24
        ),
    )
    preset.save(other, tmp_path / "other.json")
    with pytest.raises(StgTuneError, match="is a preset for open-sora, not for open-sora-tiny"):
        load_for(tmp_path / "other.json", "open-sora-tiny")
