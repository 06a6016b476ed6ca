"""Training as users do it: DDP and FSDP2 on two processes, compile, checkpointing, EMA."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import dkm_deploy as dkm

STEPS = 4
SCHEDULE = dkm.Schedule(steps=STEPS, end=0.5)
RECIPES = {
    "scalar": dkm.Recipe(dkm.PaletteSpec(3), schedule=SCHEDULE),
    "vector": dkm.Recipe(dkm.PaletteSpec(2, cluster_dim=2), schedule=SCHEDULE),
}
# Beside the recipes, methods that move weights or add parameters, with the recipe that each gets.
# Unscaled: EWGS goes by the sign of a gradient, and that of half a batch may be another.
METHODS = {
    "gwk": (dkm.GWK(every=3, scaling=0), "vector"),
    "ewgs": (dkm.EWGS(scaling=0), "scalar"),
}


def _model(recipe):
    """In float64, so that the order of sums does not matter to the palettes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
    method, recipe = METHODS.get(recipe, ("dkm", recipe))
    return dkm.prepare(model.double(), RECIPES[recipe], method).train()


def _data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, 8, 12, generator=generator, dtype=torch.float64)


def _train(wrapped, model, batches):
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.01)
    for batch in batches:
        optimizer.zero_grad()
        wrapped(batch).square().mean().backward()
        optimizer.step()
        dkm.step(model)


def _worker(rank, runs, folder):
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    for kind, recipe in runs:
        model = _model(recipe)
        if kind == "ddp":
            wrapped = DistributedDataParallel(model)
        else:
            wrapped = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        _train(wrapped, model, _data()[:, rank::2])
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        if rank == 0:
            torch.save(state, f"{folder}/{kind}-{recipe}.pt")
    dist.barrier()
    # Not by returning: the destructors of gloo's threads now and then wait for ever.
    os._exit(0)


@pytest.mark.parametrize(
    "runs",
    [
        [("ddp", "scalar"), ("fsdp2", "vector")],
        pytest.param(
            [
                *[("ddp", "vector"), ("fsdp2", "scalar")],
                *((kind, method) for kind in ("ddp", "fsdp2") for method in METHODS),
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "all"],
)
def test_two_processes_find_the_palettes_of_one(runs, tmp_path):
    """Several runs for each pair of processes, since to start them is what takes the time."""
    mp.spawn(_worker, args=(runs, str(tmp_path)), nprocs=2)
    for kind, recipe in runs:
        _check(recipe, torch.load(tmp_path / f"{kind}-{recipe}.pt", weights_only=True))


def _check(recipe, state):
    shared, alone = _model(recipe), _model(recipe)
    shared.load_state_dict(state)
    _train(alone, alone, _data())
    ours, theirs = dkm.palettes(dkm.freeze(shared)), dkm.palettes(dkm.freeze(alone))
    assert list(ours) == list(theirs) == ["0.weight", "2.weight"]
    for name, palette in ours.items():
        assert np.array_equal(palette.indices, theirs[name].indices)
        np.testing.assert_allclose(palette.lut, theirs[name].lut, rtol=0, atol=1e-9)
    assert dkm.status(shared)["0.weight"].temperature == pytest.approx(
        dkm.status(alone)["0.weight"].temperature
    )


def _outputs(model, forward=None):
    batches = _data()
    forward = forward or model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for batch in batches:
        optimizer.zero_grad()
        out = forward(batch)
        out.square().mean().backward()
        optimizer.step()
        dkm.step(model)
        found.append(out.detach())
    return found, model.state_dict()


def _assert_same(ours, theirs):
    for mine, other in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(mine, other)
    for name, tensor in ours[1].items():
        torch.testing.assert_close(tensor, theirs[1][name], msg=name)


# torch.compile instantiates the autograd function of hard methods, which torch warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "recipe",
    ["scalar", *(pytest.param(o, marks=pytest.mark.slow) for o in ("vector", *METHODS))],
)
def test_compile_has_no_graph_break_and_changes_nothing(recipe):
    model = _model(recipe)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    _assert_same(_outputs(model, compiled), _outputs(_model(recipe)))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_activation_checkpointing_changes_nothing(recipe, reentrant):
    model = _model(recipe)

    def forward(batch):
        return checkpoint(model, batch.requires_grad_(), use_reentrant=reentrant)

    _assert_same(_outputs(model, forward), _outputs(_model(recipe)))


def test_gradient_accumulation_adds_up():
    """Once the centroids have settled, which further forward passes no longer move."""
    whole, batch = _model("scalar"), _data()[0]
    for _ in range(300):
        whole(batch)
    parts = copy.deepcopy(whole)
    whole(batch).square().mean().backward()
    for half in batch.chunk(2):
        (parts(half).square().mean() / 2).backward()
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-9)


def test_an_averaged_model_freezes():
    model = _model("scalar")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in _data():
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    frozen = dkm.freeze(average.module)
    assert list(dkm.palettes(frozen)) == ["0.weight", "2.weight"]
    assert not torch.equal(frozen(_data()[0]), dkm.freeze(model)(_data()[0]))


def test_a_second_parameter_group_reaches_the_weights():
    model = _model("scalar")
    weights = [layer.parametrizations.weight.original for layer in (model[0], model[2])]
    biases = [layer.bias for layer in (model[0], model[2])]
    optimizer = torch.optim.SGD([{"params": weights, "lr": 0.1}, {"params": biases, "lr": 0.0}])
    before = copy.deepcopy(model.state_dict())
    model(_data()[0]).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    assert torch.equal(before["0.bias"], after["0.bias"])
    assert not torch.equal(
        before["0.parametrizations.weight.original"], after["0.parametrizations.weight.original"]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_clustering(dtype):
    plain, mixed = _model("scalar").float(), _model("scalar").float()
    batch = _data()[0].float()
    plain(batch)
    with torch.autocast("cpu", dtype=dtype):
        mixed(batch)
    ours, theirs = (m[0].parametrizations.weight[0].centroids for m in (plain, mixed))
    assert torch.equal(ours, theirs)
