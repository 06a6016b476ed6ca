"""Are the weights that have no palette those of the model, too?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from dkm_deploy.formats.dense_tensor import DenseReader
from dkm_deploy.formats.reader import Reader
from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.dense_weights.match import DenseComparison, Difference, compare
from dkm_deploy.validation.dense_weights.reference import DenseReference

_SHOWN = 3  # names that a reason lists of each kind


def dense_check(
    path: Path,
    reader: Reader,
    reference: DenseReference | None,
    palettized: Collection[str] = (),
) -> Check:
    """Compare the dense tensors of a file with the dense weights of the reference.

    A bias of zeros may be left out, for nothing changes. Another one must be in the file if the
    weight beside it is, unless some tensor of the file that is not understood may be made of it.

    Args:
        path: of the file.
        reader: of files of its kind.
        reference: None where its weights are not at hand.
        palettized: weights of which the file has a palette.

    Raises:
        DkmError: the file is damaged.
    """
    if reference is None:
        return _not_run("the dense weights of the reference are not given")
    if not isinstance(reader, DenseReader):
        return _not_run(f"dense tensors of {path.suffix!r} files cannot be read")
    found = compare(reader.read_dense(path), reference)
    wrong = [*map(_difference_text, found.wrong)]
    known, lacking, zero = found.equal.union(palettized), {}, {}
    for name, array in reference.tensors.items():
        if name in found.equal or not array.size:
            continue
        if _is_bias(name) and not array.any():
            zero[name] = array.nbytes
            continue
        lacking[name] = array.nbytes
        several = (array != array.flat[0]).any()  # else it may be there as a lone number
        if several and _weight_of(name) in known and not found.may_hold(array.size):
            wrong.append(f"{name}: not in the file, and not zero")
    if wrong:
        return Check("dense", Status.FAILED, "; ".join(wrong))
    left = [_list_sizes("not found in the file", lacking)] if lacking else []
    left += [_list_sizes("in the file but no weight of the model", found.strange)] * bool(
        found.strange
    )
    left += [_list_sizes("zero in the model, and so left out", zero)] if zero else []
    if not found.equal and (lacking or found.strange):
        return _not_run(f"none could be compared; {'; '.join(left)}")
    return Check("dense", Status.PASSED, "; ".join([_count_text(found, reference), *left]))


def _is_bias(name: str) -> bool:
    """Whether a weight is added to what the one beside it gives, going by its name."""
    return "bias" in name.rpartition(".")[2]


def _weight_of(name: str) -> str:
    """The weight beside a bias; empty for what is no bias."""
    start, dot, own = name.rpartition(".")
    return f"{start}{dot}{own.replace('bias', 'weight')}" if _is_bias(name) else ""


def _not_run(reason: str) -> Check:
    return Check("dense", Status.SKIPPED, reason)


def _count_text(found: DenseComparison, reference: DenseReference) -> str:
    if not reference.tensors:
        return "neither the model nor the file has dense weights"
    stored = f", stored as {', '.join(sorted(found.dtypes))}" if found.dtypes else ""
    return f"{len(found.equal)} of {len(reference.tensors)} equal{stored}"


def _difference_text(difference: Difference) -> str:
    told = f"{difference.weight}: off by up to {difference.largest:.3g}"
    if difference.held:
        return f"{told}; the file has the values of {difference.held} there"
    return f"{told}, {100 * difference.relative:.3g} % of its length"


def _list_sizes(what: str, sizes: Mapping[str, int]) -> str:
    """Names with their bytes, the largest first."""
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({size:,} bytes)" for name, size in largest[:_SHOWN])
    rest = largest[_SHOWN:]
    more = f" and {len(rest)} more ({sum(size for _, size in rest):,} bytes)" if rest else ""
    return f"{what}: {shown}{more}"
