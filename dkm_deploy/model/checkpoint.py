"""Save and load a frozen model: safetensors, indices packed, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy._support.paths import existing_file, path_of, translate_read_errors
from dkm_deploy._support.records import from_json
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.formats.ledger import Kind, Ledger, LedgerEntry, balanced_ledger, size_on_disk
from dkm_deploy.formats.reader import Reader
from dkm_deploy.model.palettized import install, palettes, stacked_above
from dkm_deploy.nn_utils.copies import independent_copy
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.weights import OwnParametrization, originals, places, with_plain_parameters
from dkm_deploy.packing import pack, unpack
from dkm_deploy.palette import Palette

_KEY = "dkm_deploy.palettes"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@usage('dkm.save(frozen, "net.safetensors")')
def save(frozen: nn.Module, path: str | Path, *, force: bool = False) -> None:
    """Write a frozen model as a safetensors file, whole or not at all.

    A palettized weight ``fc.weight`` is stored as ``fc.weight.indices`` (uint8, packed, n bits per
    index), ``fc.weight.lut`` and, if it has a scale, ``fc.weight.scale``. Every other tensor is
    stored as in the ``state_dict``; tied tensors once. The metadata of the file holds the shapes.

    Args:
        frozen: from ``dkm.freeze`` or ``dkm.palettize``.
        path: the file to write.
        force: replace an existing file.

    Raises:
        DkmError: the model has no palettes, or a parametrization is registered above a palette.
        OutputExistsError: ``path`` exists and ``force`` is not set.

    Example:
        >>> dkm.save(dkm.palettize(nn.Linear(8, 4), 2), "new.safetensors")
        >>> sorted(dkm.read_palettes("new.safetensors"))
        ['weight']
    """
    frozen = with_plain_parameters(model_of(frozen))
    found = palettes(frozen)
    if not found:
        raise DkmError("the model has no palettes; dkm.freeze or dkm.palettize it before saving")
    for name, above in stacked_above(frozen):
        raise DkmError(
            f"{name}: {type(above).__name__} is registered above its palette, which a checkpoint "
            "does not hold; save the state_dict, or remove it first"
        )
    _write(found, dense_tensors(frozen), path_of(path), force=force)


def save_palettes(found: Mapping[str, Palette], path: Path) -> None:
    """Write palettes alone, as :func:`save` does, without the other tensors of a model.

    Raises OutputExistsError if ``path`` exists.
    """
    _write(found, {}, path, force=False)


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes that :func:`save` or :func:`save_palettes` wrote. Raises as :func:`load`."""
    return dict(_read(path).palettes)


def _write(
    found: Mapping[str, Palette], tensors: dict[str, Tensor], path: Path, *, force: bool
) -> None:
    for name, palette in found.items():
        tensors[f"{name}.indices"] = torch.from_numpy(pack(palette.indices, palette.bits))
        tensors[f"{name}.lut"] = torch.tensor(palette.lut)
        if palette.scale is not None:
            tensors[f"{name}.scale"] = torch.tensor(palette.scale)
    layout = {n: asdict(_Layout(p.indices.shape, p.bits, p.axis)) for n, p in found.items()}
    with atomic_path(path, force=force) as temporary:
        save_file(tensors, temporary, {_KEY: json.dumps(layout)})


@usage('dkm.load("net.safetensors", model)')
def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Read a checkpoint written by :func:`save` into the architecture of a model.

    Args:
        path: the checkpoint.
        model: a plain module of the class that was saved, with or without its norms and masks; it
            does not change.

    Returns:
        A frozen module in eval mode, on the CPU.

    Raises:
        DkmError: the file is missing, damaged, not a palettized checkpoint, or does not belong to
            the model (the message names the first tensor that differs).

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2)
        >>> dkm.save(frozen, "new.safetensors")
        >>> loaded = dkm.load("new.safetensors", nn.Linear(8, 4))
        >>> torch.equal(loaded.weight, frozen.weight)
        True
    """
    checkpoint = _read(path_of(path))
    frozen = independent_copy(with_plain_parameters(model_of(model))).cpu()
    parameters = dict(frozen.named_parameters())
    used_in = places(frozen)
    for name, palette in checkpoint.palettes.items():
        if name not in parameters:
            raise _foreign(
                path,
                f"it has a palette for {name!r}, which the model lacks; give a plain model, "
                "neither prepared nor frozen",
            )
        if tuple(parameters[name].shape) != palette.shape:
            shape = tuple(parameters[name].shape)
            raise _foreign(path, f"{name} has shape {palette.shape} in it and {shape} in the model")
        install(used_in[name], palette, parameters[name])
    _load_dense(path, frozen, checkpoint.dense)
    return frozen.eval()


def is_palettized(path: Path) -> bool:
    """Whether a safetensors file was written by :func:`save`; raises as :func:`read_tensors`."""
    with _open_checkpoint(path) as file:
        return _KEY in (file.metadata() or {})


class CheckpointReader:
    """Reads checkpoints as converted files are read; see ``Reader``."""

    suffixes: tuple[str, ...] = (".safetensors",)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """The palettes of a checkpoint; empty if it has none."""
        return read_palettes(path) if is_palettized(path) else {}

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """The floating-point tensors of a checkpoint that are no part of a palette."""
        tensors, metadata = read_tensors(path)
        layout = _layout(path, metadata) if _KEY in metadata else {}
        parts = {f"{name}.{part}" for name in layout for part in ("indices", "lut", "scale")}
        for name, tensor in tensors.items():
            if name not in parts and tensor.is_floating_point():
                yield DenseTensor(name, tensor.nbytes, partial(as_array, tensor))

    def ledger(self, path: Path) -> Ledger:
        """Tensors by kind; the header is graph."""
        tensors, metadata = read_tensors(path)
        names = _layout(path, metadata) if _KEY in metadata else {}
        kinds: dict[str, tuple[Kind, str]] = {}
        for name in names:
            kinds[f"{name}.indices"] = ("indices", name)
            kinds[f"{name}.lut"] = kinds[f"{name}.scale"] = ("lut", name)
        entries = [LedgerEntry(*kinds.get(n, ("dense", n)), t.nbytes) for n, t in tensors.items()]
        header = size_on_disk(path) - sum(entry.size_bytes for entry in entries)
        return balanced_ledger(path, [*entries, LedgerEntry("graph", "header", header)])


reader: Reader = CheckpointReader()


@dataclass(frozen=True)
class _Layout:
    """What the metadata has of a palette, as JSON."""

    shape: tuple[int, ...]
    bits: int
    axis: int


@dataclass(frozen=True)
class _Checkpoint:
    palettes: Mapping[str, Palette]
    dense: Mapping[str, Tensor]


def _read(path: Path) -> _Checkpoint:
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise DkmError(
            f"{path}: not a palettized checkpoint (no {_KEY} in its metadata); "
            "it must come from dkm.save"
        )
    layout = _layout(path, metadata)
    try:
        found = {name: _palette(name, entry, tensors) for name, entry in layout.items()}
    except DkmError as error:
        raise DkmError(f"{path}: damaged palettes: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DkmError(f"{path}: damaged palettes: {error!r}") from error
    return _Checkpoint(found, tensors)


def _layout(path: Path, metadata: Mapping[str, str]) -> dict[str, _Layout]:
    """What a checkpoint says of its palettes, by weight."""
    try:
        return from_json(metadata[_KEY], dict[str, _Layout], _KEY, more_keys=True)
    except DkmError as error:
        raise DkmError(f"{path}: damaged palettes: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file.

    Raises:
        DkmError: the file is missing, truncated or of another kind.
    """
    with _open_checkpoint(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no iterator
        return tensors, file.metadata() or {}


@contextmanager
def _open_checkpoint(path: Path) -> Iterator[Any]:
    with translate_read_errors(existing_file(path)):
        path.open("rb").close()  # safetensors does not say why a file may not be read
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise DkmError(f"{path}: not a whole safetensors file: {error}") from error


def _palette(name: str, layout: _Layout, tensors: dict[str, Tensor]) -> Palette:
    """One palette; its tensors are taken out of ``tensors``."""
    packed, lut = tensors.pop(f"{name}.indices"), tensors.pop(f"{name}.lut")
    scale = tensors.pop(f"{name}.scale").numpy() if f"{name}.scale" in tensors else None
    indices = unpack(packed.numpy(), layout.bits, prod(layout.shape)).reshape(layout.shape)
    return Palette(indices, lut.numpy(), layout.axis, layout.bits, scale)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor; numpy has no bfloat16, whose values float32 holds as they are."""
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def dense_tensors(frozen: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model's state that is not part of a palette, tied ones once."""
    seen = _palette_tensors(frozen)
    tensors = {}
    for name, tensor in frozen.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        tensors[name] = tensor.detach().contiguous()
    return tensors


def _palette_tensors(model: nn.Module) -> set[int]:
    """The identities of all tensors that are part of a palette, prepared or frozen."""
    found: set[int] = set()
    for module in model.modules():
        if isinstance(module, ParametrizationList):
            own = [one for one in module if isinstance(one, OwnParametrization)]
            found.update(id(t) for one in own for t in one.state_dict(keep_vars=True).values())
            found.update(id(t) for t in originals(module) if own)
    return found


def _load_dense(path: str | Path, frozen: nn.Module, dense: Mapping[str, Tensor]) -> None:
    expected = dense_tensors(frozen)
    for name in sorted(expected.keys() ^ dense.keys()):
        where = "the model lacks" if name in dense else "the file lacks"
        raise _foreign(path, f"{where} {name!r}")
    for name, tensor in expected.items():
        if tensor.shape != dense[name].shape:
            shapes = f"{tuple(dense[name].shape)} in it and {tuple(tensor.shape)} in the model"
            raise _foreign(path, f"{name} has shape {shapes}")
        if not _casts(dense[name].dtype, tensor.dtype):
            raise _foreign(
                path, f"{name} is {dense[name].dtype} in it and {tensor.dtype} in the model"
            )
    frozen.load_state_dict(dict(dense), strict=False)


def _casts(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether values of one type are taken as another: floats, of any precision, as floats."""
    return stored == wanted or (stored in _FLOATS and wanted in _FLOATS)


def _foreign(path: str | Path, why: str) -> DkmError:
    return DkmError(f"{path}: this checkpoint does not belong to the model: {why}")
