"""Any text or value where a file holds a recipe, a layout or a part of a manifest."""

from __future__ import annotations

import json
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dkm_deploy as dkm
from tests.damage import refusal
from tests.damaged_files.acts import ACTS
from tests.damaged_files.edits import sign, with_layout

ANY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries({"shape": VALUES, "bits": VALUES, "axis": VALUES})


@ANY
@given(text=st.text(max_size=200))
def test_any_text_is_a_recipe_or_none(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, "utf-8")
    refusal(lambda: dkm.Recipe.load(path))


@ANY
@given(value=VALUES | st.fixed_dictionaries({"conv.weight": ENTRIES | VALUES}))
def test_any_value_is_a_layout_or_none(sound, tmp_path, value):
    path, whole = tmp_path / "m.safetensors", (sound / "m.safetensors").read_bytes()
    path.write_bytes(with_layout(whole, lambda _: value))
    for act in ACTS["m.safetensors"]:
        refusal(lambda act=act: act(path))


@ANY
@given(key=st.sampled_from(["inputs", "labels", "limits", "metric", "provenance"]), value=VALUES)
def test_any_value_is_part_of_a_manifest_or_none(sound, tmp_path, key, value):
    path = tmp_path / "golden"
    if not path.exists():
        shutil.copytree(sound / "golden", path)
    manifest = json.loads((sound / "golden" / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(manifest | {key: value}))
    sign(path)
    refusal(lambda: dkm.validate_golden([], path))
