"""Looks at one machine for what keeps a part from working: each finding says what was found and what to do."""
