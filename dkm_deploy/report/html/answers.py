"""A file's answers against the original's: a sentence, and the inputs that are answered anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import summary, text
from dkm_deploy.report.html.markup import Column, Markup, element, join, table

_MOST = 20


def answers(model: Mapping[str, Any], pictures: Mapping[str, str]) -> list[Markup]:
    """A heading, the sentence and the flips; nothing where there are no answers.

    Args:
        model: a row of the report.
        pictures: PNG in base64 of inputs, by their place.
    """
    sentence = summary.answers(model)
    if not sentence:
        return []
    parts = [element("h3", "Answers against the original"), element("p", f"{sentence}.")]
    return parts + ([_flips(model, pictures)] if model["flips"] else [])


def _flips(model: Mapping[str, Any], pictures: Mapping[str, str]) -> Markup:
    columns = [Column("Input"), Column("Original"), Column("This file"), Column("Label")]
    rows = [_row(flip) for flip in model["flips"][:_MOST]]
    if pictures:
        columns.append(Column("Picture", figures=False))
        for row in rows:
            row.append(_picture(row[0], pictures.get(row[0])))
    listed = table(f"Flips of {model['name']}", columns, rows, narrow=True)
    more = model["flip_count"] - len(rows)
    if not more:
        return listed
    note = f"{text.plural(more, 'further flip')}; the JSON lists the first 1,000."
    return join([listed, element("p", note, class_="muted")])


def _picture(place: str, png: str | None) -> str:
    if png is None:
        return text.DASH
    source = f"data:image/png;base64,{png}"
    return element("img", src=source, alt=f"input {place}", class_="picture")


def _row(flip: Mapping[str, Any]) -> list[str]:
    label = text.DASH if flip["label"] is None else str(flip["label"])
    return [str(flip["input"]), str(flip["original"]), str(flip["answer"]), label]
