"""``generate --preset`` takes a file or the name of a published preset; one that does not fit is refused at once."""

from dataclasses import replace

import pytest
from safetensors.torch import save_file
from torch import ones

from stg_tune import preset as presets
from stg_tune.cli.lora import warn_of_other_loras
from stg_tune.cli.main import main
from stg_tune.models.loras import identity, parse_loras


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("mochi/published", "the preset mochi/published is for mochi-1"),
        ("mochi/publshed", "mochi/published"),
        ("nowhere.json", "cannot read preset nowhere.json"),
    ],
)
def test_a_preset_by_name_or_file_must_fit_the_model(
    preset: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["generate", "--model", "open-sora-tiny", "--preset", preset, "--prompt", "a", "-o", "a.mp4"]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_preset_found_with_a_lora_is_not_quietly_used_without(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"x": ones(1)}, tmp_path / "style.safetensors")
    word = f"{tmp_path / 'style.safetensors'}=0.8"
    ((name, what),) = identity(parse_loras([word])).items()
    plain = presets.find_published("mochi/published")
    presets.save(replace(plain, checkpoint=f"mochi + {name}", revision=what), tmp_path / "styled.json")
    warn_of_other_loras(str(tmp_path / "styled.json"), [word])
    warn_of_other_loras("mochi/published", [word])  # somebody's numbers for the plain model: to try them is no mistake
    assert capsys.readouterr().err == ""
    for other, said in (((), "made with no LoRA"), ((word.replace("0.8", "0.7"),), "at 0.7: give the same --lora")):
        warn_of_other_loras(str(tmp_path / "styled.json"), other)
        assert said in capsys.readouterr().err
