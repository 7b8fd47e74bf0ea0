"""Events of jobs, replies already given, and which process serves."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "events",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.String(32), nullable=False, unique=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "replies",
        sa.Column("request", sa.String(71), primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    serving = op.create_table("serving", sa.Column("epoch", sa.Integer, nullable=False))
    op.bulk_insert(serving, [{"epoch": 0}])
