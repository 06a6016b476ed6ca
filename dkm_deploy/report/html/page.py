"""The HTML view: one page that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from dkm_deploy.report import summary
from dkm_deploy.report.html import sections
from dkm_deploy.report.html.markup import Markup, element, join

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
{title}
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


# Whatever the data says, a browser loads and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Mapping[str, Any]) -> str:
    """The report as a self-contained HTML page.

    Args:
        report: ``Report.to_dict()``, or the same read from a report's JSON.
    """
    return document(f"{summary.headline(report)} - dkm-deploy", _body(report))


def document(title: str, body: Markup) -> str:
    """A whole page with the project's style."""
    style = files("dkm_deploy.report.html").joinpath("style.css").read_text("utf-8")
    return _PAGE.format(title=element("title", title), style=style, body=body, policy=_POLICY)


def _body(report: Mapping[str, Any]) -> Markup:
    header = element("header", element("h1", "Validation report"), sections.verdict(report))
    parts = [
        sections.models(report),
        *(sections.file(model, report["pictures"]) for model in summary.files(report)),
        sections.layers(report),
        sections.dense(report),
        sections.limits(report),
        sections.provenance(report),
    ]
    return join([header, element("main", join(parts))])
