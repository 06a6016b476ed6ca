"""Nothing of the data is markup, in text or in attributes."""

from __future__ import annotations

from dkm_deploy.report.html.markup import Column, Markup, element, join, table

EVIL = '" onload="x" \' <b> &'
SAFE = "&quot; onload=&quot;x&quot; &#x27; &lt;b&gt; &amp;"


def test_quotes_cannot_end_an_attribute() -> None:
    assert element("p", class_=EVIL) == f'<p class="{SAFE}"></p>'
    assert element("img", src="a", aria_label=EVIL) == f'<img src="a" aria-label="{SAFE}">'


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", EVIL, element("b", "x")) == f"<p>{SAFE}<b>x</b></p>"
    assert join([EVIL, Markup("<br>")]) == f"{SAFE}\n<br>"


def test_a_table_escapes_its_label_heads_and_cells() -> None:
    made = table(EVIL, [Column(EVIL, figures=False), Column("n")], [[EVIL, "1"]], [EVIL, "2"])
    assert made.count(SAFE) == 4
    assert "<b>" not in made
    assert made.count('class="figure"') == 3
