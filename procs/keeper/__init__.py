"""Brings supervisord back when it dies, where nothing else does; and ends it when it no longer answers."""
