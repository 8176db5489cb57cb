"""Presets: what is read, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import PRESETS, Action, Preset, dump_preset, load_preset, preset_names, read_preset
from training.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_read_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    preset = load_preset(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_preset(preset))
    assert read_preset(copy) == preset


def test_the_default_preset_ships_with_the_project() -> None:
    assert "default" in preset_names()
    assert (PRESETS / "default.yaml").is_file()


def test_overrides_win_and_none_keeps_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("timesteps: 1000\nnum_envs: 4\nppo: {n_steps: 8, batch_size: 32}\n")
    preset = load_preset(str(path), timesteps=2000, num_envs=None)
    assert (preset.timesteps, preset.num_envs) == (2000, 4)


def test_a_setting_of_a_section_is_overridden_by_its_dotted_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("action: {kind: band, hold_ticks: 4}\n")
    preset = load_preset(str(path), **{"action.kind": "discrete"})
    assert (preset.action.kind, preset.action.hold_ticks) == ("discrete", 4)


def test_scientific_notation_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("ppo: {learning_rate: 3e-4}\ntimesteps: 2.0e+6\n")
    preset = read_preset(path)
    assert preset.ppo.learning_rate == pytest.approx(3e-4)
    assert preset.timesteps == 2_000_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("timestep: 5", ["unknown key 'timestep'", "timesteps"], id="typo at the top"),
        pytest.param("ppo: {gama: 0.9}", ["unknown key 'ppo.gama'", "gamma"], id="typo in a section"),
        pytest.param("zzz: 1", ["unknown key 'zzz'", "known are", "timesteps"], id="nothing like it"),
        pytest.param("algo: sarsa", ["algo", "'sarsa'", "ppo"], id="unknown algorithm"),
        pytest.param("env: pong", ["env", "'pong'", "autoscale"], id="unknown environment"),
        pytest.param("timesteps: many", ["timesteps", "int", "'many'"], id="text for a number"),
        pytest.param("timesteps: true", ["timesteps", "int", "True"], id="a truth value for a number"),
        pytest.param("timesteps: 0", ["timesteps", "0", "at least 1"], id="no steps"),
        pytest.param("ppo: 3", ["ppo", "mapping", "3"], id="number for a section"),
        pytest.param("network: {actor: 64}", ["network.actor", "list", "64"], id="number for a list"),
        pytest.param("network: {actor: [64, x]}", ["network.actor[1]", "'x'"], id="text in a list"),
        pytest.param("action: {kind: jump}", ["action.kind", "'jump'", "anchored"], id="unknown action"),
        pytest.param(
            "ppo: {batch_size: 1000}", ["batch_size", "1000", "divide"], id="batch that does not divide"
        ),
        pytest.param("dqn: {gamma: 1.5}", ["dqn.gamma", "1.5", "0..1"], id="a share above 1"),
        pytest.param(
            "recurrent_ppo: {lstm_hidden_size: 0}", ["recurrent_ppo.lstm_hidden_size"], id="no LSTM"
        ),
        pytest.param("trace_share: 0", ["trace_share", "above 0"], id="no share"),
        pytest.param("[1, 2]", ["mapping"], id="a list"),
        pytest.param("a: [", ["not YAML"], id="broken YAML"),
    ],
)
def test_a_bad_preset_is_refused_by_name_and_value(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_preset(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_an_unknown_preset_lists_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'defualt' is not one of .*default.*"):
        load_preset("defualt")


def test_lists_become_tuples_so_that_settings_stay_frozen(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("action: {kind: discrete, changes: [-0.5, 0, 0.5]}\n")
    assert read_preset(path).action == Action(kind="discrete", changes=(-0.5, 0.0, 0.5))
    assert isinstance(hash(Preset(environment={}).action), int)
