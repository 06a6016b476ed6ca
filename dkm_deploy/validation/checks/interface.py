"""Does an app find by name what ``convert`` was asked for?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dkm_deploy.formats.interface import Interface, InterfaceReader, differences
from dkm_deploy.formats.reader import Reader
from dkm_deploy.validation.check import Check, Status

_INSIDE = (
    "known from the file alone; give an Artifact's interface to validate or to write_golden "
    "to check it"
)


def interface_check(
    path: Path,
    reader: Reader,
    wanted: Interface | None,
    outputs: Iterable[str] | None,
    reference: Iterable[str],
) -> Check:
    """Compare names, types, shapes, images and labels with what was asked for.

    Args:
        path: of the file.
        reader: of files of its kind.
        wanted: what the caller or a golden bundle says; only about files of its suffix.
        outputs: names of what the file gave; None if it was not run.
        reference: names of the reference's outputs.

    Raises:
        DkmError: the file is damaged.
    """
    renamed = list(_renamed_outputs(list(outputs or ()), list(reference)))
    if not isinstance(reader, InterfaceReader):
        if not outputs:
            return Check(
                "interface", Status.SKIPPED, f"the interface of {path.suffix} files cannot be read"
            )
        told = [f"names of outputs alone are compared, of {path.suffix} files", *renamed]
        return Check("interface", Status.PASSED, "; ".join(told))
    found, asked = reader.read_interface(path)
    given = wanted if wanted is not None and wanted.suffix == path.suffix else None
    known = [each for each in (given, asked) if each is not None]
    wrong = [line for each in known for line in differences(found, each)]
    if wrong:
        return Check("interface", Status.FAILED, "; ".join(dict.fromkeys([*wrong, *renamed])))
    what = _list_differences(found)
    if not known:
        what = f"the file does not say what was asked for; it has {what}"
    elif given is None:
        alone = found.labels or any(feature.image for feature in found.inputs)
        what = f"as the file says it was asked for: {what}" + (f" ({_INSIDE})" if alone else "")
    else:
        what = f"as wanted: {what}"
    return Check("interface", Status.PASSED, "; ".join([what, *renamed]))


def _renamed_outputs(outputs: list[str], reference: list[str]) -> Iterator[str]:
    """Outputs that are matched by their place, for their names are others."""
    if len(outputs) == len(reference) and set(outputs) != set(reference):
        for name, other in zip(outputs, reference, strict=True):
            if name != other:
                yield f"output {name!r} is matched by its place with PyTorch's {other!r}"


def _list_differences(found: Interface) -> str:
    images = [
        f"image {feature.name!r} {feature.image.color}"
        for feature in found.inputs
        if feature.image is not None
    ]
    labels = [f"{len(found.labels)} class labels"] if found.labels else []
    counts = f"inputs: {len(found.inputs)}, outputs: {len(found.outputs)}"
    return ", ".join([counts, *images, *labels])
