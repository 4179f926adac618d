"""Tables: with a caption, in a box that scrolls by itself, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast_bench.harness.report.chart import Chart
from holdfast_bench.harness.report.html import Markup, element, joined


@dataclass(frozen=True)
class Table:
    """Rows of cells; a column whose name starts with # holds numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str] = ()  # a class for each row: good, better, bad or ""

    def drawn(self) -> Markup:
        """Return the table."""
        head = element("tr", *(self._head(name) for name in self.columns))
        marks = [*self.marks, *[""] * (len(self.rows) - len(self.marks))]
        body = (self._row(row, mark) for row, mark in zip(self.rows, marks, strict=True))
        table = element(
            "table",
            element("thead", head),
            element("tbody", *body),
            class_="pairs" if len(self.columns) == 2 else None,
            aria_label=self.caption,
        )
        return joined((element("h3", self.caption), scrolling(self.caption, table)))

    def _head(self, name: str) -> Markup:
        return element("th", name.lstrip("#"), scope="col", class_=_class(name))

    def _row(self, row: Sequence[str], mark: str) -> Markup:
        first = element("th", row[0], scope="row", class_=_class(self.columns[0]))
        rest = [
            element("td", cell, class_=_class(name))
            for name, cell in zip(self.columns[1:], row[1:], strict=True)
        ]
        return element("tr", first, *rest, class_=mark or None)


def _class(column: str) -> str | None:
    return "number" if column.startswith("#") else None


def scrolling(name: str, *children: str) -> Markup:
    """Return a box that scrolls sideways, which a keyboard can reach."""
    return element("div", *children, class_="scrolls", tabindex="0", role="region", aria_label=name)


def of_chart(chart: Chart) -> Markup:
    """Return the figures of a chart; the page's script reads them from here, too."""
    unit = f" ({chart.y.label.partition(',')[0]})" if chart.y.label else ""
    names = [chart.x.label, *(line.name + unit for line in chart.lines)]
    columns = (element("th", name, scope="col", class_="number") for name in names)
    body = (_figures(chart, index) for index in range(len(chart.positions)))
    table = element(
        "table",
        element("thead", element("tr", *columns)),
        element("tbody", *body),
        aria_label=chart.title,
    )
    return scrolling(f"Figures of {chart.title}", table)


def _figures(chart: Chart, index: int) -> Markup:
    position = chart.positions[index]
    cells = (
        element("td", chart.show_value(line.values[index]), class_="number") for line in chart.lines
    )
    head = element("th", chart.show_position(position), scope="row", class_="number")
    return element("tr", head, *cells, data_place=f"{chart.x.place(position):.4f}")
