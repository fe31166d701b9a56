"""The page is one file that loads nothing, and no text of it, wherever it stands, becomes a tag, an attribute or a script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from runner.report.blocks import Chart, Charts, Facts, Moment, Note, Page, Section, Series, Table, Text
from runner.report.page import as_data, render

HOSTILE = [
    "<script>window.stolen = 1</script>", '"><img src=x onerror="window.stolen=1">', "</script><script>window.stolen=1</script>",
    "<!-- ", "--></script>", "]]>", "\u2028\u2029", "&lt;b&gt; &amp;", "' onmouseover='x", "</style></title></pre></td>",
    "$policy ${data} $$", "\ud800", "javascript:alert(1)", "\\u003c/script>", "{{7*7}}",
]  # fmt: skip


class Reader(HTMLParser):
    """The tags of a page with their attributes, and the text between them, that of scripts and styles by themselves."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, Any]] = []
        self.shown = ""
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [each for each in attrs if each[0] != "content"]))
        self._open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data
        else:
            self.shown += data


def a_page(text: Any) -> Page:
    """A page with every kind of block; ``text`` gives each of its texts."""
    one = Series(text(), [1, 2], [0.5, math.nan and 1.0], [1.0, math.nan], colour=3)
    band = Series(text(), [1.0], [1.0], [2.0], low=[1.5], high=[2.5], faint=True)
    blocks = [
        Facts([(text(), text()), (text(), "")]), Table([text(), text()], [[text(), text()]], frozenset({(0, 1)}), text()),
        Note(text(), "bad"), Text(text()), Charts([Chart(text(), text(), [one, band]), Chart(text(), "", [], "time")]),
    ]  # fmt: skip
    sections = [Section(text(), blocks), Section(text(), blocks[:1], folded=True), Section(text(), [])]
    return Page(text(), text(), sections, [Moment(1.5, 1, "flag", text())])


@pytest.mark.parametrize("seed", range(40))
def test_no_text_changes_what_the_page_is_made_of(seed: int) -> None:
    dice = random.Random(seed)
    given: list[str] = []

    def hostile() -> str:
        given.append("".join(dice.choices(HOSTILE, k=dice.randrange(1, 4))))
        return given[-1]

    page, plain = Reader(render(a_page(hostile))), Reader(render(a_page(lambda: "word")))
    assert page.tags == plain.tags
    data = json.loads(page.inside["script"][0])
    told = [one["label"] for chart in data["charts"] for one in chart["series"]] + [data["moments"][0]["text"]]
    read = page.shown + " ".join(told) + " ".join(chart["unit"] for chart in data["charts"])
    # Of the last section nothing is shown, since it has no blocks; of the fact without a value neither name nor value.
    absent = [each for each in given if each.encode("utf-8", "replace").decode() not in read and each not in read]
    assert len(absent) <= 3


def test_the_policy_allows_the_two_scripts_and_the_style_of_the_page_and_nothing_else() -> None:
    text = render(a_page(lambda: "word"))
    page = Reader(text)
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert found
    policy = {name: rest.split() for name, _, rest in (part.strip().partition(" ") for part in found[1].split(";"))}

    def digest(of: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(of.encode()).digest()).decode()}'"

    assert policy.pop("script-src") == [digest(script) for script in page.inside["script"][1:]]
    assert policy.pop("style-src") == [digest(style) for style in page.inside["style"]]
    assert policy == {
        "default-src": ["'none'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    assert not [tag for tag, attributes in page.tags for name, _ in attributes if name in ("src", "href", "style")]


@pytest.mark.parametrize("text", HOSTILE)
def test_data_is_read_back_as_it_was_and_cannot_end_its_element(text: str) -> None:
    written = as_data({"name": text, "of": [text]})
    assert json.loads(written) == {"name": text, "of": [text]}
    assert written.isascii() and not set("<>&") & set(written)


def test_secrets_are_hidden_in_every_text() -> None:
    assert "hunter2" not in render(a_page(lambda: "a hunter2 b"), lambda text: text.replace("hunter2", "…"))


def test_a_gap_of_a_curve_is_null_and_numbers_are_short() -> None:
    one = Series("a", [1, 2, 3], [0.0, 1 / 3, 2.0], [1 / 3, math.nan, 1e20])
    data = json.loads(
        Reader(render(Page("x", "", [Section("s", [Charts([Chart("c", "", [one])])])]))).inside["script"][0]
    )
    assert data["charts"][0]["series"][0] | {"label": "", "colour": 0} == {
        "label": "", "colour": 0, "step": [1, 2, 3], "time": [0.0, 0.33, 2.0], "values": [0.333333, None, 1e20],
    }  # fmt: skip
