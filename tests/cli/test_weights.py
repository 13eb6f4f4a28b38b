"""``stg-tune weights``: what is known, what is here, what is damaged."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from stg_tune.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and empty caches."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("STG_TUNE_WEIGHTS", raising=False)


def test_the_list_has_licence_source_and_checksum_of_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(row["licence"] and row["source"] for row in rows.values())
    for row in rows.values():  # a checksum or nothing, never words
        assert row["sha256"] is None or (len(row["sha256"]) == 64 and int(row["sha256"], 16))
        assert row["pinned"] is None
    assert rows["clip-vit-l-14"]["sha256"] is rows["clip-vit-l-14"]["sha256_begins"] is None
    assert (rows["raft-large-things"]["sha256"], rows["raft-large-things"]["sha256_begins"]) == (None, "22a6c225")
    assert (rows["raft-large-things"]["size"], rows["raft-large-things"]["size_about"]) == (None, 21_106_786)
    assert rows["clip-vit-l-14"]["revision"] == "main"
    assert rows["clip-vit-l-14"]["path"] is None
    assert rows["lpips-alex-heads"]["path"].endswith("alex.pth")
    assert not rows["musiq-spaq"]["commercial_use"]


def test_the_table_shows_size_checksum_revision_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split() == ["NAME", "HERE", "SIZE", "SHA-256", "REVISION", "LICENCE", "SOURCE"]
    rows = {line.split()[0]: line for line in lines if line}
    for name, words in {
        "clip-vit-l-14": (" open ", " newest ", "MIT (OpenAI", "https://huggingface.co/timm/vit_large"),
        "laion-aesthetic-v1-vit-l-14": ("4.07 kB", "2cd4e60f4f24ae3b", "6d122adad522", "https://raw.githubusercontent"),
        "raft-large-things": ("~21.1 MB", "22a6c225...", "BSD-3-Clause", "https://download.pytorch.org"),
        "lpips-alex-heads": ("yes", "6.01 kB", metadata.version("lpips"), "installed with the package lpips"),
    }.items():
        for word in words:
            assert word in rows[name], (name, word)


def test_a_checksum_that_was_kept_at_first_use_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip-vit-l-14.safetensors").write_bytes(b"anything")
    sha256 = hashlib.sha256(b"anything").hexdigest()
    assert main(["weights", "verify", "clip-vit-l-14", "--weights", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["weights", "list", "clip-vit-l-14", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["sha256"], row["pinned"]) == (None, sha256)
    assert main(["weights", "list", "clip-vit-l-14"]) == 0
    assert sha256[:16] in capsys.readouterr().out


def test_verify_reads_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "verify"]) == 0
    assert "lpips-alex-heads  verified  df73285e35b22355" in capsys.readouterr().out


def test_verify_refuses_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sa_0_4_vit_l_14_linear.pth").write_bytes(b"x" * 4071)
    assert main(["weights", "verify", "--weights", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "damaged" in captured.out
    assert "stg-tune weights fetch laion-aesthetic-v1-vit-l-14" in captured.err


def test_verify_of_a_file_that_is_named_and_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "verify", "raft-small"]) == 1
    assert "raft_small_C_T_V2-01064c6d.pth  from https://download.pytorch.org" in capsys.readouterr().err


def test_fetch_offline_names_the_files_of_the_default_scorers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "fetch"]) == 1
    err = capsys.readouterr().err
    assert "HF_HUB_OFFLINE is set" in err
    for file in ("clip-vit-l-14.safetensors", "sa_0_4_vit_l_14_linear.pth", "alexnet-owt-7be5be79.pth"):
        assert file in err
    assert "musiq" not in err
    assert main(["weights", "fetch", "--fast"]) == 1
    assert "clip-vit-b-32.safetensors" in capsys.readouterr().err


def test_a_wrong_name_is_answered_before_anything_is_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("list", "fetch", "verify"):
        assert main(["weights", action, "raft-smal"]) == 1
        assert "did you mean raft-small" in capsys.readouterr().err


def test_the_list_needs_no_torch() -> None:
    program = (
        "import sys; from stg_tune.cli.main import main; main(['weights', 'list']); "
        "print({'torch', 'av', 'open_clip', 'lpips'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"
