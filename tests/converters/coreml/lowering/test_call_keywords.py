"""Arguments that decide what a call computes: each counts in the file, or the call is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from converters.coreml.lowering.call_keywords import TorchCall, calls, check_keywords
from tests.converters.coreml.programs import check_outputs

_aten = torch.ops.aten
_random = torch.Generator().manual_seed(0)
X, Y, Z = torch.randn(3, 2, 4, 4, generator=_random) * 3
N = torch.arange(32, dtype=torch.int32).reshape(2, 4, 4) % 5 - 2


class Activations(nn.Module):
    """Those that have another form by an argument."""

    def forward(self, x):
        made = {
            "gelu": functional.gelu(x),
            "gelu_none": functional.gelu(x, approximate="none"),
            "gelu_tanh": functional.gelu(x, approximate="tanh"),
            "selu": functional.selu(x),
            "elu": _aten.elu(x, 1.5, 2.0, 1.0),
            "elu_of_more": _aten.elu(x, 1.5, 2.0, 0.5),
            "log_softmax": functional.log_softmax(x, 1),
            "log_softmax_far": functional.log_softmax(x * 300, -1, dtype=torch.float32),
        }
        for place, limits in enumerate(((1, 20), (1, 1), (2, 3), (0.5, 0), (2, 40))):
            made[f"softplus_{place}"] = functional.softplus(x, *limits)
        return made


class Arithmetic(nn.Module):
    """Factors, bounds and dimensions."""

    def forward(self, x, y, z):
        made = {
            "add_number": torch.add(x, 3, alpha=2),
            "rsub_number": torch.rsub(x, 3, alpha=2),
            "clamp": torch.clamp(x, y, z),
            "one_over": 1 / (x * 1e-4),
            "whole_over": 1 / (torch.ones_like(x, dtype=torch.int32) + 1),
            "clamp_below": torch.clamp(x, max=z),
            "cross": torch.cross(x[:, :, :3], y[:, :, :3], dim=-1),
            "cross_first": torch.cross(x[:, :3], y[:, :3]),
        }
        for place, alpha in enumerate((1, 2, -0.5)):
            made[f"add_{place}"] = torch.add(x, y, alpha=alpha)
            made[f"sub_{place}"] = torch.sub(x, y, alpha=alpha)
            made[f"rsub_{place}"] = torch.rsub(x, y, alpha=alpha)
        for place, eps in enumerate((1e-8, 0.1, 5.0)):
            made[f"cosine_{place}"] = functional.cosine_similarity(x, y, dim=-2, eps=eps)
        return made


class Types(nn.Module):
    """Reductions of values made of another type first, and values made of a type."""

    def forward(self, x, n):
        whole, single = torch.int32, torch.float32
        return {
            "sum": x.sum(dtype=whole),
            "sum_rows": x.sum(-1, dtype=whole),
            "mean": n.mean(dtype=single),
            "mean_rows": n.mean(1, dtype=single),
            "cumsum": x.cumsum(1, dtype=whole),
            "cumprod": x.cumprod(2, dtype=whole),
            "norm": torch.linalg.vector_norm(x, 3, dim=1, dtype=single),
            "half": torch.full_like(x, 7, dtype=whole) // 2,
            "cut": torch.full_like(x, 2.5, dtype=whole) * n,
            "kept": torch.full_like(n, 2.5, dtype=single) * x,
            "none": torch.logical_or(torch.zeros_like(x, dtype=torch.bool), x > 0),
            "steps": torch.arange(4, dtype=single) // 2 * x,
            "cut_steps": torch.linspace(0, 3, 4).to(whole) * n,
        }


class Attention(nn.Module):
    """Fewer heads of keys and values than of queries."""

    def forward(self, q, k):
        attend = functional.scaled_dot_product_attention
        return {
            "grouped": attend(q, k, k, enable_gqa=True),
            "causal": attend(q, k, k, is_causal=True, scale=0.3, enable_gqa=True),
            "one": attend(q, k[:, :1], k[:, :1], enable_gqa=True),
        }


class Norms(nn.Module):
    """Instance norms by known statistics and by those of the input; root mean square norms."""

    def __init__(self):
        super().__init__()
        self.known = nn.InstanceNorm1d(4, affine=True, track_running_stats=True, eps=0.1)
        self.found = nn.InstanceNorm1d(4)
        self.register_buffer("sizes", torch.tensor([[0.0], [1e-4], [1.0], [300.0]]))
        with torch.no_grad():
            self.known.running_mean.copy_(torch.arange(4.0))
            self.known.running_var.copy_(torch.arange(4.0) + 0.5)
            self.known.weight.copy_(torch.arange(4.0) - 1)

    def forward(self, x):
        rows = x * self.sizes
        return {
            "known": self.known(x),
            "found": self.found(x),
            "mean_square": functional.rms_norm(rows, (4,)),
            "mean_square_small": functional.rms_norm(rows, (4,), eps=1e-6),
            "mean_square_large": functional.rms_norm(rows, (4,), self.known.weight, eps=0.1),
            "mean_square_of_all": functional.rms_norm(rows, (4, 4), eps=0.1),
        }


class Resized(nn.Module):
    """Images made smaller and larger with antialiasing."""

    def forward(self, x):
        options = (
            {"size": (2, 3)},
            {"size": (3, 7), "align_corners": True},
            {"scale_factor": 0.6},
            {"scale_factor": (2.0, 0.5)},
        )
        resize = functional.interpolate
        made = [resize(x, mode="bilinear", antialias=True, **each) for each in options]
        return {f"image_{place}": image for place, image in enumerate(made)}


@pytest.mark.filterwarnings("ignore:Using torch.cross without specifying the dim")
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Activations(), (X,)),
        (Arithmetic(), (X, Y, Z)),
        (Types(), (X, N)),
        (Attention(), (X.reshape(1, 4, 2, 4), Y[:1, :2].reshape(1, 2, 1, 4).expand(-1, -1, 2, -1))),
        (Norms(), (X,)),
        (Resized(), (X[None],)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_file_computes_what_the_arguments_say(tmp_path, model, inputs):
    check_outputs(model, inputs, tmp_path / "m.mlpackage", compute_precision="float32")


class Sorted(nn.Module):
    """A search in bounds that an order sorts, which coremltools leaves out."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bounds", torch.tensor([3.0, 2.0, 1.0]))
        self.register_buffer("order", torch.tensor([2, 1, 0]))

    def forward(self, x):
        return torch.searchsorted(self.bounds, x, sorter=self.order, out_int32=True)


def test_a_keyword_that_coremltools_would_leave_out_is_refused_with_the_layer(tmp_path):
    path = tmp_path / "m.mlpackage"
    message = "1: coremltools does not know sorter=.* of aten.searchsorted.Tensor"
    with pytest.raises(dkm.DkmError, match=message):
        dkm.convert(nn.Sequential(nn.ReLU(), Sorted()).eval(), torch.randn(4), path)
    assert not path.exists()


def test_antialiasing_of_images_of_any_height_is_refused_with_the_layer(tmp_path):
    model = nn.Sequential(nn.ReLU(), Resized()).eval()
    heights = ({2: torch.export.Dim("height", min=4, max=8)},)
    with pytest.raises(
        dkm.DkmError, match="1: images are resized with _upsample_bilinear2d_aa.* from fixed"
    ):
        dkm.convert(model, X[None], tmp_path / "m.mlpackage", dynamic_shapes=heights)


def test_calls_are_those_with_keywords_that_count():
    class Model(nn.Module):
        def forward(self, x):
            same = torch.add(x, x, alpha=1) + torch.ones_like(x, device="cpu")
            return torch.sub(same, x, alpha=2)

    found = calls(torch.export.export(Model(), (X,)))
    assert found == {"sub": TorchCall("aten.sub.Tensor", "the model", {"alpha": 2})}


@pytest.mark.parametrize("keywords", [{"mode": "a"}, {"mode": "a", "base": 3}])
def test_a_lowering_has_to_ask_for_every_keyword(keywords):
    given = TorchCall("aten.new.default", "layers.0", keywords)
    node = SimpleNamespace(name="new", kwinputs={"mode": ["a"], "base": [3]})
    lowering = check_keywords(lambda context, node: node.kwinputs.get("mode"), {"new": given})
    if "base" not in keywords:
        lowering(None, node)
        return
    with pytest.raises(dkm.DkmError, match=r"layers.0: .* base=3 of aten.new.default"):
        lowering(None, node)
