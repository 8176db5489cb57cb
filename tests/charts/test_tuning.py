"""The chart's Indexed Job for hyperparameter studies: what it runs, what it may do, and what it is told."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import yaml
from helm_python.chart import Chart
from helm_python.errors import HelmError, HelmValuesError

from tests.charts.conftest import CHART, Json, Render, only, values_of
from training.tune import build_parser
from training.tuning.storage import STORAGE_VARIABLE

ON: Json = {"tuning": {"enabled": True, "storage": {"secretName": "study"}}}
BOTH = {"the least": ON, "every value": values_of("tuning")}


@pytest.fixture(params=BOTH.values(), ids=BOTH)
def job(request: pytest.FixtureRequest, render: Render) -> Json:
    return only(render(request.param), "Job")


def pod_of(job: Json) -> Json:
    found: Json = job["spec"]["template"]["spec"]
    return found


def container_of(job: Json) -> Json:
    (found,) = pod_of(job)["containers"]
    return dict(found)


def told(job: Json) -> argparse.Namespace:
    """What tune.py makes of the arguments."""
    return build_parser().parse_args(container_of(job)["args"])


def test_there_is_no_job_unless_asked_for(render: Render) -> None:
    assert "Job" not in {item["kind"] for item in render()}


def test_nothing_else_is_added_by_it(render: Render) -> None:
    without, with_it = render(), render(ON)
    assert [item for item in with_it if item["kind"] != "Job"] == without


def test_every_worker_is_an_index_of_one_job(render: Render) -> None:
    spec = only(render(values_of("tuning")), "Job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 8)


def test_tune_takes_the_arguments_of_the_defaults(render: Render) -> None:
    args = told(only(render(ON), "Job"))
    assert (args.preset, args.trials, args.workers, args.seed) == ("default", 40, 1, 0)
    assert (args.timesteps, args.space, args.study) == (None, None, None)


def test_tune_takes_the_arguments_of_every_value(render: Render) -> None:
    args = told(only(render(values_of("tuning")), "Job"))
    assert (args.preset, args.trials, args.workers, args.seed) == ("ppo", 200, 2, 3)
    assert (args.timesteps, args.space, args.study) == (1_600_000, "/files/space.yaml", "ppo-wide")
    assert args.windows == 40


def test_large_numbers_are_not_written_with_an_exponent(render: Render) -> None:
    values = {"tuning": {**ON["tuning"], "timesteps": 50_000_000, "seed": 12_345_678}}
    args = told(only(render(values), "Job"))
    assert (args.timesteps, args.seed) == (50_000_000, 12_345_678)


def test_the_index_is_the_machines_number(monkeypatch: pytest.MonkeyPatch, job: Json) -> None:
    """Kubernetes sets the variable in pods of an Indexed Job; nothing here may set another number."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    assert told(job).machine == 7


def test_the_storage_comes_from_the_secret_and_is_on_no_command_line(job: Json) -> None:
    container = container_of(job)
    (variable,) = [item for item in container["env"] if item["name"] == STORAGE_VARIABLE]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "study", "key": "url"}}
    assert not [argument for argument in container["args"] if "storage" in argument]


def test_the_pods_have_no_rights_in_the_cluster(job: Json) -> None:
    pod = pod_of(job)
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod, "the namespace's default account, not the operator's"


def test_the_pods_pass_the_restricted_pod_security_standard(job: Json) -> None:
    pod, container = pod_of(job), container_of(job)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    allowed = {"name", "emptyDir", "persistentVolumeClaim", "configMap"}
    assert all(volume.keys() <= allowed for volume in pod["volumes"])


def test_what_is_written_goes_to_volumes(job: Json) -> None:
    mounts = {mount["mountPath"]: mount for mount in container_of(job)["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {"/tmp", "/studies"}
    assert str(told(job).out) == "/studies"
    names = {volume["name"] for volume in pod_of(job)["volumes"]}
    assert {mount["name"] for mount in mounts.values()} == names


def test_own_presets_and_spaces_are_files_of_a_config_map(render: Render) -> None:
    job = only(render(values_of("tuning")), "Job")
    (volume,) = [each for each in pod_of(job)["volumes"] if each["name"] == "files"]
    assert volume["configMap"] == {"name": "my-space"}
    assert "files" not in {each["name"] for each in pod_of(only(render(ON), "Job"))["volumes"]}


@pytest.mark.parametrize("name", ["defaults", "everything"])
def test_the_operators_service_and_policies_do_not_find_the_pods(render: Render, name: str) -> None:
    objects = render({**values_of(name), **ON})
    pod = only(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    for item in objects:
        if item["kind"] in ("Job", "ServiceMonitor"):
            continue
        selector = item.get("spec", {}).get("podSelector") or item.get("spec", {}).get("selector")
        if selector:
            assert not selector.get("matchLabels", selector).items() <= pod.items(), item["kind"]


def test_a_drained_node_does_not_count_and_bad_values_end_it_at_once(job: Json) -> None:
    ignored, ended = job["spec"]["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget"}])
    assert (ended["action"], ended["onExitCodes"]["values"]) == ("FailJob", [2])
    assert ended["onExitCodes"]["containerName"] == container_of(job)["name"]
    assert pod_of(job)["restartPolicy"] == "Never", "which a podFailurePolicy needs"


def test_a_worker_has_time_to_save_when_it_is_stopped(job: Json) -> None:
    """A trial is asked to save and killed after 60 s (`training.tuning.trial`)."""
    assert pod_of(job)["terminationGracePeriodSeconds"] > 60


def test_the_pods_host_names_are_short_enough_for_a_long_release(chart: Chart) -> None:
    files = chart.render({**ON, "fullnameOverride": "a" * 63}, name="rl-scaler", namespace="autoscaling")
    name = yaml.safe_load(files["rl-scaler/templates/tuning-job.yaml"])["metadata"]["name"]
    assert len(f"{name}-999") <= 63


def test_a_release_from_before_the_value_can_be_upgraded_with_its_old_values() -> None:
    """`--reuse-values` brings no defaults of a newer chart."""
    text = (CHART / "templates" / "tuning-job.yaml").read_text()
    assert text.startswith("{{- if (.Values.tuning).enabled }}")


WRONG: dict[str, tuple[Any, str]] = {
    "no storage": ({"enabled": True}, "secretName"),
    "no workers": ({"workers": 0}, "/tuning/workers"),
    "a preset outside": ({"preset": "../etc/passwd"}, "/tuning/preset"),
    "a space that is no file of the ConfigMap": ({"space": "/tmp/space.yaml"}, "/tuning/space"),
    "a folder of the node": ({"volume": {"hostPath": {"path": "/"}}}, "/tuning/volume"),
    "a study that is a path": ({"study": "a/b"}, "/tuning/study"),
    "a misspelt value": ({"worker": 3}, "worker"),
}


@pytest.mark.parametrize(("tuning", "place"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused_and_named(chart: Chart, tuning: Json, place: str) -> None:
    with pytest.raises((HelmValuesError, HelmError)) as refused:
        chart.validate_schema(chart.merge_values({"tuning": tuning}))
    assert place in str(refused.value)
