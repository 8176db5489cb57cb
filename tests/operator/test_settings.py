"""Settings from flags and variables, and what is said of a wrong one."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys

import pytest

from controller.errors import SettingsError
from controller.settings import Settings, add_flags, descriptions


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        pytest.param("prometheus_address", "http://prometheus:9090/", "http://prometheus:9090", id="address"),
        pytest.param("namespaces", "shop, web,,", ("shop", "web"), id="namespaces"),
        pytest.param("log_level", "DEBUG", "debug", id="log level in any case"),
        pytest.param("log_format", "text", "text", id="log format"),
        pytest.param("http_address", "127.0.0.1:0", "127.0.0.1:0", id="any free port"),
        pytest.param("http_address", "[::]:8080", "[::]:8080", id="IPv6"),
        pytest.param("time_scale", "60", 60.0, id="time scale"),
        pytest.param("prometheus_timeout", "0.5", 0.5, id="time-out"),
        pytest.param("metrics_workers", "4", 4, id="workers"),
        pytest.param("shard", "shard in (a, b)", "shard in (a, b)", id="shard"),
        pytest.param("leader_election", "True", True, id="leader election"),
        pytest.param("watch_targets_from", "1", 1, id="watching targets"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_setting_is_read(field: str, text: str, value: object, way: str) -> None:
    env = {} if way == "flag" else {f"RLSCALER_{field.upper()}": text}
    settings = Settings.load({field: text} if way == "flag" else {}, env)
    assert getattr(settings, field) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [
        pytest.param("prometheus_address", "prometheus:9090", id="address without a scheme"),
        pytest.param("http_address", "8080", id="port without a host"),
        pytest.param("http_address", "0.0.0.0:99999", id="port out of range"),
        pytest.param("log_level", "loud", id="log level"),
        pytest.param("log_format", "xml", id="log format"),
        pytest.param("time_scale", "0", id="time scale of zero"),
        pytest.param("time_scale", "nan", id="time scale that is no number"),
        pytest.param("prometheus_timeout", "-1", id="negative time-out"),
        pytest.param("metrics_workers", "2.5", id="half a worker"),
        pytest.param("metrics_workers", "0", id="no worker"),
        pytest.param("shard", "shard>a", id="a shard that is no selector"),
        pytest.param("leader_election", "perhaps", id="neither true nor false"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(field: str, text: str, way: str) -> None:
    name = f"--{field.replace('_', '-')}" if way == "flag" else f"RLSCALER_{field.upper()}"
    with pytest.raises(SettingsError) as caught:
        Settings.load({field: text}, {}) if way == "flag" else Settings.load({}, {name: text})
    assert str(caught.value).startswith(f"{name}: {text!r} is not allowed; expected ")


def test_a_flag_wins_over_a_variable_and_an_empty_variable_is_none() -> None:
    env = {"RLSCALER_TIME_SCALE": "60", "RLSCALER_LOG_LEVEL": ""}
    settings = Settings.load({"time_scale": "2", "log_level": None}, env)
    assert (settings.time_scale, settings.log_level) == (2.0, "info")


def test_every_setting_is_described_and_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    shown = parser.format_help()
    for field in dataclasses.fields(Settings):
        assert descriptions()[field.name].endswith(".")
        assert f"--{field.name.replace('_', '-')}" in shown
        assert f"RLSCALER_{field.name.upper()}" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--time-scale", "x"], "--time-scale", id="wrong value"),
        pytest.param(["--kubeconfig", "/nonexistent"], "--kubeconfig", id="no kubeconfig"),
    ],
)
def test_the_command_line_ends_with_one_line_and_no_traceback(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "controller", "operator", "--http-address", "127.0.0.1:0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_command_line_starts_without_the_operators_libraries() -> None:
    code = "import sys; from controller.cli import main; main(['version']); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    for library in ("kopf", "kubernetes", "numpy", "onnxruntime", "pydantic", "fastapi"):
        assert f"'{library}'" not in done.stdout
