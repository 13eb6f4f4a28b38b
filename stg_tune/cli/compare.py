"""``stg-tune compare``: two settings on the same new pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_tune import models
from stg_tune.cli.lora import add_loras
from stg_tune.cli.output import complain, number, say, say_json, say_table
from stg_tune.cli.search import add_batch, add_placement, add_scorers, placement_of
from stg_tune.cli.stopping import code_of, held, terminable
from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stg_tune.compare import Comparison, ComparisonRequest
    from stg_tune.compare.run import Side
    from stg_tune.search.statistics import Interval
    from stg_tune.search.verdict import ScorerEvidence

NAMED = (
    "a preset file, the name of a published preset, published (the model's own published setting), cfg (its default), "
    "or cfg=2.5; given twice, the first is compared with the second, given once, with cfg"
)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("compare", help="is a preset better than another, or than CFG? on new pairs")
    parser.add_argument("--model", required=True, metavar="M", help="a name that `stg-tune models` lists")
    parser.add_argument("--model-path", type=Path, metavar="DIR", help="local folder with the model's files")
    add_loras(parser)
    parser.add_argument("--preset", action="append", required=True, metavar="P", help=NAMED)
    parser.add_argument("--pairs", type=int, metavar="N", help="(prompt, seed) pairs, 20 or more (default: 100)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="captions, one a line (default: as in a search)")
    parser.add_argument("--space", metavar="F", help="search space whose weights and guards judge (default: its own)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides the pairs (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the comparison; the same one goes on (default: comparisons/)"
    )
    add_scorers(parser)
    add_placement(parser)
    add_batch(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare; 0 when the first setting is proven better, 3 when it is not."""
    models.entry(arguments.model)  # a wrong name is answered before anything heavy is imported
    request = _request(arguments)
    from stg_tune.cli.progress import watching
    from stg_tune.compare import compare

    try:
        with terminable(), watching(quiet=arguments.quiet) as progress:
            found = compare(request, arguments.out, progress=held(progress))
    except KeyboardInterrupt as stop:
        complain("stopped; every finished pair is kept: the same command goes on")
        return code_of(stop)
    if arguments.json:
        say_json(found.to_dict())
    else:
        _say(found)
    return 0 if found.better == "first" else 3


def _request(arguments: argparse.Namespace) -> ComparisonRequest:
    first, second = (*arguments.preset, "cfg")[:2]
    if len(arguments.preset) > 2:
        raise StgTuneError(f"--preset is given {len(arguments.preset)} times: two settings are compared at a time")
    from stg_tune.compare import PAIRS, ComparisonRequest

    return ComparisonRequest(
        model=arguments.model,
        model_path=arguments.model_path,
        loras=tuple(arguments.lora),
        first=first,
        second=second,
        pairs=PAIRS if arguments.pairs is None else arguments.pairs,
        prompts=arguments.prompts,
        space=arguments.space,
        num_steps=arguments.steps,
        seed=arguments.seed,
        fast=arguments.fast,
        weights=arguments.weights,
        placement=placement_of(arguments),
    )


def _say(found: Comparison) -> None:
    from stg_tune.report.facts import describe

    plan, gain = found.plan, found.gain
    say(f"{plan.model}: {found.reason}")
    for letter, side in (("A", plan.first), ("B", plan.second)):
        say(f"  {letter}: {side.name}: {describe(side.spec)}")
    say(
        f"  A gains {_interval(gain)} standard deviations of B on {gain.pairs} new pairs of {gain.clusters} prompts "
        f"({100 * gain.level:.3g} % interval)."
    )
    for sentence in _remarks(found):
        say(f"  {sentence}")
    say()
    heads = ("SCORER", "B", "A", "GAIN", "INTERVAL", "JUDGEMENT", "UNIT")
    say_table(heads, [_cells(item) for item in found.scorers])


def _remarks(found: Comparison) -> Iterator[str]:
    if found.stg_gain is not None:
        yield f"Skip guidance by itself, A over A without its terms, gains {_interval(found.stg_gain)} of them."
    if found.relative_cost:
        yield f"A costs {found.relative_cost:.2f} times the denoiser work of B."
    for guard in found.guards:
        if not guard.measured:
            yield f"The guard {guard.name} cannot be measured: B has no score of {guard.scorer} on any pair."
        elif not guard.holds:
            said = "A breaks the guard" if guard.broken else "It is not proven that A keeps the guard"
            yield f"{said} {guard.name} against B: {_interval(guard.value)}."
    sides: tuple[tuple[str, Side], ...] = (("A", "first"), ("B", "second"))
    for letter, side in sides:
        if found.failures[side]:
            yield f"{letter} gave no video on {found.failures[side]} pairs."
        for term, effect in found.effects[side].items():
            nothing = "" if effect else ", so it does nothing"
            yield f"{letter}: skipping {term} moves the prediction by {effect:.2%}{nothing}."


def _cells(item: ScorerEvidence) -> tuple[str, ...]:
    gain = item.gain
    ends = f"{gain.low:+.3g} to {gain.high:+.3g}"
    said = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"
    return item.name, number(item.baseline), number(item.value), f"{gain.mean:+.3g}", ends, said, item.unit


def _interval(gain: Interval) -> str:
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
