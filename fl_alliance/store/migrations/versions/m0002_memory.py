"""What an institution remembers of the job under way, so that another process goes on with it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table("current", sa.Column("job", sa.String(63), primary_key=True))
    op.create_table(
        "memory",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("piece", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
