"""Names, records and loading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stg_tune import models
from stg_tune.errors import StgTuneError

ROOT = Path(__file__).parents[2]


def test_every_name_has_its_record() -> None:
    assert set(models.names()) == {"open-sora", "open-sora-tiny", "mochi", "mochi-tiny", "svd", "svd-tiny"}
    for name in models.names():
        entry = models.entry(name)
        assert entry.name == name
        assert set(entry.depths) == {stack.name for stack in entry.architecture.stacks}


def test_the_published_model_has_its_published_settings() -> None:
    entry = models.entry("open-sora")
    size = entry.defaults
    assert entry.depths == {"spatial": 28, "temporal": 28}
    assert (size.height, size.width, size.num_frames, size.fps) == (240, 426, 51, 24)
    assert (size.num_inference_steps, size.cfg_scale) == (30, 7.0)


@pytest.mark.parametrize("name", ["opensora", "open-sora-tinny", "", "no/such/folder"])
def test_an_unknown_name_lists_close_ones_and_all(name: str) -> None:
    with pytest.raises(StgTuneError, match="Known: open-sora, open-sora-tiny, mochi") as caught:
        models.entry(name)
    assert ("did you mean open-sora" in str(caught.value)) == name.startswith("open")


def test_an_embedded_model_that_is_not_trained_is_not_listed_and_says_how_to_train_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from stg_tune.models.open_sora import record

    monkeypatch.setattr(record.resources, "files", lambda _: tmp_path)
    assert models.names() == ["open-sora", "mochi", "svd"]
    for name in ("mochi-tiny", "svd-tiny"):
        with pytest.raises(StgTuneError, match=f"python -m stg_tune.embedded.train {name}"):
            models.load(models.entry(name))


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="is no model folder"):
        models.entry(str(tmp_path))


def test_records_load_nothing_heavy() -> None:
    program = (
        "import sys; from stg_tune import models; [models.entry(name) for name in models.names()]; "
        "import stg_tune.models.open_sora; "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_family_exports_its_classes_lazily_and_no_others() -> None:
    from stg_tune.models import open_sora

    assert open_sora.STDiT3.__name__ == "STDiT3"
    assert open_sora.OpenSoraPipeline.__module__ == "stg_tune.models.open_sora.pipeline"
    with pytest.raises(AttributeError, match="Nothing"):
        open_sora.Nothing  # noqa: B018
