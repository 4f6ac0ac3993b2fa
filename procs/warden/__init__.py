"""Supervision: a plugin in supervisord makes restart prompt, and the warden beside it finds what hangs."""
