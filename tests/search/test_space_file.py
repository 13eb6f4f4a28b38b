import pickle
from pathlib import Path

import pytest
import yaml

from stg_tune.errors import StgTuneError
from stg_tune.search.space import SearchSpace
from stg_tune.search.space_file import MAX_BYTES, load_space, parse_space, space_names

DEPTHS = {"open-sora-tiny": 8, "open-sora": 28}


@pytest.fixture(scope="module")
def text():

    return (Path(__file__).parents[2] / "search_spaces" / "open-sora-tiny.yaml").read_text()


def refused(text, depths=None):
    with pytest.raises(StgTuneError) as error:
        parse_space(text, "my.yaml", depths)
    return str(error.value)


def test_both_shipped_spaces_are_there_and_fit_their_models():
    assert space_names() == ["mochi", "mochi-tiny", "open-sora", "open-sora-tiny", "svd", "svd-tiny"]
    for name, depth in DEPTHS.items():
        space = load_space(name, {"spatial": depth, "temporal": depth})
        assert space.family == name
        assert set(space.stacks) == {"spatial", "temporal"}
        assert space.ops == ("attention", "residual")
        assert SearchSpace.from_dict(space.to_dict()) == space
    assert (space.stg_scale.low, space.stg_scale.high, space.stg_scale.scale) == (0.25, 4.0, "log")


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("mochi", {"blocks": 48}),
        ("mochi-tiny", {"blocks": 12}),
        ("svd", {"spatial": 16, "temporal": 16}),
        ("svd-tiny", {"spatial": 9, "temporal": 9}),
    ],
)
def test_the_spaces_of_the_other_systems_fit_their_models(name, depths):
    space = load_space(name, depths)
    assert (space.family, set(space.stacks)) == (name, set(depths))
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert all(space.cfg_scale.low <= warm.spec.cfg_scale <= space.cfg_scale.high for warm in space.warm_starts)
    assert bool(space.warm_starts) != name.endswith("-tiny"), "the real models begin with what is published"


def test_every_range_must_say_why_and_where_from(text):
    data = yaml.safe_load(text)
    for field in ("cfg_scale", "stg_scale", "rescale", "terms", "combination", "screen"):
        for word in ("why", "source"):
            broken = {**data, field: {key: value for key, value in data[field].items() if key != word}}
            assert f"missing field {word!r}" in refused(yaml.safe_dump(broken))


def test_an_unknown_field_is_named_with_its_line_and_the_allowed_ones(text):
    broken = text.replace("    max_offset: 3", "    max_ofset: 3", 1)
    line = broken.splitlines().index("  spatial:") + 1
    message = refused(broken)
    assert message.startswith(f"my.yaml, line {line}: stacks.spatial: unknown field 'max_ofset'")
    assert "max_layers, max_offset, ops" in message


def test_a_wrong_word_names_the_allowed_ones(text):
    message = refused(text.replace("ops: [attention, residual]", "ops: [attention, dropout]", 1))
    assert "stacks.spatial.ops[1]: 'dropout' is not allowed; allowed: attention, residual" in message


def test_a_wrong_type_is_named(text):
    assert "cfg_scale.low: 'one' must be of type number" in refused(text.replace("low: 1.0", "low: one", 1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("low: 1.0\n  high: 8.0", "low: 9.0\n  high: 8.0", "cfg_scale: high (8) is below low (9)"),
        ("low: 0.15\n", "low: 0.0\n", "stg_scale: low is 0, but a log scale needs low > 0"),
        ("schema: stg-tune/space/1", "schema: stg-tune/space/2", "must be 'stg-tune/space/1'"),
        ("rule: at_least_fraction", "rule: at_most", "allowed: at_least_fraction, at_most_fraction, drop_at_most_sd"),
        ("    aesthetic: 1.0", "    aesthetic: -1.0", "objective.weights.aesthetic: -1.0 is too small"),
    ],
)
def test_bad_values(text, old, new, says):
    assert old in text
    assert says in refused(text.replace(old, new, 1))


def test_more_layers_than_the_model_has(text):
    message = refused(text.replace("max_layers: 3", "max_layers: 6", 1), {"spatial": 8, "temporal": 8})
    assert "max_layers 6 + max_offset 3 is more than the 8 blocks" in message
    assert "line " in message


def test_a_stack_the_model_has_not(text):
    assert "its stacks are joint" in refused(text, {"joint": 48})


def test_warm_start_out_of_range(text):
    warm = """warm_starts:
  - name: mine
    why: it is good
    source: me and my eyes
    spec:
      cfg_scale: 2.0
      segments:
        - terms:
            - {name: spatial, skip_layers: {spatial: [9]}, skip_op: attention, stg_scale: 0.3}
"""
    good = text.replace("warm_starts: []\n", warm.replace("[9]", "[7]"))
    assert parse_space(good, "x", {"spatial": 8, "temporal": 8}).warm_starts[0].name == "mine"
    message = refused(text.replace("warm_starts: []\n", warm), {"spatial": 8, "temporal": 8})
    assert "warm_starts[0]: layer 9 of stack 'spatial' does not exist; allowed: 0 to 7" in message


def test_yaml_tricks_are_refused(text):
    assert "given twice" in refused(text + "\nfamily: other\n")
    assert "anchors and aliases" in refused("a: &x [1]\nb: *x\n")
    assert "not valid YAML" in refused("a: !!python/object/apply:os.getcwd []\n")
    assert "line 2: not valid YAML" in refused("a: 1\n b: 2\n")
    assert "nested" in refused("[" * 3000)
    assert "nested more than" in refused("[" * 30 + "]" * 30)
    assert "not valid YAML" in refused("a: 2020-99-99\n")
    assert "must be of type object" in refused("")


def test_files(tmp_path, text):
    path = tmp_path / "mine.yaml"
    with pytest.raises(StgTuneError, match="cannot read search space"):
        load_space(path)
    path.write_text(text)
    assert load_space(path) == load_space("open-sora-tiny")
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(StgTuneError, match="larger than"):
        load_space(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StgTuneError, match="not UTF-8"):
        load_space(path)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(StgTuneError, match="did you mean 'open-sora-tiny'"):
        load_space("open-sora-tny")


MORE = """
segments:
  split: {low: 0.2, high: 0.8, why: both parts matter, source: me and my eyes}
  cfg_scale: {low: 1.0, high: 4.0, why: late steps need less, source: me and my eyes}
  stg_factor: {low: 0.0, high: 2.0, why: from off to twice, source: me and my eyes}
restart:
  start: {low: 0.2, high: 0.4, why: not the noisiest steps, source: me and my eyes}
  stop: {low: 0.5, high: 0.7, why: not the last steps, source: me and my eyes}
  max_count: 2
  why: each one costs as much as the stretch
  source: arXiv:2306.14878
"""


def test_segments_restart_and_price_are_read_and_written_back(text):
    space = parse_space(text.replace("  penalty: 3.0", "  penalty: 3.0\n  price: 0.1") + MORE, "x")
    assert (space.segments.split.low, space.segments.stg_factor.high, space.restart.max_count) == (0.2, 2.0, 2)
    assert space.objective.price == 0.1
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert pickle.loads(pickle.dumps(space)) == space


def test_the_example_of_the_docs_is_one(text):
    page = (Path(__file__).parents[2] / "docs" / "tune-your-own.md").read_text(encoding="utf-8")
    (block,) = [part.partition("```")[0] for part in page.split("```yaml\n")[1:] if part.startswith("segments:")]
    space = parse_space(f"{text}\n{block}", "docs", {"spatial": 8, "temporal": 8})
    assert (space.segments.cfg_scale.high, space.restart.max_count) == (8.0, 2)


def test_a_space_without_them_is_what_it_was(text):
    plain = parse_space(text, "x")
    assert not {"segments", "restart"} & plain.to_dict().keys()
    assert "price" not in plain.to_dict()["objective"]
    hashes = {
        parse_space(changed, "x").hash() for changed in (text, text + MORE, text.replace("3.0", "3.0\n  price: 1", 1))
    }
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("split: {low: 0.2", "split: {low: 0.9", "segments.split: high (0.8) is below low (0.9)"),
        ("  split: {low: 0.2, high: 0.8", "  split: {low: 0.2, high: 1.8", "segments.split.high: 1.8 is too large"),
        (
            "  stg_factor:",
            "  factor:",
            "segments: unknown field 'factor'; fields here are cfg_scale, split, stg_factor",
        ),
        ("max_count: 2", "max_count: 0", "restart.max_count: 0 is too small; it must be at least 1"),
        ("start: {low: 0.2", "start: {low: 0.5", "restart.start: high (0.4) is below low (0.5)"),
        ("  source: arXiv:2306.14878\n", "", "restart: missing field 'source'"),
    ],
)
def test_bad_segments_and_restarts(text, old, new, says):
    assert old in MORE
    message = refused(text + MORE.replace(old, new))
    assert says in message
    assert "line " in message


def test_a_bad_price_in_a_file(text):
    message = refused(text.replace("  penalty: 3.0", "  penalty: 3.0\n  price: -1"))
    assert "objective.price: -1 is too small; it must be at least 0" in message
