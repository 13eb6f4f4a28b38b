"""Training of everything that ships: ``python -m stg_tune.embedded.train judge|open-sora-tiny|scorers``.

Every part is seeded, checkpointed in ``--folder`` and goes on where it was ended. The finished weights go to
``stg_tune/embedded/weights``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from stg_tune.embedded import WEIGHTS, judge_train, scorers_train, vae_train
from stg_tune.embedded.judge import save_judge
from stg_tune.embedded.open_sora_train import NUM_LATENTS, NUM_STEPS, assemble, cache_latents, train_transformer


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train one part."""
    parser = argparse.ArgumentParser(prog="python -m stg_tune.embedded.train", description=__doc__)
    parser.add_argument("part", choices=("judge", "open-sora-tiny", "scorers"))
    parser.add_argument("--folder", type=Path, default=Path("training"), help="checkpoints (default: training)")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help=f"steps of the transformer (default: {NUM_STEPS})")
    parser.add_argument("--vae", type=Path, help="a trained autoencoder to use; default: train it")
    options, rest = parser.parse_known_args(arguments)
    if options.part == "scorers":
        scorers_train.main([*rest, *(["--vae", str(options.vae)] if options.vae else [])])
    elif rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    elif options.part == "judge":
        _judge(options)
    else:
        _open_sora(options)


def _judge(options: argparse.Namespace) -> None:
    save_judge(judge_train.train_judge(options.folder, steps=1_200), WEIGHTS / "judge")


def _open_sora(options: argparse.Namespace) -> None:
    from stg_tune.models.open_sora.vae import OpenSoraVAE

    trained_vae = options.vae and OpenSoraVAE.from_pretrained(options.vae).float().eval()
    vae = trained_vae or vae_train.train_vae(options.folder, vae_train.Steps())
    data = cache_latents(vae, options.folder / "latents.ckpt.pt", NUM_LATENTS)
    checkpoint = options.folder / "transformer.ckpt.pt"
    trained = train_transformer(data, checkpoint, steps=options.steps)
    target = WEIGHTS / "open-sora-tiny"
    assemble(trained, vae).save_pretrained(target)
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
