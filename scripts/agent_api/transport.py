"""agent.transport"""

from procs.agent.transports import (
    BytesTransport,
    ChatTransport,
    JsonTransport,
    Transport,
    TunTransport,
    create_transport,
)

__all__ = ["BytesTransport", "ChatTransport", "JsonTransport", "Transport", "TunTransport", "create_transport"]
