"""The artifact equals the model, is what the operator loads, and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from stable_baselines3 import PPO

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA
from controller.policies.loader import load_policy
from training.actions import AnchoredHead, Head, make_head
from training.artifact import add_evaluation, build_graph, parity, random_observations, read_metadata
from training.config import Action, Network
from training.errors import ConfigError, ExportError
from training.export import main
from training.networks import StandardisedFeatures, policy_kwargs, statistics

KINDS = ("relative", "band", "anchored")


class Blind:
    """An environment with the spaces of a head, for models that are never trained."""

    def __new__(cls, head: Head) -> object:
        import gymnasium

        class Env(gymnasium.Env):  # type: ignore[type-arg]
            observation_space = gymnasium.spaces.Box(
                OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high, dtype=np.float32
            )
            action_space = head.space

        return Env()


def random_model(head: Head, network: Network | None = None) -> PPO:
    """An untrained model whose statistics have been moved, as training moves them."""
    made = network or Network(actor=(32, 32), critic=(8,))
    model = PPO("MlpPolicy", Blind(head), policy_kwargs=policy_kwargs(made), device="cpu", seed=1)
    features = statistics(model.policy)
    if features is not None:
        features.update(random_observations(500, seed=5))
    # untrained heads are all but indifferent: make the choices differ
    model.policy.action_net.weight.data.mul_(100.0)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_equals_the_model_over_random_observations(kind: str) -> None:
    head = make_head(Action(kind=kind))
    model = random_model(head)
    data = build_graph(model.policy, head).SerializeToString()
    for count in (1, 7, 3000):
        assert parity(model, head, data, random_observations(count, seed=count)) <= 1e-5


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_every_activation_exports(activation: str) -> None:
    head = make_head(Action())
    model = random_model(head, Network(actor=(16,), critic=(8,), activation=activation, normalise=False))
    data = build_graph(model.policy, head).SerializeToString()
    assert parity(model, head, data, random_observations(500, seed=2)) <= 1e-5


def test_parity_notices_another_policy() -> None:
    head = make_head(Action())
    first, second = random_model(head), random_model(head)
    second.policy.action_net.weight.data.mul_(-1.0)
    data = build_graph(first.policy, head).SerializeToString()
    assert parity(second, head, data, random_observations(200, seed=0)) > 0.01


def test_the_operator_loads_what_training_exports(tiny_run: Path) -> None:
    policy = load_policy({"file": str(tiny_run / "policy.onnx")})
    observations = random_observations(64, seed=9)
    actions = policy.act(observations)
    assert policy.name == "tiny"
    assert policy.schema == OBSERVATION_SCHEMA.version
    assert actions.shape == (64, ACTION_SCHEMAS[policy.action_schema].size)
    assert np.isfinite(actions).all()


def test_metadata_say_how_to_make_the_policy_again(tiny_run: Path) -> None:
    content = read_metadata((tiny_run / "policy.onnx").read_bytes())
    assert content["observation_schema"]["digest"] == OBSERVATION_SCHEMA.digest
    assert content["observation_schema"]["features"] == list(OBSERVATION_SCHEMA.names)
    assert content["preference_range"] == [0, 100]
    provenance = content["provenance"]
    assert provenance["command"].startswith("python training/train.py --preset")
    assert {"command", "seed", "git_commit", "workloads", "timesteps", "versions"} <= set(provenance)


def test_the_file_holds_no_paths_of_the_machine_that_made_it(tiny_run: Path) -> None:
    proto = onnx.load(str(tiny_run / "policy.onnx"))
    proto.ClearField("metadata_props")
    assert (
        b"/" not in proto.SerializeToString().replace(b"/v1", b"")
        or b"site-packages" not in proto.SerializeToString()
    )
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)


def test_an_evaluation_card_can_be_added_without_changing_the_graph(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "policy.onnx"
    copy.write_bytes((tiny_run / "policy.onnx").read_bytes())
    add_evaluation(copy, {"cost": 1.5})
    content = read_metadata(copy.read_bytes())
    assert content["evaluation"] == {"cost": 1.5}
    assert content["name"] == "tiny"
    assert onnx.load(str(copy)).graph == onnx.load(str(tiny_run / "policy.onnx")).graph


def test_export_py_makes_the_same_artifact_from_run_or_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    sources = (tiny_run, tiny_run / "checkpoints" / "000000000512.zip")
    graphs = []
    for number, source in enumerate(sources):
        out = tmp_path / f"{number}.onnx"
        assert main([str(source), "--out", str(out), "--name", "mine"]) == 0
        assert read_metadata(out.read_bytes())["name"] == "mine"
        graphs.append(onnx.load(str(out)).graph.SerializeToString())
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("name", ["absent", "absent.zip"])
def test_export_py_refuses_what_is_not_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / name)]) == 2
    assert "absent" in capsys.readouterr().err


def test_a_head_that_does_not_fit_the_model_is_refused() -> None:
    model = random_model(make_head(Action(kind="relative")))
    with pytest.raises(ExportError, match="chooses in"):
        build_graph(model.policy, make_head(Action()))


def test_an_anchored_choice_is_a_band_over_the_largest_of_its_features() -> None:
    head = AnchoredHead(
        Action(anchors=(("load_max_60s", "season_1d"), ("season_1h",)), margins=(0.1, 0.5), gaps=(0.0, 0.2))
    )
    observations = np.zeros((3, OBSERVATION_SCHEMA.size), dtype=np.float32)
    names = list(OBSERVATION_SCHEMA.names)
    observations[:, names.index("load_max_60s")] = [0.3, 0.3, 0.3]
    observations[:, names.index("season_1d")] = [0.7, -1.0, 0.7]
    observations[:, names.index("season_1h")] = [-2.0, -2.0, -2.0]
    choices = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1]])
    assert head.decode(choices, observations) == pytest.approx(np.array([[0.8, 0.8], [0.8, 1.0], [0.1, 0.3]]))


def test_an_anchor_must_name_features() -> None:
    with pytest.raises(ConfigError, match="no_such_feature"):
        AnchoredHead(Action(anchors=(("no_such_feature",),)))


def test_running_moments_equal_those_of_all_the_data_at_once() -> None:
    batches = [random_observations(count, seed=count) for count in (50, 200, 3)]
    import gymnasium

    features = StandardisedFeatures(gymnasium.spaces.Box(-9, 9, (OBSERVATION_SCHEMA.size,), np.float32))
    for batch in batches:
        features.update(batch)
    everything = np.concatenate(batches)
    assert features.mean.numpy() == pytest.approx(everything.mean(axis=0), abs=1e-4)
    assert features.variance.numpy() == pytest.approx(everything.var(axis=0), rel=1e-3)
