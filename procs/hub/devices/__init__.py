"""The devices: known, paired, shared, connected, what has happened to them, and their suites."""
