"""Processes meet, or each says in a line why not, and soon."""

import os
import socket
import threading
import time

import jax
import pytest

from experiments.system import meeting
from experiments.system.meeting import MachinesError, Meeting, meet, without_proxies


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def joined(monkeypatch):
    """What JAX is called with, in place of JAX."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    return calls


def come(*meetings: Meeting) -> list[str]:
    """What each of the processes says at its end, each a thread; "" for one that goes on."""
    said = [""] * len(meetings)

    def one(i: int) -> None:
        try:
            meet(meetings[i], lambda _: None)
        except MachinesError as error:
            said[i] = str(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(meetings))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return said


def test_all_come(address, joined):
    order = [2, 0, 1]
    assert come(*(Meeting(address, 3, index) for index in order)) == [""] * 3
    assert sorted(call[0][1:] for call in joined) == [(3, 0), (3, 1), (3, 2)]
    bound = {call[0][2]: call[1]["coordinator_bind_address"] for call in joined}
    assert bound == {0: address, 1: None, 2: None}


@pytest.mark.parametrize("index", [0, 1])
def test_two_with_one_number(address, joined, index):
    said = come(*(Meeting(address, 3, i) for i in (0, 1, index)))
    wrong = f"Two processes have --process-id {index}: give each its own."
    assert said == [wrong] * 3
    assert not joined


def test_other_counts(address, joined):
    said = come(Meeting(address, 2, 0), Meeting(address, 3, 1))
    wrong = "Process 1 was given --num-processes 3, process 0 2: give all of them the same."
    assert said == [wrong] * 2
    assert not joined


def test_one_that_came_and_died(address, joined):
    def die():
        time.sleep(0.3)
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as dying:
            dying.sendall(b'{"process_id": 1, "num_processes": 3}\n')
            time.sleep(0.3)

    threading.Thread(target=die).start()
    assert come(Meeting(address, 3, 0)) == ["Process 1 came, and has ended: see what it said."]


def test_one_that_never_comes(address, joined, monkeypatch):
    monkeypatch.setattr(meeting, "SECONDS_TO_MEET", 1.0)
    said = come(Meeting(address, 3, 0), Meeting(address, 3, 2))
    assert said[0].startswith(f"--coordinator {address}: process 1 did not come in 1 s.")
    assert said[1] == said[0]


STRANGERS = [b"", b"GET / HTTP/1.1\r\n\r\n", b"[" * 3000 + b"\n", b"x" * 10000, b"[]\n", b"{}\n"]
STRANGERS += [b'{"process_id": "1", "num_processes": 2}\n', b"\xff\n", b'{"process_id": true}\n']


@pytest.mark.parametrize("said", STRANGERS, ids=lambda said: repr(said[:20]))
def test_strangers_are_not_let_in(address, joined, said):
    ended = []
    first = threading.Thread(target=lambda: ended.extend(come(Meeting(address, 2, 0))))
    first.start()
    host, port = address.split(":")
    with meeting._connect(address, (host, int(port))) as stranger:
        stranger.sendall(said)
    ended += come(Meeting(address, 2, 1))
    first.join()
    assert ended == ["", ""]


def test_a_server_that_is_no_process_0(joined, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        (said,) = come(Meeting(address, 2, 1))
        thread.join()
    assert said.endswith("who listens there is no process 0, or has ended.")


def test_it_listens_where_it_was_told_to(address, joined):
    host, port = address.split(":")
    listening, bind = meeting._listen(address, host, int(port), 2)
    with listening:
        assert listening.getsockname() == (host, int(port))
        assert bind == address


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY"])
def test_no_proxy_is_between(address, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *_, **__: seen.append(name in os.environ)
    )
    assert come(Meeting(address, 2, 0), Meeting(address, 2, 1)) == ["", ""]
    assert False in seen
    assert os.environ[name] == "http://127.0.0.1:9"
    with without_proxies():
        assert name not in os.environ
