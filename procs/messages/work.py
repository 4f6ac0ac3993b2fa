"""Between ws_link and the proxies: tickets, and jobs by JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from procs.messages import decoder
from procs.messages.limits import Count, Headers, Id, Method, Name, Reason, Rid, Status, Target, Text


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A proxy to ws_link, at once after its start and each second: it takes so many Jobs at a time."""

    worker: Name
    pid: Annotated[int, msgspec.Meta(gt=0)]
    capacity: Annotated[int, msgspec.Meta(ge=0, le=1024)]


class TicketWanted(msgspec.Struct, frozen=True, tag="ticket_wanted"):
    """A proxy to ws_link: it wants to open a data connection. An unanswered one may be sent again under a new id."""

    id: Id


class JobDone(msgspec.Struct, frozen=True, tag="job_done"):
    """A proxy to ws_link: the whole answer to the Job of this rid; its body travels beside it."""

    rid: Rid
    status: Status
    headers: Headers = []


class TicketGrant(msgspec.Struct, frozen=True, tag="ticket_grant"):
    """ws_link to a proxy: connect to this ws:// or wss:// address with this ticket, which is good for seconds, once."""

    id: Id
    url: Text
    ticket: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    device_id: Rid


class TicketRefused(msgspec.Struct, frozen=True, tag="ticket_refused"):
    """ws_link to a proxy: no data connection now, because there is no hub or it takes none. To be asked again later."""

    id: Id
    reason: Reason


class Job(msgspec.Struct, frozen=True, tag="job"):
    """ws_link to a proxy: one whole request; its body travels beside it. To be answered by JobDone before
    deadline_ms (CLOCK_MONOTONIC), after which ws_link has answered 504 itself."""

    rid: Rid
    method: Method
    path: Target  # with its query
    headers: Headers
    deadline_ms: Count


FromWorker = Ready | TicketWanted | JobDone
ToWorker = TicketGrant | TicketRefused | Job

decode_from_worker: Callable[[bytes], FromWorker] = decoder(FromWorker)
decode_to_worker: Callable[[bytes], ToWorker] = decoder(ToWorker)
