from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sim.errors import ParameterError, TraceError
from sim.scheduling import (
    HEURISTICS,
    ORDERS,
    Outcome,
    SchedulingParams,
    SchedulingPhysics,
    Servers,
    Workload,
    run_heuristic,
)
from sim.scheduling.layout import FINISHED, QUEUED, REJECTED, RUNNING, TO_COME
from sim.scheduling.recordings import recording
from sim.scheduling.workloads import SchedulingScenario, draw_episode
from sim.traces import Jobs, load_jobs

PLAIN = SchedulingScenario(servers=(3, 8), load=(0.7, 1.2))


def jobs_of(*rows: tuple[float, float, float]) -> Workload:
    """Jobs from (submit, duration, cpu), without memory."""
    submit, duration, cpu = np.array(rows, dtype=float).T
    return Workload(submit, duration, cpu, np.zeros(len(rows)))


def begun(servers: Servers, workload: Workload, **params: object) -> SchedulingPhysics:
    physics = SchedulingPhysics(1, len(servers), len(workload), SchedulingParams(**params))  # type: ignore[arg-type]
    physics.load(0, servers, workload)
    physics.begin()
    return physics


def most_used(
    workload: Workload, outcome: Outcome, ends: np.ndarray, asked: np.ndarray, server: int
) -> float:
    """The most that was taken of a server at any time, from when its jobs started and ended."""
    there = (outcome.server == server) & ~outcome.rejected
    starts = (workload.submit_s + outcome.wait_s)[there]
    # at the same moment an end comes before a start
    moments = np.concatenate([starts, ends[there]])
    steps = np.concatenate([asked[there], -asked[there]])
    order = np.lexsort((steps, np.round(moments, 6)))
    return float(np.max(np.cumsum(steps[order]), initial=0.0))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [3, 1_000_000])
def test_every_job_is_in_exactly_one_state_at_every_decision_and_capacities_hold(order, limit):
    rng = np.random.default_rng(1)
    params = SchedulingParams(order=order, queue_limit=limit, reject_freely=True, max_jobs=6)
    episodes = [draw_episode(np.random.default_rng(k), PLAIN, 80) for k in range(6)]
    physics = SchedulingPhysics(len(episodes), 8, 80, params)
    for row, (servers, workload) in enumerate(episodes):
        physics.load(row, servers, workload)
    physics.begin()
    a = physics.arrays
    while (physics.offered >= 0).any():
        counts = physics.counts()
        assert (sum(counts.values()) == 80).all()
        states = {"to come": TO_COME, "queued": QUEUED, "running": RUNNING}
        states |= {"finished": FINISHED, "rejected": REJECTED}
        for name, state in states.items():
            assert ((a.status == state).sum(axis=1) == counts[name]).all(), name
        for row in range(len(episodes)):
            waiting = a.queue[row, : counts["queued"][row]]
            assert len(set(waiting)) == len(waiting)
            assert (a.status[row, waiting] == QUEUED).all()
            for server in range(8):
                placed = a.slot_job[row, server, : a.running[row, server]]
                assert (a.status[row, placed] == RUNNING).all()
                assert a.used_cpu[row, server] == pytest.approx(a.cpu[row, placed].sum(), abs=1e-9)
        assert (a.used_cpu <= a.has_cpu + 1e-8).all()
        assert (a.used_memory <= a.has_memory + 1e-8).all()
        assert (a.running <= 6).all()
        assert (counts["queued"] <= limit + 1).all()
        masks = physics.masks()
        assert masks[physics.offered >= 0].any(axis=1).all()
        physics.act(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))
    counts = physics.counts()
    assert ((counts["finished"] + counts["rejected"]) == 80).all()


@pytest.mark.parametrize("heuristic", HEURISTICS)
def test_reservations_hold_from_start_to_end_under_every_heuristic(heuristic):
    for seed in range(4):
        servers, workload = draw_episode(np.random.default_rng(seed), PLAIN, 200)
        (outcome,) = run_heuristic(heuristic, servers, [workload], SchedulingParams(order="size"), seed)
        assert not outcome.rejected.any()
        assert (outcome.wait_s >= -1e-9).all()
        starts = workload.submit_s + outcome.wait_s
        ends = starts + workload.duration_s / servers.speed[outcome.server]
        flow = (ends - workload.submit_s) / np.maximum(workload.duration_s, 10.0)
        assert np.allclose(outcome.slowdown, np.maximum(flow, 1.0), rtol=1e-6)
        for server in range(len(servers)):
            for asked, has in ((workload.cpu, servers.cpu), (workload.memory, servers.memory)):
                assert most_used(workload, outcome, ends, asked, server) <= has[server] + 1e-6


def test_one_server_first_come_first_served_is_lindleys_recursion():
    rng = np.random.default_rng(0)
    submit = np.cumsum(rng.exponential(10.0, 500))
    duration = rng.lognormal(2.0, 1.0, 500)
    workload = Workload(submit - submit[0], duration, np.ones(500), np.zeros(500))
    (outcome,) = run_heuristic("first-fit", Servers.alike(1), [workload], SchedulingParams(order="strict"))
    free, waits = 0.0, []
    for come, run in zip(workload.submit_s, duration, strict=True):
        waits.append(max(free - come, 0.0))
        free = max(free, come) + run
    assert np.allclose(outcome.wait_s, waits)


def test_the_queues_order_decides_who_is_offered_first():
    rows = ((0, 10, 1.0), (1, 9, 1.0), (2, 3, 1.0), (3, 5, 1.0))
    starts = {}
    for order in ORDERS:
        (outcome,) = run_heuristic(
            "first-fit", Servers.alike(1), [jobs_of(*rows)], SchedulingParams(order=order)
        )
        starts[order] = (np.array([row[0] for row in rows]) + outcome.wait_s).tolist()
    assert starts["arrival"] == starts["strict"] == [0, 10, 19, 22]
    assert starts["size"] == [0, 18, 10, 13]


def test_who_does_not_fit_is_passed_over_but_not_in_strict_order():
    rows = ((0, 10, 0.6), (1, 10, 0.6), (2, 10, 0.3))
    waits = {
        order: run_heuristic("first-fit", Servers.alike(1), [jobs_of(*rows)], SchedulingParams(order=order))[
            0
        ].wait_s
        for order in ("arrival", "strict")
    }
    assert waits["arrival"].tolist() == [0.0, 9.0, 0.0]
    assert waits["strict"].tolist() == [0.0, 9.0, 8.0]


def test_an_overloaded_server_shares_its_cpu_and_thrashes():
    workload = jobs_of((0, 10, 1.0), (0, 10, 1.0))
    (shared,) = run_heuristic(
        "first-fit", Servers.alike(1), [workload], SchedulingParams(overcommit=2.0, thrash=0.0, bound_s=1.0)
    )
    assert shared.slowdown.tolist() == [2.0, 2.0]
    assert shared.overload == pytest.approx(1.0)
    (thrashing,) = run_heuristic(
        "first-fit", Servers.alike(1), [workload], SchedulingParams(overcommit=2.0, thrash=0.5, bound_s=1.0)
    )
    assert thrashing.slowdown.tolist() == [3.0, 3.0]
    (reserved,) = run_heuristic("first-fit", Servers.alike(1), [workload], SchedulingParams(bound_s=1.0))
    assert reserved.slowdown.tolist() == [1.0, 2.0]
    assert reserved.overload == 0.0


def test_processor_sharing_with_unequal_jobs_ends_when_it_should():
    # both run at 1/2 until the short one has had 4 s of work at second 8, then 6 s are left
    workload = jobs_of((0, 10, 1.0), (0, 4, 1.0))
    (outcome,) = run_heuristic(
        "first-fit", Servers.alike(1), [workload], SchedulingParams(overcommit=2.0, thrash=0.0, bound_s=1.0)
    )
    assert outcome.slowdown.tolist() == [1.4, 2.0]
    assert outcome.span_s == 14.0


def test_memory_is_never_overcommitted():
    workload = Workload(np.zeros(2), np.full(2, 10.0), np.full(2, 0.1), np.full(2, 0.6))
    (outcome,) = run_heuristic("first-fit", Servers.alike(1), [workload], SchedulingParams(overcommit=4.0))
    assert outcome.wait_s.tolist() == [0.0, 10.0]


def test_a_slower_server_takes_longer_and_shortest_expected_delay_knows():
    servers = Servers(np.ones(2), np.ones(2), np.array([0.25, 1.0]))
    workload = jobs_of((0, 20, 1.0), (1, 20, 1.0))
    (first,) = run_heuristic("first-fit", servers, [workload])
    assert first.server.tolist() == [0, 1]
    assert first.slowdown.tolist() == [4.0, 1.0]
    (soonest,) = run_heuristic("shortest-expected-delay", servers, [workload])
    assert soonest.server.tolist() == [1, 1]
    assert soonest.slowdown[1] == pytest.approx((19 + 20) / 20)


def test_heuristics_choose_the_servers_that_their_names_say():
    servers = Servers.alike(3)
    physics = begun(servers, jobs_of((0, 100, 0.5), (1, 100, 0.2), (2, 100, 0.3)))
    physics.act(np.array([0]))
    physics.act(np.array([1]))
    assert physics.offered.tolist() == [2]
    assert physics.choose("best-fit").tolist() == [0]
    assert physics.choose("least-loaded").tolist() == [2]
    assert physics.choose("first-fit").tolist() == [0]
    assert physics.choose("round-robin").tolist() == [0]
    assert physics.choose("power-of-two")[0] in (0, 1, 2)
    with pytest.raises(ParameterError, match="heuristic: 'fifo' is not allowed, must be one of round-robin"):
        physics.choose("fifo")


def test_round_robin_goes_round():
    (outcome,) = run_heuristic("round-robin", Servers.alike(3), [jobs_of(*[(k, 100, 0.1) for k in range(7)])])
    assert outcome.server.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_keeping_room_holds_long_jobs_back_while_short_ones_come():
    rng = np.random.default_rng(3)
    count = 1500
    long = rng.random(count) < 0.05
    duration = np.where(long, rng.lognormal(8.0, 0.5, count), rng.lognormal(3.5, 0.8, count))
    submit = np.cumsum(rng.exponential(1.0, count))
    workload = Workload(submit - submit[0], duration, np.ones(count), np.zeros(count))
    servers = Servers.alike(8)
    params = SchedulingParams(order="size")
    (plain,) = run_heuristic("best-fit", servers, [workload.at_load(0.9, servers)], params)
    (kept,) = run_heuristic("keep-room", servers, [workload.at_load(0.9, servers)], params)
    assert np.mean(kept.slowdown) < 0.8 * np.mean(plain.slowdown)
    assert np.mean(kept.wait_s[~long]) < np.mean(plain.wait_s[~long])


def test_holding_is_possible_only_while_something_runs_and_ends_with_the_next_event():
    physics = begun(Servers.alike(2), jobs_of((0, 10, 1.0), (1, 10, 1.0), (2, 10, 1.0)), depth=1)
    assert physics.masks()[0].tolist() == [True, True, False, False]
    physics.act(np.array([2]))  # not allowed: the first server that has room takes it
    assert physics.arrays.server[0, 0] == 0
    assert physics.masks()[0].tolist() == [False, True, True, False]
    physics.act(np.array([2]))
    assert physics.offered.tolist() == [2]
    physics.act(np.array([2]))
    assert physics.counts()["queued"].tolist() == [2]
    assert physics.offered.tolist() == [1]
    assert physics.masks()[0].tolist() == [True, True, False, False]


def test_a_full_queue_and_an_impossible_job_are_rejected():
    rows = ((0, 10, 1.0), (1, 10, 1.0), (2, 10, 1.0))
    (outcome,) = run_heuristic(
        "first-fit", Servers.alike(1), [jobs_of(*rows)], SchedulingParams(queue_limit=1)
    )
    assert outcome.rejected.tolist() == [False, False, True]
    half = Servers(np.full(2, 0.5), np.ones(2), np.ones(2))
    (outcome,) = run_heuristic("first-fit", half, [jobs_of((0, 10, 0.4), (1, 10, 0.6))])
    assert outcome.rejected.tolist() == [False, True]
    assert math.isnan(outcome.slowdown[1])


def test_the_same_seed_gives_the_same_life_whatever_the_batch():
    episodes = [draw_episode(np.random.default_rng(k), PLAIN, 100) for k in range(3)]
    alone = [run_heuristic("random", servers, [jobs], seed=5)[0] for servers, jobs in episodes]
    physics = SchedulingPhysics(3, 8, 100)
    for row, (servers, jobs) in enumerate(episodes):
        physics.load(row, servers, jobs, 5)
    physics.begin()
    physics.run("random")
    for row, one in enumerate(alone):
        together = physics.outcome(row)
        assert np.array_equal(one.slowdown, together.slowdown)
        assert np.array_equal(one.server, together.server)
    first = physics.outcome(0)
    physics.begin()
    physics.run("random")
    assert np.array_equal(first.slowdown, physics.outcome(0).slowdown)


def test_a_workload_is_stretched_to_a_load_and_keeps_its_pattern():
    servers = Servers(np.ones(4), np.ones(4), np.array([1.0, 1.0, 0.5, 0.5]))
    _, workload = draw_episode(np.random.default_rng(2), PLAIN, 300)
    for load in (0.5, 1.1):
        scaled = workload.at_load(load, servers)
        assert scaled.load_on(servers) == pytest.approx(load)
        pattern = workload.submit_s / workload.submit_s[-1]
        assert np.allclose(scaled.submit_s / scaled.submit_s[-1], pattern, rtol=1e-9, atol=1e-12)
        assert np.array_equal(scaled.duration_s, workload.duration_s)


def test_estimates_are_wrong_by_a_log_normal_factor():
    _, workload = draw_episode(np.random.default_rng(2), PLAIN, 4000)
    errors = np.log(workload.estimated(0.7, np.random.default_rng(0)).estimate_s / workload.duration_s)
    assert errors.std() == pytest.approx(0.7, abs=0.03)
    assert abs(errors.mean()) < 0.05


def test_generated_episodes_are_reproducible_valid_and_varied():
    scenario = SchedulingScenario()
    drawn = [draw_episode(np.random.default_rng(k), scenario, 300) for k in range(40)]
    again, _ = draw_episode(np.random.default_rng(7), scenario, 300)
    assert np.array_equal(again.speed, drawn[7][0].speed)
    spreads = [np.log(jobs.duration_s).std() for _, jobs in drawn]
    assert min(spreads) < 0.8
    assert max(spreads) > 2.0
    assert {len(servers) for servers, _ in drawn} > {5, 12}
    for servers, jobs in drawn:
        assert servers.speed.max() == 1.0
        assert servers.cpu.max() == 1.0
        assert 0.45 < jobs.load_on(servers) < 1.1
        assert jobs.cpu.max() <= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overcommit": 0.5}, "overcommit: 0.5 is not allowed, must be in 1..10"),
        ({"order": "fifo"}, "order: 'fifo' is not allowed, must be one of arrival, size, strict"),
        ({"depth": 0}, "depth: 0 is not allowed, must be 1 or more"),
        ({"bound_s": 0.0}, "bound_s: 0.0 is not allowed, must be above 0"),
    ],
)
def test_bad_settings_are_refused_with_what_is_allowed(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(SchedulingParams(), **change)


def test_bad_jobs_servers_and_families_are_refused():
    with pytest.raises(ParameterError, match=r"submit_s: .* must be rising"):
        jobs_of((5, 1, 1.0), (0, 1, 1.0))
    with pytest.raises(ParameterError, match=r"duration_s: 0.0 is not allowed, must be finite, above 0"):
        jobs_of((0, 0, 1.0))
    with pytest.raises(ParameterError, match=r"speed: 0.0 is not allowed, must be above 0"):
        Servers.alike(2, speed=0.0)
    with pytest.raises(
        ParameterError, match=r"durations: \('normal',\) is not allowed, must be of log-normal"
    ):
        SchedulingScenario(durations=("normal",))
    with pytest.raises(ParameterError, match=r"servers: 3 is not allowed, must be at most 2"):
        SchedulingPhysics(1, 2, 10).load(0, Servers.alike(3), jobs_of((0, 1, 1.0)))


def test_a_recording_tells_what_it_leaves_out():
    nan = np.nan
    jobs = Jobs(
        np.arange(6.0) + 3.0,
        np.array([5.0, nan, 7.0, 0.0, 4.0, 3.0]),
        np.array([0.5, 0.5, nan, 0.5, 2.0, 0.25]),
        np.array([0.5, 0.5, 0.5, nan, 0.1, 0.2]),
        np.array([1, 1, 1, 1, 1, 40]),
        "six",
    )
    found = recording(jobs, copies=3)
    assert len(found) == 5
    assert found.workload.submit_s.tolist() == [0.0, 3.0, 5.0, 5.0, 5.0]
    assert found.workload.duration_s.tolist() == [5.0, 0.5, 3.0, 3.0, 3.0]
    assert found.notes == (
        "1 of 6 jobs left out: without a duration",
        "1 of 6 jobs left out: without a demand of cpu",
        "1 of 6 jobs left out: larger than a machine",
        "memory unknown, taken as none",
        "instances beyond 3 of a job are not counted",
        "servers are 1/2 of its machines: the largest job takes 0.5 of one",
    )
    assert [len(one) for one in found.windows(2, 2)] == [2, 2]
    assert found.windows(2, 2)[1].submit_s.tolist() == [0.0, 0.0]
    with pytest.raises(
        TraceError, match="six: 3 windows of 2 jobs are not allowed, its 5 jobs give 2 at most"
    ):
        found.windows(3, 2)


def test_servers_are_as_large_as_the_largest_job_of_a_recording_needs():
    jobs = Jobs(np.arange(2.0), np.ones(2), np.array([0.01, 0.1]), np.array([0.02, 0.03]), name="small")
    found = recording(jobs)
    assert np.allclose(found.workload.cpu, [0.08, 0.8])
    assert np.allclose(found.workload.memory, [0.16, 0.24])
    assert found.notes == ("servers are 1/8 of its machines: the largest job takes 0.1 of one",)


def test_a_recording_without_any_usable_job_is_refused():
    jobs = Jobs(np.array([0.0]), np.array([np.nan]), np.array([1.0]), np.array([1.0]), name="none")
    with pytest.raises(TraceError, match="none: none of its 1 jobs can be scheduled: 1 of 1 jobs left out"):
        recording(jobs)


def test_a_project_file_with_a_bad_row_is_refused_with_line_and_field(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("submit_s,duration_s,cpu,memory\n0,5,0.5,0.5\n1,-3,0.5,0.5\n")
    with pytest.raises(TraceError, match=r"jobs.csv:3: duration_s '-3' is not allowed, must be 0 or more"):
        recording(load_jobs(path))
