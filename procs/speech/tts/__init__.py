"""Speaks: text in, sound out."""
