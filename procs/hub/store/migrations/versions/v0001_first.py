"""The first tables: users, devices, tokens, pairing codes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254)),
        sa.Column("password", sa.String(255), nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("device_id", sa.String(128), nullable=False),
        sa.Column("device_name", sa.String(128), nullable=False),
        sa.Column("device_type", sa.String(64), nullable=False),
        sa.Column("verifier", sa.String(255)),
        sa.Column("owner_id", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint("device_id", name="uq_devices_device_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_devices_owner_id", ondelete="SET NULL"),
    )
    op.create_index("ix_devices_owner_id", "devices", ["owner_id"])
    op.create_table(
        "tokens",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("device_id", sa.Integer),
        sa.Column("login", sa.String(32), nullable=False),
        sa.Column("login_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_tokens"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_tokens_device_id", ondelete="CASCADE"),
    )
    for column in ("user_id", "device_id", "login", "expires_at"):
        op.create_index(f"ix_tokens_{column}", "tokens", [column])
    op.create_table(
        "pairing_codes",
        sa.Column("code", sa.String(6), nullable=False),
        sa.Column("device_id", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_pairing_codes"),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_pairing_codes_device_id", ondelete="CASCADE"),
        sa.UniqueConstraint("device_id", name="uq_pairing_codes_device_id"),
    )
    op.create_index("ix_pairing_codes_expires_at", "pairing_codes", ["expires_at"])
