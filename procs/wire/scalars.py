"""Values that stand in fields of many frames: texts, ids, names, times and numbers, each with its limits. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

# What can't be seen, or changes how its surroundings are read: controls, separators, bidirectional marks, surrogates.
_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufeff\ufff9-\ufffb"
)
_ID = rf"[^/{_UNSEEN}]*\Z"
_NO_DOTS = r"(?!\.{1,2}\Z)"  # an id is a segment of a path; those two would mean another path

Type = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+\Z")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=rf"^{_NO_DOTS}{_ID}")]
AnyId = Annotated[str, msgspec.Meta(max_length=128, pattern=rf"^{_ID}")]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Time = Annotated[str, msgspec.Meta(max_length=64)]
Secret = Annotated[str, msgspec.Meta(max_length=1024)]
Instance = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[0-9A-Za-z_-]*\Z")]
Nonce = Annotated[str, msgspec.Meta(min_length=32, max_length=128, pattern=r"^[0-9A-Za-z_-]+\Z")]
NoNonce = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^(?:[0-9A-Za-z_-]{32,})?\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Caps = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=64)]
# A path of the hub's own origin: nothing in it can name another host.
OriginPath = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^/(?!/)[A-Za-z0-9._~%?=&/-]*\Z")]
StreamName = Annotated[str, msgspec.Meta(max_length=200, pattern=rf"^[^{_UNSEEN}]*\Z")]  # as go2rtc names them; or ""
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # as a page can read it
Number = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
