"""Options of the search that are refused before anything heavy begins."""

from pathlib import Path

import pytest

from stg_tune.cli.main import main


@pytest.mark.parametrize("objective", ["speed", "cost=-1", "cost=much"])
def test_an_objective_that_means_nothing_is_one_message(
    objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["search", "--model", "open-sora-tiny", "--objective", objective, "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert f"objective {objective!r} is not understood; give quality, or cost=0.1" in message
    assert len(message.strip().splitlines()) == 1
    assert not out.exists()


def test_a_fidelity_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--model", "open-sora-tiny", "--fidelity", "half"]) == 2
    assert "'half'" in capsys.readouterr().err
