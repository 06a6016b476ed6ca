"""Lower ``dkm::lut_to_dense`` to Core ML's ``constexpr_lut_to_dense``, index for index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
from numpy.typing import NDArray

from converters.coreml.deployment import (
    generation,
    needs_scales,
    scales_in_luts,
    stored_bits,
    typed_indices,
)
from converters.coreml.lowering.call_keywords import (
    Lowering,
    TorchCall,
    check_keywords,
    give_type,
)
from converters.coreml.lowering.circular_padding import circular
from converters.coreml.lowering.constexpr import palette_bytes, scale_channels, typed_lut
from converters.coreml.lowering.elementwise import gelu, reciprocal
from converters.coreml.lowering.int8_luts import as_int8
from converters.coreml.lowering.output_marks import register_lowering as output_lowering
from converters.coreml.lowering.recurrent import RecurrentWeights, gru, lstm, rnn
from converters.coreml.lowering.reducing import REDUCING, overlapping_fold
from converters.coreml.lowering.resizing import RESIZING, misplaced_nearest, refused_linear
from converters.coreml.options import Options
from converters.coreml.tables.row_blocks import add_leading_dims, before, pick, reorder
from converters.coreml.tables.table_rows import TableRows, collapse_repeats, find_rows
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

_GRU_RESETS_AFTER = 18  # the generation of Core ML that can


@dataclass(frozen=True)
class _DecodedPalette:
    """A palette that the front end has met."""

    weight: str
    mil_name: str
    palette: Palette


class Decodes(RecurrentWeights):
    """The decode operations of one conversion.

    Args:
        names: parameter name of a palette, and MIL name for its operation, by the name of its
            indices in the exported graph.
        scales: names of all per-channel scales in that graph.
        float32: parameter names of the palettes that stay so in a float16 program.
        sums: of each look-up whose results are only added to values of their own shape, the names
            of these values in that graph.
        options: of the user.

    Attributes:
        weights: parameter name by the MIL name of each operation made.
        orders: of those whose rows are not in the parameter's order: the block of the parameter
            that each block of rows holds.
        transposed: true for those that hold the transposed parameter.
        stacked: of tables behind dimensions of length 1, how many of these.
        rows: of those that hold some rows of a table: which.
        tables: the palette that goes into the file, by parameter name.
        lookups: parameter names of tables whose rows are looked up though they are known.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[str, str]],
        scales: Collection[str],
        float32: Collection[str],
        sums: Mapping[str, Collection[str]],
        options: Options,
    ) -> None:
        self._names, self._scales, self._float32 = names, scales, float32
        self._sums = sums
        self._options = options
        self._target = options.minimum_deployment_target
        self._met: dict[Any, _DecodedPalette] = {}  # by MIL variable
        self.gru_resets_after = generation(self._target) >= _GRU_RESETS_AFTER
        self.weights: dict[str, str] = {}
        self.orders: dict[str, tuple[int, ...]] = {}
        self.transposed: dict[str, bool] = {}
        self.stacked: dict[str, int] = {}
        self.rows: dict[str, TableRows] = {}
        self.tables: dict[str, Palette] = {}
        self.lookups: list[str] = []
        self._shrunk: set[str] = set()  # look-ups that give less than in PyTorch, to be spread

    def lower(self, context: Any, node: Any) -> None:
        """Lower one ``lut_to_dense`` node."""
        indices, lut, axis = _get_inputs(context, node, expected=3)
        weight, mil_name = self._names[node.inputs[0]]
        palette = Palette(indices.val.astype(np.uint8), lut.val, int(axis.val))
        self.tables[weight] = self._stored_palette(palette, weight)
        variable = self._decode(palette, mil_name, weight)
        self._met[variable] = _DecodedPalette(weight, mil_name, palette)
        context.add(variable, torch_name=node.name)

    def lower_addmm(self, context: Any, node: Any) -> bool:
        """Lower an ``addmm`` of a bias, inputs and a decoded weight to ``linear``.

        Core ML's linear has the weight as (outputs, inputs), ``addmm`` the other way round; a
        dense weight is transposed by coremltools. Without its zeros for a bias, which coremltools
        drops, an ``addmm`` is a ``matmul``. Says whether it was such an ``addmm``.
        """
        bias, x, weight, *factors = _get_inputs(context, node, min_expected=3)
        met = self._met.get(weight)
        if met is None or met.palette.scale is not None or bias.val is None or bias.rank != 1:
            return False
        if not bias.val.any() or any(f is not None and f.val != 1 for f in factors):
            return False
        name = f"{met.mil_name}_transposed"
        self.transposed[name] = True
        turned = self._decode(met.palette.transpose(), name, met.weight)
        context.add(Builder.linear(x=x, weight=turned, bias=bias), torch_name=node.name)
        return True

    def lower_embedding(self, context: Any, node: Any) -> bool:
        """Lower an ``embedding`` that reads known rows of a decoded table: these rows, decoded.

        Of a dense table coremltools makes a constant of them. Says whether it was such one.
        """
        table, positions, *_ = _get_inputs(context, node, min_expected=2)
        met = self._met.get(table)
        if met is None or positions.val is None:
            return False
        known = np.asarray(positions.val)
        for read in (known, collapse_repeats(known)) if self._spreads(node.name) else (known,):
            rows = find_rows(read.ravel(), met.palette) if _in_line(read) else None
            if rows is not None:
                self._shrunk.update([node.name] if read.shape != known.shape else [])
                context.add(self._decode_rows(met, rows, read.ndim - 1), torch_name=node.name)
                return True
        self.lookups.append(met.weight)
        return False

    def _spreads(self, name: str) -> bool:
        """Whether a look-up may give less, as additions to full values spread it."""
        return name in self._sums and self._shrunk.isdisjoint(self._sums[name])

    def _decode_rows(self, met: _DecodedPalette, rows: TableRows, ones: int) -> Any:
        """Some rows of a table, behind ``ones`` dimensions of length 1."""
        part = pick(met.palette, rows.places, rows.blocks)
        name = f"{met.mil_name}_rows{len(self.stacked)}"
        self.stacked[name] = ones
        if not rows.is_whole:
            self.rows[name] = rows
        decoded = self._decode(add_leading_dims(part, ones), name, met.weight)
        scale = self._float16_palette(part, met.weight).scale
        return decoded if scale is None else scale_channels(decoded, before(scale, ones), name)

    def lower_scale(self, context: Any, node: Any) -> bool:
        """Lower a ``mul`` if it multiplies a decoded weight with its scale; say whether it does."""
        if node.inputs[1] not in self._scales:
            return False
        decoded, scale = _get_inputs(context, node, expected=2)
        met = self._met[decoded]
        palette = replace(met.palette, scale=scale.val)
        if scales_in_luts(self._target):
            if self._options.lut_dtype == "int8":
                raise DkmError(f"{met.weight}: {needs_scales('8-bit LUTs of scaled channels')}")
            palette = palette.scale_in_luts()
        stored = self.tables[met.weight] = self._stored_palette(palette, met.weight)
        if stored.scale is None:
            variable = self._decode(palette, f"{met.mil_name}_scaled", met.weight)
        else:
            variable = scale_channels(decoded, stored.scale, met.mil_name)
        self._met[variable] = replace(met, palette=palette)
        context.add(variable, torch_name=node.name)
        return True

    def in_order(self, variable: Any, order: tuple[int, ...]) -> Any:
        """See :class:`converters.coreml.lowering.recurrent.RecurrentWeights`."""
        if variable not in self._met:
            return super().in_order(variable, order)
        met = self._met[variable]
        try:
            palette = reorder(met.palette, order)
        except DkmError as error:
            raise DkmError(f"{met.weight}: {error}") from error
        name = f"{met.mil_name}_in_order"
        self.orders[name] = order
        return self._decode(palette, name, met.weight)

    def _decode(self, palette: Palette, name: str, weight: str) -> Any:
        self.weights[name] = weight
        wide = self._stored_palette(palette, weight)
        if typed_indices(self._target):
            variable = typed_lut(wide, self._lut(wide, name, weight), name)
        else:
            variable = palette_bytes(wide, name)
        return variable if wide.scale is None else scale_channels(variable, wide.scale, name)

    def _stored_palette(self, palette: Palette, weight: str) -> Palette:
        """What the file holds of a palette, in its own dtype."""
        return self._float16_palette(palette, weight).widen(stored_bits(palette.bits, self._target))

    def _float16_palette(self, palette: Palette, weight: str) -> Palette:
        """What float16 makes of a palette, in its own dtype.

        coremltools would make the smallest float16 number of each value that float16 rounds to 0.
        """
        if self._options.compute_precision == "float32" or weight in self._float32:
            return palette
        return palette.astype(np.float16).astype(palette.lut.dtype)

    def _lut(self, palette: Palette, name: str, weight: str) -> Any:
        """The LUTs as values, or as an operation that makes them of 8-bit integers."""
        if self._options.lut_dtype == "float":
            return palette.lut
        try:
            codes, step = as_int8(
                palette.lut, self._options.compute_precision, self.tables[weight].lut
            )
        except DkmError as error:
            raise DkmError(f"{weight}: {error}") from error
        scale = np.full([1] * codes.ndim, step, palette.lut.dtype)
        return Builder.constexpr_blockwise_shift_scale(data=codes, scale=scale, name=f"{name}_lut")


def known_calls() -> frozenset[str]:
    """The names of calls that have a lowering, coremltools' or ours."""
    return frozenset(_TORCH_OPS_REGISTRY.name_to_func_mapping) | _OWN.keys() | _RECURRENT.keys()


@contextmanager
def register_lowering(
    decodes: Decodes, calls: Mapping[str, TorchCall], *, exact_types: bool = False
) -> Iterator[None]:
    """Teach coremltools' torch front end our op and what it lacks while the block runs.

    It also drops no keyword argument of ``calls``, which has them by node name, and with
    ``exact_types`` gives each value the type that it has in PyTorch.
    """
    registry: dict[str, Any] = _TORCH_OPS_REGISTRY.name_to_func_mapping
    before = dict(registry)

    def unless(lowered: Callable[[Any, Any], bool], name: str) -> Lowering:
        """What ``lowered`` leaves to the front end's own lowering of ``name``."""

        def lower(context: Any, node: Any) -> None:
            if not lowered(context, node):
                before[name](context, node)

        return lower

    registry.update(
        {
            **dict.fromkeys(("lut_to_dense", "dkm.lut_to_dense"), decodes.lower),
            "dkm::lut_to_dense": decodes.lower,
            **dict.fromkeys(("output", "dkm.output", "dkm::output"), output_lowering()),
            "mul": unless(decodes.lower_scale, "mul"),
            "addmm": unless(decodes.lower_addmm, "addmm"),
            "embedding": unless(decodes.lower_embedding, "embedding"),
            "pad": unless(circular, "pad"),
            **{name: unless(lowered, name) for name, lowered in _REFINED.items()},
            # The front end takes the underscores off a name at its second look only.
            **{f"__{name}__": before[name] for name in ("and", "or") if name in before},
            **_OWN,
            **{name: partial(lower, weights=decodes) for name, lower in _RECURRENT.items()},
        }
    )
    registry.update({name: check_keywords(lower, calls) for name, lower in registry.items()})
    if exact_types:
        registry.update({name: give_type(lower) for name, lower in registry.items()})
    try:
        yield
    finally:
        registry.clear()
        registry.update(before)


def _in_line(positions: NDArray[Any]) -> bool:
    """Whether positions are a list, maybe behind dimensions of length 1."""
    return positions.ndim > 0 and set(positions.shape[:-1]) <= {1}


def _alias(context: Any, node: Any) -> None:
    (value,) = _get_inputs(context, node, expected=1)
    context.add(value, torch_name=node.name)


_REFINED: Mapping[str, Callable[[Any, Any], bool]] = {
    "col2im": overlapping_fold,
    **{
        f"upsample_{kind}{form}": lowered
        for form in ("", ".vec")
        for kind, lowered in (
            ("nearest1d", misplaced_nearest),
            ("nearest2d", misplaced_nearest),
            ("linear1d", refused_linear),
            ("bilinear2d", refused_linear),
        )
    },
}
_OWN: Mapping[str, Lowering] = {
    "gelu": gelu,
    "reciprocal": reciprocal,
    **REDUCING,
    **RESIZING,
    "alias": _alias,
    "rnn_tanh.input": partial(rnn, activation="tanh"),
    "rnn_relu.input": partial(rnn, activation="relu"),
}
_RECURRENT: Mapping[str, Callable[..., None]] = {"lstm.input": lstm, "gru.input": gru}
