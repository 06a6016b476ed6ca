"""The HTML view: one page that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from dkm_deploy.report import sections, summary
from dkm_deploy.report.markup import Markup, element, join

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{title}
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(report: Mapping[str, Any]) -> str:
    """The report as a self-contained HTML page.

    Args:
        report: ``Report.to_dict()``, or the same read from a report's JSON.
    """
    style = files("dkm_deploy.report").joinpath("style.css").read_text("utf-8")
    title = element("title", f"{summary.headline(report)} - dkm-deploy")
    return _PAGE.format(title=title, style=style, body=_body(report))


def _body(report: Mapping[str, Any]) -> Markup:
    header = element("header", element("h1", "Validation report"), sections.verdict(report))
    parts = [
        sections.models(report),
        *(sections.file(model) for model in summary.files(report)),
        sections.layers(report),
        sections.dense(report),
        sections.limits(report),
        sections.provenance(report),
    ]
    return join([header, element("main", join(parts))])
