"""Streams of mux1 (procs/wire/mux1.py) over a connection of asyncio: the same code at both ends."""
