"""Published files: the cache, a hub that answers, a hub that lies, no hub at all."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.hub import check_file
from stg_tune.models.open_sora.record import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {"config.json": b'{"depth": 1}', "model.safetensors": b"tensors" * 100}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.models.open_sora.hub import fetch
from stg_tune.models.open_sora.record import HubSource
source = HubSource(repo="owner/name", revision="main", files=("config.json", "model.safetensors"),
                   parts=("transformer", "other"), licence="none")
try:
    print(sorted((part, str(folder)) for part, folder in fetch("a-model", (source,)).items()))
except NotReachableError as error:
    print("NOT REACHABLE", error)
except StgTuneError as error:
    print("ERROR", error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs; weights have an LFS checksum."""

    lies = False
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Headers only."""
        self._answer()

    def do_GET(self) -> None:
        """Describe the repository, or send a file."""
        type(self).asked.append(self.path)
        if self.path.startswith("/api/models/owner/name"):
            self._send(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": self._siblings()}).encode(), {})
        else:
            self._answer()

    def _siblings(self) -> list[dict[str, object]]:
        sha = "0" * 64 if self.lies else hashlib.sha256(FILES["model.safetensors"]).hexdigest()
        size = len(FILES["model.safetensors"])
        return [
            {"rfilename": "config.json", "size": len(FILES["config.json"])},
            {"rfilename": "model.safetensors", "size": size, "lfs": {"sha256": sha, "size": size, "pointerSize": 1}},
        ]

    def _answer(self) -> None:
        content = FILES[self.path.rpartition("/")[2]]
        self._send(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """The address of a hub on this machine, and its handler."""
    handler = type("FreshHub", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()


def _fetch(home: Path, endpoint: str, *, offline: bool = False) -> str:
    env = {
        "PATH": os.environ["PATH"],
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    env |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd=root, capture_output=True, text=True, check=True, timeout=300
    )
    assert "Retry" not in done.stderr
    return done.stdout


def test_files_are_downloaded_checked_and_then_found_without_a_hub(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, handler = hub
    first = _fetch(tmp_path, endpoint)
    assert COMMIT in first
    assert "'other'" in first
    assert len(handler.asked) >= 3
    assert _fetch(tmp_path, "http://127.0.0.1:9", offline=True) == first


def test_a_download_that_is_not_what_the_hub_states_is_removed(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, handler = hub
    handler.lies = True
    assert "ERROR model.safetensors: the download has another SHA-256" in _fetch(tmp_path, endpoint)
    handler.lies = False
    assert COMMIT in _fetch(tmp_path, endpoint)


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_one_message_comes_at_once(tmp_path: Path, offline: bool) -> None:
    output = _fetch(tmp_path, "http://127.0.0.1:9", offline=offline)
    assert output.startswith("NOT REACHABLE a-model: the weights could not be reached.")
    assert "0 of 2 files are there" in output
    assert ("HF_HUB_OFFLINE is set" in output) == offline
    assert "transformer/ and other/: owner/name (revision main): config.json, model.safetensors" in output
    assert "--model-path DIR (or set STG_TUNE_MODEL_PATH=DIR)" in output


def test_size_and_checksum_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"abc")
    check_file(file, size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    check_file(file, size=None, sha256=None)
    with pytest.raises(StgTuneError, match="3 bytes in place of 4"):
        check_file(file, size=4, sha256=None)
    assert not file.exists()


def test_the_published_sources_are_named_with_files_and_folders() -> None:
    assert [source.repo for source in SOURCES] == [
        "hpcai-tech/OpenSora-STDiT-v3",
        "hpcai-tech/OpenSora-VAE-v1.2",
        "DeepFloyd/t5-v1_1-xxl",
    ]
    assert [part for source in SOURCES for part in source.parts] == ["transformer", "vae", "text_encoder", "tokenizer"]
    assert all(source.revision and source.files for source in SOURCES)
