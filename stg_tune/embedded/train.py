"""Training of everything that ships: ``python -m stg_tune.embedded.train open-sora-tiny|mochi-tiny|svd-tiny|...``.

Every part is seeded, checkpointed in ``--folder`` and goes on where it was ended. The finished weights go to
``stg_tune/embedded/weights``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stg_tune.embedded import WEIGHTS, judge_train, mochi_train, open_sora_train, scorers_train, svd_train, vae_train
from stg_tune.embedded.judge import save_judge
from stg_tune.embedded.svd_parts_train import train_image_encoder
from stg_tune.embedded.svd_parts_train import train_vae as train_svd_vae

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MODELS = ("open-sora-tiny", "mochi-tiny", "svd-tiny")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train one part."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.train", description=__doc__)
    parser.add_argument("part", choices=("judge", *MODELS, "scorers"))
    parser.add_argument("--folder", type=Path, default=Path("training"), help="checkpoints (default: training)")
    parser.add_argument("--steps", type=int, help="steps of the denoiser (default: the model's own)")
    parser.add_argument("--vae", type=Path, help="a trained autoencoder to use; default: train it")
    parser.add_argument("--eager", action="store_true", help="do not compile the blocks (not for open-sora-tiny)")
    options, rest = parser.parse_known_args(arguments)
    if options.part == "scorers":
        scorers_train.main([*rest, *(["--vae", str(options.vae)] if options.vae else [])])
    elif rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    elif options.part == "judge":
        _judge(options)
    elif options.part == "open-sora-tiny":
        _open_sora(options)
    elif options.part == "mochi-tiny":
        train_mochi(**_places(options), steps=mochi_train.Steps(**_length(options)))
    else:
        train_svd(**_places(options), steps=svd_train.Steps(**_length(options)))


def _judge(options: argparse.Namespace) -> None:
    save_judge(judge_train.train_judge(options.folder, steps=1_200), WEIGHTS / "judge")


def _open_sora(options: argparse.Namespace) -> None:
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    trained_vae = options.vae and OpenSoraVAE.from_pretrained(options.vae).float().eval()
    vae = trained_vae or vae_train.train_vae(options.folder, vae_train.Steps())
    data = open_sora_train.cache_latents(vae, options.folder / "latents.ckpt.pt", open_sora_train.NUM_LATENTS)
    checkpoint = options.folder / "transformer.ckpt.pt"
    trained = open_sora_train.train_transformer(data, checkpoint, steps=options.steps or open_sora_train.NUM_STEPS)
    _ship(open_sora_train.assemble(trained, vae), WEIGHTS / "open-sora-tiny", checkpoint)


def _places(options: argparse.Namespace) -> dict[str, Any]:
    folder, target = options.folder / options.part, WEIGHTS / options.part
    return {"folder": folder, "target": target, "vae": options.vae, "compiled": not options.eager}


def _length(options: argparse.Namespace) -> dict[str, int]:
    return {"denoiser": options.steps} if options.steps else {}


def train_mochi(
    folder: Path,
    target: Path,
    *,
    steps: mochi_train.Steps,
    vae: Path | None = None,
    sizes: mochi_train.Sizes | None = None,
    compiled: bool = True,
) -> None:
    """Train (or go on with) all parts of ``mochi-tiny`` and save the pipeline.

    Args:
        folder: Of the checkpoints.
        target: Of the finished pipeline.
        steps: Length of the stages.
        vae: Folder of a trained autoencoder.
        sizes: Of the parts; ``None``: those that ship.
        compiled: Compile the blocks, which pays after some hundred steps.
    """
    from diffusers import AutoencoderKLMochi

    sizes = sizes or mochi_train.Sizes()
    given = vae and AutoencoderKLMochi.from_pretrained(vae).float().eval()
    trained_vae = given or mochi_train.train_vae(folder, steps, sizes)
    data = mochi_train.cache_data(trained_vae, folder / "latents.ckpt.pt", sizes.latents)
    checkpoint = folder / "transformer.ckpt.pt"
    trained = mochi_train.train_transformer(data, checkpoint, steps=steps.denoiser, sizes=sizes, compiled=compiled)
    _ship(mochi_train.assemble(trained, trained_vae), target, checkpoint)


def train_svd(
    folder: Path,
    target: Path,
    *,
    steps: svd_train.Steps,
    vae: Path | None = None,
    sizes: svd_train.Sizes | None = None,
    compiled: bool = True,
) -> None:
    """Train (or go on with) all parts of ``svd-tiny`` and save the pipeline; arguments as for ``train_mochi``."""
    from diffusers import AutoencoderKLTemporalDecoder

    sizes = sizes or svd_train.Sizes()
    given = vae and AutoencoderKLTemporalDecoder.from_pretrained(vae).float().eval()
    parts = svd_train.Parts(
        image_encoder=train_image_encoder(folder / "image.ckpt.pt", steps.image_encoder, sizes),
        vae=given or train_svd_vae(folder, steps, sizes),
    )
    data = svd_train.cache_data(parts, folder / "latents.ckpt.pt", sizes.latents)
    checkpoint = folder / "unet.ckpt.pt"
    unet = svd_train.train_unet(data, checkpoint, steps=steps.denoiser, sizes=sizes, compiled=compiled)
    _ship(svd_train.assemble(unet, parts), target, checkpoint)


def _ship(pipe: DiffusionPipeline, target: Path, checkpoint: Path) -> None:
    pipe.save_pretrained(target)
    forget_origin(target)
    log = torch.load(checkpoint, weights_only=True)["log"]
    (target / "loss.json").write_text(json.dumps(log) + "\n")


def forget_origin(folder: Path) -> None:
    """Drop what the configs say about the folder that the parts were loaded from."""
    for file in sorted(folder.rglob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
