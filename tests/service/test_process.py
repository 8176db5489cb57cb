"""The command as a process: killed, restarted, ended, refused; its streams and its limits."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import TOKEN, Process

SMALL = ("--servers", "4", "--strategy", "best-fit", "--ends", "report")
JOB = {"cpu": 0.05, "memory": 0.1}


def in_parallel(url: str, clients: int, acknowledged: list[dict[str, Any]]) -> list[threading.Thread]:
    """Clients that send jobs until nobody answers any more, noting what was acknowledged."""

    def send(number: int) -> None:
        with httpx.Client(timeout=30) as http:
            for k in range(10_000):
                try:
                    answer = http.post(f"{url}/schedule", json=JOB | {"name": f"{number}-{k}"})
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.append(answer.json())

    threads = [threading.Thread(target=send, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    return threads


def test_kill_9_in_the_middle_loses_no_acknowledged_job(serve: Callable[..., Process]) -> None:
    acknowledged: list[dict[str, Any]] = []
    process = serve(*SMALL).wait()
    threads = in_parallel(process.url, 4, acknowledged)
    while len(acknowledged) < 100 and any(thread.is_alive() for thread in threads):
        time.sleep(0.005)
    assert process.kill(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join()
    assert len(acknowledged) >= 100
    again = serve(*SMALL).wait()
    with httpx.Client(base_url=again.url) as http:
        for job in acknowledged:
            kept = http.get(f"/jobs/{job['id']}").json()
            assert {name: kept[name] for name in ("name", "server", "status", "startedAt")} == {
                name: job[name] for name in ("name", "server", "status", "startedAt")
            }
        status = http.get("/status").json()
        # beyond what was acknowledged there may be a job of each client whose answer did not come through
        assert len(acknowledged) <= status["jobs"]["running"] <= len(acknowledged) + 4
        used = sum(server["cpu"]["used"] for server in status["servers"])
        assert used == pytest.approx(0.05 * status["jobs"]["running"], rel=1e-3)
        acknowledged.append(http.post("/schedule", json=JOB).json())
    assert len({job["id"] for job in acknowledged}) == len(acknowledged), "no number is given twice"


def test_a_restart_goes_on_with_jobs_queue_and_figures(serve: Callable[..., Process]) -> None:
    flags = ("--server", "only=4,8", "--strategy", "best-fit", "--ends", "report")
    first = serve(*flags).wait()
    with httpx.Client(base_url=first.url) as http:
        done, running, waiting = (
            http.post("/schedule", json={"cpu": 3, "memory": 1}).json()["id"] for _ in range(3)
        )
        http.post(f"/jobs/{done}/finish")
        before = http.get("/stats").json()
    assert first.kill(signal.SIGTERM) == 0
    second = serve(*flags).wait()
    with httpx.Client(base_url=second.url) as http:
        after = http.get("/stats").json()
        for name in ("since", "came", "queued", "running", "finished", "meanSlowdown", "meanWaitSeconds"):
            assert after[name] == before[name], name
        assert http.get(f"/jobs/{waiting}").json()["status"] == "queued"
        http.post(f"/jobs/{running}/finish")
        assert http.get(f"/jobs/{waiting}").json()["status"] == "running"
        assert http.post("/schedule", json={"cpu": 1, "memory": 1}).json()["id"] == waiting + 1
    second.kill(signal.SIGTERM)
    refused = serve("--server", "other=4,8", *flags[2:])
    assert refused.process.wait(240) == 2
    assert f"servers: job {waiting} runs on 'only', which is not among them" in refused.log.read_text()


def test_answers_do_not_wait_for_delayed_acknowledgements() -> None:
    """Accepted connections inherit the option; without it an answer took 40 ms more."""
    from service.server import _bound

    with _bound("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def events(url: str, most: int) -> Iterator[tuple[str, dict[str, Any]]]:
    with httpx.stream("GET", f"{url}/v1/demo/events", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name, seen = "", 0
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))
                seen += 1
                if seen == most:
                    return


def test_streams_tell_the_state_are_bounded_and_end_with_the_process(serve: Callable[..., Process]) -> None:
    process = serve(*SMALL, "--streams", "2").wait()
    found = list(events(process.url, 4))
    assert {name for name, _ in found} == {"state"}
    clocks = [state["clockS"] for _, state in found]
    assert clocks == sorted(set(clocks))
    asked = httpx.get(f"{process.url}/v1/demo/state").json()
    assert asked.keys() == found[0][1].keys()
    ends: list[bool] = []

    def follow() -> None:
        with httpx.stream("GET", f"{process.url}/v1/demo/events", timeout=60) as answer:
            opened.release()
            for _ in answer.iter_raw():
                pass
            ends.append(True)

    opened = threading.Semaphore(0)
    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
        opened.acquire(timeout=60)
    refused = httpx.get(f"{process.url}/v1/demo/events", timeout=30)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert process.kill(signal.SIGTERM) == 0
    for thread in threads:
        thread.join(30)
    assert ends == [True, True], "the streams have come to their end"


def test_beyond_the_loopback_it_does_not_start_without_a_token(serve: Callable[..., Process]) -> None:
    refused = serve("--host", "0.0.0.0")
    assert refused.process.wait(240) == 2
    told = refused.log.read_text()
    assert "--host: '0.0.0.0' can be reached from other machines" in told
    assert "--token-file" in told


def test_beyond_the_loopback_with_a_token_it_serves_its_bearer(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    process = serve(
        "--host", "0.0.0.0", "--token-file", str(tmp_path / "token"), "--log-format", "json"
    ).wait()
    assert httpx.get(f"{process.url}/status").status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}", "Host": "cluster.test"}
    assert httpx.get(f"{process.url}/status", headers=bearer).status_code == 200
    process.kill(signal.SIGTERM)
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    (told,) = [line for line in lines if line["message"].startswith("refused")]
    assert (told["status"], told["path"], told["level"]) == (401, "/status", "warning")
    assert TOKEN not in process.log.read_text()


def test_a_port_or_a_state_file_in_use_is_told_at_once(serve: Callable[..., Process], tmp_path: Path) -> None:
    first = serve(*SMALL).wait()
    same_state = serve(*SMALL)
    same_port = serve(*SMALL, "--port", str(first.port), state="other.db")
    assert (same_state.process.wait(240), same_port.process.wait(240)) == (2, 2)
    assert "another process has it open" in same_state.log.read_text()
    assert f"http://127.0.0.1:{first.port} cannot be listened on" in same_port.log.read_text()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version = 99", "has schema version 99, this version reads 1"),
        ("PRAGMA application_id = 7", "it is another program's database"),
    ],
)
def test_a_file_of_another_version_or_program_is_left_alone(
    serve: Callable[..., Process], tmp_path: Path, statement: str, said: str
) -> None:
    from service.errors import StateError
    from service.store import Store

    path = str(tmp_path / "state.db")
    Store(path).abandon()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = Path(path).read_bytes()
    with pytest.raises(StateError, match=said):
        Store(path)
    assert Path(path).read_bytes() == before
