"""Catalogues in the shapes people have them, read into items with counts."""

from holdfast_server.catalogue.items import Catalogue, CatalogueItem, RowNote, parse, to_rows
from holdfast_server.catalogue.rows import FILE_BYTES_MAX, CatalogueError, CountOf

__all__ = [
    "FILE_BYTES_MAX",
    "Catalogue",
    "CatalogueError",
    "CatalogueItem",
    "CountOf",
    "RowNote",
    "parse",
    "to_rows",
]
