"""Renders and encodes one stream to stdout; go2rtc starts one copy a stream while somebody watches."""
