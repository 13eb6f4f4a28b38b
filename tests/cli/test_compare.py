"""``stg-tune compare``: one message for a mistake, the verdict in words, and its exit codes."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from stg_tune import models
from stg_tune.cli.main import main
from stg_tune.compare import ComparisonRequest, draft_comparison, run_comparison
from stg_tune.records import Evaluation
from stg_tune.score import embedded_scorers
from stg_tune.search.workers.placement import Placement, lay_out
from stg_tune.studio import ModelRecipe

BASE = ["compare", "--model", "open-sora-tiny", "--executor", "inline"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "open-sora-tyni", "--preset", "cfg=3"], "open-sora-tiny"),
        (["--preset", "cfg"], "are the same setting"),
        (["--preset", "cfg=3", "--preset", "cfg", "--preset", "published"], "--preset is given 3 times"),
        (["--preset", "cfg=x"], "cfg=2.5"),
        (["--preset", "published"], "nothing is published for open-sora-tiny"),
        (["--preset", "no.json"], "no.json"),
        (["--preset", "cfg=3", "--pairs", "0"], "--pairs must be at least 20, got 0"),
        (["--preset", "cfg=3", "--prompts", "no.txt"], "no.txt"),
        (["--preset", "cfg=3", "--workers", "0"], "--workers must be 1 or more"),
        (["--preset", "cfg=3", "--out", __file__], "give another folder with --out"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*BASE, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_needs_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(BASE) == 2
    assert "--preset" in capsys.readouterr().err


def _fill(folder: Path, lift: float) -> None:
    """A folder whose pairs are all there: what the command then says rests on them alone."""
    entry, scorer = models.entry("open-sora-tiny"), embedded_scorers()
    plan = draft_comparison(ComparisonRequest(model=entry.name, first="cfg=3", pairs=20), entry)(scorer)

    def evaluate(spec, pair):
        level, noise = random.Random(pair.key).gauss(5, 1), random.Random(f"{pair.key}{spec.hash()}").gauss(0, 0.1)
        gain = noise + (lift if spec.cfg_scale == 3 else 0)
        signs = {kind.name: 1 if kind.direction == "maximize" else -1 for kind in scorer.kinds}
        scores = {name: level + sign * gain for name, sign in signs.items()} | {"motion": 2.0}
        return Evaluation(config=spec.hash(), pair=pair, scores=scores, forwards=60.0)

    studio = SimpleNamespace(recipe=ModelRecipe(model=entry.name), evaluate=evaluate)
    run_comparison(plan, folder, studio, lay_out(Placement(workers=1), gpus=0, worker_bytes=1))


@pytest.mark.parametrize(
    ("lift", "status", "said"),
    [(1.0, 0, "cfg=3 is better than cfg="), (-1.0, 3, " is better than cfg=3")],
)
def test_the_verdict_in_words_and_as_json(
    lift: float, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(tmp_path / "out", lift)
    arguments = [*BASE, "--preset", "cfg=3", "--preset", "cfg", "--pairs", "20", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--quiet"]) == status
    out = capsys.readouterr().out
    assert said in out.splitlines()[0]
    assert "on 20 new pairs of 20 prompts (95 % interval)" in out
    judged = {line.split()[0]: line for line in out.splitlines() if line}
    assert ("better" if lift > 0 else "worse") in judged["temporal_lpips"]
    if lift == 1.0:
        assert main([*arguments, "--json"]) == 0
        captured = capsys.readouterr()
        data = json.loads(captured.out)
        assert data["better"] == "first"
        assert data["scorers"]["temporal_lpips"]["gain"]["low"] > 0
        assert data == json.loads((tmp_path / "out" / "result.json").read_text())
        assert "confirm: 0 of 40 evaluations" in captured.err
