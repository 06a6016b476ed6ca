"""The pages in headless Chromium: no errors, nothing wider than a phone, readable in the dark."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess

import numpy as np
import pytest

from benchmarks.runtimes.chromium import browser
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.html.page import page
from dkm_deploy.report.runs import compare_runs
from dkm_deploy.validation.measures.thumbnails import png
from tests.report.html.test_cost import with_cost
from tests.report.html.test_histogram import with_histograms

CHROMIUM = browser()
PHONE, PAPER, DESKTOP = 360, 720, 1280
PICTURE = base64.b64encode(png(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))).decode()

LOOK = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<iframe id="frame" src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>
<pre id="found"></pre>
<script>
document.getElementById("frame").onload = (event) => {{
  const page = event.target.contentDocument, root = page.documentElement, found = {{}};
  const shown = (e) => getComputedStyle(e).overflowX === "visible" && !e.closest(".scroll, pre");
  const style = event.target.contentWindow.getComputedStyle(page.body);
  found.width = root.clientWidth;
  found.scroll = root.scrollWidth;
  found.wide = [...page.querySelectorAll("body *")]
    .filter((e) => shown(e) && e.getBoundingClientRect().right > root.clientWidth + 0.5)
    .map((e) => e.tagName + "." + e.className);
  found.colours = [style.color, style.backgroundColor];
  found.pictures = [...page.images].map((image) => image.complete && image.naturalWidth);
  found.heights = [...page.querySelectorAll("svg")].map((e) => e.getBoundingClientRect().height);
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>
"""


@pytest.fixture(params=["demo", "failed", "unchecked", "runs"])
def source(request, tmp_path):
    if request.param == "runs":
        report = request.getfixturevalue("demo")
        (tmp_path / "r.json").write_text(json.dumps(report))
        return comparison_page(compare_runs([tmp_path / "r.json"]))
    report = with_histograms(with_cost(request.getfixturevalue(request.param)))
    report["pictures"] = {"17": PICTURE}
    return page(report)


def look(folder, source, width, *, dark=False):
    """What Chromium finds, and the lines on its console."""
    (folder / "page.html").write_text(source, "utf-8")
    (folder / "look.html").write_text(LOOK.format(width=width), "utf-8")
    command = [
        *[CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
        *["--allow-file-access-from-files", "--enable-logging=stderr", "--dump-dom"],
        *["--disable-background-networking", "--virtual-time-budget=10000"],
        *[f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 40},1000"],
        *[f"--blink-settings=preferredColorScheme={0 if dark else 1}"],
        (folder / "look.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    spoken = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), spoken


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
def test_a_page_on_a_phone_and_in_the_dark(source, tmp_path):
    found, spoken = look(tmp_path, source, PHONE, dark=True)
    assert spoken == []
    assert found["width"] <= PHONE
    assert found["scroll"] == found["width"]
    assert found["wide"] == []
    assert all(found["pictures"])
    assert all(found["heights"])
    text, ground = map(_brightness, found["colours"])
    assert ground < 40 < 200 < text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
def test_a_page_on_a_desktop_by_day(source, tmp_path):
    found, spoken = look(tmp_path, source, DESKTOP)
    assert spoken == []
    assert found["scroll"] == found["width"]
    text, ground = map(_brightness, found["colours"])
    assert text < 60 < 240 < ground


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
def test_a_page_on_paper_is_not_cut(source, tmp_path):
    assert source.count("@media print") == 1
    found, _ = look(tmp_path, source.replace("@media print", "@media all"), PAPER)
    assert found["scroll"] == found["width"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
def test_what_is_wrong_with_a_page_is_seen(tmp_path):
    broken = '<!doctype html><body><div style="width: 900px">x</div><script>fails()</script>'
    found, spoken = look(tmp_path, broken, PHONE)
    assert found["scroll"] > found["width"]
    assert found["wide"] == ["DIV."]
    assert len(spoken) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH")
def test_a_script_in_a_page_would_not_run(tmp_path, demo):
    source = page(demo).replace("</body>", "<script>document.title = fails()</script></body>")
    _, spoken = look(tmp_path, source, PHONE)
    assert any("Content Security Policy" in line for line in spoken)


def _brightness(colour):
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3
