"""Meeting of several processes: process 0 listens, the others come and say who they are.

Before JAX is told of each other, since it waits minutes for one that is gone, aborts when two have
one number, and does not compare how many each expects. What is sent is JSON.
"""

import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import jax

# Processes that are to meet start within this time of each other.
SECONDS_TO_MEET = 60.0

_SECONDS_TO_ANSWER = 5.0
_LONGEST = 4096  # bytes of what is sent
_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")


class MachinesError(RuntimeError):
    """Processes that cannot work together; the message is one line."""


class Meeting(NamedTuple):
    """Where processes meet, and which of them this is."""

    coordinator: str | None
    """HOST:PORT that process 0 listens at, as the others can reach it."""
    num_processes: int | None
    process_id: int | None
    """From 0."""


def meet(meeting: Meeting, say: Callable[[str], None]) -> None:
    """Joins this process to the others of `meeting`, and has JAX make one of them.

    Raises:
        MachinesError: when `meeting` is incomplete or wrong, or is not what the others were given,
            or somebody does not come.
    """
    address, count, index = _check(meeting)
    if count == 1:
        return
    host, port = _host_and_port(address)
    bind = None
    if index == 0:
        server, bind = _listen(address, host, port, count)
        say(f"Waiting for {count - 1} other processes at {address}.")
        with server:
            _gather(server, address, count)
    else:
        _come(address, (host, port), count, index)
    with without_proxies():
        jax.distributed.initialize(
            address,
            count,
            index,
            # Flags are all: a cluster that is there too would choose devices.
            cluster_detection_method="deactivate",
            coordinator_bind_address=bind,
            initialization_timeout=round(SECONDS_TO_MEET),
        )


@contextmanager
def without_proxies() -> Iterator[None]:
    """Has connections within it made without a proxy: processes reach each other directly."""
    names = [name for name in os.environ if name.lower() in _PROXIES]
    proxies = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(proxies)


def _listen(address: str, host: str, port: int, count: int) -> tuple[socket.socket, str | None]:
    """Opens a server at that address alone; at any, where it is another machine's."""
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        try:
            return socket.create_server(where[:2], family=family), address
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return socket.create_server(("", port)), None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # by another process 0, which is to hear of it
            with suppress(OSError), socket.create_connection((host, port), timeout=1) as server:
                _send(server, {"process_id": 0, "num_processes": count})
                _raise_error(_receive(server))
        raise MachinesError(
            f"--coordinator {address}: cannot listen there ({error.strerror}). Choose another port."
        ) from error


def _gather(server: socket.socket, address: str, count: int) -> None:
    """Waits, as process 0, until all others have come; tells them to go on, or why not."""
    connections: dict[int, socket.socket] = {}
    deadline = time.monotonic() + SECONDS_TO_MEET
    server.settimeout(0.2)
    try:
        while len(connections) < count - 1:
            _check_there(connections)
            if time.monotonic() > deadline:
                missing = sorted({*range(1, count)} - {*connections})
                raise MachinesError(
                    f"--coordinator {address}: process {', '.join(map(str, missing))} did not come "
                    f"in {SECONDS_TO_MEET:.0f} s. See what it said, and that this machine can be "
                    "reached there."
                )
            with suppress(TimeoutError):
                connection, _ = server.accept()
                _let_in(connection, connections, count)
        for connection in connections.values():
            _send(connection, {})
    except MachinesError as error:
        for connection in connections.values():
            with suppress(OSError):
                _send(connection, {"error": str(error)})
        raise
    finally:
        for connection in connections.values():
            with suppress(OSError):  # who closes first keeps the port for a while
                _receive(connection)
            connection.close()


def _let_in(connection: socket.socket, connections: dict[int, socket.socket], count: int) -> None:
    try:
        message = _receive(connection)
        index, their_count = message.get("process_id"), message.get("num_processes")
    except OSError:
        index = their_count = None
    if type(index) is not int or type(their_count) is not int:  # a stranger
        connection.close()
        return
    if their_count == count and 0 < index < count and index not in connections:
        connections[index] = connection
        return
    wrong = f"Two processes have --process-id {index}: give each its own."
    if their_count != count:
        wrong = (
            f"Process {index} was given --num-processes {their_count}, process 0 {count}: give all "
            "of them the same."
        )
    with connection, suppress(OSError):
        _send(connection, {"error": wrong})
    raise MachinesError(wrong)


def _check_there(connections: Mapping[int, socket.socket]) -> None:
    for index, connection in connections.items():
        connection.setblocking(False)
        with suppress(BlockingIOError):
            try:
                gone = not connection.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                gone = True
            if gone:
                raise MachinesError(f"Process {index} came, and has ended: see what it said.")


def _come(address: str, where: tuple[str, int], count: int, index: int) -> None:
    """Waits, as a process other than 0, until process 0 says that all are there."""
    with _connect(address, where) as connection:
        try:
            _send(connection, {"process_id": index, "num_processes": count})
            answer = _receive(connection, SECONDS_TO_MEET + _SECONDS_TO_ANSWER)
        except OSError as error:
            raise MachinesError(
                f"--coordinator {address}: who listens there is no process 0, or has ended."
            ) from error
    _raise_error(answer)


def _raise_error(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise MachinesError(str(answer["error"]))


def _connect(address: str, where: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + SECONDS_TO_MEET
    while True:
        try:
            return socket.create_connection(where, timeout=5)
        except OSError as error:
            if time.monotonic() > deadline:
                raise MachinesError(
                    f"--coordinator {address}: nobody listens there after {SECONDS_TO_MEET:.0f} s "
                    f"({error.strerror or error}). Start process 0, and see that its machine can "
                    "be reached."
                ) from error
        time.sleep(0.2)


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.settimeout(_SECONDS_TO_ANSWER)
    connection.sendall(f"{json.dumps(message)}\n".encode())


def _receive(connection: socket.socket, seconds: float = _SECONDS_TO_ANSWER) -> dict[str, Any]:
    """Returns a line of JSON; OSError when none comes, or another kind."""
    connection.settimeout(seconds)
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(_LONGEST)
        line += part
        if not part or len(line) > _LONGEST:
            raise ConnectionError(errno.EPROTO, "ended early, or says too much")
    with suppress(ValueError, RecursionError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    raise ConnectionError(errno.EPROTO, "says something else")


def _check(meeting: Meeting) -> tuple[str, int, int]:
    address, count, index = meeting
    if address is None or count is None or index is None:
        missing = [
            f"--{name.replace('_', '-')}"
            for name, value in meeting._asdict().items()
            if value is None
        ]
        raise MachinesError(
            "Needs --coordinator, --num-processes and --process-id, or none of them: "
            f"{' and '.join(missing)} missing."
        )
    _host_and_port(address)
    if count < 1:
        raise MachinesError(f"--num-processes {count}: needs a whole number from 1.")
    if not 0 <= index < count:
        raise MachinesError(
            f"--process-id {index}: needs a whole number from 0 to {count - 1}, since there are "
            f"{count} processes."
        )
    return address, count, index


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?([^\[\]\s]+)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 2**16:
        raise MachinesError(
            f"--coordinator {address}: needs HOST:PORT, a name or address of process 0's machine "
            "and a free port there."
        )
    return match[1], int(match[2])
