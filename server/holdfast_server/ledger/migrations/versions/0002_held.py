"""An index of the reservations that are held, in the place of one of all there ever were."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Exchange it."""
    op.drop_index("reservations_by_state", "reservations")
    held = sa.text("state = 'H'")
    op.create_index(
        "reservations_held",
        "reservations",
        ["expires_ms"],
        sqlite_where=held,
        postgresql_where=held,
    )
