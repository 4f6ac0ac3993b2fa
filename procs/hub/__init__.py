"""Server: devices and whoever wants to reach them meet here."""
