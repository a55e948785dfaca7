"""The database: SQLAlchemy Core over SQLite (WAL, synchronous=FULL); portable SQL only."""
