"""A page as one HTML file that needs nothing else: styles, scripts and data stand in it, and it may load nothing.

The Content-Security-Policy names the two scripts and the style by their digests, so that even a text that came through unescaped
could run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template

from runner import __version__
from runner.report.blocks import Moment, Page, Series
from runner.report.html import Hide, Writer

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="gpurun $version">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<noscript><p class="note warn">The curves are drawn by a script in this file, and scripts are switched off.</p></noscript>
<script type="application/json" id="data">$data</script>
<script>$uplot</script>
<script>$script</script>
</body>
</html>
""")


def render(page: Page, hide: Hide = lambda text: text) -> str:
    """The file as text. ``hide`` takes secrets out of every text of the page."""
    writer = Writer(hide)
    body = writer.body(page)
    style = _own("vendor/uPlot.min.css") + "\n" + _own("page.css")
    uplot, script = _own("vendor/uPlot.iife.min.js"), _own("page.js")
    data = {
        "charts": [
            {"unit": hide(chart.unit), "axis": chart.axis, "series": [_series(each, hide) for each in chart.series]}
            for chart in writer.charts
        ],
        "moments": [_moment(each, hide) for each in page.moments],
    }
    return PAGE.substitute(
        policy=_policy(styles=[style], scripts=[uplot, script]),
        version=__version__,
        title=writer.shown(page.title),
        style=style,
        body=body,
        data=as_data(data),
        uplot=uplot,
        script=script,
    )


def as_data(value: object) -> str:
    """JSON that cannot end the element it stands in, nor begin a comment: pure ASCII without ``<``, ``>`` and ``&``."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*, styles: Iterable[str], scripts: Iterable[str]) -> str:
    def sources(texts: Iterable[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in texts
        )

    return (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; script-src {sources(scripts)};"
        f" style-src {sources(styles)}"
    )


def _own(name: str) -> str:
    return files("runner.report").joinpath(name).read_text("utf-8")


def _series(series: Series, hide: Hide) -> Mapping[str, object]:
    found: dict[str, object] = {
        "label": hide(series.label),
        "colour": series.colour,
        "step": _numbers(series.steps),
        "time": [round(each, 2) for each in series.seconds],
        "values": _numbers(series.values),
    }
    if series.low:
        found |= {"low": _numbers(series.low), "high": _numbers(series.high)}
    return {**found, "faint": True} if series.faint else found


def _moment(moment: Moment, hide: Hide) -> Mapping[str, object]:
    return {
        "time": round(moment.seconds, 2),
        "step": moment.step,
        "kind": moment.kind,
        "text": hide(moment.text),
    }


def _numbers(values: Sequence[float]) -> list[float | None]:
    """Six digits are more than a screen shows; a whole number stays what it is, and NaN becomes null."""
    return [
        None if math.isnan(each) else int(each) if each.is_integer() and abs(each) < 1e15 else float(f"{each:.6g}")
        for each in map(float, values)
    ]
