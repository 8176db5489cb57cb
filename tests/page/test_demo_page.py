"""The job scheduler's page in a real Chromium, over a real `rl-scaler serve`."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.harness import eventually, http_get
from tests.page import accessibility
from tests.page.browser import Browser, Page
from tests.service.conftest import Process


class Service(Process):
    """`rl-scaler serve` as users run it."""

    def state(self) -> dict[str, Any]:
        return dict(json.loads(http_get(f"{self.url}/v1/demo/state")[1]))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("serve") / "state.db", environment={"OMP_NUM_THREADS": "1"})
    yield started.wait()
    assert started.kill(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with browser.page(f"{service.url}/demo") as opened:
        opened.wait_text("#connection", "Live")
        opened.wait("document.querySelectorAll('#comparison tr').length > 2")
        yield opened


@pytest.fixture(autouse=True)
def _quiet(page: Page, service: Service) -> Iterator[None]:
    """No test leaves an error in the console, or asks another host."""
    yield
    assert page.complaints() == []
    elsewhere = [url for url in page.requests() if not url.startswith((service.url, "data:"))]
    assert elsewhere == []


def test_it_shows_what_the_server_says(page: Page, service: Service) -> None:
    state = service.state()
    shown = page.js("[...document.querySelectorAll('#servers h3')].map(one => one.innerText)")
    assert shown == [server["name"] for server in state["servers"]]
    meters = [node for node in page.nodes() if node["role"] == "meter"]
    names = [f"{kind} of {server['name']}" for server in state["servers"] for kind in ("CPU", "Memory")]
    assert [meter["name"] for meter in meters] == names
    spoken = page.js("document.querySelector('[role=meter]').getAttribute('aria-valuetext')")
    assert spoken.endswith(f" of {state['servers'][0]['cpu']['total']:g}")
    options = page.js("[...document.querySelectorAll('#strategy option')].map(one => one.value)")
    assert options == [one["name"] for one in state["strategies"]]
    compared = page.js("[...document.querySelectorAll('#comparison th')].map(one => one.innerText)")
    assert [name.split(" ")[0].strip() for name in compared] == [
        one["strategy"] for one in state["comparison"]
    ]
    assert page.js("document.querySelectorAll('#multiples li').length") == len(state["comparison"])


def test_it_moves_without_a_reload(page: Page, service: Service) -> None:
    clock = page.text("#tiles .value")
    page.wait(f"document.querySelector('#tiles .value').innerText !== {json.dumps(clock)}")
    page.wait("document.querySelectorAll('#log li').length > 3", timeout_s=60)
    page.wait("document.querySelectorAll('#multiples path.strong').length > 2")


def test_it_is_paused_and_goes_on_by_keyboard(page: Page, service: Service) -> None:
    page.tab_to("#pause")
    assert page.text("#pause") == "Pause"
    page.key("Enter")
    page.wait("document.querySelector('#pause').innerText === 'Resume'")
    assert service.state()["paused"] is True
    assert "paused" in page.text("#tiles")
    page.wait_text("#spoken", "Paused")
    page.key(" ")
    page.wait("document.querySelector('#pause').innerText === 'Pause'")
    assert service.state()["paused"] is False


def test_speed_and_rate_are_moved_by_arrow_keys(page: Page, service: Service) -> None:
    before = service.state()
    for selector, key, name in (("#speed", "ArrowRight", "speed"), ("#rate", "ArrowLeft", "jobRate")):
        page.tab_to(selector)
        for _ in range(3):
            page.key(key)
        more = key == "ArrowRight"
        eventually(
            lambda n=name, m=more: (service.state()[n] > before[n]) is m and service.state()[n] != before[n]
        )
    shown = page.js("document.querySelector('#speed').getAttribute('aria-valuetext')")
    assert shown == f"{service.state()['speed']:g} times real time"
    assert page.text("#speed-shown").startswith(f"{service.state()['speed']:g}×")


def test_another_strategy_is_chosen_by_keyboard(page: Page, service: Service) -> None:
    page.tab_to("#strategy")
    page.key("ArrowDown")
    second = service.state()["strategies"][1]
    eventually(lambda: service.state()["strategy"] == second["name"])
    page.wait_text("#described", second["description"])
    page.wait(
        f"document.querySelector('#comparison tr[aria-current] th').innerText.startsWith('{second['name']}')"
    )


def test_other_charts_are_chosen_by_arrow_keys(page: Page) -> None:
    page.tab_to("input[name=metric]")
    page.key("ArrowRight")
    assert page.js("document.activeElement.value") == "utilisation"
    page.wait(
        "document.querySelector('#multiples .plot').getAttribute('aria-label').startsWith('Utilisation')"
    )
    page.wait("/100 %/.test(document.querySelector('#multiples svg').textContent)")
    page.tab_to("#multiples .plot")
    page.key("Home")
    assert page.js("document.activeElement.getAttribute('aria-valuetext')").startswith("0:00:0")
    page.js("document.querySelector('input[value=meanSlowdown]').click()")


def test_it_starts_over(page: Page, service: Service) -> None:
    eventually(lambda: service.state()["clockS"] > 20, timeout_s=60)
    before = service.state()["clockS"]
    page.tab_to("#reset")
    page.key("Enter")
    eventually(lambda: service.state()["clockS"] < before)


def test_what_the_server_refuses_is_said_in_its_words(page: Page, service: Service) -> None:
    page.js("""(() => {
      const option = document.createElement("option");
      option.value = "nonsense";
      document.querySelector("#strategy").append(option);
      document.querySelector("#strategy").value = "nonsense";
      document.querySelector("#strategy").dispatchEvent(new Event("change"));
    })()""")
    told = page.wait_text("#refused", "nonsense")
    assert "strategy" in told
    page.forgive("422")
    page.wait(f"document.querySelector('#strategy').value === '{service.state()['strategy']}'")
    page.js("document.querySelector('#strategy').lastChild.remove()")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_and_everything_has_a_name(page: Page, theme: str) -> None:
    page.prefer(theme)
    page.wait("document.querySelectorAll('#log li').length > 2", timeout_s=60)
    assert accessibility.breaches(page) == []
    page.resize(1280, 900)
    page.prefer("light")


def test_nothing_moves_for_those_who_want_it_so(page: Page) -> None:
    lasts = "getComputedStyle(document.querySelector('.meter .fill')).transitionDuration"
    assert page.js(lasts) == "0.1s"
    page.prefer("light", motion="reduce")
    page.wait(f"{lasts} === '0s'")
    page.prefer("light")
