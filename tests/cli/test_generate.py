"""``generate --preset`` takes a file or the name of a published preset; one that does not fit is refused at once."""

import pytest

from stg_tune.cli.main import main


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
