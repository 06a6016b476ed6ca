"""Each reader and the validator on damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

import dkm_deploy as dkm
from dkm_deploy.formats.aimodel.asset import DIGEST
from dkm_deploy.validation import report_rows, row_errors
from tests.damage import harmless, refusal
from tests.damaged_files.acts import ACTS, IDS, Act, Net
from tests.damaged_files.edits import EDITS, SUMS, rehash, sign

QUICK, SLOW = 15, 3000


def survives(path: Path, seeds: range, acts: list[Act]) -> int:
    """Damage the file at ``path`` again and again; how many times an act refused it."""
    refused, edits = 0, EDITS[path.name]
    for act in acts:
        assert refusal(lambda act=act: act(path)) is None
    for seed in seeds:
        part, edit = edits[seed % len(edits)]
        file = path / part if part else path
        held = {file, path / "SHA256SUMS", path / DIGEST}
        whole = {f: f.read_bytes() for f in held if f.is_file()}
        file.write_bytes(edit(whole[file], seed))
        if part not in SUMS and path.suffix == ".aimodel":
            rehash(path)
        elif part not in SUMS and (path / "SHA256SUMS").exists():
            sign(path)
        for act in acts:
            try:
                with harmless(path.parent):
                    refused += refusal(lambda act=act: act(path)) is not None
            except BaseException as error:
                error.add_note(f"{path.name}: seed {seed}")
                raise
        for original, data in whole.items():
            original.write_bytes(data)
    return refused


# Of assets tests/formats/aimodel has a few; to write one here takes longer than to damage it.
@pytest.mark.parametrize("name", [name for name in EDITS if name != "m.aimodel"])
def test_damaged(copied, name):
    assert survives(copied(name), range(QUICK), ACTS[name]) > QUICK // 4


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_thousands_damaged(copied, name):
    assert survives(copied(name), range(QUICK, QUICK + SLOW), ACTS[name]) > SLOW // 4


VALIDATED = ("m.onnx", "m.ort", "m.mlpackage")


def _dkm_error_alone(error: Exception) -> str:
    """A crash of a reader or runtime is told as the reason of its file; here it may not be one."""
    if not isinstance(error, dkm.DkmError):
        raise error
    return str(error)


@pytest.fixture
def validate(sound, monkeypatch):
    frozen = dkm.load(sound / "m.safetensors", Net())
    for module in (row_errors, report_rows):
        monkeypatch.setattr(module, "error_line", _dkm_error_alone)
    return lambda path: dkm.validate([path], reference=frozen, inputs=IDS)


@pytest.mark.parametrize("name", VALIDATED)
def test_damaged_and_validated(copied, validate, name):
    assert survives(copied(name), range(QUICK // 2), [validate])


@pytest.mark.slow
@pytest.mark.parametrize("name", VALIDATED)
def test_thousands_damaged_and_validated(copied, validate, name):
    assert survives(copied(name), range(QUICK, QUICK + SLOW), [validate])
