"""The hub: devices behind walls keep a connection to it, and people reach them through it."""
