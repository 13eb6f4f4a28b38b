"""``doctor`` tells what is there, and fails only when a search cannot work."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from stg_tune import doctor
from stg_tune.cli.main import main
from stg_tune.doctor import Check, embedded_models, libraries, network, scorer_files, video_file


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404 if self.path == "/closed" else 200)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_everything_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--offline", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    names = {check["name"] for check in found["checks"]}
    assert found["ok"]
    assert {"stg-tune", "python", "torch", "processor", "video files", "model open-sora-tiny", "scorers"} <= names
    assert {"ray workers", "disk, this folder", "network", "peft"} <= names
    advised = {check["name"] for check in found["checks"] if check["advice"]}
    assert all(f"stg-tune: {name}: " in err for name in advised)


def test_a_model_that_does_not_ship_is_information_and_one_that_lacks_files_a_problem(tmp_path: Path) -> None:
    for name in ("open-sora-tiny", "mochi-tiny"):
        (tmp_path / name / "vae").mkdir(parents=True)
        (tmp_path / name / "vae" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "open-sora-tiny" / "model_index.json").write_text("{}")
    found = {check.name: check for check in embedded_models(tmp_path)}
    states = {name.removeprefix("model "): check.state for name, check in found.items()}
    assert states == {"open-sora-tiny": "ok", "mochi-tiny": "note", "svd-tiny": "note"}
    assert {found[f"model {name}"].advice for name in ("mochi-tiny", "svd-tiny")} == {""}
    (tmp_path / "open-sora-tiny" / "model_index.json").rename(tmp_path / "mochi-tiny" / "model_index.json")
    (tmp_path / "mochi-tiny" / "vae" / "model.safetensors").write_bytes(b"")
    broken = {check.name: check for check in embedded_models(tmp_path) if check.state == "problem"}
    assert set(broken) == {"model open-sora-tiny", "model mochi-tiny"}
    assert all("install stg-tune again" in check.advice for check in broken.values())


def test_a_problem_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Check(name="torch", state="problem", found="not installed", advice="type: pip install torch")
    monkeypatch.setattr(doctor, "examine", lambda **_: iter([bad]))
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == ["torch", "problem", "not", "installed"]
    assert "pip install torch" in err


def test_libraries_that_lack_or_are_old_are_named() -> None:
    wanted = ["numpy>=1.0", "no-such-thing>=2,<3", "torch>=999.1", 'pg8000>=1 ; extra == "postgresql"']
    found = {check.name: check for check in libraries(wanted)}
    assert set(found) == {"numpy", "no-such-thing", "torch"}
    assert found["numpy"].state == "ok"
    assert found["no-such-thing"].advice == "type: pip install 'no-such-thing>=2,<3'"
    assert found["torch"].state == "problem"
    assert "torch>=999.1" in found["torch"].advice


@pytest.mark.parametrize("path", ["", "/closed"])
def test_a_hub_that_answers_is_there(hub: str, path: str) -> None:
    assert network(hub + path).state == "ok"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "nonsense", "file:///etc/passwd"])
def test_a_hub_that_does_not_answer_is_a_note(address: str) -> None:
    check = network(address)
    assert check.state == "note"
    assert check.advice


def test_the_network_is_not_asked_when_it_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (check,) = [check for check in doctor.examine() if check.name == "network"]
    assert "not asked" in check.found


def test_a_folder_without_scorers_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "STG_TUNE_WEIGHTS"):
        monkeypatch.setenv(variable, str(tmp_path))
    check = scorer_files()
    assert check.state == "note"
    assert "stg-tune weights fetch" in check.advice


def test_videos_can_be_written_here() -> None:
    assert video_file().state == "ok"
