"""A chart as SVG, for a wide page or for a phone; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from holdfast_bench.harness.report.chart import Band, Chart, Line, steps, stretches
from holdfast_bench.harness.report.html import Markup, element, joined

LETTER = 6.9  # about as wide as a letter of an axis, at its size


@dataclass(frozen=True)
class Size:
    """A drawing area and the room around it."""

    name: str
    width: float
    height: float
    left: float
    x_ticks: int
    y_ticks: int
    top: float = 26
    right: float = 14
    bottom: float = 44

    @property
    def inner_width(self) -> float:
        """Width of the plot."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> float:
        """Height of the plot."""
        return self.height - self.top - self.bottom

    def x(self, place: float) -> float:
        """Return where a place from 0 to 1 is, from the left."""
        return self.left + place * self.inner_width

    def y(self, place: float) -> float:
        """Return where a place from 0 to 1 is, from the top."""
        return self.top + (1 - place) * self.inner_height


WIDE = Size("wide", 960, 330, 66, x_ticks=10, y_ticks=6)
NARROW = Size("narrow", 400, 300, 66, x_ticks=4, y_ticks=5)


def draw(chart: Chart, size: Size) -> Markup:
    """Return the chart as an image with a name; its figures are in the table beside it."""
    parts = [*_bands(chart, size), *_y_axis(chart, size), *_x_axis(chart, size)]
    parts += [*_layers(chart, size), *_lines(chart, size), *_reading_line(size)]
    return element(
        "svg",
        *parts,
        class_=f"drawing {size.name}",
        viewBox=f"0 0 {size.width:g} {size.height:g}",
        role="img",
        aria_label=f"{chart.title}: {', '.join(line.name for line in chart.lines)}",
        data_left=size.left,
        data_width=size.inner_width,
        data_whole=size.width,
    )


def _text(text: str, x: float, y: float, class_: str) -> Markup:
    return element("text", text, x=x, y=y, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _bands(chart: Chart, size: Size) -> Iterator[Markup]:
    for band in chart.bands:
        left, right = (size.x(chart.x.place(edge)) for edge in (band.began, band.ended))
        yield _band(band, left, right, size)
        if right < size.x(1) - 1:
            yield _line(right, size.top - 2, right, size.y(0), "border")
        name = band.name.replace("_", " ")
        if len(name) * LETTER + 6 < right - left:
            yield _text(name, (left + right) / 2, size.top - 8, "phase")


def _band(band: Band, left: float, right: float, size: Size) -> Markup:
    return element(
        "rect",
        element("title", f"{band.name}: {band.began:.1f} s to {band.ended:.1f} s"),
        x=left,
        y=size.top,
        width=max(0.0, right - left),
        height=size.inner_height,
        class_="band" if band.measured else "band unmeasured",
    )


def _y_axis(chart: Chart, size: Size) -> Iterator[Markup]:
    free = size.y(0) + 99
    for value, text in chart.y.ticks(size.y_ticks):
        y = size.y(chart.y.place(value))
        yield _line(size.left, y, size.x(1), y, "grid" if text else "grid faint")
        if text and y < free - 14:
            yield _text(text, size.left - 8, y + 4, "tick y")
            free = y
    yield _text(chart.y.label, size.left - 8 if len(chart.y.label) < 5 else 4, 12, _y_class(chart))


def _y_class(chart: Chart) -> str:
    return "unit y" if len(chart.y.label) < 5 else "unit"


def _x_axis(chart: Chart, size: Size) -> Iterator[Markup]:
    free = 0.0
    for value, text in chart.x.ticks(size.x_ticks):
        x = size.x(chart.x.place(value))
        half = len(text) * LETTER / 2
        yield _line(x, size.y(0), x, size.y(0) + 5, "axis")
        if x - half > free:
            yield _text(text, min(x, size.width - half), size.y(0) + 19, "tick x")
            free = x + half + 8
    yield _line(size.left, size.y(0), size.x(1), size.y(0), "axis")
    yield _text(chart.x.label, size.x(1), size.height - 6, "unit y")


def _layers(chart: Chart, size: Size) -> Iterator[Markup]:
    for line, low, high in chart.stacked():
        upper = _placed(chart, size, zip(chart.positions, high, strict=True))
        lower = _placed(chart, size, zip(chart.positions, low, strict=True))
        path = f"{_path(upper)}L{_path(lower[::-1])[1:]}Z"
        yield element("path", d=path, class_=f"layer tone-{line.tone}")


def _lines(chart: Chart, size: Size) -> Iterator[Markup]:
    for index, line in enumerate(chart.lines):
        if not line.layer:
            yield element(
                "path",
                d=_line_path(chart, line, size),
                class_=f"line tone-{line.tone}{' dashed' if line.dashed else ''}",
                data_series=str(index),
            )


def _line_path(chart: Chart, line: Line, size: Size) -> str:
    found = []
    for points in stretches(chart.positions, line):
        placed = _placed(chart, size, steps(points) if chart.stepped else points)
        found.append(_path(placed) + ("h0" if len(placed) == 1 else ""))
    return "".join(found)


def _placed(
    chart: Chart, size: Size, points: Iterable[tuple[float, float | None]]
) -> list[tuple[float, float]]:
    return [
        (size.x(chart.x.place(position)), size.y(chart.y.place(value or 0.0)))
        for position, value in points
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _reading_line(size: Size) -> Iterator[Markup]:
    yield _line(size.left, size.top, size.left, size.y(0), "reading")


def drawings(chart: Chart) -> Markup:
    """Return the chart in every size; the style of the page shows the one that fits."""
    return joined(draw(chart, size) for size in (WIDE, NARROW))
