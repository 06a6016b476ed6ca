"""What is mutated, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Area:
    """Some files and the tests that are about them.

    Attributes:
        name: on the command line and in the table.
        sources: glob patterns of the files that are mutated.
        tests: files and folders of tests. Tests of everything else are left out: they would notice
            most faults too, and take minutes for each that they do not.
        without: tests among them that fail on the copy as it is, where every call goes through one
            more, or that take much longer than all the others.
    """

    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


AREAS = (
    Area(
        "palette, packing",
        ("dkm_deploy/packing.py", "dkm_deploy/palette.py"),
        ("tests/test_packing.py", "tests/test_palette.py"),
    ),
    Area("report", ("dkm_deploy/report/*.py",), ("tests/report",)),
    Area("validation", ("dkm_deploy/validation/*.py",), ("tests/validation",)),
    Area(
        "ONNX reader",
        (
            "converters/onnx/graph/load.py",
            *(
                f"converters/onnx/reading/{name}.py"
                for name in (
                    "evaluate",
                    "find_decodes",
                    "ledger",
                    "protobuf_fields",
                    "read_palettes",
                )
            ),
        ),
        (
            "tests/converters/onnx/reading",
            *(
                f"tests/converters/onnx/graph/test_{name}.py"
                for name in ("load", "load_data", "load_errors")
            ),
        ),
        (
            # It reads a file of any damage, many times.
            "tests/converters/onnx/graph/test_load.py::test_a_damaged_file_is_read_or_refused",
            # Files of other writers, which take long to make.
            "tests/converters/onnx/reading/test_resaved.py",
        ),
    ),
    Area(
        ".ort reader",
        tuple(
            f"converters/ort/{name}.py"
            for name in ("flatbuffer_reader", "ledger", "load", "onnx_model")
        ),
        tuple(
            f"tests/converters/ort/test_{name}.py"
            for name in ("flatbuffer_limits", "flatbuffer_reader", "ledger", "onnx_model", "read")
        ),
        # It counts on how deep calls may go.
        ("tests/converters/ort/test_read.py::test_graphs_that_double_at_every_level_are_refused",),
    ),
    Area(
        "Core ML reader",
        (
            "converters/coreml/reading/ledger.py",
            "converters/coreml/reading/read_palettes.py",
            "dkm_deploy/formats/mlpackage/weight_blobs.py",
            "dkm_deploy/formats/mlpackage/package.py",
            "dkm_deploy/formats/mlpackage/proto.py",
        ),
        (
            "tests/converters/coreml/reading/test_ledger.py",
            "tests/converters/coreml/test_read_palettes.py",
            "tests/converters/coreml/test_tables.py",
            "tests/formats/mlpackage/test_constexpr.py",
            "tests/runtimes/mlprogram/test_opening.py",
            "tests/formats/mlpackage/test_package.py",
        ),
    ),
    Area(
        "Core AI reader",
        (
            "converters/coreai/ledger.py",
            "converters/coreai/read_palettes.py",
            "dkm_deploy/formats/aimodel/*.py",
        ),
        (
            "tests/converters/coreai/test_bytes.py",
            "tests/converters/coreai/test_read_palettes.py",
            "tests/formats/aimodel",
        ),
    ),
    Area(
        "checkpoint",
        ("dkm_deploy/model/checkpoint.py",),
        ("tests/model/test_checkpoint.py", "tests/model/test_checkpoint_contents.py"),
    ),
)


def area_named(name: str) -> Area:
    """The area called ``name``. Raises KeyError with the known names."""
    for area in AREAS:
        if area.name == name:
            return area
    raise KeyError(f"no area is called {name!r}; there are {', '.join(a.name for a in AREAS)}")
