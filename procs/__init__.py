"""Planaria's processes: floor files first, then one folder a concern."""
