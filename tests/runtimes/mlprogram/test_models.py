"""Whole models as coremltools writes them, small in size, against the PyTorch original.

``python -m benchmarks.evaluator`` does the same at real sizes.
"""

import numpy as np
import pytest
import torch
from torch import nn

from dkm_deploy._support.silence import quiet
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes.mlprogram import runtime
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from tests.formats.mlpackage.packages import ct, n, rand

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 99, (2, 12), generator=torch.Generator().manual_seed(1)).int()
SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
CNN = {"hidden_sizes": [16, 32], "embedding_size": 16, "depths": [2, 2]}


class Logits(nn.Module):
    """The logits of a model of transformers."""

    def __init__(self, model, mask=None):
        super().__init__()
        self.model = model
        self.register_buffer("mask", mask)

    def forward(self, x):
        given = {} if self.mask is None else {"attention_mask": self.mask}
        return self.model(x, **given).logits


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.layer(x)[0])


class HardSwishCnn(nn.Sequential):
    """The parts of MobileNet-v3 that v2 lacks."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 8, 5, 1, 2,
            groups=8), nn.Hardsigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )  # fmt: skip


def hub(name, mask=None, **options):
    """Logits of a model of transformers, by the class's name."""
    kind = getattr(transformers, name)
    return lambda: Logits(kind(kind.config_class(**options)), mask)


IMAGE = rand(2, 3, 32, 32)
MASKED = ("bert", "distilbert", "gpt2")  # their masks hold the lowest number of float32
MODELS = {
    "resnet": (hub("ResNetForImageClassification", **CNN), IMAGE),
    "mobilenet_v3": (HardSwishCnn, IMAGE),
    "vit": (
        hub("ViTForImageClassification", image_size=32, patch_size=8, **SMALL),
        IMAGE,
    ),
    "bert": (hub("BertForSequenceClassification", **SMALL), TOKENS),
    "distilbert": (
        hub(
            "DistilBertForSequenceClassification",
            vocab_size=99,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=48,
        ),
        TOKENS,
    ),
    "gpt2": (
        hub(
            "GPT2LMHeadModel",
            # Left alone, it looks for packed sequences in a way that coremltools cannot convert.
            mask=torch.ones(1, 1, 12, 12).tril().log(),
            vocab_size=99,
            n_embd=32,
            n_layer=2,
            n_head=4,
            use_cache=False,
        ),
        TOKENS,
    ),
    "transformer": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
        ),
        rand(2, 7, 16),
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), rand(2, 5, 8)),
    "gru": (lambda: Recurrent(nn.GRU), rand(2, 5, 8)),
}
SLOW = ("vit", "distilbert", "transformer", "gru")


def converted(path, model, x):
    """Write ``model`` as an fp32 program, and give its own answer."""
    recurrent = isinstance(model, Recurrent)
    with quiet(), torch.no_grad():
        if recurrent:  # torch.export spells recurrent layers out; a trace keeps them whole
            given = {"inputs": [ct.TensorType(shape=x.shape)]}
            source = torch.jit.trace(model, x)
        else:
            given = {}
            source = torch.export.export(model, (x,)).run_decompositions({})
            for node in source.graph.nodes:
                if node.target is torch.ops.aten.alias.default:  # unknown to coremltools 9.0
                    node.replace_all_uses_with(node.args[0])
            source.graph.eliminate_dead_code()
        ct.convert(
            source,
            outputs=[ct.TensorType(name="y")],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
            **given,
        ).save(str(path))
        return n(model(x))


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, which coremltools needs
def test_as_exact_as_float32(tmp_path, name):
    torch.manual_seed(0)
    build, x = MODELS[name]
    expected = converted(tmp_path / "m.mlpackage", build().eval(), x)
    session = runtime.load(tmp_path / "m.mlpackage")
    (given,) = session.input_shapes
    assert relative(session.run({given: n(x)})["y"], expected) < 1e-5
    half = MLProgramEvaluator(tmp_path / "m.mlpackage", numerics="fp16")
    assert 1e-5 < relative(half.run({given: n(x)})["y"], expected) < 2e-2
    assert half.overflows == () or name in MASKED


def test_a_recurrent_layer_is_one_operation(tmp_path):
    """What the test above runs is the operation, not its spelling in others."""
    converted(tmp_path / "m.mlpackage", MODELS["lstm"][0]().eval(), rand(2, 5, 8))
    types = [o.type for o in functions(open_package(tmp_path / "m.mlpackage"))["main"].body.walk()]
    assert types.count("lstm") == 2
