"""What scripts/loadtest_voice.py does: users of a voice backend, as many as wanted, and how they were served."""
