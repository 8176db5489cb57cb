"""Every format on a small sample that is made here, in exactly the form in which it is published."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sim.errors import TraceError
from sim.loaders import LOADERS, Source, recognise
from sim.loaders.base import Bins, iso_seconds
from sim.traces import load_jobs, load_trace

MICRO = 1_000_000


def write(path: Path, text: str | list[str]) -> Path:
    path.write_text(text if isinstance(text, str) else "\n".join(text) + "\n")
    return path


def counts(trace) -> list[float]:
    return np.round(trace.rate_rps * trace.bin_s, 6).tolist()


SWF_JOB = "1 10 5 60 64 -1 -1 64 -1 -1 1 1 1 -1 -1 -1 -1 -1"
AZURE_VM = "v=,s=,d=,300,900,50.0,10.0,40.0,Interactive,4,14"


# --- Standard Workload Format, Azure's virtual machines


def test_a_standard_workload_gives_shares_of_the_machine(tmp_path):
    other = SWF_JOB.replace("1 10 5 60 64", "2 20 0 -1 -1").replace("-1 -1 64", "-1 -1 32")
    jobs = load_jobs(write(tmp_path / "a.swf", f"; Computer: X\n; MaxProcs: 128 (all)\n{SWF_JOB}\n{other}\n"))
    assert jobs.submit_s.tolist() == [10.0, 20.0]
    assert jobs.cpu.tolist() == [0.5, 0.25]
    assert jobs.duration_s[0] == 60.0
    assert np.isnan(jobs.duration_s[1])
    assert np.isnan(jobs.memory).all()
    assert jobs.notes == ("1 jobs have no run time: their duration is unknown",)
    small = load_jobs(write(tmp_path / "b.swf", f"{SWF_JOB}\n"), processors="64")
    assert small.cpu.tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{SWF_JOB}\n", r":1: the header has no MaxProcs and no MaxNodes"),
        ("; MaxProcs: 0\n", r":1: MaxProcs '0' is not allowed, must be 1 or more"),
        (f"; MaxProcs: 8\n{SWF_JOB.replace('60', 'x')}\n", r":2: run time 'x' is not allowed"),
        ("; MaxProcs: 8\n1 2 3\n", r":2: .* has 3 columns, must have 18"),
        ("; MaxProcs: 8\n", "has no jobs at all"),
    ],
)
def test_a_bad_standard_workload_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(TraceError, match=message):
        load_jobs(write(tmp_path / "a.swf", text), format="swf")


def test_a_virtual_machine_is_a_job(tmp_path):
    still = AZURE_VM.replace("900", "2591700").replace(",4,14", ",>24,>64")
    jobs = load_jobs(write(tmp_path / "vmtable.csv", f"{AZURE_VM}\n{still}\n"))
    assert jobs.duration_s[0] == 600.0
    assert np.isnan(jobs.duration_s[1])
    assert jobs.cpu.tolist() == [0.25, 30 / 16]
    assert jobs.memory.tolist() == [0.125, 70 / 112]
    assert jobs.notes == ("1 machines still ran at the end: their duration is unknown",)
    with pytest.raises(TraceError, match=r":1: vmdeleted '100' is not allowed, must be 300 or more"):
        load_jobs(write(tmp_path / "bad.csv", AZURE_VM.replace("900", "100") + "\n"))


# --- Google 2011


def event_2011(second: float, job: int, task: int, event: int, cpu="0.0625", memory="0.01553") -> str:
    """A row of task_events: 13 columns, stamps in microseconds from 600 s before the trace."""
    stamp = round((second + 600) * MICRO)
    machine = "4155527081" if event else ""
    return f"{stamp},,{job},{task},{machine},{event},nUHXgMSWM=,3,9,{cpu},{memory},0.0002155,0"


@pytest.fixture
def google_2011(tmp_path) -> Path:
    rows = [
        "0,2,3418309,0,4155527081,0,70s3v5qRyCO=,3,9,0.125,0.07446,0.0004244,0",  # before the trace
        event_2011(5, 1, 0, 0),
        event_2011(6, 1, 1, 0),
        event_2011(10, 1, 0, 1),
        event_2011(70, 2, 0, 0, cpu="0.5", memory=""),
        event_2011(80, 1, 0, 2),  # evicted after 70 s,
        event_2011(81, 1, 0, 0),  # submitted again: the same task,
        event_2011(90, 1, 0, 1),
        event_2011(120, 1, 0, 4),  # and finished after 30 s more
        event_2011(150, 2, 0, 1),
        event_2011(200, 2, 0, 5),
        f"{2**63 - 1},,1,1,,4,nUHXgMSWM=,3,9,0.0625,0.01553,0.0002155,0",  # after the trace
    ]
    path = tmp_path / "part-00000-of-00500.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
    return path


def test_google_2011_task_events_become_jobs_that_count_once(google_2011):
    jobs = load_jobs(google_2011)
    assert jobs.submit_s.tolist() == [5.0, 6.0, 70.0]
    assert jobs.duration_s[0] == pytest.approx(100.0)
    assert math.isnan(jobs.duration_s[1])
    assert jobs.duration_s[2] == pytest.approx(50.0)
    assert jobs.cpu.tolist() == [0.0625, 0.0625, 0.5]
    assert math.isnan(jobs.memory[2])
    assert jobs.notes == ("1 tasks have not ended: their duration is unknown",)
    trace = load_trace(google_2011, bin_s=60.0)
    assert trace.unit == "jobs/s"
    assert counts(trace) == [2.0, 1.0]


def test_parts_in_a_folder_are_one_recording(tmp_path):
    folder = tmp_path / "task_events"
    folder.mkdir()
    write(folder / "part-00000-of-00500.csv", [event_2011(5, 1, 0, 0), event_2011(6, 1, 0, 1)])
    write(folder / "part-00001-of-00500.csv", [event_2011(90, 2, 0, 0), event_2011(106, 1, 0, 4)])
    jobs = load_jobs(folder)
    assert jobs.submit_s.tolist() == [5.0, 90.0]
    assert jobs.duration_s[0] == pytest.approx(100.0)
    assert jobs.name == "task_events"


def test_a_bad_row_of_2011_is_refused_with_its_line(tmp_path):
    good = event_2011(5, 1, 0, 0)
    path = write(tmp_path / "p.csv", [good, good.replace(",0,nUHX", ",9,nUHX")])
    with pytest.raises(TraceError, match=r"p\.csv:2: event type '9' is not allowed, must be 0 submit"):
        load_jobs(path, format="google-2011")
    path = write(tmp_path / "p.csv", [good, good + ",1"])
    with pytest.raises(
        TraceError, match=r"p\.csv:2: .* has 14 columns, must have 13: timestamp,missing info"
    ):
        load_jobs(path, format="google-2011")


# --- Google 2019


def event_2019(
    second: float, kind: object, index: int | None, collection_type: object = None, **asked
) -> str:
    """A line as BigQuery exports it: whole numbers as text, fields that are not set left out."""
    event: dict = {"time": str(round((second + 600) * MICRO)), "type": kind, "collection_id": "385612310"}
    if index is not None:
        event |= {"instance_index": str(index), "machine_id": "0", "resource_request": asked}
    if collection_type is not None:
        event["collection_type"] = collection_type
    return json.dumps(event)


@pytest.mark.parametrize("named", [False, True])
def test_google_2019_instance_events_become_jobs(tmp_path, named):
    def kind(number: int) -> object:
        names = ["SUBMIT", "QUEUE", "ENABLE", "SCHEDULE", "EVICT", "FAIL", "FINISH", "KILL", "LOST"]
        return names[number] if named else str(number)

    lines = [
        json.dumps({"time": "0", "type": kind(0), "collection_id": "1", "instance_index": "0"}),
        event_2019(1, kind(0), 0, cpus=0.02, memory=0.01),
        event_2019(2, kind(2), 0, cpus=0.02, memory=0.01),
        event_2019(5, kind(3), 0, cpus=0.02, memory=0.01),
        event_2019(10, kind(0), 1, "1", cpus=0.5, memory=0.5),  # an alloc set
        event_2019(15, kind(4), 0, cpus=0.02, memory=0.01),
        event_2019(16, kind(3), 0, cpus=0.02, memory=0.01),
        event_2019(65, kind(0), 2),
        event_2019(76, kind(6), 0, cpus=0.02, memory=0.01),
    ]
    path = tmp_path / "instance_events-000000000000.json.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    jobs = load_jobs(path)
    assert jobs.submit_s.tolist() == [1.0, 65.0]
    assert jobs.duration_s[0] == pytest.approx(70.0)
    assert jobs.cpu[0] == 0.02
    assert math.isnan(jobs.cpu[1])


def test_google_2019_collection_events_are_read_with_numbers_and_left_out_zeros(tmp_path):
    lines = [
        json.dumps({"time": 601 * MICRO, "collection_id": 7, "user": "x"}),  # type 0, left out: SUBMIT
        json.dumps({"time": 602 * MICRO, "type": 3, "collection_id": 7}),
        json.dumps({"time": 632 * MICRO, "type": 7, "collection_id": 7}),
    ]
    jobs = load_jobs(write(tmp_path / "collection_events-0.json", lines))
    assert (jobs.submit_s[0], jobs.duration_s[0]) == (1.0, 30.0)


def test_bad_lines_of_2019_are_refused(tmp_path):
    good = event_2019(1, "0", 0)
    path = write(tmp_path / "e.json", [good, '{"time": '])
    with pytest.raises(TraceError, match=r"e\.json:2: .* is no JSON"):
        load_jobs(path)
    path = write(tmp_path / "e.json", [good, event_2019(1, "GONE", 0)])
    with pytest.raises(
        TraceError, match=r"e\.json:2: type 'GONE' is not allowed, must be 0 or more or one of SUBMIT"
    ):
        load_jobs(path)


# --- Azure


def functions_day(path: Path, rows: list[tuple[str, str, str, str, dict[int, int]]]) -> Path:
    header = ",".join(["HashOwner", "HashApp", "HashFunction", "Trigger", *map(str, range(1, 1441))])
    lines = [header]
    for *ids, calls in rows:
        lines.append(",".join([*ids, *(str(calls.get(minute, 0)) for minute in range(1, 1441))]))
    return write(path, lines)


def test_azure_functions_are_added_and_chosen(tmp_path):
    path = functions_day(
        tmp_path / "invocations_per_function_md.anon.d01.csv",
        [
            ("aa11", "bb", "cc", "http", {1: 6, 1440: 60}),
            ("aa22", "bb", "dd", "timer", {1: 1, 2: 1}),
        ],
    )
    trace = load_trace(path)
    assert len(trace) == 1440
    assert trace.bin_s == 60.0
    assert counts(trace)[:3] == [7.0, 1.0, 0.0]
    assert trace.rate_rps[-1] == 1.0
    assert counts(load_trace(path, trigger="timer"))[:3] == [1.0, 1.0, 0.0]
    assert counts(load_trace(path, owner="aa11"))[0] == 6.0
    with pytest.raises(TraceError, match="has no function with trigger=queue"):
        load_trace(path, trigger="queue")


def test_days_of_azure_functions_follow_one_another(tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    for day in (1, 2):
        functions_day(folder / f"d0{day}.csv", [("a", "b", "c", "http", {1: 60 * day})])
    trace = load_trace(folder)
    assert len(trace) == 2880
    assert (trace.rate_rps[0], trace.rate_rps[1440]) == (1.0, 2.0)


def test_a_bad_minute_of_azure_functions_is_named(tmp_path):
    path = functions_day(tmp_path / "d.csv", [("a", "b", "c", "http", {7: -3})])
    with pytest.raises(TraceError, match=r"d\.csv:2: minute 7 '-3' is not allowed, must be 0 or more"):
        load_trace(path)


def test_azure_llm_requests_of_2023_and_of_2024_are_counted(tmp_path):
    first = [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2023-11-16 18:15:46.6805900,374,44",
        "2023-11-16 18:15:50.9951690,396,109",
        "2023-11-16 18:17:01.0000000,10,5",
    ]
    trace = load_trace(write(tmp_path / "2023.csv", first), bin_s=60.0)
    assert counts(trace) == [2.0, 0.0, 1.0]
    assert trace.origin_s == iso_seconds("2023-11-16 18:15:00")
    assert trace.times_s[0] == 0.0
    tokens = load_trace(tmp_path / "2023.csv", bin_s=60.0, count="generated")
    assert counts(tokens) == [153.0, 0.0, 5.0]
    assert tokens.unit == "tokens/s"
    second = [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2024-05-10 00:00:00.009930+00:00,2162,5",
        "2024-05-10 00:00:10.017335+00:00,2399,6",
        "2024-05-10 00:01:00+00:00,76,15",
    ]
    assert counts(load_trace(write(tmp_path / "2024.csv", second), bin_s=30.0)) == [2.0, 0.0, 1.0]
    path = write(tmp_path / "bad.csv", [*first, "16.11.2023,1,2"])
    with pytest.raises(TraceError, match=r"bad\.csv:5: TIMESTAMP '16.11.2023' is not allowed, must be like"):
        load_trace(path)


# --- Alibaba


def test_alibaba_batch_tasks_of_2017_are_jobs(tmp_path):
    rows = [
        "0,200,1,10,4,Terminated,50.0,0.01",  # from before the trace
        "100,160,2,20,3,Terminated,50.0,0.016",
        "130,140,2,21,1,Running,100.0,",
        "200,200,2,22,,Waiting,,",
    ]
    jobs = load_jobs(write(tmp_path / "batch_task.csv", rows))
    assert jobs.submit_s.tolist() == [100.0, 130.0, 200.0]
    assert jobs.duration_s[0] == 60.0
    assert np.isnan(jobs.duration_s[1:]).all()
    assert jobs.instances.tolist() == [3, 1, 1]
    assert jobs.cpu[0] == 50.0 / 100 / 64
    assert jobs.memory[0] == 0.016
    assert jobs.notes == ("1 tasks from before the trace are left out",)
    assert load_jobs(tmp_path / "batch_task.csv", machine_cores=32).cpu[0] == 50.0 / 100 / 32


def test_alibaba_batch_tasks_of_2018_are_jobs(tmp_path):
    rows = [
        "M1,1,j_1,1,Terminated,86400,86460,100.0,0.39",
        "task_Nzg3ODAwNDgzMTAwNTc2NTQ2Mw==,2,j_2,1,Failed,86470,86480,50.0,0.2",
        "R2_1,1,j_1,1,Running,86500,0,100.0,0.39",
    ]
    jobs = load_jobs(write(tmp_path / "batch_task.csv", rows))
    assert jobs.submit_s.tolist() == [86400.0, 86470.0, 86500.0]
    assert jobs.duration_s[:2].tolist() == [60.0, 10.0]
    assert np.isnan(jobs.duration_s[2])
    assert jobs.cpu[0] == pytest.approx(1 / 96)
    assert jobs.memory[0] == pytest.approx(0.0039)
    bad = write(tmp_path / "bad.csv", [rows[0], rows[1].replace("Failed", "Lost")])
    with pytest.raises(TraceError, match=r"bad\.csv:2: status 'Lost' is not allowed, must be one of Ready"):
        load_jobs(bad, format="alibaba-batch-2018")


def test_alibaba_usage_is_a_mean_over_machines_and_a_bin_without_samples_is_a_gap(tmp_path):
    rows = [
        "m_1,10,40,80,,,40.0,30.0,5",
        "m_2,20,60,90,1.5,2,41.0,31.0,5",
        "m_1,70,30,80,,,40.0,30.0,-1",
        "m_2,80,101,80,,,40.0,30.0,101",  # could not be measured
        "m_1,310,20,70,,,40.0,30.0,5",
        "m_1,370,22,70,,,40.0,30.0,5",
    ]
    path = write(tmp_path / "machine_usage.csv", rows)
    trace = load_trace(path, bin_s=60.0)
    assert trace.unit == "% cpu"
    assert trace.times_s.tolist() == [0.0, 60.0, 300.0, 360.0]
    assert trace.rate_rps.tolist() == [50.0, 30.0, 20.0, 22.0]
    assert trace.gaps == [(120.0, 300.0)]
    assert load_trace(path, measure="memory", id="m_2").rate_rps.tolist() == [90.0, 80.0]
    container = ["c_1,m_25,0,41,92,,,43.0,33.0,5,1", "c_2,m_25,60,21,92,,,43.0,33.0,5,1"]
    assert load_trace(write(tmp_path / "container_usage.csv", container)).rate_rps.tolist() == [41.0, 21.0]


def test_alibaba_microservice_rates_are_added_over_instances(tmp_path):
    long = [
        ",timestamp,msname,msinstanceid,metric,value",
        "0,0,aa,i1,providerRPC_MCR,10.5",
        "1,0,aa,i2,providerRPC_MCR,4.5",
        "2,0,aa,i2,providerRPC_RT,900",
        "3,60000,aa,i1,providerRPC_MCR,20",
        "4,60000,bb,i9,HTTP_MCR,7",
        "5,120000,aa,i1,providerRPC_MCR,5",
    ]
    path = write(tmp_path / "MSRTQps_0.csv", long)
    trace = load_trace(path)
    assert trace.times_s.tolist() == [0.0, 60.0, 120.0]
    assert trace.rate_rps.tolist() == [15.0, 20.0, 5.0]
    assert trace.unit == "calls/s"
    with pytest.raises(TraceError, match="1 minutes of http_mcr are not enough"):
        load_trace(path, metric="HTTP_MCR")
    names = "timestamp,msname,msinstanceid,nodeid,providerrpc_rt,providerrpc_mcr,http_mcr,http_rt"
    wide = [
        names,
        "60000,MS_1,P_0,N_1,10,0.5,0.25,1",
        "60000,MS_2,P_0,N_1,10,0.25,0,1",
        "120000,MS_1,P_0,N_1,9,1,0,1",
    ]
    path = write(tmp_path / "MSRTMCR_0.csv", wide)
    assert load_trace(path).rate_rps.tolist() == [0.75, 1.0]
    assert load_trace(path, service="MS_1", metric="http_mcr").rate_rps.tolist() == [0.25, 0.0]
    with pytest.raises(
        TraceError, match="option metric 'readmc_mcr' is not allowed, must be providerrpc_mcr, http_mcr"
    ):
        load_trace(path, metric="readMC_MCR")


def test_alibaba_microservice_utilisation_is_a_mean_over_instances(tmp_path):
    lines = ["timestamp,msname,msinstanceid,nodeid,cpu_utilization,memory_utilization"]
    lines += ["60000,MS_1,P_0,N_1,0.25,0.5", "60000,MS_1,P_1,N_1,0.75,0.5", "120000,MS_2,P_0,N_1,0.1,0.5"]
    trace = load_trace(write(tmp_path / "MSResource_0.csv", lines))
    assert trace.rate_rps.tolist() == [0.5, 0.1]
    assert trace.unit == "cpu share"


def test_alibaba_calls_are_counted_once(tmp_path):
    lines = [
        ",timestamp,traceid,rpcid,um,rpctype,dm,interface,rt",
        "0,100,t1,0.1,aa,rpc,bb,x,13",
        "1,105,t1,0.1,aa,rpc,bb,x,-9",  # the callee's copy
        "2,61000,t2,0.1,aa,rpc,cc,x,2",
        "3,62000,t2,0.1.1,cc,mc,dd,x,1",
    ]
    path = write(tmp_path / "MSCallGraph_0.csv", lines)
    assert counts(load_trace(path)) == [1.0, 2.0]
    new = ["timestamp,traceid,service,rpc_id,um,uminstanceid,rpctype,interface,dm,dminstanceid,rt"]
    new += [f"{1000 * k},T_{k},S_1,0.1,MS_1,P_0,rpc,x,MS_2,P_1,2.0" for k in range(3)]
    assert counts(load_trace(write(tmp_path / "CallGraph_0.csv", new), bin_s=1.0)) == [1.0, 1.0, 1.0]


# --- access logs


COMMON = '127.0.0.1 - frank [10/Oct/2000:13:55:{second:02d} {zone}] "GET /{page} HTTP/1.0" {status} 2326'


def common(second: int, zone: str = "-0700", page: str = "index.gif", status: int = 200) -> str:
    return COMMON.format(second=second, zone=zone, page=page, status=status)


def test_access_logs_are_counted_in_any_order_and_time_zone(tmp_path):
    lines = [
        common(36),
        common(38),
        common(37),
        '10.0.0.9 - - [10/Oct/2000:22:55:39 +0200] "POST /api HTTP/1.1" 502 - "http://a" "Mozilla/4.08 [en]"',
        '::1 - user name [10/Oct/2000:20:55:40 +0000] "-" 408 0 "-" "-"',
    ]
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    trace = load_trace(path, bin_s=1.0)
    assert counts(trace) == [1.0] * 5
    assert trace.origin_s == iso_seconds("2000-10-10T13:55:36-07:00")
    assert trace.name == "access"


def test_access_logs_are_filtered_by_request_and_status(tmp_path):
    lines = [common(s, page="api" if s % 2 else "x", status=500 if s > 3 else 200) for s in range(8)]
    path = write(tmp_path / "a.log", lines)
    assert sum(counts(load_trace(path, bin_s=1.0, match="GET /api"))) == 4
    assert sum(counts(load_trace(path, bin_s=1.0, status="5"))) == 4
    with pytest.raises(TraceError, match="no regular expression"):
        load_trace(path, match="(")


def test_bytes_that_are_no_text_do_not_stop_a_log_but_do_stop_a_number(tmp_path):
    line = common(1).encode().replace(b"/index.gif", b"/caf\xe9\x00\xff")
    (tmp_path / "a.log").write_bytes(b"\n".join([common(0).encode(), line, common(2).encode()]))
    assert counts(load_trace(tmp_path / "a.log", bin_s=1.0)) == [1.0, 1.0, 1.0]
    (tmp_path / "a.csv").write_bytes(b"timestamp_s,requests_per_s\n0,1\n60,\xff2\n")
    with pytest.raises(TraceError, match=r"a\.csv:3: requests_per_s .* is not allowed"):
        load_trace(tmp_path / "a.csv")


def test_a_few_damaged_lines_are_left_out_and_many_refused(tmp_path):
    lines = [common(s % 60) for s in range(400)]
    path = write(tmp_path / "a.log", [*lines[:200], "\\x16\\x03\\x01 garbage", *lines[200:]])
    trace = load_trace(path, bin_s=1.0)
    assert sum(counts(trace)) == 400
    assert "1 of 401 lines were left out" in trace.notes[0]
    assert "a.log:201" in trace.notes[0]
    path = write(tmp_path / "b.log", [*lines[:20], "garbage", common(1).replace("Oct", "Okt")])
    with pytest.raises(TraceError, match=r"b\.log:21: line 'garbage' is not allowed.*2 of 22 lines"):
        load_trace(path)


# --- Prometheus


def answer(*series: tuple[dict, list]) -> str:
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def test_a_range_query_keeps_what_is_missing_missing(tmp_path):
    values = [
        [1_700_000_000 + 15 * k, text] for k, text in enumerate(["1.5", "NaN", "2", "+Inf", "2.5", "3"])
    ]
    values += [[1_700_000_000 + 15 * 20, "4"]]
    trace = load_trace(write(tmp_path / "q.json", answer(({}, values))))
    assert trace.origin_s == 1_700_000_000
    assert trace.times_s.tolist() == [0.0, 30.0, 60.0, 75.0, 300.0]
    assert trace.rate_rps.tolist() == [1.5, 2.0, 2.5, 3.0, 4.0]
    assert trace.at(15.0) == pytest.approx(1.75), "interpolated, not zero"
    assert len(trace.gaps) == 1
    assert trace.notes == ("16 of 21 samples are missing",)


def test_several_series_are_chosen_by_label_or_added(tmp_path):
    one = ({"service": "web", "pod": "a"}, [[0, "1"], [15, "2"], [30, "3"], [45, "NaN"], [60, "1"]])
    two = ({"service": "web", "pod": "b"}, [[15, "10"], [30, "20"], [60, "10"]])
    other = ({"service": "db"}, [[0, "5"], [15, "5"]])
    path = write(tmp_path / "q.json", answer(one, two, other))
    with pytest.raises(
        TraceError, match=r"3 series are not allowed without combine=sum.*\{pod=a,service=web\}"
    ):
        load_trace(path)
    assert load_trace(path, label="pod=a").rate_rps.tolist() == [1.0, 2.0, 3.0, 1.0]
    added = load_trace(path, label="service=web", combine="sum")
    # pod b began at 15 s; at 45 s both are unknown: missing, not 0
    assert added.times_s.tolist() == [0.0, 15.0, 30.0, 60.0]
    assert added.rate_rps.tolist() == [1.0, 12.0, 23.0, 11.0]
    with pytest.raises(TraceError, match=r"no series has pod=z; there are \{pod=a"):
        load_trace(path, label="pod=z")
    with pytest.raises(TraceError, match="option label: 'pod' is not allowed, must be name=value"):
        load_trace(path, label="pod")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"status": "error", "error": "query timed out"}', "status 'query timed out' is not allowed"),
        ('{"status": "success", "data": {"resultType": "vector", "result": []}}', "resultType 'vector'"),
        ('{"status": "success", "data": {"resultType": "matrix", "result": []}}', "has no series"),
        ('{"status": "succ', "is no JSON"),
        (
            answer(({}, [[0, "1"], [15, "-2"]])),
            r"sample 2 of series \{\}: \[15, '-2'\] is not allowed, must be 0",
        ),
        (answer(({}, [[0, "1"], [0, "2"]])), "must be later than the sample before"),
        (answer(({}, [[0, "1"], [15]])), "must be a pair"),
        (answer(({}, [[0, "1"], [15, "NaN"]])), "1 samples with a value are not enough"),
    ],
)
def test_a_wrong_answer_of_prometheus_is_refused(tmp_path, text, message):
    with pytest.raises(TraceError, match=message):
        load_trace(write(tmp_path / "q.json", text), format="prometheus")


# --- any table


@pytest.mark.parametrize(
    "lines",
    [
        ["timestamp,value", "0,1", "60,2", "120,3"],
        ["0;1", "60;2", "120;3"],
        ["0\t1", "60\t2", "120\t3"],
        ["0 1", "60 2", "120 3"],
        ["time,rps,other", "1700000000,1,9", "1700000060,2,9", "1700000120,3,9"],
        ["time,rps", "1700000000000,1", "1700000060000,2", "1700000120000,3"],
        ["ts,value", "1700000000000000000,1", "1700000060000000000,2", "1700000120000000000,3"],
        ["timestamp,value", "2015-04-10 00:04:00,1", "2015-04-10 00:05:00,2", "2015-04-10 00:06:00,3"],
        [
            "timestamp,value",
            "2015-04-10T00:04:00Z,1",
            "2015-04-10T00:05:00Z,2",
            "2015-04-10T02:06:00+02:00,3",
        ],
    ],
)
def test_tables_of_any_usual_form_are_read(tmp_path, lines):
    trace = load_trace(write(tmp_path / "t.csv", lines))
    assert trace.times_s.tolist() == [0.0, 60.0, 120.0]
    assert trace.rate_rps.tolist() == [1.0, 2.0, 3.0]
    assert (trace.origin_s is None) == (lines[-1][:3] == "120")


def test_cells_without_a_value_are_gaps(tmp_path):
    lines = ["time,rps", "0,1", "60,", "120,NaN", "180,null", "240,2", "300,2", "360,2"]
    trace = load_trace(write(tmp_path / "t.csv", lines))
    assert trace.times_s.tolist() == [0.0, 240.0, 300.0, 360.0]
    assert trace.gaps == [(60.0, 240.0)]
    assert trace.notes == ("3 rows have no value",)


def test_columns_of_a_table_are_chosen_added_and_turned_from_counts_into_rates(tmp_path):
    path = write(tmp_path / "wide.csv", ["minute_s,f1,f2", "0,60,0", "60,0,120", "120,6,6"])
    assert load_trace(path, column="f2").rate_rps.tolist() == [0.0, 120.0, 6.0]
    assert load_trace(path, column="f2").unit == "f2"
    assert load_trace(path, column=2).rate_rps.tolist() == [60.0, 0.0, 6.0]
    assert load_trace(path, column="sum", values="count").rate_rps.tolist() == [1.0, 2.0, 0.2]
    with pytest.raises(TraceError, match=r"option column 'f3' is not allowed, must be one of .*nearest: f"):
        load_trace(path, column="f3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,rps", "0,1", "60,-1"], r":3: value '-1' is not allowed, must be 0 or more"),
        (["time,rps", "0,1", "60,x"], r":3: value 'x' is not allowed, must be a finite number"),
        (["time,rps", "60,1", "0,2"], r":3: time '0' is not allowed, must be later than the one before"),
        (["time,rps", "0,1", "noon,2"], r":3: time 'noon' is not allowed, must be a number or an ISO 8601"),
        (["time,rps", "0,1", "60"], r":3: '60' has 1 columns, must have 2"),
        (["time,rps", "0,1"], "1 rows are not enough"),
    ],
)
def test_a_bad_row_of_a_table_is_refused_with_its_line(tmp_path, lines, message):
    with pytest.raises(TraceError, match=message):
        load_trace(write(tmp_path / "t.csv", lines), format="table")


# --- the project's own


def test_jobs_and_requests_of_the_project_are_read(tmp_path):
    path = write(
        tmp_path / "jobs.csv", ["submit_s,duration_s,cpu,memory,instances", "0,10,0.5,,4", "90,,1,0.5,1"]
    )
    jobs = load_jobs(path)
    assert jobs.instances.tolist() == [4, 1]
    assert math.isnan(jobs.memory[0])
    assert math.isnan(jobs.duration_s[1])
    assert counts(load_trace(path)) == [1.0, 1.0]
    requests = write(tmp_path / "r.csv", ["arrival_s,tokens", "0.5,3", "0.6,3", "61,1"])
    assert counts(load_trace(requests)) == [2.0, 1.0]
    bad = write(tmp_path / "bad.csv", ["submit_s,duration_s,cpu,memory", "0,-1,1,1"])
    with pytest.raises(TraceError, match=r"bad\.csv:2: duration_s '-1' is not allowed, must be 0 or more"):
        load_jobs(bad)


def test_rates_are_no_jobs(tmp_path):
    path = write(tmp_path / "r.csv", "timestamp_s,requests_per_s\n0,1\n60,2\n")
    with pytest.raises(TraceError, match="holds rates, no jobs"):
        load_jobs(path)


# --- files of any kind


CSV = "timestamp_s,requests_per_s\n0,1\n60,2\n"


def tarred(text: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        folder = tarfile.TarInfo("data")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        member = tarfile.TarInfo("data/rates.csv")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(CSV.encode())),
        ("named-wrongly.csv", gzip.compress(CSV.encode())),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.csv.xz", lzma.compress(CSV.encode())),
        ("t.tar.gz", tarred(CSV)),
    ],
)
@pytest.mark.parametrize("progress", [None, True])
def test_packed_files_are_told_by_their_content(tmp_path, name, content, progress, capsys):
    (tmp_path / name).write_bytes(content)
    assert load_trace(tmp_path / name, progress=progress).rate_rps.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_that_are_cut_off_are_refused(tmp_path, pack):
    random = np.random.default_rng(0).random(20_000)
    rows = "".join(f"{index},{value}\n" for index, value in enumerate(random))
    whole = pack(("timestamp_s,requests_per_s\n" + rows).encode())
    (tmp_path / "cut").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(TraceError, match="cut: cannot be read"):
        load_trace(tmp_path / "cut")


def test_an_empty_file_a_binary_one_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(TraceError, match="is empty"):
        load_trace(write(tmp_path / "empty.csv", ""))
    with pytest.raises(TraceError, match="is empty"):
        load_trace(write(tmp_path / "blank.csv", "\n\n"))
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(TraceError, match="begins no known format"):
        load_trace(tmp_path / "binary")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TraceError, match="the folder has no files"):
        load_trace(tmp_path / "folder")


def test_unknown_formats_and_options_are_refused_with_the_nearest(tmp_path):
    path = write(tmp_path / "t.csv", CSV)
    with pytest.raises(TraceError, match=r"format: 'google2011' is not allowed.*nearest: google-2011"):
        load_trace(path, format="google2011")
    with pytest.raises(TraceError, match="option 'column' is not allowed, for csv it must be left out"):
        load_trace(path, column="x")
    table = write(tmp_path / "u.csv", "a,b\n0,1\n60,2\n")
    with pytest.raises(
        TraceError, match=r"option 'colum' is not allowed, for table it must be one of .*nearest: column"
    ):
        load_trace(table, colum="x")
    with pytest.raises(TraceError, match="bin_s 0"):
        load_trace(write(tmp_path / "r.csv", "arrival_s\n1\n2\n"), bin_s=0)


def test_each_sample_is_told_by_its_beginning(tmp_path, google_2011):
    samples = {
        "google-2011": google_2011,
        "google-2019": write(tmp_path / "1", event_2019(1, "0", 0)),
        "azure-functions-2019": functions_day(tmp_path / "2", [("a", "b", "c", "http", {})]),
        "azure-llm": write(
            tmp_path / "3", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n"
        ),
        "alibaba-batch-2017": write(tmp_path / "4", "100,160,2,20,3,Terminated,50.0,0.016\n"),
        "alibaba-batch-2018": write(tmp_path / "5", "M1,1,j_1,1,Terminated,86400,86460,100.0,0.39\n"),
        "azure-vm": write(tmp_path / "14", f"{AZURE_VM}\n"),
        "swf": write(tmp_path / "15", f"; MaxProcs: 128\n{SWF_JOB}\n"),
        "alibaba-usage-2018": write(tmp_path / "6", "m_1,10,40,80,,,40.0,30.0,5\n"),
        "alibaba-microservices": write(tmp_path / "7", ",timestamp,msname,msinstanceid,metric,value\n"),
        "access-log": write(tmp_path / "8", common(1)),
        "prometheus": write(tmp_path / "9", answer(({}, [[0, "1"]]))),
        "csv": write(tmp_path / "10", CSV),
        "jobs": write(tmp_path / "11", "submit_s,duration_s,cpu,memory\n0,1,1,1\n"),
        "requests": write(tmp_path / "12", "arrival_s\n0\n"),
        "table": write(tmp_path / "13", "when,what\n0,1\n60,2\n"),
    }
    assert set(samples) == set(LOADERS)
    for name, path in samples.items():
        source = Source(path)
        assert recognise(source.head(), source).name == name


def test_bins_refuse_a_span_that_a_wrong_stamp_makes():
    bins = Bins(1.0, "file")
    bins.add(0.0)
    with pytest.raises(TraceError, match="lies within one bin of 1 s"):
        bins.rates()
    bins.add(1e12)
    with pytest.raises(TraceError, match=r"at most 20000000.*wrong stamp"):
        bins.rates()


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.log"
        with path.open("w") as file:
            file.writelines(common(index * 60 // lines) + "\n" for index in range(lines))
        tracemalloc.start()
        load_trace(path, bin_s=1.0)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    assert peak(20_000) < 1.5 * peak(2_000) + 200_000


@pytest.mark.skipif(
    "RLSCALER_TRACES" not in os.environ, reason="RLSCALER_TRACES names no folder of real traces"
)
def test_every_real_recording_of_rates_and_jobs_is_read():
    folder = Path(os.environ["RLSCALER_TRACES"])
    for file in sorted(folder.glob("*.csv*")):
        options = {"column": "sum", "values": "count"} if file.name.startswith("matrix_") else {}
        trace = load_trace(file, **options)
        assert trace.rate_rps.max() > 0, file
        if file.name.startswith("jobs_"):
            jobs = load_jobs(file)
            assert len(jobs) > 1000, file
            assert trace.rate_rps.sum() * trace.bin_s == pytest.approx(len(jobs)), file
