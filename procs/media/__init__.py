"""H.264 bytes and marked pictures, pure: no I/O, no clock, nothing but the standard library."""
