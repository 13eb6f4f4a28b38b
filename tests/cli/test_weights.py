"""``stg-tune weights``: what is known, what is here, what is damaged."""

from __future__ import annotations

import json
import subprocess
import sys
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
    assert all(row["licence"] and row["source"] and row["sha256"] for row in rows.values())
    assert rows["clip-vit-l-14"]["sha256"] == "unknown until first fetch, then pinned"
    assert rows["clip-vit-l-14"]["revision"] == "main"
    assert rows["clip-vit-l-14"]["path"] is None
    assert rows["lpips-alex-heads"]["path"].endswith("alex.pth")
    assert not rows["musiq-spaq"]["commercial_use"]
    assert main(["weights", "list"]) == 0
    assert "laion-aesthetic-v1-vit-l-14" in capsys.readouterr().out


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
