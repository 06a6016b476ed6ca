"""compute_precision="auto": what overflows float16 stays float32, and nothing else does."""

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package

X = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))


class Squares(nn.Module):
    """Normalizes by the sum of the squares of values of about 300, which float16 cannot hold."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 8)

    def forward(self, x):
        x = self.first(x) * 300
        return self.last(x / x.square().sum(1, keepdim=True).sqrt())


class Masked(nn.Module):
    """Attention that masks with the least float32; in one row it masks all."""

    def __init__(self):
        super().__init__()
        self.queries, self.values = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        least = torch.finfo(torch.float32).min
        mask = torch.where(torch.ones(4, 4).tril(-1).bool(), 0.0, least)
        scores = self.queries(x) @ x.T / 8 + mask
        return scores.softmax(1) @ self.values(x)


class Saturated(nn.Module):
    """Overflows, and its answers are right nevertheless: 1 / (1 + infinity) is 0."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 8)

    def forward(self, x):
        return 1 / (1 + torch.exp(self.linear(x) * 40))


def write(model, path, **options):
    frozen = dkm.palettize(model.eval(), 4)
    return frozen, dkm.convert(frozen, X, path, **options)


def in_float16(path):
    """How many operations make float16, and how many float32."""
    operations = functions(open_package(path))["main"].body.operations
    kinds = [kind.dtype.name for one in operations for _, kind in one.outputs if kind]
    return kinds.count("fp16"), kinds.count("fp32")


@pytest.mark.parametrize("kind", [Squares, Masked])
def test_what_overflows_stays_float32(kind, tmp_path):
    torch.manual_seed(0)
    model = kind()
    frozen, artifact = write(model, tmp_path / "auto.mlpackage")
    with torch.no_grad():
        wanted = frozen(X).numpy()
    found = next(iter(dkm.MLProgramEvaluator(artifact.path).run({"x": X.numpy()}).values()))
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    (told,) = [note for note in artifact.notes if "computed in float32" in note]
    assert "float16 cannot hold their values" in told
    assert any(note.startswith("what is float32 costs") for note in artifact.notes)
    narrow, wide = in_float16(artifact.path)
    assert narrow > 4
    assert wide > 2
    report = dkm.validate(artifact.path, reference=frozen, inputs=X)
    assert report, report.failed


def test_in_float16_it_does_not(tmp_path):
    torch.manual_seed(0)
    frozen, made = write(Squares(), tmp_path / "half.mlpackage", compute_precision="float16")
    assert any("is wrong: values overflow in float16" in note for note in made.notes)
    report = dkm.validate(made.path, reference=frozen, inputs=X)
    assert "values overflow in float16, which changes 32 elements" in report.failed[0]


@pytest.mark.parametrize("kind", [Saturated, lambda: nn.Linear(64, 8)])
def test_a_model_that_is_fine_in_float16_is_the_same_program(kind, tmp_path):
    files = []
    for precision in ("auto", "float16"):
        torch.manual_seed(0)
        _, made = write(kind(), tmp_path / f"{precision}.mlpackage", compute_precision=precision)
        assert not any("float32" in note for note in made.notes)
        files.append(
            [
                p.read_bytes()
                for p in sorted(made.path.rglob("*"))
                if p.suffix in (".mlmodel", ".bin")
            ]
        )
    assert files[0] == files[1]


def test_another_precision_is_refused(tmp_path):
    with pytest.raises(dkm.DkmError, match="compute_precision is 'half'; it must be one of auto"):
        write(nn.Linear(64, 8), tmp_path / "m.mlpackage", compute_precision="half")
