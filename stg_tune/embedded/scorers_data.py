"""Training videos of the embedded scorers: renders of the train split with known damage and captions that say so."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from stg_tune.embedded import degradations, digits
from stg_tune.embedded.degradations import DRAWING, PICTURE, Layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "blur": "blurry",
        "melt": "melted",
        "noise": "noisy",
        "mottle": "noisy",
        "blocks": "blocky",
        "wash_out": "faded",
        "fade": "faded",
        "oversaturate": "garish",
        "ghost": "double",
        "mix": "broken",
        "patch": "broken",
        "tear": "broken",
        "bend": "broken",
        "wobble": "broken",
        "flicker": "restless",
        "stain": "stained",
        "latent": "broken",
    }
)
"""What a caption calls a kind of damage."""
VISIBLE, UNREADABLE = 0.3, 0.75
"""Damage from which a caption mentions it, and from which it does not name the digit any more."""
TIMES = (0, 7, 8, 16)
"""The frames that scorers are trained on: far apart ones and two neighbours."""
BETWEEN_FRAMES = ("flicker",)
"""Damage that single frames need not show."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Damaged videos at some of ``TIMES``."""

    frames: Tensor
    """(n, frames, 3, 64, 64): uint8 in store, 0 to 1 in a batch."""
    before: Tensor
    """The same videos without the damage."""
    damage: Tensor
    """(n,), 0 (clean) to 1 (ruined)."""
    kinds: list[str]
    """(n,), name of the worst damage, also where its strength is 0."""
    captions: list[str]
    """(n,), what the videos show, with a word for visible damage."""
    attributes: Tensor
    """(n, 3), indices of digit, colour and direction."""

    @property
    def short(self) -> list[str]:
        """The captions without the direction: what a single frame shows."""
        return [caption.partition(" moving")[0] for caption in self.captions]

    def batch(self, index: Tensor, times: Sequence[int]) -> Sample:
        """The videos of ``index`` at ``times``, as floats."""
        slots = torch.tensor([TIMES.index(time) for time in times])
        frames, before = (each[index[:, None], slots].float() / 255 for each in (self.frames, self.before))
        return Sample(
            frames=frames,
            before=before,
            damage=self.damage[index],
            kinds=[self.kinds[i] for i in index.tolist()],
            captions=[self.captions[i] for i in index.tolist()],
            attributes=self.attributes[index],
        )


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Rendered videos in memory, ready to be taken apart."""

    frames: Tensor
    """(n, 17, 3, 64, 64), uint8."""
    ground: Tensor
    """(n, 1, 3, 64, 64), 0 to 1, without the digit."""
    stroke: Tensor
    """(n, 3), the nominal stroke colour, 0 to 1."""
    colour: Tensor
    """(n,), index of the colour."""
    captions: list[str]
    """(n,)."""

    def layers(self, index: Tensor, times: Tensor) -> Layers:
        """The videos of ``index`` taken apart, at the frames ``times``."""
        frames = self.frames[index[:, None], times].float() / 255
        return degradations.layers_over(self.ground[index], frames, self.stroke[index])


def render_clean(n: int, split: digits.Split, seed: int) -> Clean:
    """``n`` rendered videos of a split."""
    batch = digits.render(n, split, seed)
    frames = torch.from_numpy(batch.frames).permute(0, 1, 4, 2, 3).contiguous()
    stroke = torch.from_numpy(digits.RGB[batch.colour]) / 255
    grounds = [
        degradations.ground_of(f.float() / 255, s)
        for f, s in zip(torch.split(frames, 50), torch.split(stroke, 50), strict=True)
    ]
    return Clean(
        frames=frames,
        ground=torch.cat(grounds),
        stroke=stroke,
        colour=torch.from_numpy(batch.colour),
        captions=batch.captions,
    )


def vocabulary() -> list[str]:
    """Every caption word there is, for the tokenizer."""
    return [*digits.captions(), *(f"a {word} digit" for word in WORDS.values())]


class Supply:
    """Endless seeded batches from a store of damaged videos, half of them decoded ones where there are any.

    Args:
        drawn: from ``draw_samples``.
        decoded: from an autoencoder, or ``None``.
        seed: of the order.
    """

    def __init__(self, drawn: Sample, decoded: Sample | None, *, seed: int) -> None:
        self._stores = [drawn] if decoded is None else [drawn, decoded]
        self._rng = torch.Generator().manual_seed(seed)

    def batch(self, size: int, times: Sequence[int], *, single: bool = False) -> Sample:
        """``size`` videos at ``times``; with ``single`` none whose damage single frames need not show.

        Every second video is moved, turned and scaled a little: the scans are few, their places must not be learnt.
        """
        share = size // len(self._stores)
        batch = _joined([self._from(store, share, times, single=single) for store in self._stores])
        batch.frames[::2], batch.before[::2] = _moved(batch.frames[::2], batch.before[::2], self._rng)
        return batch

    def pick(self, n: int, of: int) -> Tensor:
        """``n`` random indices below ``of``."""
        return torch.randint(of, (n,), generator=self._rng)

    def _from(self, store: Sample, size: int, times: Sequence[int], *, single: bool) -> Sample:
        wanted = [i for i, kind in enumerate(store.kinds) if not (single and kind in BETWEEN_FRAMES)]
        return store.batch(torch.tensor(wanted)[self.pick(size, len(wanted))], times)


def draw_samples(clean: Clean, n: int, seed: int, *, chunk: int = 100) -> Sample:
    """``n`` videos with random damage, at ``TIMES``, made ``chunk`` at a time."""
    rng = torch.Generator().manual_seed(seed)
    return _joined([_drawn(clean, min(chunk, n - first), rng) for first in range(0, n, chunk)])


def _drawn(clean: Clean, n: int, rng: Generator) -> Sample:
    index = torch.randint(len(clean.frames), (n,), generator=rng)
    layers = clean.layers(index, torch.tensor(TIMES))
    drawing_strength, picture_strength, kind = torch.rand((3, n), generator=rng)
    drawing_strength *= (kind > 0.3) & (kind < 0.85)
    picture_strength *= kind > 0.75
    drawn, drawing = _draw(layers, drawing_strength, rng)
    frames, picture = _spoil(drawn.compose(), picture_strength, rng)
    frames, before = _like_decoded(frames, layers.compose(), rng)
    pairs = zip(drawing, picture, (drawing_strength >= picture_strength).tolist(), strict=True)
    kinds = [first if first_is_worse else second for first, second, first_is_worse in pairs]
    damage = 1 - (1 - drawing_strength) * (1 - picture_strength)
    return described(_bytes(frames), _bytes(before), damage, [clean.captions[i] for i in index.tolist()], kinds)


def _bytes(frames: Tensor) -> Tensor:
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)


def describe(caption: str, kind: str, damage: float) -> str:
    """A caption with the word for its damage: ``a broken red seven moving left`` or ``a broken red digit ...``."""
    if damage < VISIBLE:
        return caption
    article, colour, digit, *rest = caption.split()
    return " ".join([article, WORDS[kind], colour, digit if damage < UNREADABLE else "digit", *rest])


def described(frames: Tensor, before: Tensor, damage: Tensor, captions: list[str], kinds: list[str]) -> Sample:
    """Samples from frames and the captions of the undamaged videos."""
    return Sample(
        frames=frames,
        before=before,
        damage=damage,
        kinds=kinds,
        captions=[describe(*item) for item in zip(captions, kinds, damage.tolist(), strict=True)],
        attributes=torch.tensor([digits.truth(caption) for caption in captions]),
    )


def _joined(parts: Sequence[Sample]) -> Sample:
    return Sample(
        frames=torch.cat([part.frames for part in parts]),
        before=torch.cat([part.before for part in parts]),
        damage=torch.cat([part.damage for part in parts]),
        kinds=[kind for part in parts for kind in part.kinds],
        captions=[caption for part in parts for caption in part.captions],
        attributes=torch.cat([part.attributes for part in parts]),
    )


def _moved(frames: Tensor, before: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Both under the same random affine map for each video: up to 5 pixels, 20 % in size, 0.2 in turn and slant."""
    n, times = frames.shape[:2]
    theta = torch.eye(2) + 0.2 * (2 * torch.rand((n, 2, 2), generator=rng) - 1)
    shift = (10 / frames.shape[-1]) * (2 * torch.rand((n, 2, 1), generator=rng) - 1)
    maps = torch.cat([theta, shift], dim=2).repeat_interleave(times, 0)
    grid = F.affine_grid(maps, [n * times, 3, *frames.shape[-2:]], align_corners=False)
    both = [
        F.grid_sample(each.flatten(0, 1), grid, padding_mode="border", align_corners=False).view_as(each)
        for each in (frames, before)
    ]
    return both[0], both[1]


def _groups(strength: Tensor, names: Sequence[str], rng: Generator) -> tuple[list[str], dict[str, Tensor]]:
    """A random name for each video, and the damaged videos of each name."""
    choice = torch.randint(len(names), strength.shape, generator=rng)
    members = {name: torch.nonzero((choice == i) & (strength > 0))[:, 0] for i, name in enumerate(names)}
    return [names[i] for i in choice.tolist()], {name: index for name, index in members.items() if len(index)}


def _draw(layers: Layers, strength: Tensor, rng: Generator) -> tuple[Layers, list[str]]:
    chosen, groups = _groups(strength, list(DRAWING), rng)
    shape = layers.opacity.shape
    ground = layers.ground.expand(-1, shape[1], -1, -1, -1).clone()
    stroke = layers.stroke.expand(-1, -1, -1, *shape[-2:]).clone()
    opacity = layers.opacity.clone()
    for name, index in groups.items():
        other = torch.randint(len(strength), index.shape, generator=rng)
        damaged = DRAWING[name](layers[index], layers[other], strength[index], rng)
        ground[index], stroke[index], opacity[index] = damaged.ground, damaged.stroke, damaged.opacity
    return Layers(ground=ground, opacity=opacity, stroke=stroke), chosen


def _spoil(frames: Tensor, strength: Tensor, rng: Generator) -> tuple[Tensor, list[str]]:
    chosen, groups = _groups(strength, list(PICTURE), rng)
    for name, index in groups.items():
        frames[index] = PICTURE[name](frames[index], strength[index], rng).clamp(0, 1)
    return frames, chosen


def _like_decoded(frames: Tensor, before: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """The faint softness and grain that every decoder adds: not damage, and not to be learnt as such."""
    softness, grain = torch.rand((2, len(frames)), generator=rng)
    soft = [PICTURE["blur"](each, 0.2 * softness, rng) for each in (frames, before)]
    noisy = [PICTURE["noise"](each, 0.06 * grain, rng) for each in soft]
    return noisy[0], noisy[1]
