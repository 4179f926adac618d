"""Elements of HTML and SVG: what is not markup already is text, and is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = {"meta", "br", "wbr"}


class Markup(str):
    """Text that is markup: made by `element` and `joined`, or read from this package."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return an element; None is left out, a trailing _ dropped, other _ become hyphens."""
    words = [tag]
    for name, value in attributes.items():
        if value is not None:
            words.append(f'{name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"')
    opened = f"<{' '.join(words)}>"
    return Markup(opened if tag in VOID else f"{opened}{joined(children)}</{tag}>")


def joined(parts: Iterable[str | None], between: str = "") -> Markup:
    """Return parts one after the other, those that are text escaped."""
    shown = (part if isinstance(part, Markup) else escape(part) for part in parts if part)
    return Markup(escape(between).join(shown))


def _attribute(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
