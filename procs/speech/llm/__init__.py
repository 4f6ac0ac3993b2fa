"""Answers: an OpenAI-compatible chat, by rules."""
