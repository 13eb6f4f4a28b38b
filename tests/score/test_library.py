"""Files of scorers: found, fetched, verified, pinned; a server that is slow, lies, or is not there."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from stg_tune.errors import NotReachableError, StgTuneError
from stg_tune.score import downloads
from stg_tune.score.library import Library
from stg_tune.score.loading import read_state
from stg_tune.score.pins import Pins
from stg_tune.score.published import FILES, HubFile, PackageFile, PublishedFile, WebFile, record
from stg_tune.score.registry import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()
HUB_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.BaseHTTPRequestHandler):
    """Sends one file, from the asked byte on; a test may make it stop early or lie."""

    stop_after: int | None = None
    delay = 0.0
    content = CONTENT
    asked: list[tuple[str, str | None]]

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Headers of a hub."""
        self._send(200, self.content)

    def do_GET(self) -> None:
        """The description of a repository, or the file."""
        wanted = self.headers.get("Range")
        type(self).asked.append((self.path, wanted))
        if self.path.startswith("/api/models/"):
            lfs = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), "pointerSize": 1}
            files = [{"rfilename": "model.bin", "size": len(CONTENT), "lfs": lfs}]
            self._send(200, json.dumps({"id": "owner/name", "sha": HUB_COMMIT, "siblings": files}).encode())
            return
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if begin >= len(self.content):
            self._send(416, b"")
            return
        self._send(206 if wanted else 200, self.content[begin:])

    def _send(self, status: int, body: bytes) -> None:
        time.sleep(self.delay)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", HUB_COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: self.stop_after] if status != 416 else b"")


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    handler = type("FreshServer", (Server,), {"asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", handler
    running.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of this test alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("STG_TUNE_WEIGHTS", raising=False)
    monkeypatch.delenv("STG_TUNE_WEIGHTS_MIRROR", raising=False)
    return tmp_path


def web_record(address: str, **changes: object) -> PublishedFile:
    return replace(
        PublishedFile(
            name="thing", file="thing.pth", source=WebFile(address=address), licence="MIT", commercial=True, sha256=SHA
        ),
        **changes,
    )


def library_of(home: Path, *files: PublishedFile, folder: Path | None = None) -> Library:
    return Library(folder, files=files, pins=Pins(home / "pins.json"))


def test_a_file_is_fetched_once_into_torchs_cache(home: Path, server: tuple[str, type[Server]]) -> None:
    address, handler = server
    library = library_of(home, web_record(f"{address}/thing.pth"))
    told: list[str] = []
    (verified,) = library.fetch(["thing"], told.append)
    assert verified.path == home / "torch" / "hub" / "checkpoints" / "thing.pth"
    assert verified.sha256 == SHA
    assert told == [f"thing: {address}/thing.pth"]
    library.fetch(["thing"], told.append)
    assert len(handler.asked) == len(told) == 1


def test_a_download_goes_on_where_it_stopped(home: Path, server: tuple[str, type[Server]]) -> None:
    address, handler = server
    handler.stop_after = 1000
    library = library_of(home, web_record(f"{address}/thing.pth"))
    with pytest.raises(NotReachableError, match=r"(?s)thing.pth  from .*goes on where it stopped"):
        library.fetch(["thing"])
    handler.stop_after = None
    assert library.fetch(["thing"])[0].sha256 == SHA
    assert [wanted for _, wanted in handler.asked] == [None, "bytes=1000-"]


def test_a_beginning_that_is_longer_than_the_file_is_thrown_away(home: Path, server: tuple[str, type[Server]]) -> None:
    address, _ = server
    part = downloads.web_cache() / "thing.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(CONTENT) + 5))
    assert library_of(home, web_record(f"{address}/thing.pth")).fetch(["thing"])[0].sha256 == SHA


def test_two_that_want_the_same_file_download_it_once(home: Path, server: tuple[str, type[Server]]) -> None:
    """Each opens the lock by itself, as two processes do."""
    address, handler = server
    handler.delay = 0.3
    part = downloads.web_cache() / "thing.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])  # both would append the rest of it
    libraries = [library_of(home, web_record(f"{address}/thing.pth")) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = [verified for (verified,) in pool.map(lambda one: one.fetch(["thing"]), libraries)]
    assert {verified.sha256 for verified in found} == {SHA}
    assert handler.asked == [("/thing.pth", "bytes=1000-")]


def test_no_pin_is_lost_when_several_pin_at_once(home: Path) -> None:
    names = [f"thing-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: Pins(home / "pins.json").keep(name, SHA), names))
    assert all(Pins(home / "pins.json").of(name) == SHA for name in names)


def test_what_is_pinned_needs_no_right_to_write(home: Path) -> None:
    pins = Pins(home / "pins.json")
    pins.keep("thing", SHA)
    (home / ".pins.json.lock").unlink()
    pins.keep("thing", SHA)
    assert not (home / ".pins.json.lock").exists()


def test_a_wrong_download_is_refused_and_removed(home: Path, server: tuple[str, type[Server]]) -> None:
    address, handler = server
    handler.content = CONTENT[::-1]
    library = library_of(home, web_record(f"{address}/thing.pth"))
    with pytest.raises(StgTuneError, match=f"has the SHA-256 .*, expected {SHA}"):
        library.fetch(["thing"])
    assert library.find("thing") is None


def test_more_bytes_than_stated_are_not_downloaded(home: Path, server: tuple[str, type[Server]]) -> None:
    address, _ = server
    library = library_of(home, web_record(f"{address}/thing.pth", size=100))
    with pytest.raises(StgTuneError, match="sends 10240 bytes, the file has 100"):
        library.fetch(["thing"])
    assert [file.name for file in downloads.web_cache().iterdir()] == [".thing.pth.lock"]


def test_a_mirror_serves_files_under_their_own_names(
    home: Path, server: tuple[str, type[Server]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = server
    monkeypatch.setenv("STG_TUNE_WEIGHTS_MIRROR", f"{address}/mirror/")
    library_of(home, web_record("https://example.invalid/a/b/thing.pth")).fetch(["thing"])
    assert handler.asked == [("/mirror/thing.pth", None)]


def test_a_mirror_must_be_a_web_address(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STG_TUNE_WEIGHTS_MIRROR", "file:///etc")
    with pytest.raises(StgTuneError, match="STG_TUNE_WEIGHTS_MIRROR must begin with https"):
        library_of(home, web_record("https://example.invalid/thing.pth")).fetch(["thing"])


def test_a_local_folder_comes_first_and_a_wrong_file_in_it_is_refused_but_kept(home: Path) -> None:
    folder = home / "mine"
    folder.mkdir()
    file = folder / "thing.pth"
    file.write_bytes(CONTENT)
    library = library_of(home, web_record("https://example.invalid/thing.pth"), folder=folder)
    assert library.get("thing").path == file
    file.write_bytes(CONTENT + b"more")
    with pytest.raises(StgTuneError, match="It is not used"):
        library.get("thing")
    assert library.standing("thing").state == "damaged"
    assert file.exists()


@pytest.mark.parametrize("stated", ["", SHA[:8]])
def test_what_no_publisher_states_is_pinned_at_first_use(home: Path, stated: str) -> None:
    file = home / "thing.pth"
    file.write_bytes(CONTENT)
    library = library_of(home, web_record("https://example.invalid/thing.pth", sha256=stated), folder=home)
    assert library.get("thing").sha256 == SHA
    file.write_bytes(b"another")
    with pytest.raises(StgTuneError, match=f"expected {SHA}"):
        library.get("thing")


def test_first_digits_in_a_file_name_are_compared_at_first_use(home: Path) -> None:
    (home / "thing.pth").write_bytes(b"not it")
    library = library_of(home, web_record("https://example.invalid/thing.pth", sha256=SHA[:8]), folder=home)
    with pytest.raises(StgTuneError, match=f"expected {SHA[:8]} "):
        library.get("thing")


def test_a_damaged_list_of_pins_is_named(home: Path) -> None:
    (home / "pins.json").write_text('{"schema": "stg-tune/pins/1", "sha256": {"thing": "abc"}}')
    (home / "thing.pth").write_bytes(CONTENT)
    library = library_of(home, web_record("https://example.invalid/thing.pth", sha256=""), folder=home)
    with pytest.raises(StgTuneError, match="is not a list of pinned checksums"):
        library.get("thing")


HUB_PROGRAM = """
import pathlib, sys
from stg_tune.errors import StgTuneError
from stg_tune.score.library import Library
from stg_tune.score.published import HubFile, PublishedFile
file = PublishedFile(name="thing", file="thing.bin", source=HubFile(repo="owner/name", path="model.bin"),
                     licence="MIT", commercial=True)
try:
    print(Library(files=(file,)).fetch(["thing"])[0].path)
except StgTuneError as error:
    print(type(error).__name__, error)
"""


def _hub(home: Path, endpoint: str, **more: str) -> str:
    """In a process of its own: the hub client reads its settings when it is imported."""
    env = {"PATH": os.environ["PATH"], "HF_HOME": str(home), "TORCH_HOME": str(home), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-c", HUB_PROGRAM]
    done = subprocess.run(
        command, env=env | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2], timeout=120,
    )  # fmt: skip
    return done.stdout


def test_the_hub_is_asked_through_its_mirror_variable_and_then_not_again(
    home: Path, server: tuple[str, type[Server]]
) -> None:
    address, handler = server
    first = _hub(home, address)
    assert HUB_COMMIT in first
    assert handler.asked
    assert _hub(home, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == first
    assert json.loads((home / "stg-tune" / "pins.json").read_text())["sha256"] == {"thing": SHA}


def test_a_hub_that_lies_is_refused(home: Path, server: tuple[str, type[Server]]) -> None:
    address, handler = server
    handler.content = CONTENT[::-1]
    assert "StgTuneError owner/name: the download of model.bin has another SHA-256" in _hub(home, address)
    handler.content = CONTENT
    assert HUB_COMMIT in _hub(home, address)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_hub_one_message_says_what_and_where(home: Path, offline: str) -> None:
    said = _hub(home, "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert said.startswith("NotReachableError weights of scorers are missing (ConnectionError") or offline == "0"
    assert ("HF_HUB_OFFLINE is set" in said) == (offline == "1")
    assert "thing.bin  from https://huggingface.co/owner/name/resolve/main/model.bin  (MIT)" in said
    assert "stg-tune weights fetch thing" in said
    assert "set STG_TUNE_WEIGHTS=DIR (or give --weights DIR to score, search, compare, evaluate or weights)" in said


class Malice:
    """Would create a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"weight": Malice(tmp_path / "harm")}, tmp_path / "bad.pth")
    with pytest.raises(StgTuneError, match="no file of plain tensors"):
        read_state(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()


def test_a_program_is_not_loaded(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "program.pt"))
    with pytest.raises(StgTuneError, match="not TorchScript"):
        read_state(tmp_path / "program.pt")


@pytest.mark.parametrize(("name", "content"), [("a.pth", b""), ("a.pth", b"garbage"), ("a.safetensors", b"\xff" * 90)])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StgTuneError, match="no file of plain tensors"):
        read_state(tmp_path / name)


def test_other_things_than_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pth")
    with pytest.raises(StgTuneError, match="other things than named tensors"):
        read_state(tmp_path / "a.pth")


def test_the_records_are_complete_and_claim_no_checksum_without_its_source() -> None:
    assert len({file.name for file in FILES}) == len({file.file for file in FILES}) == len(FILES)
    for file in FILES:
        assert file.licence
        assert bool(file.sha256) == (file.checksum_from != "pinned at first use")
        assert len(file.sha256) in (0, 8, 64)
        assert isinstance(file.source, HubFile | WebFile | PackageFile)
        if isinstance(file.source, WebFile):  # the caches are found by these names
            from urllib.parse import unquote

            assert unquote(file.source.address).endswith(f"/{file.file}")


def test_rounded_sizes_are_those_that_torchvision_states() -> None:
    from torchvision.models import AlexNet_Weights
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

    stated = {
        "raft-small": Raft_Small_Weights.C_T_V2,
        "raft-large-things": Raft_Large_Weights.C_T_V1,
        "alexnet": AlexNet_Weights.IMAGENET1K_V1,
    }
    for name, weights in stated.items():
        file = record(name)
        assert isinstance(file.source, WebFile)
        assert weights.url == file.source.address
        size = file.size or file.about
        assert size is not None
        assert size / 2**20 == pytest.approx(weights.meta["_file_size"], abs=6e-4)
    assert all(file.size is None or file.about is None for file in FILES)


def test_every_file_of_a_scorer_has_a_record_and_the_defaults_are_permissive() -> None:
    from stg_tune.score.registry import DEFAULT

    for recipe in RECIPES:
        records = [record(name) for name in recipe.needs("vit-l-14")]
        assert recipe.name not in DEFAULT or all(file.commercial for file in records)
    assert [file.name for file in FILES if not file.commercial] == ["musiq-spaq"]


def test_an_unknown_name_gets_close_matches() -> None:
    with pytest.raises(StgTuneError, match="did you mean clip-vit-l-14"):
        record("clip-vit-l14")


def test_the_heads_that_lpips_brings_are_the_ones_of_the_record(home: Path) -> None:
    assert Library(pins=Pins(home / "pins.json")).standing("lpips-alex-heads").state == "verified"
