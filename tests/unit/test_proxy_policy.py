"""What may pass: go2rtc's table, upstreams of the settings, and targets that servers might read differently."""

from __future__ import annotations

from pathlib import Path

import pytest

from procs.errors import ConfigError
from procs.proxy import go2rtc, options, policy
from procs.proxy.policy import Allowed, Denied

FILES = options.upstreams(
    {
        "files": {
            "url": "http://127.0.0.1:8080",
            "prefix": "/files",
            "rules": ["GET,HEAD /**", "POST /count?n", "GET /ws ws", "PUT /up/* upload"],
            "max_upload": "50M",
        },
        "inner": {"url": "http://127.0.0.1:8081", "prefix": "/files/inner", "rules": ["GET /*.txt?*"]},
    },
    "test",
)
ALL = (go2rtc.upstream("127.0.0.1", 1984), *FILES)


def judged(method: str, target: str, *, ws: bool = False) -> Allowed | Denied:
    return policy.decide(ALL, method, target, websocket=ws)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/stream.html?src=a&src=b&mode=webrtc,mse".replace("&src=b", "")),
        ("HEAD", "/video-rtc.js"),
        ("GET", "/api"),
        ("GET", "/api/streams"),
        ("GET", "/api/streams?src=omega-0&video=all&audio=all&microphone"),
        ("GET", "/api/stream.mp4?src=omega-0&mp4=flac"),
        ("GET", "/api/stream.mp4?src=omega-0&duration=15&filename=door.mp4"),
        ("GET", "/api/stream.mjpeg?src=with%20space"),
        ("GET", "/api/stream.m3u8?src=omega-0&mp4"),
        ("GET", "/api/hls/segment.m4s?id=ZZvRNAex&n=12"),
        ("GET", "/api/frame.jpeg?src=omega-0&w=320&rotate=-90&cache=5s"),
        ("POST", "/api/webrtc?src=omega-0"),
        ("DELETE", "/api/webrtc?id=1234"),
        ("OPTIONS", "/api/webrtc"),
    ],
)
def test_viewers_may(method: str, target: str) -> None:
    found = judged(method, target)
    assert isinstance(found, Allowed)
    assert found.upstream.name == "go2rtc" and found.target.split("?")[0] == target.split("?")[0]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/config"),
        ("GET", "/api/config"),
        ("PATCH", "/api/config"),
        ("PUT", "/api/streams?src=exec:id"),
        ("PUT", "/api/streams?src=rtsp://x/"),
        ("DELETE", "/api/streams?src=omega-0"),
        ("POST", "/api/streams?src=omega-0&dst=rtmp://x/"),
        ("POST", "/api/restart"),
        ("POST", "/api/exit?code=0"),
        ("GET", "/api/log"),
        ("GET", "/api/stack"),
        ("GET", "/api/streams.dot"),
        ("POST", "/api/ffmpeg?dst=a&file=/etc/passwd"),
        ("GET", "/api/ffmpeg/hardware"),
        ("GET", "/api/discovery/homekit"),
        ("GET", "/api/onvif"),
        ("GET", "/onvif/device_service"),
        ("POST", "/api/stream?dst=omega-0"),
        ("POST", "/api/stream.mjpeg?dst=omega-0"),
        ("POST", "/api/webrtc?dst=omega-0"),
        ("GET", "/api/ws?src=omega-0"),  # without an upgrade
        ("GET", "/api/stream.mp4?src=omega-0&dst=x"),
        ("GET", "/api/frame.jpeg?src=omega-0&w=1,movie=/etc/passwd"),
        ("GET", "/api/frame.jpeg?src=omega-0&height=100:flags=x"),
        ("GET", "/api/stream.mp4?src=omega-0&filename=..%2f..%2fx"),
        ("GET", "/API/config"),
        ("GET", "/static/../../x.html".replace("..", "a")),
        ("CONNECT", "/"),
        ("TRACE", "/"),
        ("get", "/"),
        ("PROPFIND", "/files/a"),
        ("DELETE", "/files/a"),
        ("POST", "/files/a"),
        ("POST", "/files/count?m=1"),
        ("GET", "/files/a?v=1"),
        ("PUT", "/files/up/a/b"),
        ("GET", "/files"),
        ("GET", "/filesystem"),
        ("GET", "/files/inner/a.html"),  # the longer prefix decides alone
    ],
)
def test_nobody_may(method: str, target: str) -> None:
    found = judged(method, target)
    assert isinstance(found, Denied) and found.status == 403


@pytest.mark.parametrize(
    "src",
    [
        "rtsp://1.2.3.4/",
        "exec:id",
        "ffmpeg:a%23video=h264",
        "echo:x",
        "http%3A%2F%2F127.0.0.1%3A1%2F",
        "",
        "EXPR:1",
        "a%23b",
    ],
)
def test_a_source_is_no_name(src: str) -> None:
    for target in ("/api/stream.mp4", "/api/frame.jpeg", "/api/streams", "/api/stream.m3u8"):
        assert judged("GET", f"{target}?src={src}") == Denied(403, "src must be the name of a stream")
    assert isinstance(judged("GET", f"/api/ws?src={src}", ws=True), Denied)


def test_names_come_out_decoded_and_as_sent() -> None:
    found = judged("GET", "/api/ws?src=a+b%2Bc", ws=True)
    assert isinstance(found, Allowed)
    assert found.streams == ("a b+c",) and found.target == "/api/ws?src=a+b%2Bc"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "api",
        "http://127.0.0.1:1984/api/config",
        "@host/",
        "//host/api",
        "/files//a",
        "/files/./a",
        "/files/../api/config",
        "/files/%2e%2e/api/config",
        "/files/%2E./x",
        "/files/..;/api/config",
        "/files/%2e%2e;a=b/x",
        "/files/a%2f..%2fb",
        "/files/a%5cb",
        "/files/a\\b",
        "/files/%252e%252e/x",
        "/files/%25%32%65",
        "/files/a%00.html",
        "/files/a%0d%0ab",
        "/files/a b",
        "/files/a\r\nHost: x",
        "/files/a\x00",
        "/files/ä",
        "/files/a%zz",
        "/files/a%2",
        "/files/a#b",
        "/files/a?b#c",
        "/files/count?n=1;m=2",
        "/files/count?n=1&n=2",
        "/files/count?%6e=1",
        "/files/count?n=%00",
        "/files/count?n=%0a",
        "/files/count?=1",
        "/files/count?n=1&",
        "/" + "a" * policy.MAX_TARGET,
    ],
)
def test_what_servers_might_read_differently(target: str) -> None:
    for method in ("GET", "POST"):
        found = judged(method, target)
        assert isinstance(found, Denied) and found.status == 400


def test_pages_keep_their_query_to_themselves() -> None:
    found = judged("GET", "/stream.html?src=anything:at/all&dst=x")
    assert isinstance(found, Allowed) and found.target == "/stream.html" and found.streams == ()


def test_upstreams_see_paths_without_their_prefix() -> None:
    found = judged("GET", "/files/a%20b.txt")
    assert isinstance(found, Allowed) and (found.upstream.name, found.target) == ("files", "/a%20b.txt")
    found = judged("GET", "/files/inner/a.txt?any=1&key=%2F")
    assert isinstance(found, Allowed) and (found.upstream.name, found.target) == ("inner", "/a.txt?any=1&key=%2F")


def test_what_words_mean() -> None:
    post, put = judged("POST", "/files/count?n=1"), judged("PUT", "/files/up/a")
    assert isinstance(post, Allowed) and not post.is_idempotent and post.max_body == policy.SMALL_UPLOAD
    assert isinstance(put, Allowed) and put.max_body == 50 << 20
    live, kept = judged("GET", "/api/stream.mp4?src=a"), judged("GET", "/api/stream.mp4?src=a&duration=5")
    assert isinstance(live, Allowed) and live.is_live and live.is_endless and live.is_idempotent
    assert isinstance(kept, Allowed) and not kept.is_live
    assert live.first_byte_s == policy.SLOW_FIRST_BYTE_S
    assert isinstance(judged("GET", "/files/ws"), Allowed)  # of GET /**, as a page
    assert isinstance(judged("GET", "/files/ws", ws=True), Allowed)
    assert isinstance(judged("GET", "/files/other", ws=True), Denied)


def test_answers_of_go2rtc_tell_no_secrets() -> None:
    body = b"""{"door":{"producers":[{"url":"rtsp://u:p@192.0.2.7/x","source":"exec:secret --key k","bytes_recv":5,
        "format_name":"rtsp","remote_addr":"192.0.2.7:554","sdp":"v=0","medias":["video, recvonly, H264"],
        "receivers":[{"id":1,"codec":{"codec_name":"h264","level":31},"packets":7,"childs":[2]}]}],
        "consumers":[{"id":2,"user_agent":"secret","remote_addr":"198.51.100.1:9","bytes_send":3,
        "senders":[{"id":3,"drops":4}]}],"offers":{"sdp":"secret"}},"empty":{"producers":[],"consumers":null}}"""
    seen = go2rtc.shown("streams", body)
    for secret in (b"secret", b"192.0.2", b"198.51", b"rtsp://", b"exec:", b"u:p"):
        assert secret not in seen
    for kept in (b'"door"', b'"empty"', b'"h264"', b'"bytes_recv":5', b'"drops":4', b'"consumers":null', b"packets"):
        assert kept in seen
    assert go2rtc.stream_names(body) == {"door", "empty"}
    about = go2rtc.shown(
        "about", b'{"version":"1.9","config_path":"/home/u/x.yaml","host":"h","rtsp":{"listen":":8554"}}'
    )
    assert b"/home" not in about and b'"version":"1.9"' in about


@pytest.mark.parametrize(
    "section",
    [
        {"a": {"url": "https://x", "prefix": "/a", "rules": ["GET /"]}},
        {"a": {"url": "http://x/path", "prefix": "/a", "rules": ["GET /"]}},
        {"a": {"url": "http://u:geheim@x:0", "prefix": "/a", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "a", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "/a/", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "/a/../b", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "/api", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "/api/config", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "rules": ["GET /"]}},
        {"a": {"url": "http://x", "prefix": "/a"}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": []}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": "GET /"}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["GET"]}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["FETCH /"]}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["GET / quick"]}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["POST / ws"]}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["GET /"], "max_upload": "many"}},
        {"a": {"url": "http://x", "prefix": "/a", "rules": ["GET /"], "max_uplod": "1M"}},
        {name: {"url": "http://x", "prefix": "/a", "rules": ["GET /"]} for name in ("a", "b")},
        {"go2rtc": {"url": "http://x", "prefix": "/a", "rules": ["GET /"]}},
        {"a b": {"url": "http://x", "prefix": "/a", "rules": ["GET /"]}},
        {"a": "http://x"},
        ["a"],
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(section: object) -> None:
    with pytest.raises(ConfigError, match=r"planaria\.yaml: upstreams") as error:
        options.upstreams(section, "planaria.yaml: upstreams")
    assert "geheim" not in str(error.value)


def test_settings_of_the_process(tmp_path: Path) -> None:
    environ = {"PLANARIA_RUN_DIR": str(tmp_path), "GO2RTC_HTTP": "http://u:p%40@[::1]:1985/"}
    chosen = options.load(["--instance", "1"], environ)
    assert chosen.instance == 1 and "p@" not in repr(chosen)
    assert (chosen.upstreams[0].authority, chosen.upstreams[0].login) == ("[::1]:1985", "u:p@")
    (tmp_path / options.NAME).write_text(
        '{"go2rtc_http": "http://127.0.0.1:7",'
        ' "upstreams": {"a": {"url": "http://x", "prefix": "/a", "rules": ["GET /"]}}}'
    )
    chosen = options.load([], {"PLANARIA_RUN_DIR": str(tmp_path)})
    assert [each.name for each in chosen.upstreams] == ["go2rtc", "a"] and chosen.upstreams[0].port == 7
