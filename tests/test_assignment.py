from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy import DkmError, PaletteSpec, Recipe, Rule
from tests.models import TiedNet, small_net


def _bits(recipe: Recipe, model: nn.Module) -> dict[str, int]:
    return {name: spec.bits for name, spec in recipe.assign(model).specs.items()}


class Swin(nn.Module):
    """What recipes of hand failed on: a table of zeros, a tiny layer, 1,000 and 10 channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.zeros(49, 4))
        self.tiny = nn.Linear(2, 4)
        self.few = nn.Linear(8, 10)
        self.many = nn.Linear(8, 1000)
        with torch.no_grad():
            self.few.weight[:] = torch.arange(80).reshape(10, 8) % 3 - 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.many(x) + self.few(x).sum() + self.tiny(x[:, :2]).sum() + self.table.sum()


class TestADefaultThatALayerCannotTake:
    def test_becomes_the_nearest_one_with_the_reason(self):
        found = Recipe(PaletteSpec(3, group_size=32)).assign(Swin())
        assert found.specs["many.weight"] == PaletteSpec(3, group_size=40)
        assert found.specs["few.weight"] == PaletteSpec(3)
        assert found.adjusted == {
            "few.weight": "group_size 32 does not divide its 10 channels; it has one LUT",
            "many.weight": "group_size 32 does not divide its 1000 channels; it has group_size 40",
        }

    def test_is_left_out_where_it_is_not_worth_having(self):
        found = Recipe(PaletteSpec(4)).assign(Swin())
        assert found.dense["table"] == "all its values are 0"
        assert found.dense["tiny.weight"] == "8 values: its LUTs would hold 16"
        assert list(found.specs) == ["few.weight", "many.weight"]

    def test_is_the_same_for_palettize_and_prepare(self):
        recipe = Recipe(PaletteSpec(4, group_size=32))
        frozen = dkm.palettize(Swin(), recipe)
        prepared = dkm.prepare(Swin(), recipe)
        assert (
            list(dkm.palettes(frozen))
            == list(dkm.status(prepared))
            == [
                "few.weight",
                "many.weight",
            ]
        )
        assert dkm.palettes(frozen)["many.weight"].groups == (25, 1)

    def test_has_fewer_bits_to_train_where_there_are_few_values(self):
        status = dkm.status(dkm.prepare(Swin(), PaletteSpec(4, group_size=32)))
        assert status["few.weight"].bits == 1
        assert status["few.weight"].note == (
            "group_size 32 does not divide its 10 channels; it has one LUT; "
            "too few distinct values for 4 bits; it has 1"
        )
        assert status["many.weight"].note.endswith("it has group_size 40")
        assert dkm.status(dkm.prepare(nn.Linear(8, 8), 2))["weight"].note == ""

    def test_is_told_by_a_report(self, tmp_path):
        frozen = dkm.palettize(Swin(), 4)
        artifact = dkm.convert(frozen, torch.ones(1, 8), tmp_path / "model.onnx")
        report = dkm.validate(artifact, reference=frozen, inputs=torch.ones(1, 8))
        assert report.dense["table"] == "all its values are 0"


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("many.weight", PaletteSpec(group_size=32), "group_size 32 does not divide its 1000"),
        ("few.weight", PaletteSpec(4), "16 clusters for 3 distinct values"),
        ("tiny.weight", PaletteSpec(4), "16 clusters for 8 distinct values"),
        ("table", PaletteSpec(4), "16 clusters for 1 distinct values"),
    ],
)
def test_a_rule_that_a_layer_cannot_take_raises(name, spec, message):
    with pytest.raises(DkmError, match=f"^{name}: {message}"):
        dkm.prepare(Swin(), Recipe(rules=[Rule(name, spec)]))


class TestRulesByModule:
    def test_a_type_is_that_of_the_module_or_of_one_it_inherits_from(self):
        class Wide(nn.Linear):
            pass

        model = nn.Sequential(nn.Conv2d(3, 4, 3), Wide(8, 8), nn.Linear(8, 8))
        assert _bits(Recipe(2, [Rule(module="Linear", spec=4)]), model) == {
            "0.weight": 2,
            "1.weight": 4,
            "2.weight": 4,
        }
        assert _bits(Recipe(rules=[Rule(module="Wide", spec=4)]), model) == {"1.weight": 4}
        assert _bits(Recipe(rules=[Rule("2.*", 4, module="Lin*")]), model) == {"2.weight": 4}

    def test_a_parametrized_module_is_still_of_its_type(self):
        model = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        assert _bits(Recipe(rules=[Rule(module="Linear", spec=4)]), model) == {"weight": 4}

    def test_one_that_no_module_has_is_an_error_that_lists_types(self):
        with pytest.raises(
            DkmError, match=r"matches rule '\*', module 'Linaer'; .*; modules are Conv2d, Linear$"
        ):
            Recipe(rules=[Rule(module="Linaer", spec=4)]).assign(small_net())

    def test_files_have_no_modules(self):
        tensors = {"w": torch.zeros(4, 4, device="meta")}
        with pytest.raises(DkmError, match="files have no modules$"):
            Recipe(rules=[Rule(module="Linear", spec=4)]).assign(tensors)
        with pytest.raises(DkmError, match="rule <lambda> is a function of modules, which files"):
            Recipe(rules=[lambda name, module, parameter: 4]).assign(tensors)

    def test_it_is_saved_and_loaded(self, tmp_path):
        recipe = Recipe(4, [Rule(module="Embedding", skip=True)])
        recipe.save(tmp_path / "recipe.toml")
        assert Recipe.load(tmp_path / "recipe.toml") == recipe

    def test_a_class_is_answered_with_its_name(self):
        with pytest.raises(DkmError, match="module is a class; give its name, 'Linear'"):
            Rule(module=nn.Linear, spec=4)


@pytest.mark.parametrize("name", ["embed.weight", "out.weight"])
def test_a_tied_weight_is_found_by_either_name(name):
    recipe = Recipe(2, [Rule(name, 4)])
    assert _bits(recipe, TiedNet()) == {"embed.weight": 4, "middle.weight": 2}


@pytest.mark.parametrize("module", ["Embedding", "Linear"])
def test_a_tied_weight_is_found_by_the_type_of_either_module(module):
    recipe = Recipe(2, [Rule("*e*", 4, module=module)])
    assert _bits(recipe, TiedNet())["embed.weight"] == 4


class TestAPredicate:
    def test_gives_a_spec_or_bits_or_leaves_it_dense_or_to_the_next_rule(self):
        def choose(name, module, parameter):
            if isinstance(module, nn.Conv2d):
                return PaletteSpec(3) if module.groups == 1 else False
            return 8 if parameter.shape[0] == 5 else None

        model = nn.Sequential(small_net(), nn.Linear(5, 20))
        found = Recipe(2, [choose]).assign(model)
        assert {name: spec.bits for name, spec in found.specs.items()} == {
            "0.stem.weight": 3,
            "0.head.weight": 8,
            "1.weight": 2,
        }
        assert found.dense["0.depthwise.weight"] == "skipped by rule choose"

    def test_is_asked_under_every_name_of_a_tied_weight(self):
        recipe = Recipe(2, [lambda name, module, parameter: 4 if name == "out.weight" else None])
        assert _bits(recipe, TiedNet()) == {"embed.weight": 4, "middle.weight": 2}

    def test_what_it_gives_must_fit(self):
        with pytest.raises(DkmError, match="^weight: group_size 2 does not divide its 5"):
            Recipe(rules=[lambda n, m, p: PaletteSpec(2, group_size=2)]).assign(nn.Linear(5, 5))

    @pytest.mark.parametrize("answer", [True, "4", 2.0])
    def test_what_is_no_spec_is_refused(self, answer):
        with pytest.raises(DkmError, match="weight: what rule <lambda> gives is"):
            Recipe(rules=[lambda n, m, p: answer]).assign(nn.Linear(4, 4))

    def test_cannot_be_saved(self, tmp_path):
        def wide(name, module, parameter):
            return 4

        path = tmp_path / "recipe.toml"
        message = r"^rules\[1\] is a function \(wide\), which a TOML file cannot hold"
        with pytest.raises(DkmError, match=message):
            Recipe(2, [Rule("a", skip=True), wide]).save(path)
        assert not path.exists()
