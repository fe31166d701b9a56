"""The page as a browser shows it: headless Chromium, one process for all tests here."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.domain import places
from runner.domain.history import Curve, History
from runner.report.page import render
from runner.workflow.observing.history import history_of
from runner.workflow.reporting.one_run import page_of
from runner.workflow.reporting.write import write
from tests.support.agent import wait_until
from tests.support.observing import browser as browsers
from tests.support.observing import report_runs
from tests.unit.report.test_page import HOSTILE

pytestmark = pytest.mark.skipif(
    browsers.find() is None, reason="no Chromium here: .ci/setup installs it as root with apt"
)
DRAWN = """[...document.querySelectorAll("canvas")].map(canvas => new Set(new Uint32Array(
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"""
READY = "Number(document.documentElement.dataset.ready || NaN)"


@pytest.fixture(scope="module")
def browser() -> Iterator[browsers.Browser]:
    with browsers.browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))


def opened(browser: browsers.Browser, file: Path, **options: Any) -> None:
    """Opens the page, and awaits that the charts in view are drawn."""
    browser.open(file, **options)
    wait_until(lambda: browser.ask(READY) or None)


def assert_quiet(browser: browsers.Browser, file: Path) -> None:
    assert browser.trouble == [] and browser.asked == [file.as_uri()]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["a_good_run", "a_failed_run"])
def test_curves_are_drawn_without_an_error_and_without_a_request(
    browser: browsers.Browser, tmp_path: Path, kind: str, dark: bool
) -> None:
    file = write([getattr(report_runs, kind)()], tmp_path / "page.html").path
    opened(browser, file, dark=dark, size=(1100, 8000))
    figures = browser.ask("document.querySelectorAll('figure').length")
    wait_until(lambda: browser.ask("document.querySelectorAll('canvas').length") == figures)
    colours = browser.ask(DRAWN)
    assert len(colours) == figures > 10 and min(colours) > 5  # axes, grid and a line, each with its blurred edges
    back = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert_quiet(browser, file)


def test_a_sweep_is_a_mean_with_a_band_for_each_experiment(browser: browsers.Browser, tmp_path: Path) -> None:
    file = write(report_runs.a_sweep(60), tmp_path / "sweep.html").path
    opened(browser, file, size=(1100, 8000))
    figures = browser.ask("document.querySelectorAll('figure').length")
    wait_until(lambda: browser.ask("document.querySelectorAll('canvas').length") == figures)
    assert min(browser.ask(DRAWN)) > 5
    rows = "[...document.querySelector('figure').querySelectorAll('.u-series')].filter(each => each.offsetWidth)"
    names = browser.ask(rows + ".map(each => each.textContent)")
    assert len(names) == 5 and all("mean of 5" in name for name in names[1:])  # the first is the axis
    assert_quiet(browser, file)
    before = browser.ask(DRAWN + "[0]")
    for number in range(1, 5):
        browser.ask(rows + f"[{number}].querySelector('th').click()")
    wait_until(lambda: browser.ask(DRAWN + "[0]") < before)  # lines and bands are gone, the single runs stay


def test_the_page_fits_a_phone(browser: browsers.Browser, tmp_path: Path) -> None:
    file = write([report_runs.a_good_run()], tmp_path / "page.html").path
    opened(browser, file, size=(360, 740))
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    assert_quiet(browser, file)


def test_on_paper_all_charts_are_drawn_and_light(browser: browsers.Browser, tmp_path: Path) -> None:
    file = write([report_runs.a_good_run()], tmp_path / "page.html").path
    opened(browser, file, dark=True)
    figures = browser.ask("document.querySelectorAll('figure').length")
    assert browser.ask("document.querySelectorAll('canvas').length") < figures  # the others are not in view
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.ask("document.querySelectorAll('canvas').length") == figures
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.ask("dispatchEvent(new Event('afterprint'))")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert_quiet(browser, file)


def test_a_zoom_and_the_cursor_are_those_of_all_charts(browser: browsers.Browser, tmp_path: Path) -> None:
    file = write([report_runs.a_good_run()], tmp_path / "page.html").path
    opened(browser, file)
    wait_until(lambda: browser.ask("document.querySelectorAll('.u-over').length") >= 2)
    box = browser.ask("(b => [b.x, b.y, b.width, b.height])(document.querySelector('.u-over').getBoundingClientRect())")
    before = browser.ask(DRAWN + "[1]")
    left, middle = box[0] + box[2] * 0.4, box[1] + box[3] * 0.5
    browser.drag((left, middle), (box[0] + box[2] * 0.5, middle))
    shown = "[...document.querySelectorAll('figure')].slice(0, 2).map(each => each.querySelector('.u-legend .u-value').textContent)"

    def steps() -> list[int]:
        return [int(each.replace(",", "")) for each in browser.ask(shown) if each != "–"]

    wait_until(lambda: len(steps()) == 2)  # both charts tell the step below the cursor
    assert all(1200 <= step <= 1500 for step in steps()) and before
    assert_quiet(browser, file)


def hostile_run(tmp_path: Path) -> Path:
    """A run whose names, events, log, outputs and record are all hostile; its page."""
    run = report_runs.a_failed_run()
    bad = "".join(each for each in HOSTILE if each.isprintable() and "\ud800" not in each)
    run.status = report_runs.ended("failed", evidence=bad, advice=bad, cause="other")
    run.host, run.address = bad, bad
    events: list[dict[str, Any]] = [
        {"t": report_runs.START + 1, "type": "step", "step": 1, "loss": 1.0, **dict.fromkeys(HOSTILE, 1.0)},
        {"t": report_runs.START + 2, "type": "step", "step": 2, "loss": 2.0, **dict.fromkeys(HOSTILE, 2.0)},
        {"t": report_runs.START + 2, "type": "flag", "name": "x", "message": bad},
    ]
    events += [
        {
            "t": report_runs.START + 2 + step,
            "type": "eval",
            "step": step,
            "name": each,
            "metrics": dict.fromkeys(HOSTILE, step),
        }
        for each in HOSTILE
        for step in (1, 2)
    ]
    report_runs.write_events(run, events)
    report_runs.write_output(
        run,
        "training_metadata.json",
        {"data": [{"path": bad, "sha256": bad}, {"side": bad, bad: 1}], "libraries": {bad: bad}},
    )
    report_runs.write_output(
        run, "reports/samples.jsonl", '{"prompt": "<script>window.stolen=1</script>", "</td><img src=x>": 1}\n'
    )
    (places.run_folder(run.run_id) / "log").write_text("\n".join(HOSTILE), "utf-8", errors="replace")
    return write([run], tmp_path / "hostile.html").path


def test_hostile_names_and_logs_are_shown_and_do_nothing(browser: browsers.Browser, tmp_path: Path) -> None:
    file = hostile_run(tmp_path)
    opened(browser, file, size=(1100, 20_000))
    figures = browser.ask("document.querySelectorAll('figure').length")
    wait_until(lambda: browser.ask("document.querySelectorAll('canvas').length") == figures)
    assert browser.ask("window.stolen === undefined")
    assert browser.ask("document.querySelectorAll('img, iframe, object, link, a, form').length") == 0
    assert browser.ask("document.querySelectorAll('script').length") == 3
    assert HOSTILE[0] in browser.ask("document.querySelector('section:last-of-type pre').textContent")
    assert HOSTILE[2] in browser.ask(
        "[...document.querySelectorAll('figcaption')].map(each => each.textContent).join()"
    )
    assert HOSTILE[1] in browser.ask("[...document.querySelectorAll('.u-label')].map(each => each.textContent).join()")
    assert_quiet(browser, file)


def test_a_script_that_came_through_would_not_run(browser: browsers.Browser, tmp_path: Path) -> None:
    """The policy holds by itself: what the test above relies on is not only the escaping."""
    file = write([report_runs.a_good_run()], tmp_path / "page.html").path
    evil = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'><img src='http://127.0.0.1:1/x'>"
    file.write_text(file.read_text("utf-8").replace("<header>", evil + "<header>"), "utf-8")
    opened(browser, file)
    assert browser.ask("window.stolen === undefined") and len(browser.trouble) >= 3
    assert set(browser.asked) - set(browser.refused) == {file.as_uri()} and "http://127.0.0.1:1/x" in browser.refused


def a_long_history(steps: int) -> History:
    """As after ``steps`` events of a step, without the time that reading them takes."""
    history = History(step=steps, total=steps, started=1e9, seen=1e9 + steps)
    numbers, times = array("q", range(steps)), array("d", (1e9 + step for step in range(steps)))
    for place, name in enumerate(("loss", "lr", "grad_norm", "tokens_per_second", "mfu", "ms", "memory", "other")):
        values = array("d", ((step * (place + 7919) % 1009) / 1009 for step in range(steps)))
        history.training[name] = Curve(numbers, times, values)
    for step in range(0, steps, 97):
        history.mark(1e9 + step, "checkpoint", f"step-{step:06}")
    return history


def test_a_million_steps_are_a_small_page_that_answers_at_once(browser: browsers.Browser, tmp_path: Path) -> None:
    run = report_runs.a_good_run()
    file = tmp_path / "long.html"
    file.write_text(render(page_of(run, a_long_history(1_000_000))), "utf-8")
    assert file.stat().st_size < 3_000_000

    def milliseconds() -> float:
        opened(browser, file)
        return float(browser.ask(READY))

    wait_until(lambda: milliseconds() < 1000)  # on a machine that does much else, one of several tries
    assert_quiet(browser, file)


@pytest.mark.slow
def test_a_million_events_are_read_into_a_small_page(tmp_path: Path) -> None:
    run = report_runs.a_good_run()
    report_runs.write_events(run, report_runs.training(1_000_000))
    assert len(history_of(run).training["loss"]) == 1_000_000
    assert write([run], tmp_path / "page.html").bytes < 3_000_000
