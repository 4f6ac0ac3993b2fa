"""Agents meet here: rooms of them, and the frames with which they agree on a connection of their own."""
