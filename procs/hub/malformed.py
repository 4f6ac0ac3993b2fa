"""What is no HTTP at all: counted and told in one line, as all that is refused, where aiohttp would log a traceback."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

from procs.hub.metrics import Counts


class Quiet(logging.Filter):
    """Takes what strangers do out of aiohttp's own log."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether somebody has to look at this."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self._counts.refuse("malformed HTTP", error=str(error.message or type(error).__name__)[:200])
        return not isinstance(error, (HttpProcessingError, ConnectionError))  # or whoever asked is gone


def quieten(counts: Counts) -> None:
    """Have it so from now on."""
    server_logger.addFilter(Quiet(counts))
