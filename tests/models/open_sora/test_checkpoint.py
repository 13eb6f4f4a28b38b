"""Checkpoints: the published contracts on the meta device, small folders in every format, and broken ones."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stg_tune import models
from stg_tune.errors import StgTuneError
from stg_tune.models.open_sora.checkpoint import (
    VAE_2D,
    XL2,
    load_folder,
    load_tokenizer,
    load_transformer,
    load_vae,
)
from stg_tune.models.open_sora.state import check_state
from stg_tune.models.open_sora.transformer import STDiT3
from stg_tune.models.open_sora.vae import OpenSoraVAE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stg_tune.models.open_sora.pipeline import OpenSoraPipeline

FP32 = torch.float32
PUBLISHED_SWITCHES = {"enable_flash_attn": True, "model_type": "STDiT3", "freeze_y_embedder": True, "drop_path": 0.0}


def _contract(golden: Path, name: str) -> dict[str, torch.Tensor]:
    keys = json.loads((golden / f"contract_{name}.json").read_text())["keys"]
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}


@pytest.mark.parametrize(
    ("name", "kind", "config", "keys"),
    [("stdit3_xl2", STDiT3, XL2, 973), ("opensoravae_v1_2", OpenSoraVAE, {"vae_2d": VAE_2D}, 517)],
)
def test_the_real_models_have_every_key_and_shape_of_the_published_checkpoints(
    name: str, kind: type[torch.nn.Module], config: dict[str, Any], keys: int, golden: Path
) -> None:
    published = _contract(golden, name)
    with torch.device("meta"):
        state = kind(**config).state_dict()
    assert len(published) == len(state) == keys
    check_state(state, published, name)
    short = dict(list(published.items())[:-1])
    with pytest.raises(StgTuneError, match=f"\\({keys} keys\\): 1 missing \\('{list(published)[-1]}'\\)"):
        check_state(state, short, name)


@pytest.fixture
def saved(pipe: OpenSoraPipeline, tmp_path: Path) -> Path:
    """The tiny pipeline in the diffusers folder format."""
    pipe.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def published(saved: Path, golden: Path) -> Path:
    """The tiny pipeline as its authors publish: one ``model.safetensors``, configs with their switches."""
    folder = saved.with_name("published")
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns("model_index.json", "scheduler"))
    for part in ("transformer", "vae"):
        config = json.loads((folder / part / "config.json").read_text())
        config = {key: value for key, value in config.items() if not key.startswith("_")}
        (folder / part / "config.json").write_text(json.dumps(config | PUBLISHED_SWITCHES))
        (folder / part / "diffusion_pytorch_model.safetensors").rename(folder / part / "model.safetensors")
    for file in (folder / "tokenizer").iterdir():
        shutil.move(file, folder / "text_encoder" / file.name)
    (folder / "tokenizer").rmdir()
    return folder


@pytest.mark.parametrize("form", ["saved", "published"])
def test_a_folder_gives_the_pipeline_bit_for_bit(
    form: str, pipe: OpenSoraPipeline, request: pytest.FixtureRequest
) -> None:
    loaded = load_folder(request.getfixturevalue(form), dtype=FP32)
    for name in ("text_encoder", "vae", "transformer"):
        ours, theirs = getattr(pipe, name).state_dict(), getattr(loaded, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert not any(
            tensor.is_meta for tensor in (*getattr(loaded, name).parameters(), *getattr(loaded, name).buffers())
        )
        assert not getattr(loaded, name).training
    assert loaded.tokenizer("a red seven").input_ids == pipe.tokenizer("a red seven").input_ids
    loaded.set_progress_bar_config(disable=True)
    settings = {"height": 48, "width": 64, "num_frames": 17, "num_inference_steps": 1, "output_type": "latent"}
    ours, theirs = (p("two", generator=torch.Generator().manual_seed(1), **settings).frames for p in (pipe, loaded))
    assert torch.equal(ours, theirs)
    if form == "saved":
        assert loaded.video_size() == pipe.video_size()


@pytest.mark.parametrize("form", ["sharded", "pth"])
def test_the_transformer_loads_from_shards_and_pth(form: str, saved: Path, pipe: OpenSoraPipeline) -> None:
    folder = saved / "transformer"
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    if form == "pth":
        torch.save(state, folder / "ema.pth")
    else:
        pipe.transformer.save_pretrained(folder, max_shard_size="300KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    loaded = load_transformer(folder, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(loaded[key], state[key].bfloat16()) for key in state)


@pytest.mark.parametrize("length", [7, 20])
def test_captions_of_another_length_cut_or_extend_the_null_caption(
    length: int, saved: Path, pipe: OpenSoraPipeline
) -> None:
    null = pipe.transformer.y_embedder.y_embedding
    model = load_transformer(saved / "transformer", dtype=FP32, model_max_length=length)
    rows = model.y_embedder.y_embedding
    assert len(rows) == length
    assert torch.equal(rows[:7], null[:7])
    assert torch.equal(rows[-1], null[min(length, 12) - 1])


def _edit(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    edit(state)
    save_file(state, file)


def test_a_key_too_few_too_many_or_misshapen_is_named(saved: Path) -> None:
    _edit(saved / "transformer", lambda state: state.pop("x_embedder.proj.bias"))
    with pytest.raises(StgTuneError, match=r"transformer.*1 missing \('x_embedder.proj.bias'\)"):
        load_folder(saved, dtype=FP32)
    _edit(saved / "vae", lambda state: state.update(extra=torch.ones(1)))
    with pytest.raises(StgTuneError, match=r"autoencoder.*1 not known to the model \('extra'\)"):
        load_vae(saved / "vae", dtype=FP32)
    _edit(saved / "text_encoder", lambda state: state.pop("encoder.final_layer_norm.weight"))
    shutil.rmtree(saved / "transformer")
    shutil.copytree(saved / "vae", saved / "transformer")
    with pytest.raises(StgTuneError, match=r"does not fit the model|describes no model"):
        load_transformer(saved / "transformer", dtype=FP32)


def test_a_text_encoder_that_lacks_weights_is_refused(saved: Path) -> None:
    _edit(saved / "text_encoder", lambda state: state.pop("encoder.final_layer_norm.weight"))
    with pytest.raises(StgTuneError, match=r"lacks 1 keys, first 'encoder.final_layer_norm.weight'"):
        load_folder(saved, dtype=FP32)


@pytest.mark.parametrize(
    ("part", "file", "content", "message"),
    [
        ("transformer", "config.json", "{", "is not JSON"),
        ("transformer", "config.json", '{"hidden_size": 7}', "hidden_size"),
        ("transformer", "config.json", '{"depth": "many"}', "describes no model"),
        ("vae", "config.json", '{"vae_2d": {"latent_channels": "x"}}', "describes no model"),
        ("tokenizer", "tokenizer.json", "{}", "tokenizer"),
        ("text_encoder", "config.json", "[]", "text encoder"),
        ("scheduler", "scheduler_config.json", "nonsense", "is not JSON"),
        (".", "model_index.json", '{"_class_name": "OtherPipeline"}', "not of an OpenSoraPipeline"),
    ],
)
def test_a_broken_file_is_one_clear_error_with_its_place(
    part: str, file: str, content: str, message: str, saved: Path
) -> None:
    (saved / part / file).write_text(content)
    with pytest.raises(StgTuneError, match=message) as caught:
        load_folder(saved, dtype=FP32)
    assert str(saved) in str(caught.value)


def test_missing_sub_folders_are_named_with_what_belongs_there(saved: Path) -> None:
    shutil.rmtree(saved / "vae")
    shutil.rmtree(saved / "text_encoder")
    with pytest.raises(StgTuneError, match="lacks the sub-folders vae/, text_encoder/") as caught:
        load_folder(saved, dtype=FP32)
    assert "hpcai-tech/OpenSora-VAE-v1.2" in str(caught.value)


def test_a_tokenizer_that_brings_code_does_not_run_it(saved: Path) -> None:
    folder = saved / "tokenizer"
    (folder / "evil.py").write_text(f"open({str(saved / 'trace')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with suppress(StgTuneError):
        load_tokenizer(folder)
    assert not (saved / "trace").exists()


def test_a_tokenizer_is_read_from_a_sentencepiece_file_alone(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    captions = ["a red seven moving left", "a blue two moving right", "a green nine moving up", "two red ones"] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "spiece.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    tokens = load_tokenizer(tmp_path)("a red two", padding="max_length", max_length=20)
    expected = [*pieces.encode("a red two"), 1]
    assert tokens.input_ids == expected + [0] * (20 - len(expected))
    assert sum(tokens.attention_mask) == len(expected)


def test_models_load_a_published_copy_by_path_and_by_variable(
    published: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = models.entry("open-sora")
    pipe = models.load(entry, published)
    assert pipe.transformer.dtype == torch.bfloat16
    monkeypatch.setenv("STG_TUNE_MODEL_PATH", str(saved / "nowhere"))
    with pytest.raises(StgTuneError, match="nowhere lacks the sub-folders"):
        models.load(entry)
    folder = models.entry(str(saved))
    assert folder.depths == {"spatial": 4, "temporal": 4}
    assert (folder.defaults.height, folder.defaults.width, folder.defaults.num_frames) == (48, 64, 17)
    assert models.load(folder).transformer.config.depth == 4


def test_the_embedded_model_is_the_one_its_record_describes() -> None:
    entry = models.entry("open-sora-tiny")
    pipe = models.load(entry)
    size = pipe.video_size()
    assert {stack: len(pipe.transformer.get_submodule(f"{stack}_blocks")) for stack in entry.depths} == entry.depths
    assert (size.height, size.width, size.num_frames, size.fps) == (
        entry.defaults.height,
        entry.defaults.width,
        entry.defaults.num_frames,
        entry.defaults.fps,
    )
    assert pipe.transformer.dtype == torch.float32


def test_embedded_weights_that_are_not_installed_say_how_to_get_them() -> None:
    entry = replace(models.entry("open-sora-tiny"), name="open-sora-absent")
    with pytest.raises(StgTuneError, match=r"lacks the embedded weights .*reinstall stg-tune, or train them with"):
        models.load(entry)
