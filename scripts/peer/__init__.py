"""What scripts/cli.py does between agents: chat, pipes, files, measuring."""
