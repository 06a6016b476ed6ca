from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dkm_deploy import DkmError, PaletteSpec, Recipe, Rule, Schedule
from tests.models import MIXED, TiedNet, small_net

_specs = st.builds(
    PaletteSpec,
    bits=st.integers(1, 8),
    cluster_dim=st.integers(1, 16),
    axis=st.integers(0, 7),
    group_size=st.none() | st.integers(1, 512),
    per_channel_scale=st.booleans(),
)
_rules = st.builds(
    Rule,
    match=st.text("abc.*?[]\"'\\\n é", min_size=1),
    spec=_specs,
    max_elements=st.none() | st.integers(1, 10**9),
) | st.builds(Rule, match=st.text(min_size=1), skip=st.just(True))
_schedules = st.builds(Schedule, steps=st.integers(1, 10**6), end=st.floats(1e-6, 10)) | st.builds(
    Schedule, steps=st.integers(1, 10**6), gap=st.floats(1e-6, 1)
)
_recipes = st.builds(
    Recipe,
    default=st.none() | _specs,
    rules=st.lists(_rules, max_size=4),
    schedule=st.none() | _schedules,
)


@given(_recipes)
def test_load_undoes_save(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_the_first_matching_rule_wins_and_every_parameter_has_an_answer():
    model = small_net()
    assignment = MIXED.assign(model)
    assert assignment.specs == {"stem.weight": PaletteSpec(3), "head.weight": PaletteSpec(8)}
    assert assignment.dense["depthwise.weight"] == "skipped by rule 'depthwise.*'"
    assert assignment.dense["norm.weight"].startswith("rank 1")
    everything = {*assignment.specs, *assignment.dense}
    assert everything == {name for name, _ in model.named_parameters()}


def test_max_elements_is_the_papers_rule_for_small_layers():
    rules = [Rule(max_elements=100, spec=PaletteSpec(8))]
    specs = Recipe(PaletteSpec(2), rules).assign(small_net()).specs
    assert {name: spec.bits for name, spec in specs.items()} == {
        "stem.weight": 2,  # 216 weights
        "depthwise.weight": 8,  # 72
        "head.weight": 8,  # 40
    }


def test_a_size_that_no_layer_has_is_no_error():
    rules = [Rule(max_elements=1, spec=PaletteSpec(8))]
    assert set(Recipe(PaletteSpec(2), rules).assign(small_net()).specs.values()) == {PaletteSpec(2)}


def test_a_mapping_of_names_is_assigned_as_a_model_is():
    model = small_net()
    shapes = {name: p.detach().to("meta") for name, p in model.named_parameters()}
    assert MIXED.assign(shapes) == MIXED.assign(model)


def test_a_tied_weight_is_assigned_once():
    assert list(Recipe.uniform(4).assign(TiedNet()).specs) == ["embed.weight", "middle.weight"]


def test_a_rule_that_matches_nothing_is_an_error_that_lists_weights():
    recipe = Recipe(PaletteSpec(2), [Rule("head.*", PaletteSpec(8)), Rule("haed.*", skip=True)])
    with pytest.raises(
        DkmError, match=r"no weight of the model matches rule 'haed.\*'.*stem.weight"
    ):
        recipe.assign(small_net())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PaletteSpec(axis=2), "axis is 2"),
        (PaletteSpec(cluster_dim=4), "cluster_dim 4 does not divide its 5 channels"),
        (PaletteSpec(group_size=2), "group_size 2 does not divide its 5 channels"),
    ],
)
def test_a_spec_that_does_not_fit_names_the_parameter(spec, message):
    with pytest.raises(DkmError, match=f"head.weight: {message}"):
        Recipe(rules=[Rule("head.*", spec)]).assign(small_net())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PaletteSpec(bits=0), "bits is 0; it must be 1 to 8"),
        (lambda: PaletteSpec(bits=9), "bits is 9; it must be 1 to 8"),
        (lambda: PaletteSpec(bits=2.5), "bits is 2.5; it must be an integer"),
        (lambda: PaletteSpec(bits=True), "bits is True; it must be an integer"),
        (lambda: PaletteSpec(cluster_dim=17), "cluster_dim is 17"),
        (lambda: PaletteSpec(group_size=0), "group_size is 0; it must be at least 1"),
        (lambda: PaletteSpec(per_channel_scale=1), "per_channel_scale is 1; it must be true or"),
        (lambda: Rule("x"), "give either a spec or skip"),
        (lambda: Rule("x", PaletteSpec(), skip=True), "give either a spec or skip"),
        (lambda: Schedule(end=0, steps=5), "end is 0"),
        (lambda: Schedule(end=10**400, steps=5), "end is of type int; it must be a number"),
        (lambda: Schedule(end=0.1, steps=0), "steps is 0"),
        (lambda: Schedule(gap=-1, steps=5), "gap is -1"),
        (lambda: Schedule(steps=5), "give either end or gap"),
        (lambda: Schedule(end=0.1, gap=0.1, steps=5), "give either end or gap"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(DkmError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default]\nbit = 4", "default: unknown key 'bit'; known keys are bits"),
        ("defaults = 3", "unknown key 'defaults'; known keys are default, rules, schedule$"),
        ("[default]\nbits = 12", "default: bits is 12"),
        ("default = 4", "default is 4; it must be a mapping with the keys bits, cluster_dim"),
        ("rules = 4", "rules is 4; it must be a list$"),
        (
            "[[rules]]\nmatch = 'a'\n[rules.spec]\nbits = '4'",
            r"rules\[0\].spec.bits is '4'; it must be an integer$",
        ),
        ("[[rules]]\nskipp = true", r"rules\[0\]: unknown key 'skipp'"),
        ("[schedule]\nend = 0.1", "schedule.steps is missing; it must be an integer$"),
        ("[default\nbits = 4", "not a TOML file"),
        ("a = " + "[" * 5000, "not a TOML file"),
        (f"a = {'1' * 5000}", "not a TOML file"),
        ("[[rules]]\nmatch = 3\nskip = true", r"rules\[0\].match is 3; it must be text$"),
        ("[[rules]]\nskip = 'yes'", r"rules\[0\].skip is 'yes'; it must be true or false$"),
        ("[schedule]\nsteps = 2\nend = inf", "schedule: end is inf"),
    ],
)
def test_a_bad_file_is_one_clear_line_with_its_name(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DkmError, match=f"recipe.toml: {message}"):
        Recipe.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml: no such recipe file"):
        Recipe.load(tmp_path / "none.toml")


def test_saving_over_a_file_needs_force(tmp_path):
    path = tmp_path / "recipe.toml"
    MIXED.save(path)
    with pytest.raises(FileExistsError, match="already exists; use --force"):
        Recipe.uniform(2).save(path)
    assert Recipe.load(path) == MIXED
    Recipe.uniform(2).save(path, force=True)
    assert Recipe.load(path) == Recipe.uniform(2)


def test_integer_parameters_stay_dense():
    model = nn.Linear(4, 4)
    model.register_parameter("table", nn.Parameter(model.weight.int(), requires_grad=False))
    assert Recipe.uniform(2).assign(model).dense["table"] == "not floating-point"
