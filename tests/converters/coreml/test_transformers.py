"""Models of transformers, small and with random weights: the dense program's operations."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes.mlprogram import runtime
from tests.converters.coreml.programs import operations, without_decodes

SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
TOKENS = torch.randint(0, 50, (1, 7), generator=torch.Generator().manual_seed(0))
TEXT = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
IMAGE = {"pixel_values": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))}

SLOW = ("BERT", "DistilBERT", "GPT-2", "MobileNet v1", "MobileNet v2")  # seven seconds and more
# Configuration, class and inputs.
MODELS = {
    "BERT": (
        transformers.BertConfig(vocab_size=50, intermediate_size=32, **SIZES),
        transformers.BertModel,
        TEXT,
    ),
    "DistilBERT": (
        transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32),
        transformers.DistilBertModel,
        TEXT,
    ),
    "ViT": (
        transformers.ViTConfig(image_size=32, patch_size=8, intermediate_size=32, **SIZES),
        transformers.ViTModel,
        IMAGE,
    ),
    "MobileNet v1": (
        transformers.MobileNetV1Config(depth_multiplier=0.25, image_size=32),
        transformers.MobileNetV1Model,
        IMAGE,
    ),
    "MobileNet v2": (
        transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=32),
        transformers.MobileNetV2Model,
        IMAGE,
    ),
    "GPT-2": (
        transformers.GPT2Config(
            vocab_size=50,
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=9,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        ),
        transformers.GPT2LMHeadModel,
        {"input_ids": TOKENS},
    ),
}


def _model(config, kind, inputs):
    """With biases, which a fresh model has none of, and BatchNorms folded."""
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.1, 0.9)
    return dkm.fold_batch_norm(model, inputs)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_linear_layer_of_gpt2_is_what_it_is_in_the_dense_program(tmp_path, bias):
    """Its weight is the other way round; coremltools drops a bias of zeros."""
    layer = transformers.pytorch_utils.Conv1D(16, 8).eval()
    nn.init.constant_(layer.bias, bias)
    frozen, x = dkm.palettize(layer, dkm.Recipe.uniform(4)), torch.randn(2, 8)
    dense = dkm.convert(layer, x, tmp_path / "dense.mlpackage")
    artifact = dkm.convert(frozen, x, tmp_path / "m.mlpackage")
    assert without_decodes(operations(artifact)) == operations(dense)
    assert dkm.validate([artifact.path], reference=frozen, inputs=x)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS]
)
def test_a_model_converts_to_the_dense_program_and_computes_the_same(tmp_path, name):
    config, kind, inputs = MODELS[name]
    model = _model(config, kind, inputs)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(4))
    options = {"compute_precision": "float32"}
    dense = dkm.convert(model, inputs, tmp_path / "dense.mlpackage", **options)
    artifact = dkm.convert(frozen, inputs, tmp_path / "m.mlpackage", **options)
    assert without_decodes(operations(artifact)) == operations(dense)
    assert artifact.notes == ()
    assert dkm.read_palettes(artifact) == dkm.palettes(frozen)

    arrays = {key: tensor.numpy() for key, tensor in inputs.items()}
    outputs = runtime.load(artifact.path).run(arrays)
    with torch.no_grad():
        for key, value in frozen(**inputs).items():
            torch.testing.assert_close(torch.tensor(outputs[key]), value, rtol=1e-4, atol=1e-5)
