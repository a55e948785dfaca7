"""Alembic's entry point: runs migrations on the connection it is given."""

from __future__ import annotations

from alembic import context

from klinket.controller.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
