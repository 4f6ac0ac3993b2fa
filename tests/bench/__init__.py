"""Benches: figures of ours beside those of named peers, measured in the same run, in turn."""
