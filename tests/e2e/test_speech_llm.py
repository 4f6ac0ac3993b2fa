"""speech_llm as a program sees it that was written for OpenAI's chat: by HTTP and JSON alone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import speech_rig
from tests.speech_rig import Service

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with speech_rig.service("llm", tmp_path_factory.mktemp("llm")) as started:
        yield started


def streamed(llm: Service, **asked: Any) -> list[dict[str, Any]]:
    """The events of an answer, each checked for its form."""
    line = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=20)
    line.request("POST", CHAT, json.dumps({**asked, "stream": True}), {"Authorization": "Bearer EMPTY"})
    answer = line.getresponse()
    assert answer.status == 200 and (answer.getheader("Content-Type") or "").startswith("text/event-stream")
    lines = answer.read().decode().split("\n\n")
    line.close()
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(each.removeprefix("data: ")) for each in lines[:-2]]
    assert {each["object"] for each in events} == {"chat.completion.chunk"} and len(
        {each["id"] for each in events}
    ) == 1
    return events


def test_a_conversation_as_a_published_backend_has_it(llm: Service) -> None:
    """It takes the only model there is, streams, and joins what deltas hold."""
    (model,) = llm.json("GET", "/v1/models")["data"]
    messages = [{"role": "system", "content": "You host a quiz show."}, {"role": "user", "content": "Hello!"}]
    said = []
    for heard in ("eight", "mercury", "honey", "portugal", "ice", "thank you and goodbye"):
        events = streamed(llm, model=model["id"], messages=messages, temperature=0.7)
        deltas = [each["choices"][0]["delta"].get("content") for each in events]
        assert deltas[0] == "" and deltas[-1] is None and events[-1]["choices"][0]["finish_reason"] == "stop"
        assert all(delta and len(delta.split()) == 1 for delta in deltas[1:-1])
        said.append("".join(delta or "" for delta in deltas))
        messages += [{"role": "assistant", "content": said[-1]}, {"role": "user", "content": heard}]
    last = llm.json("POST", CHAT, {"model": model["id"], "messages": messages})
    assert "quiz" in said[0] and len(set(said)) == 6 and "out of 5" in said[5]
    assert last["choices"][0]["message"]["content"].endswith("bye!")
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]


def test_instructions_come_in_metadata_as_an_object_or_as_text(llm: Service) -> None:
    told = {"type": "guess_animal", "language": "fr"}
    for instructions in (told, json.dumps(told)):
        asked = {"messages": [{"role": "system", "content": "x"}], "metadata": {"instructions": instructions}}
        assert "animal" in llm.json("POST", CHAT, asked)["choices"][0]["message"]["content"]


def test_errors_have_openais_shape(llm: Service) -> None:
    for body, status, code in (
        (b"{", 400, None),
        ({"messages": []}, 400, None),
        ({"messages": [{"role": "user", "content": "x"}], "model": "other"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "x"}], "metadata": {"instructions": {"type": "x"}}}, 400, None),
        (b" " * 600_000, 413, None),
    ):
        answered, text = llm.call("POST", CHAT, body)
        error = json.loads(text)["error"]
        assert (answered, error["type"], error["code"]) == (status, "invalid_request_error", code) and error["message"]
    assert llm.figure("llm_refused") == 5
    for method, path, status, words in (("POST", "/chat", 404, CHAT), ("GET", CHAT, 405, "takes POST")):
        answered, text = llm.call(method, path, b"{}")
        assert answered == status and words in json.loads(text)["error"]["message"]
    answered, text = llm.call("GET", "/v1/models", Origin="https://example.org")
    assert answered == 401 and "PLANARIA_SPEECH_KEY" in json.loads(text)["error"]["message"]
