"""Formats of the network, pure: bytes in and out, no sockets, no clock."""
