"""What a model that goes on from a picture is measured by, on videos whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from stg_tune.embedded import continuations, digits
from stg_tune.embedded.continuations import described, real_videos
from stg_tune.embedded.judge import load_judge
from stg_tune.embedded.truth import truth_pairs
from stg_tune.errors import StgTuneError

RESULTS = Path(__file__).parents[2] / "results" / "embedded"


@pytest.fixture(scope="module")
def pairs():
    return truth_pairs(48, first_seed=77)


@pytest.fixture(scope="module")
def real(pairs):
    return real_videos(pairs, 9)


def test_real_videos_keep_everything_and_begin_with_their_picture(real, pairs):
    found = described(real, pairs, load_judge())
    assert real.shape == (48, 9, 64, 64, 3)
    assert np.array_equal(real[:, -1], np.stack([digits.render_caption(p.prompt, "test", p.seed)[16] for p in pairs]))
    assert found["picture"] == 0
    assert found["digit"] > 0.9
    assert found["colour"] > 0.95
    assert sum(found["directions"].values()) == pytest.approx(1, abs=1e-3)
    assert min(found["directions"].values()) > 0.05
    assert 1 < found["speed"] < 4, "0.8 to 1.6 pixels a frame, every second of which is shown"


def test_frozen_videos_do_not_move_and_videos_of_other_pictures_keep_nothing(real, pairs):
    frozen = described(np.repeat(real[:, :1], 9, axis=1), pairs, load_judge())
    assert frozen["speed"] == pytest.approx(0, abs=0.05)
    assert frozen["picture"] == 0
    others = described(np.roll(real, 1, axis=0), pairs, load_judge())
    assert others["digit"] < 0.4
    assert others["picture"] > 0.05


def test_a_model_that_is_given_words_is_refused(tmp_path):
    with pytest.raises(StgTuneError, match="svd-tiny"):
        continuations.main(["--model", "mochi-tiny", "--out", str(tmp_path)])


def test_the_embedded_model_goes_on_from_its_picture_as_real_videos_do():
    found = json.loads((RESULTS / "svd-tiny" / "continuations.json").read_text(encoding="utf-8"))
    real = found.pop("real")
    assert found
    for made in found.values():
        assert made["videos"] >= 256
        assert made["colour"] >= 0.9
        assert made["picture"] < 0.05
        assert min(made["directions"].values()) > 0.1, "the picture does not say where to go"
        assert max(made["directions"].values()) < 0.45
        assert 0.5 < made["speed"] / real["speed"] < 2
    assert max(made["digit"] for made in found.values()) >= 0.8
