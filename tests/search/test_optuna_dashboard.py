"""optuna-dashboard opens the study of a run: values, intermediate values, parameters, the setting of each trial."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from stg_tune.search import snapshot

dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (pip install it)")


def _get(app: Any, path: str, query: str = "") -> Any:
    """Ask the WSGI application itself; no server is started."""
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
    body = b"".join(app(environment, lambda status, headers, exc_info=None: statuses.append(status)))
    assert statuses[-1].startswith("200"), body[:500]
    return json.loads(body)


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
