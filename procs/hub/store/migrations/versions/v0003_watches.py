"""Watch sessions, which outlive the hub that let them begin."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add their table."""
    op.create_table(
        "watches",
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("stream", sa.String(200), nullable=False),
        sa.Column("login", sa.String(32), nullable=False),
        sa.Column("begun_at", sa.Double, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("reason", sa.String(64)),
        sa.PrimaryKeyConstraint("session_id", name="pk_watches"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_watches_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_watches_device_id", ondelete="CASCADE"),
    )
    for column in ("user_id", "device_id", "lease_until"):
        op.create_index(f"ix_watches_{column}", "watches", [column])
