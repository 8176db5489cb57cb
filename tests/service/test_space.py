"""The Hugging Face Space: its card, and that its Dockerfile is the image's target `serve` for user 1000."""

from __future__ import annotations

import argparse
import json
import re
import shlex

import yaml

from service.flags import TOKEN_VARIABLE, add_flags
from service.settings import Settings
from tests.charts.test_dockerfile import ROOT, Instruction, copied_from_context, of, parsed, stage_called
from tests.service.conftest import TOKEN

SPACE = ROOT / "manifests" / "space"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def stage() -> list[Instruction]:
    return parsed((SPACE / "Dockerfile").read_text())


def test_the_card_says_what_a_space_needs_to_know() -> None:
    _, head, body = (SPACE / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert (card["sdk"], card["app_port"], card["license"]) == ("docker", 7860, "apache-2.0")
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["title"]
    assert len(card["emoji"]) == 1
    assert TOKEN_VARIABLE in body
    assert of(stage(), "EXPOSE") == [str(card["app_port"])]


def test_it_installs_what_the_image_installs_as_user_1000_with_a_home() -> None:
    here, image = stage(), stage_called("build-serve")
    assert of(here, "FROM") == [of(stage_called("serve"), "FROM")[0].removesuffix(" AS serve")]
    assert copied_from_context(here) == copied_from_context(image)
    pip = re.compile(r"pip install --constraint constraints\.txt '\.\[serve\]'")
    assert pip.search(" ".join(of(here, "RUN")))
    assert pip.search(" ".join(of(image, "RUN")))
    assert "useradd --create-home --uid 1000 user" in of(here, "RUN")[0]
    assert of(here, "USER") == ["user"]
    assert all(copy.startswith("--chown=user ") for copy in of(here, "COPY"))
    names = [name for name, _ in here]
    assert names.index("USER") < names.index("WORKDIR") < names.index("COPY")
    environment = dict(part.split("=", 1) for part in shlex.split(" ".join(of(here, "ENV"))))
    assert environment["HOME"] == "/home/user"
    assert environment["NUMBA_CACHE_DIR"].startswith("/home/user/")


def test_its_command_is_understood_and_needs_the_secret() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    program, command, *flags = json.loads(of(stage(), "CMD")[0])
    assert (program, command) == ("rl-scaler", "serve")
    settings = Settings.load(vars(parser.parse_args(flags)), {TOKEN_VARIABLE: TOKEN})
    assert (settings.host, settings.port, settings.token) == ("0.0.0.0", 7860, TOKEN)
    assert settings.state.startswith("/home/user/")
    assert settings.frame_ancestors == "https://huggingface.co"
