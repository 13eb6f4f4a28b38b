import pytest
import yaml

from stg_tune.errors import StgTuneError
from stg_tune.search.space import SearchSpace
from stg_tune.search.space_file import MAX_BYTES, load_space, parse_space, space_names

DEPTHS = {"open-sora-tiny": 8, "open-sora": 28}


@pytest.fixture(scope="module")
def text():
    from pathlib import Path

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
