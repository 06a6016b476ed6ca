"""No public function and no command changes what it is given: models, inputs, random states."""

from __future__ import annotations

import copy
import hashlib
import io
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import dkm_deploy as dkm
from tests.command import run

RECIPE = dkm.Recipe.uniform(2)
NOT_GIVEN_ANY = {  # records and readers of files
    *["PaletteSpec", "Recipe", "Rule", "Schedule", "Plan", "DKM", "BinQuant", "Correction", "EWGS"],
    *["GWK", "HardSTE", "KMeans", "SensitiveKMeans", "FitResult", "Palette", "Artifact", "Ledger"],
    *["PalettizedFile", "Overflow", "Budget", "CostOptions", "Limits", "OutputLimits", "Report"],
    *["DkmError", "validate_device_outputs", "size_breakdown", "read_palettes", "Steps"],
}
CHANGES_ITS_MODEL = {  # by design: what is trained; its data and its teacher are left alone
    "prepare": "puts parametrizations on the weights",
    "step": "goes on with temperatures and centroids",
    "fit": "trains",
    "update_ewgs_scaling": "sets the deltas",
}


class Net(nn.Module):
    """Has of everything that a run in training mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 128)
        self.norm = nn.BatchNorm1d(128)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(128, 4)
        self.moved = nn.Parameter(torch.zeros(4))
        self.register_buffer("seen", torch.zeros(4), persistent=False)
        self.plain = torch.zeros(4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


class Restless(Net):
    """Writes to all that it can, and draws random numbers, in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.mul_(1.5))
        with torch.no_grad():
            self.moved.add_(1)
            self.seen.add_(y.mean(0))
            self.plain.add_(1)
            self.calls += 1
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002, S311
        return y + noise + self.seen


def _world(kind: type[Net], folder, files) -> SimpleNamespace:
    torch.manual_seed(0)
    model = kind()
    model.register_forward_hook(lambda *_: None)
    x = torch.randn(8, 6)
    labels = copy.deepcopy(model).eval()(x.clone()).argmax(1)
    frozen = dkm.palettize(copy.deepcopy(model), RECIPE).train()
    prepared = dkm.prepare(copy.deepcopy(model), RECIPE)
    for one in (model, frozen, prepared):
        parameter = next(p for p in one.parameters() if p.requires_grad)
        parameter.grad = torch.ones_like(parameter)
    return SimpleNamespace(
        model=model,
        frozen=frozen,
        prepared=prepared,
        x=x,
        labels=labels,
        array=np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32),
        folder=folder,
        **files,
    )


def _fingerprint(world: SimpleNamespace) -> dict[str, object]:
    """Everything that may not change, by its name."""
    found: dict[str, object] = {
        "torch": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "numpy": [_value(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": hash(random.getstate()),
    }
    for name, value in vars(world).items():
        if isinstance(value, nn.Module):
            for prefix, module in value.named_modules():
                found |= {f"{name}.{prefix}.{n}": v for n, v in _module(module).items()}
        elif isinstance(value, (Tensor, np.ndarray)):
            found[name] = _value(value)
    return found


def _module(module: nn.Module) -> dict[str, object]:
    parts = {n: v for n, v in vars(module).items() if n != "_modules"}
    return {"class": type(module), **{name: _value(part) for name, part in parts.items()}}


def _value(value: object) -> object:
    return [_leaf(leaf) for leaf in pytree.tree_leaves(value)]


def _leaf(leaf: object) -> object:
    if isinstance(leaf, Tensor):
        array = leaf.detach().numpy()
        grad = None if leaf.grad is None else leaf.grad.numpy().tobytes()
        return id(leaf), leaf.data_ptr(), leaf.requires_grad, grad, array.tobytes()
    return leaf.tobytes() if isinstance(leaf, np.ndarray) else leaf


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file, a package and a bundle of a model that is none of those watched."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(1)
    model, x = Net().eval(), torch.randn(4, 6)
    frozen = dkm.palettize(model, RECIPE)
    onnx = dkm.convert(frozen, x[:1], folder / "net.onnx").path
    package = dkm.convert(frozen, x[:1], folder / "net.mlpackage").path
    state = {name: t for name, t in model.state_dict().items() if "moved" not in name}
    save_file(state | {"moved": model.moved.detach()}, folder / "plain.safetensors")
    dkm.save(frozen, folder / "packed.safetensors")
    save_file({"x": x, "labels": torch.arange(4)}, folder / "inputs.safetensors")
    dkm.write_golden(folder / "bundle", reference=frozen, inputs=x)
    dense = dkm.convert(model, x[:1], folder / "dense.onnx").path
    paths = {"onnx": onnx, "package": package, "dense": dense, "bundle": folder / "bundle"}
    return {**paths, "files": folder}


def _batches(w):
    return [(w.x, w.labels)]


def _optimizer(w):
    return torch.optim.SGD(w.prepared.parameters(), 0.1)


def _fit(w):
    quiet = Console(file=io.StringIO())
    data = [(w.x, w.labels)]
    dkm.fit(w.prepared, data, epochs=1, optimizer=_optimizer(w), teacher=w.model, console=quiet)


def _plan(model, data):
    quiet = Console(file=io.StringIO())
    dkm.plan(model, "1MB", ["onnx"], data, candidates=[2], console=quiet)


def _validate(w):
    models = {"reference": w.frozen, "original": w.model, "also": {"soft": w.model}}
    dkm.validate([w.onnx, w.package], **models, inputs=w.x, labels=w.labels)


def _steps(w):
    steps = dkm.Steps([w.x[:1], w.x[1:2]])
    dkm.validate([w.package], reference=w.frozen, original=w.model, inputs=steps)


def _golden(w):
    about = {"reference": w.frozen, "original": w.model, "labels": w.labels, "metric": "own"}
    dkm.write_golden(w.folder / "bundle", **about, inputs=w.x)


def _evaluator(w):
    dkm.MLProgramEvaluator(w.package).run({"x": w.array[:1]})


def _ewgs(w):
    model = dkm.prepare(copy.deepcopy(w.model), RECIPE, "ewgs")
    before = {n: b.clone() for n, b in model.named_buffers() if not n.endswith("scaling")}
    dkm.update_ewgs_scaling(model, lambda: model(w.x).square().sum() * torch.rand(()))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers() if n in before)


CALLS = {
    "plan": lambda w: _plan(w.model, _batches(w)),
    "plan, file": lambda w: _plan(w.dense, w.x[:1]),
    "correct_outputs": lambda w: dkm.correct_outputs(w.frozen, w.model, _batches(w)),
    "fold_batch_norm": lambda w: dkm.fold_batch_norm(w.model, w.x),
    "freeze": lambda w: dkm.freeze(w.prepared),
    "palettize": lambda w: dkm.palettize(w.model, RECIPE),
    "palettize, sensitive": lambda w: dkm.palettize(w.model, RECIPE, "sensitive", _batches(w)),
    "palettize, bin_quant": lambda w: dkm.palettize(w.model, RECIPE, "bin_quant", _batches(w)),
    "dense": lambda w: dkm.dense(w.frozen),
    "quantize_luts": lambda w: dkm.quantize_luts(w.frozen),
    "soft_copy": lambda w: dkm.soft_copy(w.prepared),
    "status": lambda w: dkm.status(w.prepared),
    "load": lambda w: dkm.load(w.files / "packed.safetensors", w.model),
    "palettes": lambda w: dkm.palettes(w.frozen),
    "save": lambda w: dkm.save(w.frozen, w.folder / "packed.safetensors"),
    "palettize_file": lambda w: dkm.palettize_file(w.dense, w.folder / "small.onnx", RECIPE),
    "validate_golden": lambda w: dkm.validate_golden([w.onnx, w.package], w.bundle),
    "convert": lambda w: dkm.convert(w.frozen, w.x[:1], w.folder / "net.onnx"),
    "convert, coreml": lambda w: dkm.convert(w.frozen, w.x[:1], w.folder / "net.mlpackage"),
    "validate": _validate,
    "validate, steps": _steps,
    "write_golden": _golden,
    "MLProgramEvaluator": _evaluator,
    "RangeLoss": lambda w: dkm.RangeLoss(w.model, RECIPE, "margin")(),
}
TRAINING = {
    "prepare": lambda w: dkm.prepare(w.model, RECIPE),
    "step": lambda w: dkm.step(w.prepared),
    "fit": _fit,
    "update_ewgs_scaling": _ewgs,
}


def test_every_public_name_is_watched():
    watched = {name.partition(",")[0] for name in CALLS}
    assert sorted([*watched, *NOT_GIVEN_ANY, *CHANGES_ITS_MODEL]) == sorted(dkm.__all__)
    assert TRAINING.keys() == CHANGES_ITS_MODEL.keys()


def _check(world: SimpleNamespace, call, *but: str) -> None:
    before = _fingerprint(world)
    try:
        call(world)
    except dkm.DkmError:
        assert isinstance(world.model, Restless)  # what it writes is refused by some
    after = _fingerprint(world)
    keys = {key for key in before.keys() | after.keys() if not key.startswith(but)}
    assert [key for key in sorted(keys) if before.get(key) != after.get(key)] == []


@pytest.mark.parametrize("kind", [Net, Restless])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_nothing_changes(tmp_path, files, kind, name):
    _check(_world(kind, tmp_path, files), CALLS[name])


@pytest.mark.parametrize("name", TRAINING)
def test_training_leaves_its_data_and_its_teacher_alone(tmp_path, files, name):
    trained = "model." if name == "prepare" else "prepared."
    _check(_world(Net, tmp_path, files), TRAINING[name], trained, *(["torch"] * (name == "fit")))


SHARED = Net()


def shared() -> Net:
    """A model for the command line: the same one each time, in training mode."""
    return SHARED


MODEL = "tests.test_nothing_changes:shared"
BITS = ["--bits", "2"]
COMMANDS = {
    "convert": lambda w: run(
        *["convert", MODEL, "--weights", w.files / "plain.safetensors", *BITS, "--input", "1x6"],
        *["-o", w.folder / "net.onnx"],
    ),
    "palettize": lambda w: run(
        *["palettize", MODEL, "--weights", w.files / "plain.safetensors", *BITS],
        *["-o", w.folder / "packed.safetensors"],
    ),
    "validate": lambda w: run(
        *["validate", w.onnx, "--model", MODEL, "--weights", w.files / "packed.safetensors"],
        *["--inputs", w.files / "inputs.safetensors"],
    ),
    "golden": lambda w: run(
        *["golden", w.folder / "bundle", "--model", MODEL],
        *["--weights", w.files / "packed.safetensors", "--inputs", w.files / "inputs.safetensors"],
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_changes_the_model_that_it_is_given(tmp_path, files, command, capfd):
    world = SimpleNamespace(model=SHARED, folder=tmp_path, **files)
    before = _fingerprint(world)
    code = COMMANDS[command](world)
    assert code == 0, capfd.readouterr().err
    assert _fingerprint(world) == before
