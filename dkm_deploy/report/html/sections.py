"""The sections of the page. Each takes the report's plain values and gives HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import summary, text
from dkm_deploy.report.html.answers import answers
from dkm_deploy.report.html.bar import size_bar
from dkm_deploy.report.html.cost import costs
from dkm_deploy.report.html.histogram import histograms
from dkm_deploy.report.html.markup import Column, Markup, element, join, table
from dkm_deploy.report.text import DASH
from dkm_deploy.validation.check import Status

Values = Mapping[str, Any]

_TONES: dict[str, str] = {Status.PASSED: "good", Status.FAILED: "bad"}
_SIGNS: dict[str, str] = {Status.PASSED: "\N{CHECK MARK}", Status.FAILED: "\N{MULTIPLICATION X}"}

_ERRORS = {
    "max_abs": "Max difference",
    "mean_abs": "Mean difference",
    "p999_abs": "99.9th percentile",
    "relative": "Relative error",
    "element": "Worst element",
    "sqnr_db": "SQNR, dB",
    "psnr_db": "PSNR, dB",
    "cosine": "Cosine",
    "nonfinite": "Not finite",
}

_LIMITS = {
    "max_relative_error": "Largest relative error of an output",
    "max_element_error": "Largest relative error of an element",
    "max_metric_loss": "Largest loss of the metric against the original",
    "min_agreement": "Smallest agreement with the original (0 to 1)",
    "max_bytes": "Largest size of a file, bytes",
    "max_size_ratio": "Largest size as a part of the original's bytes",
    "max_latency_ratio": "Largest median latency, times the dense file's",
    "max_load_ratio": "Largest load time, times the dense file's",
    "max_peak_ratio": "Largest peak memory, times the dense file's",
}

_OUTPUT_LIMITS = {
    "max_relative_error": "largest relative error",
    "max_element_error": "largest relative error of an element",
    "max_abs_error": "largest difference",
    "max_mean_error": "largest mean difference",
    "max_p999_error": "largest 99.9th percentile of the difference",
    "min_sqnr_db": "smallest SQNR, dB",
    "min_psnr_db": "smallest PSNR, dB",
    "min_cosine": "smallest cosine",
}


def verdict(report: Values) -> Markup:
    """The verdict in words, with every check that failed or was skipped."""
    lines = [
        element("p", element("strong", summary.headline(report)), class_="headline"),
        element("p", summary.scope(report)),
    ]
    for status in (Status.FAILED, Status.SKIPPED):
        items = [
            element("li", badge(status), " ", element("b", model), f": {check}: {reason}")
            for model, check, reason in summary.reasons(report, status)
        ]
        lines += [element("ul", *items)] if items else []
    return element("div", join(lines), class_=f"verdict {_tone(summary.state(report))}")


def models(report: Values) -> Markup:
    """One row for each PyTorch model and each file."""
    metric = report["metric_name"] or "Metric"
    figures = ["Agreement", "Max difference", "Bytes", "Ratio", "Bits per weight"]
    columns = [Column("Model", figures=False), *map(Column, [metric, *figures])]
    columns += [Column("Runtime", figures=False), Column("Verdict", figures=False)]
    rows = [_model(model) for model in report["models"]]
    return _section("Models", table("Models", columns, rows), _legend(_MODELS_LEGEND))


def file(model: Values, pictures: Mapping[str, str]) -> Markup:
    """What was asked of one file, where its bytes are, and how far each output is off."""
    about = element("p", element("code", model["path"]), class_="muted")
    ran = f"Run by {model['runtime']}." if model["runtime"] else "Nothing ran this file."
    return _section(
        model["name"],
        about,
        element("h3", "Checks"),
        _checks(model),
        *([] if model["size_bytes"] is None else _bytes(model)),
        *costs(model),
        element("h3", "Outputs against PyTorch"),
        element("p", ran),
        *([_outputs(model), _legend(_ERRORS_LEGEND)] if model["errors"] else []),
        *answers(model, pictures),
    )


def layers(report: Values) -> Markup:
    """The palettized weights of the reference."""
    titles = ["Shape", "Bits", "Vector length", "LUTs", "Entries used", "Entropy, bits"]
    columns = [Column("Weight", figures=False), *map(Column, [*titles, "Bits per weight"])]
    rows = [_layer(layer) for layer in report["layers"]]
    if not rows:
        return _section("Palettized weights", element("p", "No weight is palettized."))
    figures = histograms(report["layers"], report["histograms"])
    return _section(
        "Palettized weights", table("Weights", columns, rows), _legend(_LAYERS_LEGEND), *figures
    )


def dense(report: Values) -> Markup:
    """What is not palettized, one row for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in report["dense"].items():
        by_reason.setdefault(reason, []).append(name)
    columns = [Column("Why", figures=False), Column("Count"), Column("Parameters", figures=False)]
    rows = [
        (why, text.count_text(len(names)), ", ".join(names)) for why, names in by_reason.items()
    ]
    if not rows:
        return _section("Left dense", element("p", "No parameter is left dense."))
    return _section("Left dense", table("Left dense", columns, rows))


def limits(report: Values) -> Markup:
    """What was asked for."""
    found = dict(report["limits"])
    single = found.pop("outputs")
    rows = [(_LIMITS.get(key, key), _plain_text(value)) for key, value in found.items()]
    rows += [
        (f"{name}: {_OUTPUT_LIMITS.get(key, key)}", _plain_text(value))
        for name, own in single.items()
        for key, value in own.items()
        if value is not None
    ]
    note = "A dash is no limit. Without a limit of its own, the relative error of a file follows "
    note += "the precision of its LUTs; its parity check names the figure."
    columns = [Column("Limit", figures=False), Column("Value")]
    return _section(
        "Limits", table("Limits", columns, rows, narrow=True), element("p", note, class_="muted")
    )


def provenance(report: Values) -> Markup:
    """Versions and machine."""
    rows = list(report["provenance"].items())
    columns = [Column("What", figures=False), Column("Version or name", figures=False)]
    return _section("Provenance", table("Provenance", columns, rows, narrow=True))


def badge(status: str | None) -> Markup:
    """A status as a word with a sign, so that it does not depend on colour."""
    if status is None:
        return Markup(DASH)
    sign = _SIGNS.get(status, "!")
    return element("span", f"{sign} {status}", class_=f"badge {_tone(status)}")


def _tone(status: str) -> str:
    """The style of a status or verdict."""
    return _TONES.get(status, "open")


def _model(model: Values) -> list[str]:
    return [
        model["name"],
        text.score_text(model["metric"]),
        text.percent(model["agreement"]),
        text.figure(summary.largest_difference(model)),
        text.count_text(model["size_bytes"]),
        text.ratio(model["size_ratio"]),
        text.fixed_text(model["bits_per_weight"], 2),
        model["runtime"] or DASH,
        badge(summary.verdict(model)),
    ]


def _bytes(model: Values) -> list[Markup]:
    sizes = element("p", f"{summary.sizes(model)}.")
    return [element("h3", "Where the bytes are"), size_bar(model["bytes_by_kind"]), sizes]


def _checks(model: Values) -> Markup:
    titles = ("Check", "Status", "Found, and what was wanted")
    columns = [Column(title, figures=False) for title in titles]
    rows = [(c["name"], badge(c["status"]), c["reason"]) for c in model["checks"]]
    return table(f"Checks of {model['name']}", columns, rows, narrow=True)


def _outputs(model: Values) -> Markup:
    columns = [Column("Output", figures=False), *map(Column, _ERRORS.values())]
    rows = [[name, *_errors(error)] for name, error in model["errors"].items()]
    return table(f"Outputs of {model['name']}", columns, rows)


def _errors(error: Values) -> list[str]:
    exact = error["relative"] == 0
    differences = ("max_abs", "mean_abs", "p999_abs", "relative", "element")
    return [
        *(text.figure(error[key]) for key in differences),
        *("exact" if exact else text.fixed_text(error[key], 1) for key in ("sqnr_db", "psnr_db")),
        text.fixed_text(error["cosine"], 6),
        text.count_text(error["nonfinite"]),
    ]


def _layer(layer: Values) -> list[str]:
    return [
        layer["name"],
        text.shape(layer["shape"]),
        str(layer["bits"]),
        str(layer["cluster_dim"]),
        text.count_text(layer["groups"]),
        f"{layer['used_entries']} of {2 ** layer['bits']}",
        text.fixed_text(layer["entropy_bits"], 2),
        text.fixed_text(layer["bits_per_weight"], 2),
    ]


def _plain_text(value: float | None) -> str:
    return DASH if value is None else f"{value:,}"


def _section(title: str, *parts: str) -> Markup:
    return element("section", join([element("h2", title), *parts]))


def _legend(words: Mapping[str, str]) -> Markup:
    pairs = (
        element("div", element("dt", term), element("dd", meaning))
        for term, meaning in words.items()
    )
    return element("dl", *pairs)


_MODELS_LEGEND = {
    "Agreement": "how often the top answer is the original's.",
    "Max difference": "the largest absolute difference of any output from the frozen PyTorch "
    "model, in the output's own unit.",
    "Bytes": "on disk for files; of the tensors, palettes packed, for PyTorch models.",
    "Ratio": "the original's tensor bytes over these bytes: 8.0x is eight times smaller.",
    "Bits per weight": "indices and lookup tables (LUTs) over the palettized weights; of a model "
    "without palettes, its plain weights.",
    "Verdict": "of the checks below; incomplete where one was skipped.",
    "A dash": "not measured, not finite, or not asked.",
}

_ERRORS_LEGEND = {
    "Differences": "absolute, in the output's own unit.",
    "Relative error": "length of the difference over length of PyTorch's output; no unit.",
    "Worst element": "the largest difference of one element, over its size or the output's root "
    "mean square, whichever is larger; no unit.",
    "SQNR": "signal to quantisation noise; 20 dB more is ten times less noise.",
    "PSNR": "the same with the largest value of the output as the signal.",
    "Cosine": "1 where both point the same way; no unit.",
    "Not finite": "values that are NaN or infinite on one side only.",
}

_LAYERS_LEGEND = {
    "Bits": "width of an index; a LUT has 2 to that power entries.",
    "Vector length": "weights that one entry holds (cluster_dim).",
    "LUTs": "lookup tables that the weight has.",
    "Entries used": "entries that some weight points to.",
    "Entropy": "bits an ideal code would need for an index; near Bits is well used.",
    "Bits per weight": "index and LUT bits over the weights.",
}
