"""Every payload of the envelope (procs/wire/envelope.py), by what it is about, each with its limits. Pure."""
