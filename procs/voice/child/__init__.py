"""One conversation: its link to a device or a browser, and to the speech services."""
