"use strict";
// Reads the figures of a chart where the pointer or the arrow keys are. They come from the table
// beside the chart, so that what is shown and what is listed cannot differ.
for (const figure of document.querySelectorAll("figure")) {
  const plot = figure.querySelector(".plot");
  const output = plot.querySelector("output");
  const rows = [...figure.querySelectorAll("tbody tr")];
  const places = rows.map((row) => Number(row.dataset.place));
  const entries = [...figure.querySelectorAll(".legend .entry")];
  if (!rows.length) continue;
  let at = -1;

  const shown = () => [...plot.querySelectorAll("svg")].find((svg) => svg.getBoundingClientRect().width);
  const isOff = (entry) => entry.getAttribute("aria-pressed") === "false";

  function line(name, value, swatch) {
    const row = document.createElement("span");
    const label = document.createElement("span");
    const figureOf = document.createElement("span");
    row.className = "row";
    label.className = "name";
    if (swatch) label.append(swatch.cloneNode());
    label.append(name);
    figureOf.textContent = value;
    row.append(label, figureOf);
    return row;
  }

  function read(index) {
    at = Math.max(0, Math.min(rows.length - 1, index));
    const [head, ...cells] = rows[at].cells;
    const title = document.createElement("b");
    const unit = document.createElement("span");
    title.textContent = head.textContent;
    unit.textContent = plot.dataset.unit;
    title.append(unit);
    const lines = entries.flatMap((entry, i) =>
      isOff(entry) ? [] : [line(entry.textContent, cells[i].textContent, entry.querySelector(".swatch"))]);
    output.replaceChildren(title, ...lines);
    output.hidden = false;
    plot.classList.add("read");
    stand();
  }

  function stand() {
    const svg = shown();
    const box = svg.getBoundingClientRect();
    const x = Number(svg.dataset.left) + places[at] * Number(svg.dataset.width);
    for (const name of ["x1", "x2"]) svg.querySelector(".reading").setAttribute(name, x);
    const left = box.left - plot.getBoundingClientRect().left + x * box.width / Number(svg.dataset.whole);
    const room = plot.clientWidth - output.offsetWidth;
    const beside = left + 14 <= room ? left + 14 : left - 14 - output.offsetWidth;
    output.style.left = `${Math.max(0, Math.min(room, beside))}px`;
  }

  function leave() {
    output.hidden = true;
    plot.classList.remove("read");
  }

  function nearest(event) {
    const svg = shown();
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * Number(svg.dataset.whole) / box.width;
    const place = (x - Number(svg.dataset.left)) / Number(svg.dataset.width);
    return places.reduce((best, one, i) => Math.abs(one - place) < Math.abs(places[best] - place) ? i : best, 0);
  }

  const KEYS = {
    ArrowRight: () => at + 1,
    ArrowLeft: () => (at < 0 ? rows.length - 1 : at - 1),
    PageDown: () => at + 10,
    PageUp: () => at - 10,
    Home: () => 0,
    End: () => rows.length - 1,
  };

  plot.addEventListener("pointermove", (event) => read(nearest(event)));
  plot.addEventListener("pointerdown", (event) => read(nearest(event)));
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave();
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    read(KEYS[event.key]());
  });
  for (const entry of entries.filter((one) => one.tagName === "BUTTON")) {
    entry.addEventListener("click", () => {
      const off = !isOff(entry);
      entry.setAttribute("aria-pressed", String(!off));
      for (const path of plot.querySelectorAll(`path[data-series="${entry.dataset.series}"]`)) {
        path.classList.toggle("off", off);
      }
    });
  }
}
