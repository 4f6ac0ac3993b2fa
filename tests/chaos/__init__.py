"""The long fault test: `make chaos MINUTES=10 SEED=1`."""
