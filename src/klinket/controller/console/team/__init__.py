"""Services, users, groups."""
