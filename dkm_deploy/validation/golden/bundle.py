"""A golden bundle: inputs and the outputs they must give, in a folder that anything can read.

    bundle.json             names, types, shapes, limits, provenance
    tensors.safetensors     inputs.NAME, outputs.NAME, original.NAME, labels
    palettes.safetensors    the frozen palettes that outputs depend on, indices packed
    dense.safetensors       the frozen model's other weights; bundles of older versions lack it
    noise.safetensors       what rounding changes in the outputs: float16.NAME.., float32.NAME..,
                            float16-weights.NAME.. (of weights alone)
    raw/inputs.0.bin ..     each tensor once more: little-endian, C order, nothing around it
    SHA256SUMS              of all the others, as ``sha256sum -c`` reads it

Where bundle.json tells how many "steps" there are, inputs and outputs have the step as their first
dimension, and each step goes on with the state of the one before. Labels are those of the samples
of the first step, then of the second, and so on.

The bytes depend on what is in it alone: no time, no order of chance.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy._support.paths import translate_read_errors
from dkm_deploy._support.records import from_plain
from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.formats.interface import Interface, interface_from
from dkm_deploy.model.checkpoint import as_array, read_palettes, read_tensors
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.samples import sample_count
from dkm_deploy.model.steps import Steps, unstack_steps
from dkm_deploy.palette import Palette
from dkm_deploy.parity.noise_arrays import from_arrays
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import Noise
from dkm_deploy.validation.dense_weights.reference import DenseReference
from dkm_deploy.validation.golden import MANIFEST
from dkm_deploy.validation.golden.manifest import AskedInterface, TensorEntry, manifest_from
from dkm_deploy.validation.limits import Limits

TENSORS, PALETTES, DENSE, NOISE, SUMS = (
    "tensors.safetensors",
    "palettes.safetensors",
    "dense.safetensors",
    "noise.safetensors",
    "SHA256SUMS",
)
ARITHMETICS: Mapping[str, Arithmetic] = {
    "float16": Arithmetic("float16", "float16"),
    "float16-weights": Arithmetic("float32", "float16"),
    "float32": Arithmetic("float32", "float32"),
}
"""For which a bundle holds noise, by how the names of its arrays begin."""
GROUPS = ("inputs", "outputs", "original", "labels")

_LINE = re.compile(r"([0-9a-f]{64})  ((?:raw/)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
_CHUNK = 1 << 20
_MOST = 1 << 24  # bytes of a manifest or of the sums, far above what any bundle has


@dataclass(frozen=True)
class Bundle:
    """What a golden bundle holds.

    Attributes:
        inputs: by name, samples along the first dimension; or steps.
        outputs: of the frozen model, by name.
        original: outputs of the model before clustering; empty if it was not given.
        labels: None if there are none.
        metric: what the labels are for; None if for top-1 accuracy.
        original_bytes: of the original's tensors, and of its fp16 half; None without an original.
        palettes: of the frozen model, by parameter name; those that outputs depend on.
        limits: what a file must keep.
        provenance: where all this came from.
        recipe: TOML of a recipe that lays palettes out like these; empty if it is not told.
        steps: how many; None if the inputs are no steps.
        dense: the weights of the frozen model that have no palette; None in older bundles.
        interface: what an app is to find in files of one kind; None if it is not told.
        noise: the frozen model's own, by the arithmetic that was emulated; empty if it was not.
    """

    inputs: Mapping[str, Tensor] | Steps
    outputs: Mapping[str, NDArray[Any]]
    original: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None
    metric: str | None
    original_bytes: tuple[int, int] | None
    palettes: Mapping[str, Palette]
    limits: Limits
    provenance: Mapping[str, str]
    recipe: str
    dense: DenseReference | None
    interface: Interface | None
    steps: int | None = None
    noise: Mapping[Arithmetic, Noise] = field(default_factory=dict)


def read_bundle(folder: Path) -> Bundle:
    """Read a golden bundle, once every byte of it has been verified.

    Raises:
        DkmError: it is missing, damaged, changed since it was written, or of a newer version.
    """
    listed = _verify(folder)
    text = read_text(folder / MANIFEST)
    tensors, _ = read_tensors(folder / TENSORS)
    try:
        manifest = manifest_from(text)
        groups = {g: _group(getattr(manifest, g), g, tensors, listed) for g in GROUPS}
        steps = manifest.steps
        inputs = groups["inputs"] if steps is None else unstack_steps(groups["inputs"])
        _check_samples(groups, inputs, steps)
        outputs = in_a_row({n: t.numpy() for n, t in groups["outputs"].items()}, steps)
        return Bundle(
            inputs=inputs,
            outputs=outputs,
            original=in_a_row({n: t.numpy() for n, t in groups["original"].items()}, steps),
            labels=next((t.numpy() for t in groups["labels"].values()), None),
            metric=manifest.metric,
            original_bytes=manifest.original_bytes,
            palettes=read_palettes(folder / PALETTES),
            limits=from_plain(manifest.limits, Limits, "limits"),
            provenance={name: str(told) for name, told in manifest.provenance.items()},
            recipe=manifest.recipe,
            steps=steps,
            interface=_interface(manifest.interface),
            dense=_dense(folder / DENSE, manifest.epsilons) if DENSE in listed else None,
            noise=_noise(folder, outputs) if NOISE in listed else {},
        )
    except DkmError as error:
        raise DkmError(f"{folder / MANIFEST}: {error}") from error
    except (TypeError, ValueError) as error:  # tensors that are none of ours
        raise DkmError(f"{folder}: damaged: {error!r}") from error


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder itself has a file of that name: no link, and no name too long to be one."""
    path = folder / name
    try:
        return path.is_file() and path.resolve() == folder.resolve() / name
    except OSError:
        return False


def raw_bytes(array: NDArray[Any]) -> bytes:
    """An array as the raw copies hold it: little-endian, C order."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with translate_read_errors(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _verify(folder: Path) -> frozenset[str]:
    """Compare every file with its sum. Returns the names that were listed, and so verified."""
    sums: dict[str, str] = {}
    for line in read_text(folder / SUMS).removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if not match:
            raise DkmError(f"{folder / SUMS}: not a line of checksums: {line[:80]!r}")
        sums[match[2]] = match[1]
    for name in (MANIFEST, TENSORS, PALETTES):
        if name not in sums:
            raise DkmError(f"{folder / SUMS}: {name} is not listed, so it cannot be verified")
    for name, expected in sums.items():
        path = folder / name
        if not has_file(folder, name):
            raise MissingFileError(f"{path}: the bundle lists it, but it is missing")
        if sha256(path) != expected:
            raise DkmError(f"{path}: changed since the bundle was written (its SHA-256 differs)")
    return frozenset(sums)


def _interface(held: AskedInterface | None) -> Interface | None:
    return None if held is None else interface_from(held.asked, held.suffix)


def _dense(path: Path, epsilons: Mapping[str, float] | None) -> DenseReference:
    if epsilons is None:
        raise DkmError(f"epsilons is missing; {path.name} needs it")
    tensors, _ = read_tensors(path)
    found = DenseReference({name: as_array(t) for name, t in tensors.items()}, epsilons)
    for name in found.epsilons:
        vectors = found.of_norm(name)
        if "running_var" not in vectors or len({array.shape for array in vectors.values()}) != 1:
            raise DkmError(f"{path.name} lacks the statistics of {name!r}")
    return found


def _group(
    entries: Iterable[TensorEntry],
    group: str,
    tensors: Mapping[str, Tensor],
    listed: frozenset[str],
) -> dict[str, Tensor]:
    """The tensors of one group by name, each with the type and shape that the manifest tells."""
    found = {}
    for entry in entries:
        tensor = tensors.get(tensor_key(group, entry.name))
        if tensor is None or entry.raw not in listed or not _is_of(entry, tensor):
            raise DkmError(f"{group} {entry.name!r} does not match the manifest")
        found[entry.name] = tensor
    return found


def _is_of(entry: TensorEntry, tensor: Tensor) -> bool:
    return (entry.dtype, entry.shape) == (dtype_name(tensor.numpy()), tuple(tensor.shape))


def _noise(folder: Path, outputs: Mapping[str, NDArray[Any]]) -> dict[Arithmetic, Noise]:
    tensors, _ = read_tensors(folder / NOISE)
    found = {}
    for key, arithmetic in ARITHMETICS.items():
        prefix = f"{key}."
        own = {
            n.removeprefix(prefix): t.numpy() for n, t in tensors.items() if n.startswith(prefix)
        }
        if "samples" not in own:
            raise DkmError(f"{NOISE} holds no noise of {arithmetic}")
        found[arithmetic] = from_arrays(own, arithmetic, outputs)
    return found


def _check_samples(
    groups: Mapping[str, Mapping[str, Tensor]], inputs: Inputs | Steps, steps: int | None
) -> None:
    """Raise DkmError unless there are inputs, outputs, steps as told, and as many labels."""
    if not groups["inputs"] or not groups["outputs"]:
        raise DkmError("it has no inputs or no outputs")
    if isinstance(inputs, Steps) and len(inputs) != steps:
        raise DkmError(f"it has {len(inputs)} steps, but its manifest says {steps}")
    count = sample_count(inputs)
    for label in groups["labels"].values():
        if label.shape[:1] != (count,):
            raise DkmError(f"labels of shape {tuple(label.shape)} for {count} inputs")


def by_step(outputs: Mapping[str, NDArray[Any]], steps: int) -> dict[str, NDArray[Any]]:
    """Outputs of all steps in a row, with the step as first dimension."""
    return {name: a.reshape(steps, len(a) // steps, *a.shape[1:]) for name, a in outputs.items()}


def in_a_row(outputs: Mapping[str, NDArray[Any]], steps: int | None) -> dict[str, NDArray[Any]]:
    """Outputs of the first step, then of the second, and so on; as they are without steps.

    Raises:
        DkmError: an output has not the step as first dimension.
    """
    if steps is None:
        return dict(outputs)
    for name, array in outputs.items():
        if array.ndim < 2 or len(array) != steps:
            raise DkmError(f"output {name!r} has shape {array.shape}, not that of {steps} steps")
    return {name: a.reshape(-1, *a.shape[2:]) for name, a in outputs.items()}


def tensor_key(group: str, name: str) -> str:
    """Name of a tensor in the safetensors file."""
    return group if group == "labels" else f"{group}.{name}"


def dtype_name(array: NDArray[Any]) -> str:
    """Type of an array as the manifest has it, such as ``float32``."""
    return np.dtype(array.dtype).name


def read_text(path: Path, of: str = "a golden bundle") -> str:
    """A manifest or the sums. Raises DkmError if it is not there, far too long, or not text."""
    if not path.is_file() or path.is_symlink():
        raise MissingFileError(f"{path}: no such file; {of} has one")
    if path.stat().st_size > _MOST:
        raise DkmError(f"{path}: {path.stat().st_size:,} bytes are too many for this file")
    with translate_read_errors(path):
        content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DkmError(f"{path}: not text: {error}") from error
