"""Names of outputs, and a node of its own for each."""

import pytest
import torch
from torch import nn

from dkm_deploy.conversion.export import export
from dkm_deploy.model.output_names import output_names, unique

A = torch.zeros(1)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (A, ("output",)),
        ((A, None, [A, "text"]), ("output_0", "output_1")),
        ({"logits": A, "loss": None}, ("logits",)),
        (
            {"logits": A, "hidden": (A, A), "none": None, "deep": {"a": [A]}},
            ("logits", "hidden_0", "hidden_1", "deep_a_0"),
        ),
        ({"h": (A, A), "h_0": A}, ("h_0", "h_1", "h_0_1")),
        ({0: A, "0": A, "": A}, ("0", "0_1", "output")),
    ],
)
def test_names_tell_the_way_to_each_tensor_and_are_there_once(outputs, names):
    assert output_names(outputs) == names


def test_a_name_that_is_taken_gets_a_number_that_is_free():
    assert unique(["x", "y", "x"], ["y", "y_1"]) == ("x", "y_2", "x_1")
    assert unique(["a", "a_1", "a"]) == ("a", "a_1", "a_2")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x):
        y = x + 1
        return {"y": y, "x": x, "again": y, "table": self.table}


def test_no_output_is_an_input_a_weight_or_another_output():
    program = export(Shared().eval(), A).program
    (nodes,) = program.graph.output_node().args
    assert len(set(nodes)) == len(nodes) == 4
    assert all(node.op == "call_function" for node in nodes)
    assert [spec.arg.name for spec in program.graph_signature.output_specs] == [
        node.name for node in nodes
    ]
    found = program.module()(A)
    assert all(torch.equal(found[name], value) for name, value in Shared()(A).items())
