"""What all tables share: names of rules, ids, times, references."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def id_() -> Column[int]:
    """Return the primary key."""
    return Column("id", Integer, primary_key=True)


def times() -> tuple[Column[int], Column[int]]:
    """Return when a row was made and last changed."""
    return Column("created_at_ms", BigInteger, nullable=False), Column("updated_at_ms", BigInteger, nullable=False)


def name() -> Column[str]:
    """Return what people call it."""
    return Column("name", String(255), nullable=False)


def needs(column: str, table: str) -> Column[int]:
    """Return a reference to a row that must be there; one that others need cannot be deleted."""
    return Column(column, Integer, ForeignKey(f"{table}.id", ondelete="RESTRICT"), nullable=False)


def may_have(column: str, table: str) -> Column[int]:
    """Return a reference that may be null."""
    return Column(column, Integer, ForeignKey(f"{table}.id", ondelete="RESTRICT"))
