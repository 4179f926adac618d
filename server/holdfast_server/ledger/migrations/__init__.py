"""Steps from one schema of the archive to the next; Alembic runs them when an archive is opened."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's settings, for a connection that is in a transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date; nothing to do is fine, so two servers may try at once."""
    command.upgrade(alembic_config(connection), "head")
