"""Whole models in Core AI at their real shapes, with random weights, run by Apple's runtime."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import dkm_deploy as dkm
from tests.converters.coreai.assets import extra, outputs, relative_error

extra()
transformers = pytest.importorskip("transformers", reason="needs transformers")

pytestmark = pytest.mark.slow

IMAGE = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 30_000, (1, 64), generator=torch.Generator().manual_seed(0))
MODELS = {
    "ResNet-50": (transformers.ResNetConfig, transformers.ResNetModel, IMAGE),
    "MobileNet v2": (transformers.MobileNetV2Config, transformers.MobileNetV2Model, IMAGE),
    "ViT": (
        transformers.ViTConfig,
        partial(transformers.ViTModel, add_pooling_layer=False),
        IMAGE,
    ),
    "DistilBERT": (transformers.DistilBertConfig, transformers.DistilBertModel, TOKENS),
    "BERT": (
        partial(transformers.BertConfig, num_hidden_layers=2),
        partial(transformers.BertModel, add_pooling_layer=False),
        TOKENS,
    ),
    "GPT-2": (
        partial(transformers.GPT2Config, n_layer=2, use_cache=False),
        transformers.GPT2LMHeadModel,
        TOKENS,
    ),
}


class First(torch.nn.Module):
    """The last hidden state or the scores alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model(tmp_path, name):
    config, kind, x = MODELS[name]
    torch.manual_seed(0)
    frozen = dkm.palettize(First(kind(config())).eval(), dkm.Recipe.uniform(4))
    artifact = dkm.convert(frozen, x, tmp_path / "m.aimodel")
    (found,) = outputs(artifact, x).values()
    with torch.no_grad():
        assert relative_error(found, frozen(x)) < 1e-4
    held = sum(palette.indices.size for palette in dkm.palettes(frozen).values())
    assert artifact.ledger.by_kind()["indices"] == held // 2
