"""`./dev chaos`: a whole klinket under load while its parts are killed, and what must hold all the same."""
