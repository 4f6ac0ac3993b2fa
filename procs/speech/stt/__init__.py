"""Hears: sound in, words and pauses out."""
