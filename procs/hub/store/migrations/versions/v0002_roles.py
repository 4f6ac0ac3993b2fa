"""Devices that are shared, tokens for programs, events of devices."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them; the tokens that are there stay good for what they were."""
    op.add_column("tokens", sa.Column("role", sa.String(16), nullable=False, server_default="owner"))
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_used", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.ForeignKeyConstraint(["digest"], ["tokens.digest"], name="fk_api_tokens_digest", ondelete="CASCADE"),
        sa.UniqueConstraint("digest", name="uq_api_tokens_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "shares",
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("device_id", "user_id", name="pk_shares"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_shares_device_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_shares_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_shares_user_id", "shares", ["user_id"])
    op.create_table(
        "device_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("text", sa.String(300), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_device_events"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_events_device_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_device_events_device_id", "device_events", ["device_id", "id"])
    op.create_index("ix_device_events_at", "device_events", ["at"])
