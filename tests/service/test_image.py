"""The image's target `serve`: its instructions, and that what it installs can serve without the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.charts.test_dockerfile import of, stage_called, stages, unpacked


def test_the_target_installs_the_serve_extra_and_runs_as_the_operator_does() -> None:
    build, final = stage_called("build-serve"), stage_called("serve")
    (install,) = [run for run in of(build, "RUN") if "pip install" in run]
    assert "--constraint constraints.txt '.[serve]'" in install
    assert of(final, "USER") == of(stages()[-1], "USER")
    assert json.loads(of(final, "ENTRYPOINT")[0]) == ["rl-scaler"]
    assert json.loads(of(final, "CMD")[0]) == ["serve", "--host=0.0.0.0", "--state=/state/serve.db"]
    assert of(final, "EXPOSE") == ["8000"]


def test_the_copied_files_build_a_wheel_that_schedules_without_training_libraries(tmp_path: Path) -> None:
    installed = unpacked("build-serve", tmp_path)
    asked = (
        "import sys, service.server, service.learned as learned, service.scaling as scaling\n"
        "from service.flags import add_flags\n"
        "path = learned.shipped_artifact()\n"
        f"assert str(path).startswith({str(installed)!r}), path\n"
        "learned.LearnedScheduler(path)\n"
        f"assert str(scaling.SHIPPED).startswith({str(installed)!r}), scaling.SHIPPED\n"
        "assert scaling.deciding_policy(None).name == 'discrete'\n"
        "assert not {'torch', 'gymnasium', 'kopf', 'kubernetes', 'pandas'} & set(sys.modules), 'too much'\n"
    )
    # run in the folder: what is installed here must not stand in for what the wheel lacks
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=installed, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
