"""What people set when they ship a Core ML package, read back from its description."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreml.programs import operations, spec
from tests.models import MIXED, images, small_net

BATCH = {"x": {2: torch.export.Dim("height", min=8, max=64), 3: 8}}


class Pixels(nn.Module):
    """A convolution over an image of any height: ``(1, 3, h, 8)`` to ``(1, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    return dkm.palettize(Pixels().eval(), dkm.Recipe.uniform(2))


def test_author_licence_and_recipe(tmp_path):
    about = {"author": "A", "license": "MIT", "description": "scores", "version": "1.2"}
    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(frozen, images(1), tmp_path / "m.mlpackage", about=about).path
    metadata = spec(path).description.metadata
    assert (metadata.author, metadata.license) == ("A", "MIT")
    assert (metadata.shortDescription, metadata.versionString) == ("scores", "1.2")
    (tmp_path / "recipe.toml").write_text(metadata.userDefined["dkm_deploy.recipe"])
    recipe = dkm.Recipe.load(tmp_path / "recipe.toml")
    assert recipe.assign(small_net()).specs == MIXED.assign(small_net()).specs


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_an_image_with_scale_and_bias(tmp_path, frozen, color):
    image = {"scale": 1 / 127.5, "bias": [-1.0, -0.9, -0.8], "color": color}
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, images(1), path, images={"x": image})
    (given,) = spec(path).description.input
    kind = given.type.imageType
    assert (kind.width, kind.height) == (8, 8)
    assert kind.ColorSpace.Name(kind.colorSpace) == color
    assert operations(path)["mul"] == 1
    assert operations(path)["add"] == 1


def test_class_labels(tmp_path, frozen):
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, images(1), path, class_labels=["ant", "bee", "cat", "dog"])
    description = spec(path).description
    assert description.predictedFeatureName == "classLabel"
    assert [out.type.WhichOneof("Type") for out in description.output] == [
        "stringType",
        "dictionaryType",
    ]


def test_the_shapes_that_an_input_may_have(tmp_path, frozen):
    shapes = [(1, 3, 16, 8), (1, 3, 32, 8)]
    path = tmp_path / "m.mlpackage"
    options = {"dynamic_shapes": BATCH, "shapes": {"x": shapes}}
    dkm.convert(frozen, images(1), path, **options)
    (given,) = spec(path).description.input
    listed = given.type.multiArrayType.enumeratedShapes.shapes
    assert [tuple(one.shape) for one in listed] == shapes
    assert tuple(given.type.multiArrayType.shape) == shapes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"about": {"auther": "A"}}, "a key of about is 'auther'; .* author, license"),
        ({"about": {"version": 1}}, "about: version is 1; it must be a text"),
        ({"class_labels": ["a", "b", "a", "c"]}, "class_labels has a label twice"),
        ({"class_labels": ["a", "b"]}, r"class_labels: 2 labels need one output of shape \(1, 2\)"),
        ({"images": {"y": {}}}, "images: the model has no input 'y'; it has x"),
        ({"images": {"x": {"scale": float("nan")}}}, "images: x: scale is nan"),
        ({"images": {"x": {"bias": [1.0]}}}, "images: x: bias has 1 values; RGB has 3"),
        ({"images": {"x": {"color": "HSV"}}}, "images: x: color is 'HSV'; .* RGB, BGR, GRAYSCALE"),
        ({"images": {"x": {"colour": "RGB"}}}, "images: x: .*colour"),
        (
            {"images": {"x": {"color": "GRAYSCALE"}}},
            r"images: input 'x' .* \(1, 1, height, width\)",
        ),
        ({"shapes": {"x": [(1, 3, 9, 8)]}}, r"shapes: input 'x' .* \(1, 3, 9, 8\) does not fit"),
    ],
)
def test_an_option_that_does_not_fit(tmp_path, frozen, options, message):
    with pytest.raises(dkm.DkmError, match=message):
        dkm.convert(frozen, images(1), tmp_path / "m.mlpackage", **options)
    assert not list(tmp_path.iterdir())


class TestBeforeTraining:
    @pytest.mark.parametrize(
        ("spec", "target", "message"),
        [
            (dkm.PaletteSpec(cluster_dim=2), "iOS17", "vector palettes need iOS18 or macOS15"),
            (dkm.PaletteSpec(group_size=2), "macOS14", "grouped palettes need iOS18 or macOS15"),
            (
                dkm.PaletteSpec(cluster_dim=2, per_channel_scale=True),
                "iOS16",
                "per-channel scales .* need iOS18 or macOS15",
            ),
            (
                dkm.PaletteSpec(8, per_channel_scale=True),
                "iOS18",
                "per_channel_scale=True takes a LUT .* 17,408 bytes in place of 2,048 of the dense",
            ),
        ],
    )
    def test_what_a_deployment_target_cannot_hold(self, spec, target, message):
        expected = rf"weight: target coreml:{target} cannot hold it: {message}.* is {target}"
        for call in (dkm.prepare, dkm.palettize):
            with pytest.raises(dkm.DkmError, match=expected):
                call(nn.Linear(32, 32), dkm.Recipe(spec), targets=("onnx", f"coreml:{target}"))

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_every_width_is_held(self, bits):
        recipe = dkm.Recipe.uniform(bits)
        dkm.palettize(nn.Linear(32, 32), recipe, targets=("coreml:iOS16", "coreml:macOS13"))

    def test_one_group_is_no_grouping(self):
        recipe = dkm.Recipe.uniform(2, group_size=32)
        dkm.palettize(nn.Linear(32, 32), recipe, targets=("coreml:iOS16",))

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("coreml:iOS15", "minimum_deployment_target is 'iOS15'; it must be one of iOS16"),
            ("coreml:", "minimum_deployment_target is ''"),
            ("onnx:18", "target onnx has no versions such as '18'; write 'onnx'"),
            ("coral:iOS16", "unknown target 'coral'"),
        ],
    )
    def test_an_unknown_version(self, target, message):
        with pytest.raises(dkm.DkmError, match=message):
            dkm.palettize(nn.Linear(32, 32), dkm.Recipe.uniform(2), targets=(target,))


def test_a_wider_type_is_reported(tmp_path):
    frozen = dkm.palettize(nn.Linear(32, 32), dkm.Recipe.uniform(3))
    x, path = torch.randn(1, 32), tmp_path / "m.mlpackage"
    assert dkm.convert(frozen, x, path).notes == ()
    artifact = dkm.convert(frozen, x, path, force=True, minimum_deployment_target="iOS17")
    (note,) = artifact.notes
    start = "3 bits are stored as 4, the next width that iOS17 has"
    assert note == f"{start}, and the weights are the same: weight"


def test_example_inputs_may_be_channels_last(tmp_path):
    model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3)).eval()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(2))
    images = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    artifact = dkm.convert(frozen, images, tmp_path / "m.mlpackage")
    assert dkm.validate([artifact.path], reference=frozen, inputs=images)
