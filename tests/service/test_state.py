"""What is written, and what happens when it cannot be; flags that are refused."""

from __future__ import annotations

import argparse
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service import store
from service.errors import ServiceError
from service.flags import add_flags, default_state
from service.settings import Settings
from tests.service.conftest import TOKEN

JOB = {"cpu": 1, "memory": 1}


def test_what_the_disk_refuses_is_a_503_and_nothing_more_is_taken(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "state.db")
    with client(state=path) as http:
        assert http.post("/schedule", json=JOB).status_code == 200
        commit = store._commit

        def full(connection: sqlite3.Connection, *rest: Any) -> None:
            # the real thing fails the same way: SQLite itself says that there is no room for another page
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            connection.execute("CREATE TABLE IF NOT EXISTS filler (x)")
            connection.execute("INSERT INTO filler VALUES (zeroblob(100000))")
            commit(connection, *rest)

        monkeypatch.setattr(store, "_commit", full)
        refused = http.post("/schedule", json=JOB)
        assert refused.status_code == 503
        assert f"the state cannot be written to {path}: " in refused.json()["detail"]
        assert http.get("/readyz").status_code == 503
        assert http.get("/healthz").status_code == 200
        came = http.get("/stats").json()["came"]
        assert http.post("/schedule", json=JOB).status_code == 503
        assert http.get("/stats").json()["came"] == came, "refused before it was taken"
        monkeypatch.setattr(store, "_commit", commit_again(commit))
        end = time.monotonic() + 60
        while http.get("/readyz").status_code != 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert http.post("/schedule", json=JOB).status_code == 200
    assert jobs_on_disk(path) == came + 1, "what was refused halfway is on disk after all"


def jobs_on_disk(path: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    return int(found)


def commit_again(commit: Any) -> Any:
    def roomy(connection: sqlite3.Connection, *rest: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1000000")
        commit(connection, *rest)

    return roomy


def test_old_jobs_are_forgotten_their_sums_are_not(client: Any, clock: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with client(state=path, keep_jobs=5) as http:
        for _ in range(20):
            http.post("/schedule", json=JOB | {"estimateSeconds": 1})
            clock.now += 2
        assert http.get("/stats").json()["finished"] == 20
    assert 5 <= jobs_on_disk(path) <= 6
    with client(state=path, keep_jobs=5) as http:
        assert http.get("/stats").json()["finished"] == 20
        assert http.get("/jobs/1").status_code == 404
        assert http.get("/jobs/20").json()["status"] == "finished"
        assert http.post("/schedule", json=JOB).json()["id"] == 21


def test_jobs_that_ended_while_nobody_was_there_ended_when_they_were_due(
    client: Any, clock: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "state.db")
    from tests.service.conftest import fleet

    with client(state=path, fleet=fleet(1)) as http:
        first = http.post("/schedule", json={"cpu": 8, "memory": 1, "estimateSeconds": 10}).json()
        second = http.post("/schedule", json={"cpu": 8, "memory": 1, "estimateSeconds": 10}).json()
    clock.now += 1000
    with client(state=path, fleet=fleet(1)) as http:
        done, begun = (http.get(f"/jobs/{job['id']}").json() for job in (first, second))
    assert done["status"] == "finished"
    assert done["endedAt"] == "2027-01-15T08:00:10.000Z"
    assert (begun["status"], begun["waitSeconds"]) == ("running", 1000.0)


def parsed(*words: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return Settings.load(vars(parser.parse_args(words)), environment)


def test_servers_come_from_flags_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(
        "servers:\n- {name: big, cpu: 16, memory: 64}\n"
        "- {name: small, cpu: 4, memory: 8, speed: 0.5, count: 2}\n"
    )
    from_file = parsed("--servers-file", str(path)).fleet
    assert [(one.name, one.cpu, one.speed) for one in from_file.servers] == [
        ("big", 16.0, 1.0),
        ("small-1", 4.0, 0.5),
        ("small-2", 4.0, 0.5),
    ]
    assert parsed("--servers", "2", "--server-size", "4,8").fleet.names == ["server-1", "server-2"]
    assert parsed("--server", "a=4,8", "--server", "b=2,4,0.5").fleet.servers[1].speed == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--servers", "0"], "--servers: 0 is not allowed, must be a number from 1 to 1000"),
        (["--server-size", "8"], "--server-size: '8' is not allowed, must be CPU,MEMORY"),
        (["--server", "8,32"], "--server: '8,32' is not allowed, must be NAME=CPU,MEMORY"),
        (["--server", "a=8,nan"], "server a: memory: nan is not allowed, must be a number, 0.001 to"),
        (["--server", "a=1,1", "--server", "a=1,1"], "'a' is not allowed, must be used for one server only"),
        (["--server", "a b=1,1"], "server.name: 'a b' is not allowed"),
        (["--server", "a=1,1", "--servers", "2"], "--server: not allowed together with --servers"),
        (["--port", "99999"], "--port: 99999 is not allowed, must be 0 to 65535"),
        (["--default-estimate", "0"], "--default-estimate: 0.0 is not allowed"),
        (["--servers-file", "/nothing.yaml"], "--servers-file: /nothing.yaml cannot be read"),
        (["--token-file", "/nothing"], "--token-file: /nothing cannot be read"),
        (["--host", "::"], "--host: '::' can be reached from other machines"),
    ],
)
def test_flags_that_are_not_right_are_named(words: list[str], said: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parsed(*words)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{name: a, cpu: 1}", "servers[0].memory: None is not allowed, must be given"),
        ("{name: a, cpu: '1', memory: 1}", "server a: cpu: '1' is not allowed"),
        ("{name: a, cpu: 1, memory: 1, gpu: 2}", "servers[0].gpu: 2 is not allowed, must be left out"),
        ("{name: a, cpu: 1, memory: 1, count: 0}", "servers[0].count: 0 is not allowed"),
        ("7", "servers[0]: 7 is not allowed, must be a mapping"),
    ],
)
def test_a_bad_row_of_the_servers_file_is_named(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(f"servers:\n- {row}\n")
    with pytest.raises(ServiceError) as caught:
        parsed("--servers-file", str(path))
    assert said in str(caught.value)


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(ServiceError) as caught:
        parsed("--host", "0.0.0.0", RLSCALER_SERVE_TOKEN="short-secret")
    assert "16 characters or more" in str(caught.value)
    assert "short-secret" not in str(caught.value)
    assert parsed("--host", "0.0.0.0", RLSCALER_SERVE_TOKEN=TOKEN).token == TOKEN


def test_the_state_is_kept_where_the_user_keeps_state() -> None:
    assert default_state({"XDG_STATE_HOME": "/x"}) == "/x/rl-scaler/serve.db"


def test_a_strategy_or_policy_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    from service.engine import Engine

    with pytest.raises(ServiceError, match=r"--strategy: 'best' is not allowed, must be one of learned, "):
        Engine(parsed("--strategy", "best", "--state", ":memory:"))
    with pytest.raises(ServiceError, match="has no places for 65 servers"):
        Engine(parsed("--servers", "65", "--state", ":memory:"))
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(ServiceError, match="is no policy"):
        Engine(parsed("--policy-file", str(tmp_path / "x.onnx"), "--state", ":memory:"))
    builtin = Path(__file__).parents[2] / "controller" / "policies" / "builtin" / "default.onnx"
    with pytest.raises(ServiceError, match="observes"):
        Engine(parsed("--policy-file", str(builtin), "--state", ":memory:"))
