"""Integers of 8 and 16 bits, which Core ML computes with as those of 32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreml.programs import Functions, check_outputs, operations

FUNCTIONS = {
    "as_floats": lambda x, y: x.float() / 4,
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "from_a_number": lambda x, y: 3 - x,
    "product": lambda x, y: x * y,
    "negative": lambda x, y: -x,
    "of_both": lambda x, y: torch.where(x > y, x, y) + 1,
    "turned": lambda x, y: x.flip(-1).reshape(2, 6),
    "widened": lambda x, y: x.to(torch.int64) * 2,
    "narrowed": lambda x, y: (x.to(torch.int32) * 3).to(x.dtype),
    "of_floats": lambda x, y: (x.float() / 3).to(x.dtype),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_values_go_on_at_the_other_end_as_in_pytorch(tmp_path, dtype):
    info = torch.iinfo(dtype)
    x, y = (torch.randint(info.min, info.max + 1, (3, 4), dtype=dtype) for _ in "xy")
    x[0, :2], y[0, :2] = info.max, info.min
    precise = {"compute_precision": "float32"}
    check_outputs(Functions(FUNCTIONS), (x, y), tmp_path / "m.mlpackage", **precise)


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x.float() / 255)


def test_pixels_of_8_bits_are_an_input_or_an_image(tmp_path):
    frozen = dkm.palettize(Pixels().eval(), dkm.Recipe.uniform(4))
    x = torch.randint(0, 256, (1, 3, 9, 8), dtype=torch.uint8)
    for name, options in {"tensor": {}, "image": {"images": {"x": {}}}}.items():
        file = dkm.convert(frozen, x, tmp_path / f"{name}.mlpackage", **options)
        assert dkm.validate([file], reference=frozen, inputs=x, require=("parity",)), name
    assert "mod" not in operations(tmp_path / "tensor.mlpackage"), "nothing can leave its range"


def test_pixels_of_8_bits_have_no_scale(tmp_path):
    x = torch.zeros(1, 3, 9, 8, dtype=torch.uint8)
    with pytest.raises(dkm.DkmError, match="input 'x' is uint8, .* leave out its scale of 0.5"):
        dkm.convert(Pixels().eval(), x, tmp_path / "m.mlpackage", images={"x": {"scale": 0.5}})
