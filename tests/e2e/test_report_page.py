"""The report in a real browser: it loads from a disk, fits a phone, and can be read by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_bench.harness.report import overlay, write
from tests.browser import Browser, browsing
from tests.made_up_runs import Load, make_run

LOAD = Load(rate=25, steady_s=15, units=200)
LONG = "sku-" + "0123456789" * 12
RIGHT, END, ESCAPE = "\ue014", "\ue010", "\ue00c"
WIDE, PHONE = (1200, 900), (380, 800)

# Texts of a drawing that overlap each other or leave the drawing.
COLLISIONS = """
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const area = svg.getBoundingClientRect();
  if (!area.width) continue;
  const texts = [...svg.querySelectorAll("text")]
    .map(one => [one.textContent, one.getBoundingClientRect()]);
  texts.forEach(([name, box], i) => {
    if (box.left < area.left - 1 || box.right > area.right + 1) found.push(`${name} leaves`);
    for (const [other, its] of texts.slice(i + 1)) {
      const apart = box.right <= its.left || its.right <= box.left
        || box.bottom <= its.top + 3 || its.bottom <= box.top + 3;
      if (!apart) found.push(`${svg.getAttribute("aria-label")}: ${name} on ${other}`);
    }
  });
}
return found;
"""


@pytest.fixture(scope="module")
def browser(chromium_paths: tuple[str, str]) -> Iterator[Browser]:
    with browsing(*chromium_paths) as session:
        yield session


def disturb(result: dict[str, Any]) -> None:
    """Make the names long and hostile, and break a promise with many violations."""
    result["name"] = "<script>alert(1)</script>"
    result["description"] = LONG
    result["verdicts"][0] |= {"holds": False, "violations": [f"{LONG}: 3 too many"] * 40}
    for row in result["stock"]:
        row["sku"] = LONG


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(make_run(tmp_path_factory.mktemp("run"), LOAD))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(make_run(tmp_path_factory.mktemp("run"), LOAD, disturb))


@pytest.fixture(scope="module")
def laid_over(page: Path) -> Path:
    return overlay(
        {"A before": [page.parent] * 2, "B after": [page.parent]}, page.parent / "o.html"
    )


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["page", "disturbed", "laid_over"])
def test_page_loads_without_complaint_and_without_sideways_scrolling(
    browser: Browser, request: pytest.FixtureRequest, name: str, scheme: str, size: tuple[int, int]
) -> None:
    browser.show(*size, scheme)
    browser.open(request.getfixturevalue(name))
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth") == size[0]
    assert browser.run(COLLISIONS) == []
    assert browser.run("return [...document.querySelectorAll('details')].every(d => !d.open)")


def test_dark_is_dark_and_light_is_light(browser: Browser, page: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        browser.show(*WIDE, scheme)
        browser.open(page)
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        grounds[scheme] = sum(int(part) for part in ground.strip("rgb()").split(","))
    assert grounds["light"] > 700
    assert grounds["dark"] < 100


def test_injected_markup_is_shown_and_not_run(browser: Browser, disturbed: Path) -> None:
    browser.show(*WIDE, "light")
    browser.open(disturbed)
    assert browser.run("return document.querySelector('h1').textContent").startswith("<script>")
    assert browser.run("return document.scripts.length") == 1
    assert browser.run("return document.querySelector('.word').textContent") == "NOT REPORTABLE"


def test_policy_stops_a_script_that_got_into_the_page(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true'; document.body.append(script)"
    )
    assert browser.run("return window.ran === undefined")
    assert "Content Security Policy" in browser.errors()[0]


def test_figures_are_read_with_the_arrow_keys(browser: Browser, page: Path) -> None:
    browser.show(*WIDE, "light")
    browser.open(page)
    browser.run("document.querySelector('#latency-over-time .plot').focus()")
    output = "return document.querySelector('#latency-over-time output')"
    browser.press(RIGHT)
    first = browser.run(f"{output}.innerText")
    assert first.split()[:4] == ["0", "s", "ms", "p50"]
    browser.press(END)
    assert browser.run(f"{output}.innerText") != first
    browser.press(ESCAPE)
    assert browser.run(f"{output}.hidden")


def test_what_is_read_stands_in_the_table(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('#throughput .plot').focus()")
    browser.press(END)
    told = browser.run(
        "return [...document.querySelectorAll('#throughput output .row > :last-child')]"
        ".map(one => one.textContent)"
    )
    listed = browser.run(
        "return [...document.querySelector('#throughput tbody tr:last-child').cells]"
        ".slice(1).map(one => one.textContent)"
    )
    assert told == listed


def test_a_series_can_be_hidden_and_shown_again(browser: Browser, page: Path) -> None:
    browser.show(*WIDE, "light")
    browser.open(page)
    button = "document.querySelector('#latency-over-time .legend button')"
    line = "document.querySelector('#latency-over-time .wide path[data-series=\"0\"]')"
    for display in ("none", "inline"):
        browser.run(f"{button}.click()")
        assert browser.run(f"return getComputedStyle({line}).display") == display


def test_everything_that_scrolls_or_folds_can_be_reached_by_keyboard(
    browser: Browser, page: Path
) -> None:
    browser.show(*PHONE, "light")
    browser.open(page)
    unreachable = browser.run(
        "return [...document.querySelectorAll('.scrolls, .plot, summary, .legend button')]"
        ".filter(one => one.tabIndex < 0).length"
    )
    unnamed = browser.run(
        "return [...document.querySelectorAll('[role], table, svg')]"
        ".filter(one => !one.getAttribute('aria-label')).length"
    )
    assert (unreachable, unnamed) == (0, 0)
