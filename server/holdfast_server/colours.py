"""How pressure looks on a terminal, from the lightest to the heaviest."""

from __future__ import annotations

from holdfast import Pressure

STYLES = {
    Pressure.PLENTY: "green",
    Pressure.NORMAL: "green",
    Pressure.LOW: "yellow",
    Pressure.SCARCE: "red",
    Pressure.SOLD_OUT: "bold red",
}
