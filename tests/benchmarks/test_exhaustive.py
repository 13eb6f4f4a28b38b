"""The tables of every layer, operation and scale: complete, read back as they were measured, and of some use."""

import csv

import numpy as np
import pytest

from benchmarks import efficiency, exhaustive, landscape
from benchmarks.emulator import Landscape
from benchmarks.exhaustive import EACH, RESULTS, Exhaustive
from benchmarks.landscape import GRID_SCALES, PAIRS
from benchmarks.simulated import LOWER_IS_BETTER
from stg_tune import models
from stg_tune.records import SKIP_OPS, Evaluation, GuidanceSpec
from stg_tune.search.space_file import load_space

EMBEDDED = [name for name in models.names() if models.entry(name).embedded]
WRITTEN = sorted(path.stem for path in RESULTS.glob("*.csv"))


@pytest.fixture
def entry():
    return models.entry("mochi-tiny")


@pytest.fixture
def measured(tmp_path, entry, monkeypatch):
    """A folder as two shards leave it, by a model that scores what its setting and pair say."""

    class Studio:
        def __init__(self, recipe):
            assert recipe.model == entry.name

        def evaluate(self, spec, pair):
            layers = sum(sum(*term.skip_layers.values()) for part in spec.segments for term in part.terms)
            return Evaluation(config=spec.hash(), pair=pair, scores={"aesthetic": layers + pair.seed % 7, "motion": 1})

    monkeypatch.setattr("stg_tune.studio.Studio", Studio)
    for shard in range(2):
        exhaustive.main(["--model", entry.name, "--folder", str(tmp_path), "--shard", f"{shard}/2"])
    return tmp_path


def test_every_layer_operation_and_scale_is_measured_on_every_pair_once(entry, measured):
    exhaustive.main(["--model", entry.name, "--folder", str(measured), "--write", "--out", str(measured)])
    with (measured / f"{entry.name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    depth = entry.depths["blocks"]
    assert len(rows) == PAIRS + depth * len(SKIP_OPS) * len(GRID_SCALES) * EACH
    assert len({tuple(row[name] for name in exhaustive.WHERE) for row in rows}) == len(rows)
    read = Exhaustive.read(entry, measured)
    for row in landscape.rows_of(measured / entry.name):
        spec = next(spec for spec in (read.default, *read.specs) if spec.hash() == row.config)
        assert read(spec, row.pair).scores == row.scores


def test_a_table_with_a_hole_is_not_written(entry, measured):
    (measured / entry.name / "shard1of2.db").unlink()
    with pytest.raises(SystemExit, match="evaluations are missing: run every shard first"):
        exhaustive.main(["--model", entry.name, "--folder", str(measured), "--write", "--out", str(measured)])
    assert not (measured / f"{entry.name}.csv").exists()


def test_a_shard_that_was_stopped_goes_on(entry, measured, monkeypatch):
    class Broken:
        def __init__(self, recipe):
            del recipe

        def evaluate(self, spec, pair):
            raise AssertionError(f"{spec}, {pair} was measured before")

    before = {(row.config, row.pair.key) for row in landscape.rows_of(measured / entry.name)}
    monkeypatch.setattr("stg_tune.studio.Studio", Broken)
    exhaustive.main(["--model", entry.name, "--folder", str(measured), "--shard", "0/2"])
    assert {(row.config, row.pair.key) for row in landscape.rows_of(measured / entry.name)} == before


def test_there_are_tables_of_embedded_models_only():
    assert set(efficiency.MODELS) <= set(WRITTEN) <= set(EMBEDDED)


@pytest.mark.parametrize("model", WRITTEN)
class TestWritten:
    def test_is_complete(self, model):
        entry = models.entry(model)
        table = Exhaustive.read(entry)
        scorers = set(load_space(model, entry.depths).objective.weights)
        assert len(table.evaluations[table.default.hash()]) == PAIRS
        for spec in table.specs:
            rows = table.evaluations[spec.hash()]
            assert len(rows) == EACH
            assert rows.keys() <= table.evaluations[table.default.hash()].keys()
            assert all(scorers <= row.scores.keys() for row in rows.values())

    def test_layers_differ_by_more_than_the_pairs_that_they_are_seen_on(self, model):
        """The reliability of what all pairs say, from how halves agree (Spearman-Brown): there is something to find."""
        table = Exhaustive.read(models.entry(model))
        weights = load_space(model, models.entry(model).depths).objective.weights
        scores = np.array(
            [
                [[row.scores[name] for name in weights] for row in table.evaluations[spec.hash()].values()]
                for spec in table.specs
            ]
        )  # settings, pairs, scorers
        signed = [-weight if name in LOWER_IS_BETTER else weight for name, weight in weights.items()]
        objective = (scores / scores.std((0, 1))) @ signed
        halves = np.corrcoef(objective[:, ::2].mean(1), objective[:, 1::2].mean(1))[0, 1]
        assert 2 * halves / (1 + halves) > 0.7

    def test_takes_the_place_of_the_grid_in_the_table_of_an_emulator(self, model):
        table = Exhaustive.read(models.entry(model))
        names = ("aesthetic", "motion")
        few = Landscape(
            specs=(table.default, GuidanceSpec(cfg_scale=1.7), table.specs[3]),
            designs=("default", "cfg", "grid"),
            gains={name: np.array([0.0, 0.5, 99.0]) for name in names},
            errors={name: np.array([0.0, 0.1, 0.1]) for name in names},
        )
        whole = few.with_grid(table)
        assert whole.specs == (*few.specs[:2], *table.specs)
        assert whole.designs.count("grid") == len(table.specs)
        for name in names:
            assert list(whole.gains[name][:2]) == [0.0, 0.5]
            assert np.abs(whole.gains[name]).max() < 50
            assert 0 < np.median(whole.errors[name][2:]) < 1
