"""Norms, pruning masks and parametrizations on weights: what comes out of them is palettized."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

import dkm_deploy as dkm
from dkm_deploy.validation.measures.palette_statistics import histograms

EIGHT = dkm.Recipe.uniform(6)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # which asks for the new one
        return torch.nn.utils.weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


def pruned_twice(layer: nn.Module) -> nn.Module:
    return prune.ln_structured(pruned(layer), "weight", 0.2, n=2, dim=0)


def pruned_norm(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(old_weight_norm(layer), "weight_v", 0.5)


HOOKS = [old_weight_norm, spectral_norm, pruned, pruned_twice]
PARAMETRIZATIONS = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
    doubled,
]
EVERY = [*HOOKS, *PARAMETRIZATIONS]


def net(stack, seed: int = 0) -> nn.Sequential:
    """Two layers with something on their weights, and one without; in eval mode."""
    torch.manual_seed(seed)
    layers = [stack(nn.Conv1d(4, 8, 3)), nn.Flatten(), stack(nn.Linear(48, 12)), nn.Linear(12, 6)]
    return nn.Sequential(*layers).eval()


def inputs(count: int = 4) -> Tensor:
    return torch.randn(count, 4, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def effective(model: nn.Module) -> list[Tensor]:
    model(inputs())  # hooks set the weights before a forward pass
    return [model[i].weight.clone() for i in (0, 2, 3)]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model: nn.Module, before: dict[str, Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("stack", [*EVERY, pruned_norm])
@pytest.mark.parametrize("training", [False, True])
def test_what_comes_out_is_clustered_and_the_model_left_alone(stack, training):
    wanted = effective(net(stack))
    model = net(stack)
    if training:
        model(inputs()).sum().backward()  # weights that hooks computed are no leaves
        model.train()
    before = state_of(model)
    frozen = dkm.palettize(model, EIGHT)
    assert_same_state(model, before)
    assert list(dkm.palettes(frozen)) == ["0.weight", "2.weight", "3.weight"]
    assert not any(hasattr(frozen[i], "weight_g") or frozen[i]._forward_pre_hooks for i in (0, 2))
    for layer, weight in zip((0, 2, 3), wanted, strict=True):
        assert (frozen[layer].weight - weight).norm() < 0.02 * weight.norm()
    assert [n for n, _ in frozen.named_parameters()] == ["0.bias", "2.bias", "3.bias"]
    frozen.load_state_dict(frozen.state_dict())


@pytest.mark.parametrize("stack", EVERY)
def test_a_skipped_layer_computes_what_it_did(stack):
    model = net(stack)
    recipe = dkm.Recipe(dkm.PaletteSpec(6), [dkm.Rule("[02].*", skip=True)])
    frozen = dkm.palettize(model, recipe)
    assert list(dkm.palettes(frozen)) == ["3.weight"]
    for layer, weight in zip((0, 2), effective(model), strict=False):
        assert torch.equal(frozen[layer].weight, weight)
    assert type(frozen[0]) is nn.Conv1d
    assert isinstance(frozen[0].weight, nn.Parameter)


@pytest.mark.parametrize("stack", EVERY)
@pytest.mark.parametrize("method", ["dkm", "ewgs"])
def test_training_clusters_what_comes_out(stack, method):
    model = net(stack)
    parameters = {id(p) for p in model.parameters()}
    wanted = effective(model)
    dkm.prepare(model, dkm.Recipe.uniform(5), method=method).train()
    assert parameters <= {id(p) for p in model.parameters()}
    assert list(dkm.status(model)) == ["0.weight", "2.weight", "3.weight"]
    if method == "dkm":
        for layer, weight in zip((0, 2, 3), wanted, strict=True):
            assert (dkm.freeze(model)[layer].weight - weight).norm() < 0.1 * weight.norm()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        model(inputs()).square().mean().backward()
        optimizer.step()
        dkm.step(model)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(moved)
    state = state_of(model)
    frozen = dkm.freeze(model)
    assert_same_state(model, state)
    assert torch.equal(frozen(inputs()), model.eval()(inputs()))
    again = dkm.prepare(net(stack, seed=3), dkm.Recipe.uniform(5), method=method)
    again.load_state_dict(state)
    assert torch.equal(again.eval()(inputs()), model(inputs()))


def test_pruned_weights_stay_pruned_in_training():
    model = dkm.prepare(net(pruned), dkm.Recipe.uniform(4)).train()
    mask = model[2].parametrizations.weight[0].weight_mask.clone()
    model(inputs()).square().mean().backward()
    gradient = model[2].parametrizations.weight.original.grad
    assert gradient.any()
    assert not gradient[mask == 0].any()


def test_other_layers_hooks_stay_where_the_recipe_skips_them():
    model = net(old_weight_norm)
    dkm.prepare(model, dkm.Recipe(dkm.PaletteSpec(4), [dkm.Rule("0.*", skip=True)]))
    assert model[0].weight_g.requires_grad
    assert list(dkm.status(model)) == ["2.weight", "3.weight"]
    assert torch.equal(dkm.freeze(model)[0].weight, effective(net(old_weight_norm))[0])


def test_what_cannot_train_says_why():
    with pytest.raises(dkm.DkmError, match=r"0\.weight: a norm, a mask or a param.* gwk"):
        dkm.prepare(net(pruned), EIGHT, method="gwk")
    with pytest.raises(dkm.DkmError, match=r"0\.weight: a mask lies on a part of its norm"):
        dkm.prepare(net(pruned_norm), dkm.Recipe.uniform(4))
    with torch.inference_mode():
        model = nn.Linear(8, 9)
    with pytest.raises(dkm.DkmError, match=r"weight: it was made in inference mode"):
        dkm.prepare(model, dkm.Recipe.uniform(2))
    assert list(dkm.palettes(dkm.palettize(model, EIGHT))) == ["weight"]


def test_a_tied_weight_stays_tied_and_only_where_it_is_the_same():
    model = nn.Sequential(nn.Embedding(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)).eval()
    model[1].weight = model[2].weight = model[0].weight
    mask = (torch.rand(16, 16) > 0.5).float()
    for layer in model[:2]:
        prune.custom_from_mask(layer, "weight", mask)
    frozen = dkm.palettize(model, EIGHT)
    assert list(dkm.palettes(frozen)) == ["0.weight", "2.weight"]
    assert torch.equal(frozen[0].weight, frozen[1].weight)
    assert (frozen[2].weight - model[2].weight).norm() < 0.1 * model[2].weight.norm()


def test_other_public_functions_take_what_comes_out(tmp_path):
    model = net(old_weight_norm)
    x = inputs(8)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(3), "sensitive", x)
    corrected = dkm.correct_outputs(frozen, model, x)
    assert (corrected(x) - model(x)).norm() <= (frozen(x) - model(x)).norm()
    assert set(dkm.Recipe.uniform(3).assign(model).specs) == {"0.weight", "2.weight", "3.weight"}
    assert np.sum(histograms(dkm.palettes(frozen), model)["0.weight"].original) == 96
    dkm.save(frozen, tmp_path / "m.safetensors")
    for other in (net(old_weight_norm, seed=5), net(lambda layer: layer)):
        assert torch.equal(dkm.load(tmp_path / "m.safetensors", other)(x), frozen(x))
    penalty = dkm.RangeLoss(model, dkm.Recipe.uniform(3))
    assert penalty() == sum(weight.abs().max() for weight in effective(model))
    plan = dkm.plan(model, 2_500, "onnx", x, candidates=[dkm.PaletteSpec(2)])
    assert {rule.match for rule in plan.recipe.rules} == {"0.weight", "2.weight", "3.weight"}


def test_a_batch_norm_is_folded_into_what_comes_out():
    torch.manual_seed(0)
    layers = [old_weight_norm(nn.Conv1d(4, 8, 3)), nn.BatchNorm1d(8)]
    model = nn.Sequential(*layers)
    model(inputs(32))
    folded = dkm.fold_batch_norm(model.eval(), inputs())
    assert isinstance(folded[1], nn.Identity)
    torch.testing.assert_close(folded(inputs()), model(inputs()))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda m: torch.compile(m, backend="eager"), id="compiled"),
        pytest.param(nn.DataParallel, id="data-parallel"),
    ],
)
def test_wrappers_do_not_change_names(wrap):
    model = net(old_weight_norm)
    wrapped = wrap(net(old_weight_norm))
    recipe = dkm.Recipe(rules=[dkm.Rule("2.weight", dkm.PaletteSpec(4))])
    frozen = dkm.palettize(wrapped, recipe)
    assert type(frozen) is nn.Sequential
    assert torch.equal(frozen(inputs()), dkm.palettize(model, recipe)(inputs()))
    assert dkm.prepare(wrapped, recipe) is wrapped
    assert list(dkm.status(wrapped)) == ["2.weight"]
    frozen = dkm.freeze(dkm.prepare(model, recipe))
    assert torch.equal(dkm.freeze(wrapped)(inputs()), frozen(inputs()))
