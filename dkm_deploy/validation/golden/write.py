"""Write a golden bundle: what a model gives for some inputs, to be replayed where it is not."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.atomic_files import atomic_path, check_writable
from dkm_deploy._support.paths import path_of
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.formats.interface import Interface
from dkm_deploy.model.checkpoint import save_palettes
from dkm_deploy.model.inputs import Inputs, arguments, arrays_in
from dkm_deploy.model.metric import unfit_reason
from dkm_deploy.model.palettized import palettes
from dkm_deploy.model.run import run_model
from dkm_deploy.model.samples import sample_count
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.parity.noise_arrays import to_arrays
from dkm_deploy.parity.repeatability import randomness
from dkm_deploy.parity.rounding_noise import measure_noise
from dkm_deploy.validation.checks.finite_outputs import check_finite
from dkm_deploy.validation.checks.needed_palettes import needed_palettes
from dkm_deploy.validation.dense_weights.reference import dense_reference
from dkm_deploy.validation.golden import MANIFEST
from dkm_deploy.validation.golden.bundle import (
    ARITHMETICS,
    DENSE,
    GROUPS,
    NOISE,
    PALETTES,
    SUMS,
    TENSORS,
    by_step,
    dtype_name,
    raw_bytes,
    sha256,
    tensor_key,
)
from dkm_deploy.validation.golden.manifest import (
    FORMAT,
    VERSION,
    AskedInterface,
    Manifest,
    TensorEntry,
)
from dkm_deploy.validation.labels import Labels, labels_array
from dkm_deploy.validation.limits import Limits, check_names
from dkm_deploy.validation.measures.palette_statistics import recipe_of
from dkm_deploy.validation.measures.size import half_bytes, tensor_bytes
from dkm_deploy.validation.provenance import provenance as versions
from dkm_deploy.validation.request import check_asked
from dkm_deploy.validation.task import first

Groups = Mapping[str, Mapping[str, NDArray[Any]]]


@usage('dkm.write_golden("golden", reference=frozen, inputs=inputs)')
@keep_random_state()
def write_golden(
    folder: str | Path,
    *,
    reference: nn.Module,
    inputs: Inputs | Steps,
    original: nn.Module | None = None,
    labels: Labels | None = None,
    metric: str | None = None,
    limits: Limits | None = None,
    provenance: Mapping[str, str] | None = None,
    interface: Interface | None = None,
    force: bool = False,
) -> None:
    """Write a golden bundle for :func:`dkm_deploy.validate_golden`, whole or not at all.

    A bundle holds inputs, expected outputs, limits, and the weights of ``reference``, palettized
    and dense. The same models and inputs give the same bytes on the same computer.

    Args:
        folder: the folder to make; its content is described in
            :mod:`dkm_deploy.validation.golden.bundle`.
        reference: the frozen model.
        inputs: a tensor, a tuple of positional or a mapping of keyword inputs, with samples along
            the first dimension; or ``dkm.Steps``, all of the same shapes.
        original: the model before clustering.
        labels: class numbers from 0, shape ``(n,)``, or what a metric takes: one for each input.
        metric: name of the metric that the labels are for; None is top-1 accuracy.
        limits: limits that a file must keep.
        provenance: texts by name: the recipe, the commit, and other facts about the model.
        interface: names, dtypes and shapes that an app needs, as :class:`dkm_deploy.Artifact` holds
            them.
        force: replace an existing folder.

    Raises:
        DkmError: the models do not run on the inputs, an input has no numpy dtype, or the labels do
            not fit the metric.
        OutputExistsError: ``folder`` exists and ``force`` is not set.

    Example:
        >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
        >>> dkm.write_golden("new", reference=frozen, inputs=torch.ones(4, 8))
        >>> bool(dkm.validate_golden("model.onnx", "new"))
        True
    """
    folder = path_of(folder, "folder")
    check_asked(None, limits, interface=interface)
    limits = limits or Limits()
    if metric is not None and not isinstance(metric, str):
        raise ArgumentError(f"metric is a {type(metric).__name__}; a bundle holds its name, a str")
    model_of(reference, "reference")
    if original is not None:
        model_of(original, "original")
    if not isinstance(provenance or {}, Mapping):
        raise ArgumentError(f"provenance is a {type(provenance).__name__}; give texts by name")
    check_writable(folder, force=force)
    reference = with_plain_parameters(reference)
    given = _named_arrays(reference, inputs)
    told = labels_array(labels, sample_count(inputs))
    if told is not None and told.dtype.kind not in "biuf":
        raise DkmError(f"labels are {told.dtype}; a golden bundle holds numbers")
    groups = {
        "inputs": given,
        "outputs": run_model(reference, inputs),
        "original": run_model(original, inputs) if original else {},
        "labels": {} if told is None else {"labels": told},
    }
    check_names(limits, groups["outputs"])
    check_finite(groups["outputs"], inputs)
    reason = None if told is None or metric else unfit_reason(first(groups["outputs"]), told)
    chance = randomness("the reference", reference, inputs)
    if original and not chance:
        chance = randomness("the original", original, inputs)
    if reason or chance:
        raise DkmError(reason or chance)
    dense = dense_reference(reference)
    about: dict[str, Any] = {
        "epsilons": dense.epsilons,
        "interface": interface and AskedInterface(interface.suffix, interface.to_json()),
        "metric": metric,
        "original_bytes": [tensor_bytes(original), half_bytes(original)] if original else None,
        "limits": asdict(limits),
        "provenance": versions() | dict(provenance or {}),
        "recipe": recipe_of(palettes(reference), reference).to_toml(),
    }
    if isinstance(inputs, Steps):
        about["steps"] = len(inputs)
        groups |= {g: by_step(groups[g], len(inputs)) for g in ("outputs", "original")}
    with atomic_path(folder, force=force) as temporary:
        _write(temporary, groups, about)
        save_palettes(needed_palettes(reference, inputs), temporary / PALETTES)
        save_file(_contiguous(dense.tensors), temporary / DENSE)
        save_file(_noise(reference, inputs), temporary / NOISE)
        _write_sums(temporary)


def _write(folder: Path, groups: Groups, told: Mapping[str, Any]) -> None:
    (folder / "raw").mkdir(parents=True)
    tensors: dict[str, NDArray[Any]] = {}
    entries: dict[str, list[TensorEntry]] = {group: [] for group in GROUPS}
    for group, own in entries.items():
        for place, (name, array) in enumerate(groups[group].items()):
            raw = f"raw/{group}.{place}.bin"
            (folder / raw).write_bytes(raw_bytes(array))
            tensors[tensor_key(group, name)] = array.copy(order="C")
            own.append(TensorEntry(name, dtype_name(array), array.shape, raw))
    save_file(tensors, folder / TENSORS)
    values: dict[str, Any] = {**entries, **told}
    manifest = asdict(Manifest(FORMAT, VERSION, **values))
    written = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_bytes(written.encode())


def _contiguous(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array.copy(order="C") for name, array in tensors.items()}


def _noise(model: nn.Module, inputs: Inputs | Steps) -> dict[str, NDArray[Any]]:
    """The model's own noise: all of its weights rounded, for no file is known yet."""
    return {
        f"{key}.{name}": array
        for key, arithmetic in ARITHMETICS.items()
        for name, array in to_arrays(measure_noise(model, inputs, arithmetic)).items()
    }


def _write_sums(folder: Path) -> None:
    parts = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = [f"{sha256(folder / part)}  {part}\n" for part in parts]
    (folder / SUMS).write_bytes("".join(lines).encode())


def _named_arrays(model: nn.Module, inputs: Inputs | Steps) -> dict[str, NDArray[Any]]:
    """Inputs by the names they have in ``forward``; of bfloat16 as float32.

    Those of steps have the step as first dimension.
    """
    if isinstance(inputs, Steps):
        return _stack_steps([_named_arrays(model, step) for step in inputs])
    args, kwargs = arguments(inputs)
    names = list(inspect.signature(model.forward).parameters)
    if len(args) > len(names):
        raise DkmError(f"{len(args)} inputs given; forward() takes {', '.join(names)}")
    named = arrays_in((), dict(zip(names, args, strict=False)) | kwargs)
    for name, value in named.items():
        if not torch.is_tensor(value):
            raise DkmError(f"input {name!r} is an array of {value.dtype}; a bundle holds numbers")
    return {name: _numpy(value) for name, value in named.items()}


def _numpy(tensor: Tensor) -> NDArray[Any]:
    wide = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return wide.detach().cpu().numpy()


def _stack_steps(steps: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    first = {name: array.shape for name, array in steps[0].items()}
    for place, step in enumerate(steps, 1):
        if {name: array.shape for name, array in step.items()} != first:
            raise DkmError(
                f"step {place} has inputs of other shapes than step 1; "
                "all steps of a golden bundle must have the same shapes"
            )
    return {name: np.stack([step[name] for step in steps]) for name in first}
