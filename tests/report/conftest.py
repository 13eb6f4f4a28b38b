"""Findings of a made-up run: the numbers are invented, the forms are those of a real one."""

import random

import pytest

from stg_tune.records import GuidanceSpec, Segment, SkipTerm
from stg_tune.report import (
    Arm,
    Ballot,
    Clip,
    Finalist,
    Findings,
    Gain,
    Guard,
    Knob,
    Layer,
    PairGain,
    Scorer,
    Trial,
)


def spec(stack: str, layers: tuple[int, ...], op: str = "attention", scale: float = 0.5) -> GuidanceSpec:
    term = SkipTerm(name=stack, skip_layers={stack: layers}, skip_op=op, stg_scale=scale)
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=(term,)),))


def two_stacks(x: float, y: float) -> GuidanceSpec:
    terms = (
        SkipTerm(name="spatial", skip_layers={"spatial": (4,)}, skip_op="attention", stg_scale=x),
        SkipTerm(name="temporal", skip_layers={"temporal": (5,)}, skip_op="attention", stg_scale=y),
    )
    return GuidanceSpec(cfg_scale=3.0, segments=(Segment(terms=terms),))


def _trials() -> tuple[Trial, ...]:
    noise = random.Random(0)

    def trial(stage: str, setting: GuidanceSpec, mean: float, pairs: int, **more: object) -> Trial:
        names = [term.name for segment in setting.segments for term in segment.terms]
        effects = {name: abs(noise.gauss(0.1, 0.04)) for name in names}
        gains = tuple(noise.gauss(mean, 0.3) for _ in range(pairs))
        numbers = {"cost": 1 + 0.3 * len(names), "motion": 1 - 0.1 * mean} | more
        return Trial(stage=stage, spec=setting, gains=gains, effects=effects, **numbers)

    trials = [Trial(stage="baseline", spec=GuidanceSpec(cfg_scale=3.0), gains=(0.0,) * 8, cost=1.0, motion=1.0)]
    trials += [trial("cfg", GuidanceSpec(cfg_scale=1.0 + cfg), 0.1 - 0.05 * cfg, 4) for cfg in range(5)]
    for number in range(20):
        setting = spec("spatial", (3, 4, 5)[: 1 + number % 3], scale=0.1 + 0.05 * number)
        trials.append(trial("search", setting, 0.3 + 0.01 * number, 6))
    for x, y in ((0.1, 0.2), (0.3, 0.2), (0.5, 0.4), (0.7, 0.1), (0.2, 0.8), (0.9, 0.9)):
        trials.append(trial("search", two_stacks(x, y), 0.4 - (x - 0.5) ** 2 - (y - 0.3) ** 2, 6))
    trials.append(trial("search", spec("temporal", (6,), "residual"), 3.0, 3, pruned=True))
    trials.append(trial("search", spec("temporal", (5,)), 3.0, 6, broken=("motion at_least_fraction 0.95",)))
    trials.append(Trial(stage="search", spec=spec("temporal", (1, 2)), gains=(), pruned=True))
    return tuple(trials)


def _arm(name: str, mean: float) -> Arm:
    gain = Gain(mean=mean, low=mean - 0.2, high=mean + 0.2, pairs=24)
    scorers = {"aesthetic": gain, "saturation": Gain(mean=-0.1, low=-0.15, high=-0.05, pairs=24)}
    return Arm(name=name, spec=spec("spatial", (3, 4)), gain=gain, scorers=scorers, pairs="confirmation pairs")


def _prompts() -> tuple[PairGain, ...]:
    noise = random.Random(1)
    pairs = []
    for number in range(24):
        gain = noise.gauss(0.6, 0.5)
        scores = {"aesthetic": (5.0, 5.0 + gain), "saturation": (0.1, 0.2), "motion": (2.0, 1.9)}
        pairs.append(PairGain(prompt=f"digit {number // 2}", seed=number, gain=gain, scores=scores))
    return tuple(pairs)


def _layers() -> tuple[Layer, ...]:
    return tuple(
        Layer(stack=stack, layer=layer, op=op, scale=0.3, gain=0.4 - 0.12 * abs(layer - 4), error=0.1, pairs=2)
        for stack in ("temporal", "spatial")
        for layer in range(8)
        for op in ("residual", "attention")
    )


def _scorer(name: str, weight: float, baseline: float, tuned: float, low: float, high: float, **more: bool) -> Scorer:
    gain = Gain(mean=(low + high) / 2, low=low, high=high, pairs=24)
    return Scorer(name=name, unit="points", weight=weight, baseline=baseline, tuned=tuned, gain=gain, **more)


@pytest.fixture(scope="session")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    tmp_path = tmp_path_factory.mktemp("clips")
    for name in ("baseline.mp4", "tuned.mp4"):
        (tmp_path / name).write_bytes(b"not really a film")
    clip = Clip(prompt="a red seven", seed=7, baseline=tmp_path / "baseline.mp4", tuned=tmp_path / "tuned.mp4")
    return Findings(
        model="open-sora-tiny",
        finished=True,
        improved=True,
        default=GuidanceSpec(cfg_scale=3.0),
        tuned=spec("spatial", (3, 4)),
        tuned_gain=Gain(mean=0.62, low=0.41, high=0.83, pairs=24),
        cfg=GuidanceSpec(cfg_scale=2.2),
        cfg_gain=Gain(mean=0.2, low=0.05, high=0.35, pairs=24),
        stg_gain=Gain(mean=0.42, low=-0.03, high=0.7, pairs=24),
        cost=1.31,
        broken=(),
        trials=_trials(),
        layers=_layers(),
        depths={"spatial": 8, "temporal": 8},
        finalists=(
            Finalist(name="trial 12", spec=spec("spatial", (3, 4)), in_sample=0.9, held_out=0.6),
            Finalist(name="best CFG", spec=GuidanceSpec(cfg_scale=2.2), in_sample=0.3, held_out=None),
        ),
        scorers=(
            _scorer("motion", 0.0, 2.0, 1.9, -0.3, 0.1),
            _scorer("saturation", 0.0, 0.1, 0.2, -0.15, -0.05, more_is_better=False),
            _scorer("aesthetic", 1.0, 5.0, 5.5, 0.3, 0.7),
        ),
        clips=(clip,),
        preset={"schema": "stg-tune/preset/1", "model": "open-sora-tiny"},
        provenance={"model": "open-sora-tiny (embedded)", "seed": "0", "stg-tune": "0.1.0"},
        published={"paper": spec("spatial", (5,)), "other": spec("temporal", (2, 3), "residual")},
        arms=(_arm("tuned", 0.62), _arm("CFG alone", 0.2), _arm("published: paper", -0.5)),
        prompts=_prompts(),
        knobs=(Knob(name="stg_scale_spatial", share=0.6, chance=0.3), Knob(name="cfg_scale", share=0.4, chance=0.5)),
        guards=(
            Guard(
                name="motion at_least_fraction 0.95",
                limit=0.95,
                value=Gain(mean=0.99, low=0.96, high=1.02, pairs=24),
                state="holds",
                why="frozen videos must not win",
            ),
        ),
        effect_steps={"spatial": (0.02, 0.05, None, None)},
        exports=(("diffusers (Python)", "stg-tune export preset.json --to diffusers-python -o out.py"),),
        votes=(Ballot(aspect="quality", wins=9, ties=2, losses=3, rate=0.71, low=0.45, high=0.88, voters=2),),
        warnings=("Only 12 different prompts are behind the verdict.",),
    )
