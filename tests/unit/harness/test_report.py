"""What a report says of a run: the verdict first, every figure, and nothing but text as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_bench.harness.report import UnreadableRun, overlay, read, units, write
from holdfast_bench.harness.report.axes import Linear, Log, Nines, from_zero, latencies
from holdfast_bench.harness.report.chart import Chart, Line, stretches
from holdfast_bench.harness.report.drawing import NARROW, WIDE, Size, draw
from holdfast_bench.harness.report.figures import charts, throughput
from holdfast_bench.harness.report.html import element
from holdfast_bench.harness.report.images import draw as draw_image
from holdfast_bench.harness.report.levels import pressure_step
from holdfast_bench.harness.report.percentiles import positions
from holdfast_bench.harness.report.spectrum import from_figures, from_hgrm
from holdfast_bench.harness.report.timeline import POINTS_MAX
from holdfast_bench.harness.report.verdict import headline
from tests.made_up_runs import Load, make_run

SMALL = Load(rate=15, steady_s=8, units=120, is_fine=False)
EVIL = "<script>alert(1)</script>"
Result = dict[str, Any]


class Page(HTMLParser):
    """The elements of a page, those that nothing has closed, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def changed(tmp_path: Path, change: Callable[[Result], object] | None = None) -> Path:
    return make_run(tmp_path / "run", SMALL, change)


def word_of(tmp_path: Path, change: Callable[[Result], object] | None = None) -> str:
    return headline(read(changed(tmp_path, change))).word


def test_a_run_that_kept_and_met_everything_has_passed(tmp_path: Path) -> None:
    assert word_of(tmp_path) == "PASSED"


def test_a_missed_threshold_has_failed_and_is_told_in_its_unit(tmp_path: Path) -> None:
    run = changed(tmp_path, lambda r: r["thresholds"][0].update(holds=False, value=61_500_000))
    told = headline(read(run))
    assert (told.word, told.reasons) == ("FAILED", ["p99 < 50ms: was 61.5 ms"])
    assert told.reportable


def test_a_slow_generator_is_invalid_even_if_thresholds_were_missed(tmp_path: Path) -> None:
    def change(result: Result) -> None:
        result["thresholds"][0]["holds"] = False
        result["generator"] |= {"is_valid": False, "reasons": ["calls left late"]}

    assert word_of(tmp_path, change) == "INVALID"


def test_a_run_that_a_threshold_ended_has_failed_and_says_by_which(tmp_path: Path) -> None:
    run = changed(tmp_path, lambda r: r.update(end_reason="aborted: error_rate < 5%", exit_code=99))
    told = headline(read(run))
    assert (told.word, told.reasons) == ("FAILED", ["aborted: error_rate < 5%"])


def test_a_run_cut_short_is_incomplete(tmp_path: Path) -> None:
    assert word_of(tmp_path, lambda r: r.update(end_reason="interrupted")) == "INCOMPLETE"
    assert word_of(tmp_path, lambda r: r.update(exit_code=1)) == "INCOMPLETE"


def test_a_run_of_which_no_promise_was_looked_at_has_not_passed(tmp_path: Path) -> None:
    assert word_of(tmp_path, lambda r: r.update(verdicts=[])) == "UNCHECKED"


@pytest.mark.parametrize("only_counted", [False, True])
def test_a_broken_promise_is_not_reportable_above_all_else(
    tmp_path: Path, only_counted: bool
) -> None:
    def change(result: Result) -> None:
        result["end_reason"] = "interrupted"
        result["units"]["oversold"] = 3
        if not only_counted:
            result["verdicts"][0] |= {"holds": False, "violations": ["sku-1: 3 too many", "more"]}

    page = page_of(write(changed(tmp_path, change)))
    assert ("p", {"class": "word"}) in page.tags
    assert "NOT REPORTABLE" in page.text
    why = "3 units oversold" if only_counted else "sku-1: 3 too many (and 1 more)"
    assert f"never_oversold: {why}" in page.text
    assert any("unusable" in (attributes.get("class") or "") for _, attributes in page.tags)


def test_page_has_the_key_figures_every_chart_and_every_table(tmp_path: Path) -> None:
    page = page_of(write(changed(tmp_path)))
    figures = [attributes["id"] for tag, attributes in page.tags if tag == "figure"]
    assert figures == [
        "latency-over-percentile",
        "latency-over-time",
        "throughput",
        "sessions-over-time",
        "stock",
        "pressure",
        "cpu",
        "memory",
    ]
    for word in ("Rate", "Latency p99.9", "Sold", "Refused", "Oversold", "Dropped starts"):
        assert word in page.text
    assert {"never_oversold", "✓ kept", "✓ met", "hardware.cpu_model", "warm up"} <= {*page.text}
    assert sum(tag == "details" for tag, _ in page.tags) == len(figures)
    assert not page.open


def test_images_are_as_many_as_the_charts_of_the_page(tmp_path: Path) -> None:
    run = changed(tmp_path)
    write(run)
    images = sorted((run / "charts").glob("*.png"))
    assert [image.stem for image in images] == sorted(chart.key for chart in charts(read(run)))
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)


def test_page_fetches_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    html = write(changed(tmp_path)).read_text(encoding="utf-8")
    assert not re.search(r"(?:https?:)?//\w|\burl\(|@import|\bsrc=|\sstyle=|\son\w+=", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert "default-src &#x27;none&#x27;" in policy[1]


def test_names_from_the_run_are_text(tmp_path: Path) -> None:
    def change(result: Result) -> None:
        result |= {"name": EVIL, "description": EVIL, "notes": [EVIL], "date": EVIL}
        result["options"][EVIL] = {EVIL: [EVIL]}
        result["rpcs"][EVIL] = {**result["rpcs"]["Reserve"], "reasons": {EVIL: 1}}
        result["verdicts"].append({"name": EVIL, "holds": False, "violations": [EVIL]})
        result["thresholds"].append({"expression": EVIL, "holds": False, "value": EVIL})
        for row in (*result["stock"], *result["resources"], *result["phases"]):
            row |= {name: EVIL for name in ("sku", "process", "name") if name in row}

    html = write(changed(tmp_path, change)).read_text(encoding="utf-8")
    page = Page(html)
    assert "<script>alert" not in html
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert EVIL in page.text


def test_dollars_in_names_are_no_formula_of_an_image(tmp_path: Path) -> None:
    def change(result: Result) -> None:
        result["name"] = r"$\frac{"
        for row in (*result["stock"], *result["phases"]):
            row |= {name: r"$\bad{$" for name in ("sku", "name") if name in row}

    write(changed(tmp_path, change))


@pytest.mark.parametrize("keys", [0, 1, 2])
def test_a_run_that_brought_nothing_still_has_a_page(tmp_path: Path, keys: int) -> None:
    bare = {"schema_version": 1, "series": [], "rpcs": {}}
    (tmp_path / "result.json").write_text(json.dumps(dict([*bare.items()][: keys + 1])))
    page = page_of(write(tmp_path))
    assert "UNCHECKED" in page.text


def test_a_search_for_the_limit_shows_every_rate(tmp_path: Path) -> None:
    step = {"p50": 2_000_000, "p99": 9_000_000, "dropped": 0, "holds": True, "is_valid": True}
    step |= {"rps": 400.0, "value": 9_000_000, "reasons": []}
    slow = step | {"p99": 90_000_000, "value": 90_000_000, "holds": False}
    late = slow | {"is_valid": False, "reasons": ["calls left late"]}
    steps = [{"rate": rate, **one} for rate, one in ((300, late), (100, step), (200, slow))]

    def change(result: Result) -> None:
        search = {"objective": "p99 < 50ms", "sustained_rate": 100.0, "steps": steps}
        result["saturation"] = search

    page = page_of(write(changed(tmp_path, change)))
    assert "p99 < 50ms was kept up to 100 sessions a second." in page.text
    assert {"✓ kept", "✗ not kept", "generator too slow: calls left late"} <= {*page.text}


def test_a_second_without_an_answer_is_a_gap(tmp_path: Path) -> None:
    def change(result: Result) -> None:
        result["series"][6] |= {"p50": None, "p99": None, "max": None}

    chart = next(one for one in charts(read(changed(tmp_path, change))) if "time" in one.key)
    before, after, *_ = stretches(chart.positions, chart.lines[0])
    assert (before[-1][0], after[0][0]) == (5.0, 7.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "holds no result.json"),
        ("{", "result.json"),
        ("[]", "not a JSON object"),
        ('{"schema_version": 2}', "schema_version is 2, not 1"),
        ("{}", "schema_version is None"),
    ],
)
def test_a_directory_that_cannot_be_read_is_named(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(UnreadableRun, match=problem) as raised:
        write(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_long_run_is_drawn_in_stretches_that_keep_rate_and_worst(tmp_path: Path) -> None:
    load = Load(rate=1, steady_s=1_500, units=500, rpcs={"Reserve": 1.0}, is_fine=False)
    run = read(make_run(tmp_path, load))
    found = {chart.key: chart for chart in charts(run)}
    rows = run.rows("series")
    assert len(found["throughput"].positions) <= POINTS_MAX + 1
    slowest = max(row["max"] or 0 for row in rows) / 1e6
    assert max(value or 0 for value in found["latency-over-time"].lines[2].values) == slowest
    assert "the worst of 4 s" in found["latency-over-time"].note
    first = sum(row["ok"] for row in rows[:4]) / 4
    assert found["throughput"].lines[0].values[0] == first


def test_layers_lie_on_one_another(tmp_path: Path) -> None:
    run = read(changed(tmp_path))
    chart = throughput(run)
    assert chart is not None
    top = chart.stacked()[-1][2]
    row = run.rows("series")[6]
    names = ("ok", "sold_out", "refused", "throttled", "shed", "deadline", "error")
    assert top[6] == sum(row[name] for name in names)


def test_runs_over_one_another_share_the_colour_of_their_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, SMALL) for name in "abc"]
    page = page_of(overlay({"old": runs[:2], "new": runs[2:]}, tmp_path / "overlay.html"))
    assert {"old 1", "old 2", "new"} <= {*page.text}
    tones = [a.get("class") for tag, a in page.tags if tag == "path"][:3]
    assert tones == ["line tone-blue", "line tone-blue", "line tone-orange"]
    alone = page_of(overlay(runs, tmp_path / "overlay.html"))
    tones = [a.get("class") for tag, a in alone.tags if tag == "path"][:3]
    assert len({*tones}) == 3


def test_an_overlay_of_no_runs_is_a_page(tmp_path: Path) -> None:
    assert not page_of(overlay({"a": [], "b": []}, tmp_path / "overlay.html")).open


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_unit_of_a_histogram_file_is_found_by_its_maximum(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "Reserve.hgrm"
    lines = [" Value Percentile TotalCount 1/(1-Percentile)", ""]
    lines += [f"{ms * scale:.6f} {p} {n} 1.0" for ms, p, n in ((1, 0, 1), (2, 0.5, 50))]
    lines += [f"{9 * scale:.6f} 1.0 100", "#[Mean = 1, StdDeviation = 2]"]
    path.write_text("\n".join(lines))
    found = from_hgrm(path, 9.003e6)
    assert found is not None
    assert found.count == 100
    assert [found.at(p) for p in (0, 50, 99)] == pytest.approx([1e6, 2e6, 9e6])


def test_a_coarse_spectrum_makes_nothing_up_between_what_it_knows() -> None:
    found = from_figures({"p50": 1e6, "p99": 5e6, "p99_9": 7e6, "max": 8e6}, 500)
    assert [found.at(p) for p in (50, 60, 99, 99.8)] == [1e6, None, 5e6, 8e6]
    assert found.at(99.9) is None  # 500 calls cannot tell


@given(st.floats(90, 99.9999))
def test_positions_rise_and_end_at_the_last_percentile(last: float) -> None:
    found = positions(last)
    assert found == sorted(set(found))
    assert found[-1] == last
    assert {0.0, 50.0, 90.0} <= {*found} | {last}


@given(st.floats(1e-6, 1e9), st.floats(1, 1e6))
def test_every_latency_lies_within_its_axis(low: float, spread: float) -> None:
    values = [low, low * spread]
    axis = latencies("ms", values)
    assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value in values)
    assert isinstance(axis, Log) is (spread > 40.0) or spread == pytest.approx(40)
    assert all(-1e-2 <= axis.place(value) <= 1.01 for value, _ in axis.ticks(6))


@given(st.floats(1e-3, 1e9), st.integers(3, 10))
def test_ticks_of_an_even_axis_are_round_and_not_many(top: float, count: int) -> None:
    axis = from_zero("op/s", [top])
    ticks = axis.ticks(count)
    assert 2 <= len(ticks) <= count + 1
    assert top * (1 - 1e-9) <= axis.high <= 2.6 * top
    assert len({text for _, text in ticks}) == len(ticks)


def test_each_nine_is_as_wide_as_the_one_before() -> None:
    axis = Nines("percentile", 99.99)
    places = [axis.place(p) for p in (0, 90, 99, 99.9, 99.99, 100)]
    assert places == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    texts = [text for _, text in axis.ticks(9)]
    assert texts == ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=lambda size: size.name)
@pytest.mark.parametrize("top", [0.003, 1.0, 47.0, 99_999.0, 12_345_678.0])
def test_labels_at_the_y_axis_fit_beside_it(size: Size, top: float) -> None:
    for _, text in from_zero("op/s", [top]).ticks(size.y_ticks):
        assert len(text) * 7.3 <= size.left


def test_a_lonely_point_is_drawn() -> None:
    axis = Linear("s", 0, 2)
    lines = [Line("p50", [None, 1.0, None], "blue")]
    chart = Chart("a", "A", "", axis, from_zero("ms", [1.0]), [0, 1, 2], lines)
    assert "h0" in draw(chart, WIDE)


def test_an_image_of_gaps_alone_is_drawn(tmp_path: Path) -> None:
    lines = [Line("p50", [None, None], "blue")]
    chart = Chart("a", "A", "", Linear("s", 0, 1), from_zero("ms", [None]), [0, 1], lines)
    draw_image(chart, tmp_path / "a.png", stamp="INVALID")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("told", "step"),
    [("PLENTY", 1), ("SOLD_OUT", 5), ("Pressure.LOW", 3), ("PRESSURE_SCARCE", 4), (2, 2),
     ("UNSPECIFIED", None), (0, None), (None, None)],
)  # fmt: skip
def test_a_pressure_is_known_by_number_and_name(told: object, step: float | None) -> None:
    assert pressure_step(told) == step


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0421, "0.042"), (3.14159, "3.14"), (31.4159, "31.4"), (31_415.9, "31,416")],
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert units.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (2.5, "2.5 s"), (150, "2 min 30 s"), (7_260, "2 h 1 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@given(st.text())
def test_text_never_opens_an_element_nor_leaves_an_attribute(text: str) -> None:
    page = Page(element("p", text, title=text))
    assert [tag for tag, _ in page.tags] == ["p"]
    assert set(page.tags[0][1]) == {"title"}
    assert not page.open


def test_percentiles_are_named_without_rounding_to_the_next() -> None:
    percentiles = (0, 17.4596, 50, 99.9, 99.98753, 99.9996, 99.9999, 100)
    texts = ["0 %", "17.5 %", "50 %", "99.9 %", "99.988 %", "99.9996 %", "99.9999 %", "max"]
    assert [units.percentile(percent) for percent in percentiles] == texts
