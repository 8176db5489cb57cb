"""`python -m tests.page.pictures`: docs/images/operator.png and docs/images/demo-jobs.png, made anew.

With `--all DIR`: both pages in both themes, on a desktop and on a phone, to look at. It starts the real
operator against the twin and the real `rl-scaler serve`; it takes five minutes, so that they have a past.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from sim.twin.hosted import HostedCluster
from tests.conftest import install_crds
from tests.integration.harness import (
    ROOT,
    TIME_SCALE,
    Api,
    Cluster,
    Exporter,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
)
from tests.page.browser import Browser, Page, settle
from tests.page.scene import Tide, populate
from tests.service.conftest import Process

IMAGES = ROOT / "docs" / "images"
PAST_S = 150.0
WIDTH, OPERATOR_HEIGHT, DEMO_HEIGHT = 1280, 1330, 1980
COLOURS = 200
LOOKS = {"desktop": (1280, 900), "phone": (390, 844)}


@contextlib.contextmanager
def operator(folder: Path, past_s: float = PAST_S) -> Iterator[str]:
    """The address of an operator that has decided for some time."""
    traffic = Traffic()
    with HostedCluster(time_scale=TIME_SCALE, start_up_s=10.0) as twin, contextlib.ExitStack() as stack:
        kubeconfig = twin.write_kubeconfig(folder / "kubeconfig")
        cluster = Cluster(kubeconfig, Api(kubeconfig), twin)
        install_crds(cluster.api)
        shop = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        cluster.api.create("/api/v1/namespaces", shop)
        namespace = Namespace(cluster, "shop")
        exporter = Exporter(traffic)
        stack.callback(exporter.close)
        prometheus = Prometheus(folder / "prometheus", exporter.port)
        prometheus.start()
        stack.callback(prometheus.stop)
        process = OperatorProcess(kubeconfig, "shop", prometheus.address, folder / "operator.log").start()
        stack.callback(process.stop)
        populate(namespace, traffic)
        tide = Tide(namespace, traffic, period_s=60.0)
        tide.start()
        stack.callback(tide.stop)
        time.sleep(past_s)
        yield f"{process.url}/#/shop/checkout"


@contextlib.contextmanager
def jobs(folder: Path, past_s: float = 80.0) -> Iterator[str]:
    """The address of the job scheduler's page. Its time goes on only while somebody looks: we do."""
    process = Process(folder / "state.db").wait()
    try:
        controls = {"speed": 60, "jobRate": 0.28}
        httpx.post(f"{process.url}/v1/demo/control", json=controls, timeout=30).raise_for_status()
        end = time.monotonic() + past_s
        while time.monotonic() < end:
            httpx.get(f"{process.url}/v1/demo/state", timeout=30).raise_for_status()
            time.sleep(0.4)
        yield f"{process.url}/demo"
    finally:
        process.kill(15)


def open_operator(page: Page) -> None:
    page.wait_text("#d-why", "What would change it", timeout_s=60)
    page.wait("document.querySelectorAll('#c-replicas path.line').length === 3", timeout_s=60)
    page.js("window.scrollTo(0, 0)")
    settle(page, 3.0)


def open_jobs(page: Page) -> None:
    page.wait("document.querySelectorAll('#multiples path.strong').length > 2", timeout_s=60)
    settle(page, 4.0)


def small(page: Page, path: Path) -> None:
    """A PNG with few colours, which is all that the pages have."""
    page.picture(path)
    picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


PARTS: dict[str, tuple[Callable[[Path], Any], int, Callable[[Page], None]]] = {
    "demo-jobs": (jobs, DEMO_HEIGHT, open_jobs),
    "operator": (operator, OPERATOR_HEIGHT, open_operator),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.page.pictures", description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIR", help="every look of both pages, for your eyes")
    parser.add_argument("--only", choices=list(PARTS), help="this page; both by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        browser = Browser(folder / "chromium")
        stack.callback(browser.close)
        for title in [args.only] if args.only else PARTS:
            begin, height, ready = PARTS[title]
            url = stack.enter_context(begin(folder))
            if args.all is None:
                with browser.page(url, WIDTH, height) as page:
                    ready(page)
                    small(page, IMAGES / f"{title}.png")
                continue
            for look, (width, tall) in LOOKS.items():
                for theme in ("light", "dark"):
                    with browser.page(url, width, tall, theme) as page:
                        ready(page)
                        args.all.mkdir(parents=True, exist_ok=True)
                        page.picture(args.all / f"{title}-{look}-{theme}.png", whole=True)


if __name__ == "__main__":
    main()
