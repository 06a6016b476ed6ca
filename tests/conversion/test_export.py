from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.export import export
from dkm_deploy.model.palettized import weight_name
from tests.models import MIXED, TRAINABLE, TiedNet, images, small_net


def _decodes(program):
    op = torch.ops.dkm.lut_to_dense.default
    return [node for node in program.graph.nodes if node.target is op]


def test_every_palette_is_one_op_and_nothing_else_changes():
    exported = export(dkm.palettize(small_net(), MIXED), images(1))
    assert len(_decodes(exported.program)) == len(exported.palettes) == 2
    assert exported.input_names == ("x",)
    assert exported.output_names == ("output",)


def test_the_program_computes_what_the_model_computes():
    frozen = dkm.palettize(small_net(), MIXED)
    exported = export(frozen, images())
    assert torch.equal(exported.program.module()(images()), frozen(images()))


def test_a_tied_weight_is_decoded_once_under_its_first_name():
    frozen = dkm.palettize(TiedNet(), dkm.Recipe.uniform(3))
    exported = export(frozen, torch.zeros(1, 4, dtype=torch.int64))
    buffers = exported.program.graph_signature.inputs_to_buffers
    decoded = [weight_name(buffers[node.args[0].name]) for node in _decodes(exported.program)]
    assert decoded == ["embed.weight", "middle.weight"]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrent_weights_are_decoded_once(cell):
    frozen = dkm.palettize(cell(6, 8, bidirectional=True), dkm.Recipe.uniform(2))
    exported = export(frozen, torch.randn(5, 1, 6))
    assert len(_decodes(exported.program)) == len(exported.palettes) == 4


class _TwoIn(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(4, 4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": self.scale(left) + right, "gap": left - right}


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.ones(1, 4), torch.ones(1, 4)),
        {"left": torch.ones(1, 4), "right": torch.ones(1, 4)},
    ],
)
def test_names_are_the_users(inputs):
    exported = export(dkm.palettize(_TwoIn(), dkm.Recipe.uniform(2)), inputs)
    assert exported.input_names == ("left", "right")
    assert exported.output_names == ("sum", "gap")


def test_a_model_in_training_mode_is_exported_as_it_is_in_eval_mode():
    frozen = dkm.palettize(small_net(), MIXED)
    expected = frozen(images())
    exported = export(frozen.train(), images())
    assert torch.equal(exported.program.module()(images()), expected)
    assert all(module.training for module in frozen.modules())


def test_dynamic_shapes_pass_through():
    frozen = dkm.palettize(small_net(), MIXED)
    shapes = {"x": {0: torch.export.Dim("batch", max=64)}}
    exported = export(frozen, images(2), dynamic_shapes=shapes)
    assert torch.equal(exported.program.module()(images(7)), frozen(images(7)))


class _Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else x


class TestBadInput:
    def test_a_model_that_cannot_be_traced_passes_the_reason_on(self):
        frozen = dkm.palettize(_Branching(), dkm.Recipe.uniform(2))
        with pytest.raises(dkm.DkmError, match="torch.export cannot trace the model: .*data-dep"):
            export(frozen, torch.ones(1, 4))

    def test_inputs_that_do_not_fit(self):
        frozen = dkm.palettize(small_net(), MIXED)
        with pytest.raises(dkm.DkmError, match=r"inputs of shape \[\(1, 4, 8, 8\)\]: .*channels"):
            export(frozen, torch.ones(1, 4, 8, 8))

    def test_inputs_of_another_kind(self):
        frozen = dkm.palettize(small_net(), MIXED)
        with pytest.raises(dkm.DkmError, match="inputs are 'x'"):
            export(frozen, "x")

    def test_a_model_that_is_not_frozen(self):
        with pytest.raises(dkm.DkmError, match="prepared but not frozen"):
            export(dkm.prepare(small_net(), TRAINABLE), images())
