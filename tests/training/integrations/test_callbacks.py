"""Both callbacks in their own trainers: steps counted, runs resumed, divergence stopped."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dkm_deploy as dkm

SCHEDULE = dkm.Schedule(steps=8, end=0.5)
RECIPE = dkm.Recipe(dkm.PaletteSpec(2), schedule=SCHEDULE)
ACCUMULATE, STEPS = 3, 8  # 10 batches an epoch: 3 full steps and one of the batch left over


@pytest.mark.parametrize(
    ("name", "package"), [("lightning", "lightning.pytorch"), ("hugging_face", "transformers")]
)
def test_an_absent_package_is_named_with_the_way_to_get_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"dkm_deploy.training.integrations.{name}", raising=False)
    with pytest.raises(dkm.DkmError, match=rf"{package} .*: pip install .*{package[:9]}"):
        importlib.import_module(f"dkm_deploy.training.integrations.{name}")


def test_no_trainer_is_imported_without_need():
    code = (
        "import sys, dkm_deploy, dkm_deploy.training.integrations, dkm_deploy.training.loop.fit;"
        "sys.exit(bool({'lightning', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Layers(nn.Module):
    """Two layers and dropout; called with keywords it gives the loss, as transformers do."""

    def __init__(self, dropout):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.last = nn.Linear(8, 12), nn.Dropout(dropout), nn.Linear(12, 8)

    def forward(self, x, labels=None):
        loss = (self.last(self.drop(torch.tanh(self.first(x)))) - x).square().mean()
        return {"loss": loss}


def _inputs(poisoned=False):
    inputs = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    if poisoned:
        inputs[20] = torch.nan
    return inputs


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def _counted(model):
    return [int(buffer) for name, buffer in model.named_buffers() if name.endswith("0.step")]


def _values(model):
    """Distinct values of each trained weight."""
    weights = (p for name, p in model.named_parameters() if name.endswith("original"))
    return [len(weight.unique()) for weight in weights]


# It calls what newer torch and packaging have deprecated, and warns that this data is small.
@pytest.mark.filterwarnings("default")
class TestLightning:
    @pytest.fixture
    def lightning(self):
        return pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    @pytest.fixture
    def train(self, lightning, tmp_path):
        """Fit a new module; the trainer and the module."""
        from dkm_deploy.training.integrations.lightning import DKMCallback

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = Layers(dropout=0)

            def training_step(self, batch, number):
                return self.net(batch[0])["loss"]

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=0.01)

        def _train(prepared=True, poisoned=False, resume=None, method="dkm", **options):
            module = Module()
            if prepared:
                dkm.prepare(module, RECIPE, method)
            trainer = lightning.Trainer(
                **{"max_epochs": 2, "logger": False} | options,
                accelerator="cpu",
                accumulate_grad_batches=ACCUMULATE,
                log_every_n_steps=2,
                callbacks=[DKMCallback()],
                default_root_dir=tmp_path,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            data = DataLoader(TensorDataset(_inputs(poisoned)), batch_size=4)
            trainer.fit(module, data, ckpt_path=resume)
            return trainer, module

        return _train

    def test_steps_of_the_optimiser_are_counted(self, train):
        trainer, module = train()
        assert trainer.global_step == STEPS
        assert _counted(module) == [STEPS, STEPS]

    def test_a_resumed_run_gives_the_same_bits(self, train, tmp_path):
        _, whole = train()
        first, _ = train(max_epochs=1)
        first.save_checkpoint(tmp_path / "first.ckpt")
        _, resumed = train(resume=tmp_path / "first.ckpt")
        assert _counted(resumed) == [STEPS, STEPS]
        _assert_same(resumed.state_dict(), whole.state_dict())

    def test_a_method_that_snaps_finds_the_gradients(self, train):
        _, module = train(method=dkm.GWK(every=STEPS))
        assert _values(module) == [4, 4]

    def test_the_palettes_are_logged(self, train, lightning, tmp_path):
        logger = lightning.loggers.CSVLogger(tmp_path)
        _, module = train(logger=logger)
        with Path(logger.log_dir, "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == STEPS // 2
        expected = max(layer.soft_hard_gap for layer in dkm.status(module).values())
        assert float(rows[-1]["dkm/soft_hard_gap"]) == pytest.approx(expected)
        assert float(rows[-1]["dkm/distinct_centroids"]) == 1
        assert float(rows[-1]["dkm/repaired"]) == 0

    def test_divergence_stops_it(self, train):
        with pytest.raises(dkm.DkmError, match=r"net\.first\.weight: .*NaN .* after step 2"):
            train(poisoned=True)

    def test_a_module_that_is_not_prepared(self, train):
        with pytest.raises(dkm.DkmError, match="call dkm.prepare"):
            train(prepared=False)


# As above.
@pytest.mark.filterwarnings("default")
class TestHuggingFace:
    @pytest.fixture
    def train(self, tmp_path):
        """Train a new model; the trainer and the model."""
        pytest.importorskip("accelerate", reason="accelerate is not installed")
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        from dkm_deploy.training.integrations.hugging_face import DKMCallback

        def _train(prepared=True, poisoned=False, resume=None, method="dkm"):
            model = Layers(dropout=0.2)
            if prepared:
                dkm.prepare(model, RECIPE, method)
            arguments = transformers.TrainingArguments(
                str(tmp_path / "runs"),
                num_train_epochs=2,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=ACCUMULATE,
                learning_rate=0.01,
                logging_steps=2,
                save_steps=3,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
            )
            trainer = transformers.Trainer(
                model,
                arguments,
                train_dataset=[{"x": row} for row in _inputs(poisoned)],
                callbacks=[DKMCallback()],
            )
            trainer.train(resume_from_checkpoint=resume)
            return trainer, model

        return _train

    def test_steps_of_the_optimiser_are_counted(self, train):
        trainer, model = train()
        assert trainer.state.global_step == STEPS
        assert _counted(model) == [STEPS, STEPS]

    def test_a_resumed_run_gives_the_same_bits(self, train, tmp_path):
        _, whole = train()
        _, resumed = train(resume=str(tmp_path / "runs" / "checkpoint-3"))
        assert _counted(resumed) == [STEPS, STEPS]
        _assert_same(resumed.state_dict(), whole.state_dict())

    def test_a_method_that_snaps_finds_the_gradients(self, train):
        _, model = train(method=dkm.GWK(every=STEPS))
        assert _values(model) == [4, 4]

    def test_the_palettes_are_logged(self, train):
        trainer, model = train()
        entries = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(entries) == STEPS // 2
        expected = max(layer.soft_hard_gap for layer in dkm.status(model).values())
        assert entries[-1]["dkm/soft_hard_gap"] == pytest.approx(expected)
        assert entries[-1]["dkm/distinct_centroids"] == 1
        assert entries[-1]["dkm/repaired"] == 0

    def test_divergence_stops_it_before_a_checkpoint_is_written(self, train, tmp_path):
        with pytest.raises(dkm.DkmError, match=r"first\.weight: .*NaN .* after step"):
            train(poisoned=True)
        for path in (tmp_path / "runs").glob("*/*.safetensors"):
            assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())

    def test_a_model_that_is_not_prepared(self, train):
        with pytest.raises(dkm.DkmError, match="call dkm.prepare"):
            train(prepared=False)
