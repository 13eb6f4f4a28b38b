"""LoRAs from the command line: what a word means, who takes them, and that they are what the file says."""

import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stg_tune import film, models
from stg_tune.cli.main import main
from stg_tune.errors import StgTuneError
from stg_tune.folder import RunFolder
from stg_tune.models.loras import Lora, identity, parse_lora, parse_loras
from stg_tune.records import Pair
from stg_tune.search import load_run
from stg_tune.studio import ModelRecipe
from stg_tune.tune import Request, draft_plan
from stg_tune.video import read_video

RANK, WIDTH = 2, 32
PLACES = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.1.attn1.to_v", "transformer_blocks.2.ff.net.2")


def _weights(shapes: Mapping[str, tuple[int, int]], seed: int = 0) -> dict[str, Tensor]:
    """A LoRA as diffusers writes them; ``shapes`` are (outputs, inputs)."""
    torch.manual_seed(seed)
    sizes = {
        f"transformer.{place}.lora_{letter}.weight": size
        for place, (outputs, inputs) in shapes.items()
        for letter, size in (("A", (RANK, inputs)), ("B", (outputs, RANK)))
    }
    return {name: torch.randn(size) * 0.3 for name, size in sizes.items()}


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    save_file({"transformer.x.lora_A.weight": torch.ones(1)}, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def test_a_word_is_a_file_and_a_strength(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_lora(str(lora)) == Lora(path=lora, scale=1.0)
    assert parse_lora(f"{lora}=0.8") == Lora(path=lora, scale=0.8)
    assert parse_lora(f"{lora}=-1") == Lora(path=lora, scale=-1.0)
    monkeypatch.chdir(lora.parent)
    assert parse_lora("style.safetensors=.5").path == lora  # absolute: a worker has another folder
    odd = lora.rename(lora.with_name("a=0.3.safetensors"))
    assert parse_lora(str(odd)) == Lora(path=odd, scale=1.0)
    assert parse_lora(parse_lora(f"{odd}=0.1").word) == Lora(path=odd, scale=0.1)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("=0", "a number other than 0"),
        ("=much", "got 'much'"),
        ("=nan", "a number other than 0"),
        ("=inf", "at most 100"),
        ("=", "got ''"),
        (".gone", "only .safetensors files are read"),
        ("x=0.8", "only .safetensors files are read"),
    ],
)
def test_a_word_that_means_nothing_is_one_message(lora: Path, end: str, said: str) -> None:
    with pytest.raises(StgTuneError, match=said) as caught:
        parse_lora(f"{lora}{end}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_told_apart_or_shown_are_refused(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(StgTuneError, match="there is no file"):
        parse_lora(str(tmp_path / "none.safetensors"))
    with pytest.raises(StgTuneError, match="printable"):
        parse_lora(str(lora.rename(tmp_path / "a\x1b[31m.safetensors")))
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "b.safetensors"
    save_file({"x": torch.ones(1)}, copy)
    save_file({"x": torch.ones(1)}, tmp_path / copy.name)
    with pytest.raises(StgTuneError, match=r"two files are called b\.safetensors"):
        parse_loras([str(copy), str(tmp_path / copy.name)])


def test_identity_is_the_content_and_not_the_place(lora: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    before = identity([Lora(path=lora, scale=0.8)])
    moved = lora.rename(tmp_path / "moved" / lora.name)
    assert identity([Lora(path=moved, scale=0.8)]) == before
    assert identity([Lora(path=moved, scale=0.7)]) != before
    save_file({"x": torch.zeros(1)}, moved)
    assert identity([Lora(path=moved, scale=0.8)]) != before
    assert list(before) == ["lora style.safetensors"]


@pytest.mark.parametrize("command", ["search", "compare", "generate", "evaluate"])
@pytest.mark.parametrize("model", ["open-sora-tiny", "svd"])
def test_pipelines_that_take_no_lora_say_so_at_once(
    command: str, model: str, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {
        "compare": ["--preset", "cfg=3"],
        "generate": ["--prompt", "a"],
        "evaluate": ["--suite", "t2v", "--scorers", "motion"],
    }
    out = tmp_path / ("a.mp4" if command == "generate" else "run")
    assert main([command, "--model", model, "--lora", str(lora), "--out", str(out), *own.get(command, [])]) == 1
    err = capsys.readouterr().err
    assert "cannot load LoRAs" in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_without_peft_the_message_says_what_to_type(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StgTuneError, match="pip install peft"):
        models.load(models.entry("mochi"), None, [Lora(path=lora)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mochi pipeline with random weights, as ``save_pretrained`` leaves it."""
    from stg_tune.embedded import mochi_train
    from stg_tune.embedded.text import build_encoder, build_tokenizer

    torch.manual_seed(0)
    config = {**mochi_train.TRANSFORMER, "num_layers": 12, "num_attention_heads": 1, "pooled_projection_dim": 16}
    transformer = mochi_train.build_transformer(config)
    for weight in transformer.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    narrow = {**mochi_train.VAE, "encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}
    from diffusers import AutoencoderKLMochi

    trained = mochi_train.Trained(transformer, build_encoder(len(build_tokenizer())))
    place = tmp_path_factory.mktemp("models") / "mochi"
    mochi_train.assemble(trained, AutoencoderKLMochi(**narrow)).save_pretrained(place)
    return place


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a LoRA for the pipeline in ``folder``."""

    def write(name: str = "style.safetensors", seed: int = 0) -> Path:
        pytest.importorskip("peft", reason="diffusers loads LoRAs by peft (pip install peft)")
        from diffusers import MochiTransformer3DModel

        model = MochiTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32)
        shapes = {place: tuple(model.get_submodule(place).weight.shape) for place in PLACES}
        save_file(_weights(shapes, seed), tmp_path / name)
        return tmp_path / name

    return write


def test_weights_are_those_of_the_file_times_the_strength(folder: Path, write: Callable[..., Path]) -> None:
    entry, files = models.entry(str(folder)), [write(), write("second.safetensors", seed=1)]
    plain = models.load(entry).transformer
    adapted = models.load(entry, None, [Lora(path=files[0], scale=0.8), Lora(path=files[1], scale=-0.5)]).transformer
    for place in PLACES:
        layer = plain.get_submodule(place)
        inputs = torch.randn(3, layer.in_features)
        expected = layer(inputs)
        for scale, seed in ((0.8, 0), (-0.5, 1)):
            shapes = {name: tuple(plain.get_submodule(name).weight.shape) for name in PLACES}
            own = _weights(shapes, seed)
            up, down = (own[f"transformer.{place}.lora_{letter}.weight"] for letter in "BA")
            expected = expected + scale * inputs @ down.T @ up.T
        torch.testing.assert_close(adapted.get_submodule(place)(inputs), expected, atol=1e-5, rtol=1e-5)


def test_layers_that_do_not_fit_are_counted(folder: Path, write: Callable[..., Path]) -> None:
    file = write()
    weights = load_file(file)
    for letter in "AB":
        weights[f"transformer.transformer_blocks.99.attn1.to_q.lora_{letter}.weight"] = torch.ones(RANK, RANK)
    save_file(weights, file)
    with pytest.warns(UserWarning, match=r"3 of 4 layers of .*style\.safetensors fit .*; the others are left out"):
        models.load(models.entry(str(folder)), None, [Lora(path=file)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04K\x01.", "cannot be loaded into"),  # a pickle with another name
        (b"", "cannot be loaded into"),
        ({"unet.block.lora_A.weight": (2, 8), "unet.block.lora_B.weight": (8, 2)}, "none of its layers"),
        ({f"transformer.{PLACES[0]}.lora_A.weight": (2, 7), f"transformer.{PLACES[0]}.lora_B.weight": (7, 2)}, "size"),
        ({"transformer.other": (2, 7)}, "Invalid LoRA"),
    ],
)
@pytest.mark.usefixtures("write")
def test_a_lora_of_something_else_is_one_message(
    folder: Path, tmp_path: Path, content: object, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRAs by peft (pip install peft)")
    file = tmp_path / "wrong.safetensors"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save_file({name: torch.ones(size) for name, size in content.items()}, file)
    with pytest.raises(StgTuneError, match=said) as caught:
        models.load(models.entry(str(folder)), None, [Lora(path=file)])
    assert "\n" not in str(caught.value)
    assert "give a LoRA made for this model" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_command_makes_another_video_with_it(folder: Path, write: Callable[..., Path], tmp_path: Path) -> None:
    entry = replace(models.entry(str(folder)), defaults=replace(models.entry("mochi-tiny").defaults, num_frames=7))
    clips = {}
    for name, loras in {"plain": (), "styled": (f"{write()}=2",), "again": (f"{write()}=2",)}.items():
        film.render(entry, Pair(prompt="a", seed=0), tmp_path / f"{name}.mp4", loras=loras, num_inference_steps=2)
        clips[name] = read_video(tmp_path / f"{name}.mp4").frames
    assert not torch.equal(clips["plain"], clips["styled"])
    assert torch.equal(clips["styled"], clips["again"])


def test_a_run_knows_its_lora_and_refuses_another(folder: Path, write: Callable[..., Path], tmp_path: Path) -> None:
    from stg_tune.score import embedded_scorers
    from stg_tune.search.plan import Allowance, RunFile

    file, entry = write(), models.entry(str(folder))
    plans = [
        draft_plan(Request(model=entry.name, space="mochi-tiny", loras=loras), entry)(embedded_scorers())
        for loras in ((), (f"{file}=0.8",))
    ]
    assert plans[0].fingerprint() != plans[1].fingerprint()  # numbers of both are never in one study
    run = RunFolder.new(tmp_path / "run", loras=tuple(item.word for item in parse_loras([f"{file}=0.8"])))
    run.make()
    RunFile(plan=plans[1], storage="sqlite://", allowances=(Allowance(budget="small"),)).save(run.path)
    plan = load_run(run.path).plan
    assert plan == plans[1]
    assert plan.loras == identity([Lora(path=file, scale=0.8)])
    recipe = pickle.loads(pickle.dumps(ModelRecipe.of(plan, RunFolder.open(run.path))))
    assert recipe.loras == (Lora(path=file, scale=0.8),)
    write(seed=5)  # the file is overwritten
    with pytest.raises(StgTuneError, match=r"begun with lora style\.safetensors .*must not be mixed"):
        ModelRecipe.of(plan, RunFolder.open(run.path))
