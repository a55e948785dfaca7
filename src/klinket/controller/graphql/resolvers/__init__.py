"""One file a noun; each gives FIELDS, a plain table from "Type.field" to the function that resolves it."""
