"""A file in, a smaller file out: a model file without its Python model, or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.atomic_files import atomic_path, check_writable
from dkm_deploy._support.paths import existing_path, path_of
from dkm_deploy.conversion.convert import check_written
from dkm_deploy.conversion.registry import read_palettes, rewriter_for, size_breakdown
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.model.checkpoint import dense_tensors, is_palettized, save
from dkm_deploy.model.spec import calibration_batches, is_program, plain_model
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.palette import Palette
from dkm_deploy.post_training.methods import PostTrainingMethod, post_training_method
from dkm_deploy.post_training.output_correction.correct import Correction, correct_outputs
from dkm_deploy.post_training.palettize import palettize
from dkm_deploy.recipe import Recipe, RecipeLike


@dataclass(frozen=True)
class PalettizedFile:
    """Result of :func:`dkm_deploy.palettize_file`; ``os.fspath`` of it is its path.

    Attributes:
        path: the file.
        palettes: palettes by weight name, as read back from the file.
        dense: reasons of all other tensors of rank 2 or more, by name.
        unchecked: what could not be checked about the file, one sentence each.
        bytes_before: bytes of the input with all files that it refers to; for a ``.pt2`` program,
            of its parameters and buffers alone.
        bytes_after: bytes of the file with all files that it refers to.
        uncorrected: reasons of the palettes whose LUT a correction did not change, by name.
        adjusted: weights that cannot have the recipe's default, what they have and why, by name.
        notes: what else changed in the file, one sentence each.

    Example:
        >>> result = dkm.palettize_file("dense.onnx", "small.onnx", 2)
        >>> {name: palette.bits for name, palette in result.palettes.items()}
        {'weight': 2}
    """

    path: Path
    palettes: Mapping[str, Palette]
    dense: Mapping[str, str]
    unchecked: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    uncorrected: Mapping[str, str] = field(default_factory=dict)
    adjusted: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)


@usage('dkm.palettize_file("net.onnx", "small.onnx", 4)')
@keep_random_state()
def palettize_file(
    path: str | Path, out: str | Path, recipe: RecipeLike, *, force: bool = False
) -> PalettizedFile:
    """Cluster the weights of a model file by k-means, and write a file of the same kind.

    A ``.pt2`` file gives a checkpoint, as ``dkm.save`` writes it. For other files, the palettes are
    decoded from the new file and compared with the clustered ones before it gets its name. The
    input file never changes.

    Args:
        path: an ``.onnx`` file, an ``.mlpackage`` (an ML program, on any OS), a file of another
            target that supports this, or a ``.pt2`` file.
        out: the file to write: of the same kind, or ``.safetensors``; not ``path``.
        recipe: which weight gets which palette, by the names in the file. A spec or a number of
            bits applies to all weights.
        force: replace what is at ``out``.

    Returns:
        The palettes, and the bytes before and after.

    Raises:
        DkmError: the file is missing, damaged or of a kind that cannot be palettized; the recipe
            does not fit it; nothing in it can be palettized (with the first reasons); or ``out`` is
            the input, of another kind, or exists and ``force`` is not set. Nothing is written then.

    Example:
        >>> result = dkm.palettize_file("dense.onnx", "small.onnx", dkm.PaletteSpec(bits=4))
        >>> result.palettes["weight"].bits
        4
    """
    recipe, path, out = Recipe.of(recipe), path_of(path), path_of(out, "out")
    if is_program(path):
        return palettize_checkpoint(str(path), None, out, recipe, force=force)
    path = existing_path(path)
    target = rewriter_for(path)
    if out.suffix not in target.suffixes:
        kinds = " or ".join(target.suffixes)
        raise DkmError(f"{out}: palettizing {path} gives a file with suffix {kinds}")
    _check_output(out, path, force=force)
    with atomic_path(out, force=force) as temporary:
        done = target.palettize(path, temporary, recipe)
        check_written(target, done.palettes, temporary)
    after = size_breakdown(out).total_bytes
    return PalettizedFile(
        out,
        done.palettes,
        done.dense,
        done.unchecked,
        done.bytes_before,
        after,
        adjusted=done.adjusted,
        notes=done.notes,
    )


def palettize_checkpoint(
    model: str,
    weights: Path | None,
    out: Path,
    recipe: Recipe,
    *,
    method: str | PostTrainingMethod = "kmeans",
    calibration: Path | None = None,
    correct: bool = False,
    force: bool = False,
) -> PalettizedFile:
    """Cluster the weights of a Python model or a program and write a packed checkpoint.

    Args:
        model: ``package.module:callable`` that makes the model of the checkpoint, or a ``.pt2``
            file.
        weights: the plain safetensors checkpoint; None for a ``.pt2`` file, which has its own.
        out: the ``.safetensors`` file to write, as ``dkm.save`` does.
        recipe: which weight gets which palette.
        method: as :func:`dkm_deploy.palettize` takes it.
        calibration: safetensors file of inputs, and labels if known; for methods and a
            correction, which need it.
        correct: whether to correct the outputs, see :func:`dkm_deploy.correct_outputs`.
        force: replace what is at ``out``.

    Raises:
        DkmError: the model cannot be made, the checkpoint is not its own or palettized already,
            the recipe or the calibration data does not fit, or ``out`` is no place to write to.
    """
    if out.suffix != ".safetensors":
        raise DkmError(
            f"{out}: palettizing a PyTorch model gives a checkpoint with suffix .safetensors; "
            "for other files there is dkm-deploy convert"
        )
    source = existing_path(weights or model)
    _check_output(out, source, force=force)
    if weights is not None and is_palettized(weights):
        raise DkmError(f"{weights}: palettized already; start from the plain checkpoint")
    original = with_plain_parameters(plain_model(model, weights).model)
    data = None if calibration is None else list(calibration_batches(calibration, original))
    frozen, left = _palettize_original(original, recipe, method, data, correct=correct)
    save(frozen, out, force=force)
    assigned = recipe.assign(original)
    high_rank = {
        name: reason
        for name, reason in assigned.dense.items()
        if original.get_parameter(name).ndim > 1
    }
    tensors = dense_tensors(original).values()  # beside them a program has a graph, and inputs
    before = sum(t.nbytes for t in tensors) if weights is None else size_on_disk(weights)
    return PalettizedFile(
        out,
        read_palettes(out),
        high_rank,
        (),
        before,
        size_on_disk(out),
        left,
        assigned.adjusted,
    )


def _palettize_original(
    original: nn.Module,
    recipe: Recipe,
    method: str | PostTrainingMethod,
    data: Sequence[Any] | None,
    *,
    correct: bool,
) -> tuple[nn.Module, Mapping[str, str]]:
    """A frozen model, and the reasons of LUTs that were not corrected."""
    if not correct:
        return palettize(original, recipe, method, data), {}
    frozen = palettize(
        original, recipe, method, data if post_training_method(method).calibrated else None
    )
    corrected = correct_outputs(frozen, original, data)
    return corrected, Correction.of(corrected).unchanged


def _check_output(out: Path, source: Path, *, force: bool) -> None:
    """Raise DkmError if ``out`` is the input or part of it, or may not be replaced."""
    check_writable(out, force=True)
    if out.is_dir() and not source.is_dir():
        raise DkmError(f"{out}: this is a folder; give the name of a file")
    if out.exists() and out.samefile(source):
        raise DkmError(f"{out}: this is the input, which is never changed; give another name")
    places = (out.resolve(), source.resolve())
    if any(a.is_relative_to(b) for a, b in (places, places[::-1])):
        raise DkmError(f"{out}: this and the input lie in each other; give another name")
    check_writable(out, force=force)
