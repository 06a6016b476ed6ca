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
        tuple(
            f"converters/onnx/{name}.py"
            for name in ("decodes", "evaluate", "ledger", "load", "read", "wire")
        ),
        tuple(
            f"tests/converters/test_onnx_{name}.py"
            for name in (
                *("decodes", "decodes_rows", "evaluate", "ledger", "ledger_kinds", "load"),
                *("load_data", "load_errors", "read", "read_errors", "read_forms", "wire"),
            )
        ),
        # It reads a file of any damage, many times.
        ("tests/converters/test_onnx_load.py::test_a_damaged_file_is_read_or_refused",),
    ),
    Area(
        ".ort reader",
        tuple(f"converters/ort/{name}.py" for name in ("flatbuffer", "ledger", "load", "model")),
        tuple(
            f"tests/converters/test_ort_{name}.py"
            for name in ("flatbuffer", "ledger", "model", "read")
        ),
        # It counts on how deep calls may go.
        ("tests/converters/test_ort_read.py::test_graphs_that_double_at_every_level_are_refused",),
    ),
    Area(
        "Core ML reader",
        (
            "converters/coreml/ledger.py",
            "converters/coreml/read.py",
            *(f"dkm_deploy/runtimes/mlprogram/{name}.py" for name in ("blobs", "package", "proto")),
        ),
        (
            "tests/converters/test_coreml_ledger.py",
            "tests/converters/test_coreml_read.py",
            "tests/converters/test_coreml_tables.py",
            "tests/runtimes/test_mlprogram_constexpr.py",
            "tests/runtimes/test_mlprogram_opening.py",
            "tests/runtimes/test_mlprogram_package.py",
        ),
    ),
    Area(
        "Core AI reader",
        (
            "converters/coreai/ledger.py",
            "converters/coreai/read.py",
            "dkm_deploy/runtimes/aimodel/*.py",
        ),
        (
            "tests/converters/test_coreai_bytes.py",
            "tests/converters/test_coreai_read.py",
            *(
                f"tests/runtimes/test_aimodel_{name}.py"
                for name in ("asset", "constants", "cursor", "program", "sections")
            ),
        ),
    ),
    Area(
        "checkpoint",
        ("dkm_deploy/training/checkpoint.py",),
        ("tests/training/test_checkpoint.py", "tests/training/test_checkpoint_contents.py"),
    ),
)


def area_named(name: str) -> Area:
    """The area called ``name``. Raises KeyError with the known names."""
    for area in AREAS:
        if area.name == name:
            return area
    raise KeyError(f"no area is called {name!r}; there are {', '.join(a.name for a in AREAS)}")
