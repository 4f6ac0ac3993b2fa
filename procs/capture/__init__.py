"""Takes what any capture command writes, H.264 or MPEG-TS, and hands it on as MPEG-TS that go2rtc passes on at once."""
