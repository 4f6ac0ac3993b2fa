"""People with a connection: what they are told, and their watch sessions."""
