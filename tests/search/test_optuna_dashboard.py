"""optuna-dashboard opens the study of a run: values, intermediate values, parameters, settings, preview clips."""

import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta

from stg_tune.folder import RunFolder
from stg_tune.records import Evaluation, GuidanceSpec, Pair
from stg_tune.search import run_search, snapshot

dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (pip install it)")


def _get(app: Any, path: str, query: str = "") -> Any:
    return json.loads(_fetch(app, path, query)[0])


def _fetch(app: Any, path: str, query: str = "") -> tuple[bytes, dict[str, str]]:
    """Ask the WSGI application itself; no server is started. Gives body and headers."""
    statuses: list[str] = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    sent: dict[str, str] = {}

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        statuses.append(status)
        sent.update(headers)

    body = b"".join(app(environment, start))
    assert statuses[-1].startswith("200"), body[:500]
    return body, sent


@pytest.fixture(scope="module", params=["finished_run", "stopped_run"])
def run(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_the_study_opens_with_everything_that_the_plots_need(run: Path) -> None:
    trials = [trial for trial in snapshot(run).trials if trial.params]
    app = dashboard.wsgi(f"sqlite:///{run / 'study.db'}")
    (summary,) = _get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "open-sora-tiny"
    study = _get(app, f"/api/studies/{summary['study_id']}", "after=0")
    assert study["directions"] == ["maximize"]
    shown = study["trials"]
    assert len(shown) == len(trials) > 0
    for trial, row in zip(trials, shown, strict=True):
        assert row["state"] == "Complete"
        assert row["values"] == [pytest.approx(trial.measurement.mean)]
        steps = [float(item["value"]) for item in row["intermediate_values"]]
        assert steps == pytest.approx(list(trial.measurement.deltas.values()))
        assert {item["name"] for item in row["params"]} == set(trial.params)
    attributes = {item["key"] for item in shown[0]["user_attrs"]}
    assert {"spec", "config", "pairs", "pruned", "feasible"} <= attributes


@pytest.fixture(scope="module")
def filmed(make_plan: Any, landscape: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose evaluations have left clips, every third of them lost on the way; it was stopped and resumed."""
    evaluate, plan = landscape(), make_plan(landscape(), budget="200")
    folder = RunFolder(path=tmp_path_factory.mktemp("runs") / "filmed")

    def filming(spec: GuidanceSpec, pair: Pair) -> Evaluation:
        if len(evaluate.calls) == 130 and not (folder.path / "stopped").exists():
            (folder.path / "stopped").touch()
            raise KeyboardInterrupt
        if pair == plan.search_pairs[0] and int(spec.hash(), 16) % 3:
            folder.previews.mkdir(exist_ok=True)
            (folder.previews / spec.hash()).write_bytes(b"video of " + spec.hash().encode())
        return evaluate(spec, pair)

    with pytest.raises(KeyboardInterrupt):
        run_search(plan, filming, directory=folder.path)
    run_search(plan, filming, directory=folder.path)
    return folder.path


def test_each_trial_shows_its_clip(filmed: Path) -> None:
    previews = RunFolder(path=filmed).previews
    app = dashboard.wsgi(f"sqlite:///{filmed / 'study.db'}", artifact_store=FileSystemArtifactStore(previews))
    (summary,) = _get(app, "/api/studies")["study_summaries"]
    trials = _get(app, f"/api/studies/{summary['study_id']}", "after=0")["trials"]
    shown = 0
    for trial in trials:
        config = next(item["value"] for item in trial["user_attrs"] if item["key"] == "config")
        if not (previews / config).exists():
            assert trial["artifacts"] == []  # a clip that is not there is not promised
            continue
        (artifact,) = trial["artifacts"]
        assert (artifact["filename"], artifact["mimetype"]) == (f"{config}.mp4", "video/mp4")
        address = f"/artifacts/{summary['study_id']}/{trial['trial_id']}/{artifact['artifact_id']}"
        body, headers = _fetch(app, address)
        assert body == (previews / config).read_bytes()
        assert headers["Content-Type"] == "video/mp4"
        shown += 1
    assert len(trials) > shown > 3


def test_optuna_itself_finds_the_clips(filmed: Path, tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{filmed / 'study.db'}")
    (study,) = optuna.get_all_study_names(storage)
    found = [
        meta
        for trial in optuna.load_study(study_name=study, storage=storage).trials
        for meta in get_all_artifact_meta(trial, storage=storage)
    ]
    store = FileSystemArtifactStore(RunFolder(path=filmed).previews)
    download_artifact(artifact_store=store, file_path=str(tmp_path / "clip.mp4"), artifact_id=found[0].artifact_id)
    assert (tmp_path / "clip.mp4").read_bytes() == b"video of " + found[0].artifact_id.encode()
