"""Pruned models stay pruned: zeros have a LUT entry of their own in every method."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import dkm_deploy as dkm

TRAINING = {
    "dkm": dkm.DKM(),
    "dkm, several iterations": dkm.DKM(iterations=3, gradient="implicit"),
    "hard_ste": dkm.HardSTE(),
    "gwk": dkm.GWK(every=2),
    "ewgs": dkm.EWGS(),
}
SPECS = {
    "one LUT": dkm.PaletteSpec(3),
    "groups": dkm.PaletteSpec(2, group_size=4),
    "scaled channels": dkm.PaletteSpec(3, per_channel_scale=True),
    "vectors": dkm.PaletteSpec(2, cluster_dim=2),
}


def pruned(amount=0.6, *, pairs=False):
    """A model with that share of zeros; ``pairs`` of neighbours in dimension 0 are both zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    for layer in (model[0], model[2]):
        if pairs:
            size = layer.weight.detach().reshape(-1, 2, layer.in_features).norm(dim=1)
            mask = (size > size.quantile(amount)).repeat_interleave(2, 0)
            layer.weight.data.mul_(mask)
        else:
            prune.l1_unstructured(layer, "weight", amount)
            prune.remove(layer, "weight")
    return model


def train(model, method, recipe, steps=5):
    dkm.prepare(model, recipe, method).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        dkm.step(model)
    return dkm.freeze(model)


def assert_same_zeros(frozen, model):
    for place in (0, 2):
        found, zeros = frozen[place].weight.detach(), model[place].weight.detach() == 0
        assert torch.equal(found == 0, zeros)
    for palette in dkm.palettes(frozen).values():
        entries = palette.lut.reshape(-1, *palette.lut.shape[-2:])
        assert ((entries == 0).all(-1).sum(-1) == 1).all()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_k_means_keeps_zeros(spec):
    model = pruned(pairs=spec.cluster_dim > 1)
    assert_same_zeros(dkm.palettize(model, spec), model)


@pytest.mark.parametrize("method", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_training_keeps_zeros(method, spec):
    if isinstance(method, dkm.EWGS) and spec.cluster_dim > 1:
        pytest.skip("EWGS has no vectors")
    model = pruned(pairs=spec.cluster_dim > 1)
    before = pruned(pairs=spec.cluster_dim > 1)
    frozen = train(model, method, spec)
    if isinstance(method, dkm.EWGS):  # an odd number of its levels has 0 among them
        assert (frozen[0].weight[before[0].weight == 0] == 0).all()
    else:
        assert_same_zeros(frozen, before)
    assert not torch.equal(dkm.dense(frozen)[0].weight, before[0].weight)


def test_the_soft_weight_and_the_hard_one_have_the_zeros():
    model, before = dkm.prepare(pruned(), 3), pruned()
    for mode in (True, False):
        assert torch.equal(model.train(mode)[0].weight == 0, before[0].weight == 0)


def test_zeros_take_no_part_in_clustering():
    """As if the weight had but its other values."""
    model = pruned()
    kept = dkm.palettes(dkm.palettize(model, dkm.PaletteSpec(3)))["0.weight"]
    values = model[0].weight.detach()
    alone = nn.Linear(1, 1)
    alone.weight = nn.Parameter(values[values != 0][:, None])
    first = dkm.palettes(dkm.palettize(alone, dkm.PaletteSpec(3)))["weight"]
    error = (torch.from_numpy(kept.decode()) - values).square().sum()
    finer = (torch.from_numpy(first.decode()) - values[values != 0][:, None]).square().sum()
    assert finer <= error <= 2 * finer  # 7 entries against 8
    assert kept.lut.flatten()[-1] == 0


def test_sensitive_bins_and_corrected_outputs_keep_zeros():
    model = pruned()
    x = torch.randn(128, 16, generator=torch.Generator().manual_seed(1))
    samples = [(x, model(x).argmax(1))]
    sensitive = dkm.palettize(model, 3, "sensitive", samples)
    assert_same_zeros(sensitive, model)
    corrected = dkm.correct_outputs(sensitive, model, x)
    assert_same_zeros(corrected, model)
    assert not torch.equal(corrected[0].weight, sensitive[0].weight)
    bins = dkm.palettize(model, 3, dkm.BinQuant(tolerance=0.0), samples)
    for place in (0, 2):
        assert torch.equal(bins[place].weight == 0, model[place].weight == 0)


@pytest.mark.parametrize(("amount", "kept"), [(0.45, False), (0.55, True)])
def test_from_half_on_a_weight_counts_as_pruned(amount, kept):
    frozen = train(pruned(amount), dkm.DKM(), 3)
    assert torch.equal(frozen[0].weight == 0, pruned(amount)[0].weight == 0) == kept


@pytest.mark.parametrize("wanted", [True, False])
def test_the_spec_decides_first(wanted):
    model = pruned(0.3 if wanted else 0.9)
    spec = dkm.PaletteSpec(2, keep_zeros=wanted)
    frozen = train(pruned(0.3 if wanted else 0.9), dkm.DKM(), spec)
    zeros = model[0].weight == 0
    assert torch.equal(frozen[0].weight == 0, zeros) == wanted


def test_a_group_of_zeros_stays_so():
    def model():
        made = pruned()
        made[0].weight.data[4:8] = 0
        return made

    spec = dkm.PaletteSpec(2, group_size=4, keep_zeros=True)
    for frozen in (dkm.palettize(model(), spec), train(model(), dkm.DKM(), spec)):
        assert torch.equal(frozen[0].weight == 0, model()[0].weight == 0)


def test_a_run_goes_on_from_a_state_into_a_model_that_is_not_pruned():
    """A run is resumed in a model that was built anew, with random weights."""
    trained = dkm.prepare(pruned(), 3)
    fresh = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    resumed = dkm.prepare(fresh, 3)
    resumed.load_state_dict(trained.state_dict())
    assert_same_zeros(dkm.freeze(resumed), pruned())
    dense = dkm.prepare(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), 3)
    resumed.load_state_dict(dense.state_dict())
    assert torch.equal(dkm.freeze(resumed)[0].weight, dkm.freeze(dense)[0].weight)


def test_too_few_values_beside_the_zeros():
    model = nn.Linear(8, 4)
    model.weight = nn.Parameter(torch.zeros(4, 8))
    model.weight.data[0, :2] = torch.tensor([1.0, 2.0])
    with pytest.raises(dkm.DkmError, match="3 clusters for 2 distinct values; use at most 1 bits"):
        dkm.prepare(model, dkm.Recipe(rules=[dkm.Rule(spec=dkm.PaletteSpec(2, keep_zeros=True))]))


def test_a_recipe_remembers_it(tmp_path):
    recipe = dkm.Recipe(dkm.PaletteSpec(2, keep_zeros=False))
    recipe.save(tmp_path / "r.toml")
    assert "keep_zeros = false" in (tmp_path / "r.toml").read_text()
    assert dkm.Recipe.load(tmp_path / "r.toml") == recipe
    with pytest.raises(dkm.DkmError, match="keep_zeros"):
        dkm.PaletteSpec(2, keep_zeros="yes")


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage"])
def test_files_hold_the_zeros(suffix, tmp_path):
    model = pruned()
    frozen = dkm.palettize(model, 3)
    path = dkm.convert(frozen, torch.ones(1, 16), tmp_path / f"m{suffix}").path
    zeros = model[0].weight.detach().numpy() == 0
    assert np.array_equal(dkm.read_palettes(path)["0.weight"].decode() == 0, zeros)
