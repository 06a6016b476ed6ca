"""Write a Core AI asset: coreai-torch lowers the program, we lower the palettes."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import coreai_torch
import numpy as np
from coreai.authoring import func, graph_builder

from converters.coreai.decompositions.table import decompositions
from converters.coreai.float16_program import in_float16, vanishing_note
from converters.coreai.index_widths import stored_bits
from converters.coreai.lower import lowering_table
from converters.coreai.options import Options
from converters.coreai.read_palettes import SAME_KEY, contents
from converters.coreai.stored_weight import STORED, with_stored_weights
from converters.storage import check_float16
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.conversion.failed_operation import failure_place
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.palette import Palette


def write(exported: ExportedModel, path: Path, options: Options) -> tuple[str, ...]:
    """See :meth:`converters.coreai.CoreAITarget.write`."""
    palettes = exported.palettes
    if options.half:
        check_float16(palettes)
        palettes = {name: palette.astype(np.float16) for name, palette in palettes.items()}
    program = _convert_program(exported, palettes, options)
    asset = program.save_asset(path)
    same = _find_same_weights(path, palettes)

    def update(metadata: Any) -> None:
        metadata.creation_date = None  # the same program gives the same bytes
        if same:
            metadata.set_custom(SAME_KEY, same)

    asset.update_metadata(update)
    note = vanishing_note(exported.program) if options.half else None
    return (note,) if note else ()


def _convert_program(
    exported: ExportedModel, palettes: Mapping[str, Palette], options: Options
) -> Any:
    """The model as coreai-torch has it. Raises DkmError if it cannot convert it."""
    converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
    converter.register_torch_lowering(str(STORED).replace(".", "::", 1))(lowering_table(palettes))
    program = exported.program
    try:
        with redirect_stdout(io.StringIO()), _repeatable_names():  # it tells what it does
            program = program.run_decompositions(decompositions())
            program = with_stored_weights(exported, program)
            converter.add_exported_program(
                in_float16(program) if options.half else program,
                input_names=exported.input_names,
                output_names=exported.output_names,
            )
            return converter.to_coreai()
    except Exception as error:  # coreai-torch raises many kinds, each for the user's model
        reason = reason_of(error) + failure_place(error, program)
        raise DkmError(f"coreai-torch cannot convert the model: {reason}") from error


def _find_same_weights(path: Path, palettes: Mapping[str, Palette]) -> dict[str, str]:
    """See ``SAME_KEY``: parameters that the file at ``path`` has under another name, with it."""
    stored = {site.name: site.palette() for site in contents(path).sites}
    wide = {name: palette.widen(stored_bits(palette.bits)) for name, palette in palettes.items()}
    lost = {name: palette for name, palette in wide.items() if stored.get(name) != palette}
    equal = ((n, o) for n, p in lost.items() for o, other in stored.items() if p == other)
    return dict(equal)


@contextmanager
def _repeatable_names() -> Iterator[None]:
    """Have composite operations named alike each time; their names end in random letters."""
    modules = (func, graph_builder)
    before = [module.choice for module in modules]
    chance = random.Random(0)  # noqa: S311  # names, no secrets
    for module in modules:
        module.choice = chance.choice
    try:
        yield
    finally:
        for module, choice in zip(modules, before, strict=True):
            module.choice = choice
