"""The operator's page in a real Chromium, over a real operator."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.harness import Namespace, OperatorProcess, Traffic, eventually, http_get
from tests.page import accessibility
from tests.page.browser import Browser, Page
from tests.page.scene import LOST, WORKLOADS, populate


@pytest.fixture(scope="module")
def shop(operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic) -> Namespace:
    populate(shared_namespace, traffic)
    traffic.set(shared_namespace.name, "recommendations", rate=80.0, latency_ms=320.0)
    shared_namespace.wait_condition("checkout", "Ready", "True")
    shared_namespace.wait_condition(LOST, "Fallback", "True")
    return shared_namespace


@pytest.fixture(scope="module")
def page(browser: Browser, operator: OperatorProcess, shop: Namespace) -> Iterator[Page]:
    """The page with all RLScalers in it; tests leave it without filters and details."""
    with browser.page(f"{operator.url}/") as opened:
        opened.wait(f"document.querySelectorAll('#rows tr').length === {len(WORKLOADS) + 1}")
        yield opened


@pytest.fixture(autouse=True)
def _quiet(page: Page, operator: OperatorProcess) -> Iterator[None]:
    """No test leaves an error in the console, or asks another host."""
    yield
    assert page.complaints() == []
    elsewhere = [url for url in page.requests() if not url.startswith(operator.url)]
    assert [url for url in elsewhere if not url.startswith("data:")] == []


def row(page: Page, name: str) -> str:
    rows = "[...document.querySelectorAll('#rows tr')]"
    return str(page.js(f"{rows}.find(one => one.innerText.startsWith('{name}')).innerText"))


def test_it_lists_what_the_server_says(page: Page, operator: OperatorProcess, shop: Namespace) -> None:
    def agree() -> bool:
        told = json.loads(http_get(f"{operator.url}/v1/rlscalers")[1])
        by_name = {item["name"]: item for item in told["items"]}
        assert page.text("#tiles button:first-child .value") == str(told["total"])
        for name, words in (
            (LOST, ["Not ready", "Fallback"]),
            ("reports", ["Paused"]),
            ("search", ["Shadow"]),
        ):
            for word in words:
                assert word in row(page, name), row(page, name)
        checkout = by_name["checkout"]
        assert str(checkout["recommendedReplicas"]) in row(page, "checkout")
        assert "default" in row(page, "checkout")
        assert shop.name in row(page, "checkout")
        return True

    eventually(agree, timeout_s=30)
    assert page.text("#connection") == "Live"
    assert page.js("document.querySelector('#banner').hidden")


def test_replicas_that_change_are_seen_without_a_reload(
    page: Page, shop: Namespace, traffic: Traffic
) -> None:
    before = shop.replicas("images")
    traffic.set(shop.name, "images", rate=120.0)
    shop.wait_replicas("images", *range(before + 1, 30), timeout_s=60)
    eventually(
        lambda: f"\t{shop.replicas('images')}\t" in row(page, "images").replace("\n", "\t"), timeout_s=30
    )
    page.wait(
        "[...document.querySelectorAll('#log li')].some(one => /Scaled up[^]*images/.test(one.innerText))"
    )


def test_rlscalers_are_found_by_keyboard_alone(page: Page) -> None:
    page.tab_to("#search")
    page.type("check")
    page.wait("document.querySelectorAll('#rows tr').length === 1")
    assert page.text("#matched") == f"1 of {len(WORKLOADS) + 1}"
    page.js("document.querySelector('#search').select()")
    page.type("zzz")
    page.wait("!document.querySelector('#no-rows').hidden")
    assert page.text("#no-rows") == "No RLScaler is like that."
    page.js("Object.assign(document.querySelector('#search'), {value: ''}).dispatchEvent(new Event('input'))")
    page.wait("document.querySelectorAll('#rows tr').length > 1")


def test_a_tile_filters_and_says_that_it_does(page: Page) -> None:
    page.tab_to("#tiles button:nth-child(7)")
    page.key("Enter")
    page.wait("document.querySelectorAll('#rows tr').length === 1")
    assert page.text("#rows").startswith("reports")
    pressed = "document.querySelector('#tiles button:nth-child(7)').getAttribute('aria-pressed')"
    assert page.js(pressed) == "true"
    page.key("Enter")
    page.wait("document.querySelectorAll('#rows tr').length > 1")
    assert page.js(pressed) == "false"


def test_one_is_told_with_its_timeline_and_the_why(page: Page, shop: Namespace) -> None:
    page.tab_to("#rows tr:nth-child(2) a")
    page.key("Enter")
    page.wait_text("#h-detail", f"{shop.name}/checkout")
    page.wait_text("#d-why", "What would change it")
    assert "What was seen" in page.text("#d-why")
    assert "p95 within 250 ms" in page.text("#d-facts")
    assert page.js("document.querySelector('#detail').contains(document.activeElement)"), "focus follows"
    page.wait("document.querySelectorAll('#c-replicas path.line').length === 3")
    assert page.js("document.querySelectorAll('#c-latency .reference').length") == 1
    assert page.js("document.querySelectorAll('#rows tr[aria-current=true]').length") == 1
    page.tab_to("#c-replicas .plot")
    moved = "document.activeElement.getAttribute('aria-valuetext')"
    page.key("Home")
    first = page.js(moved)
    for _ in range(20):  # two decisions of one second may read alike
        page.key("ArrowRight")
        if page.js(moved) != first:
            break
    assert first != page.js(moved)
    assert "replicas" in first
    page.tab_to("#c-replicas summary")
    page.key("Enter")
    page.wait("document.querySelectorAll('#c-replicas tbody tr').length > 1")
    page.tab_to("#close")
    page.key("Enter")
    page.wait("document.querySelector('#detail').hidden")


def test_decisions_are_filtered_and_can_be_held_still(page: Page) -> None:
    kinds = "new Set([...document.querySelectorAll('#log .badge')].map(b => b.innerText))"
    page.wait("document.querySelectorAll('#log li').length > 3")
    assert page.js(f"!{kinds}.has('No change')")
    for button in ("1", "2", "3", "4"):  # off, off, off, and on
        page.js(f"document.querySelector('#outcomes button:nth-child({button})').focus()")
        page.key(" ")
    page.wait(f"{kinds}.size === 1 && {kinds}.has('No change')")
    page.tab_to("#hold")
    page.key(" ")
    page.wait("/[0-9]+ new/.test(document.querySelector('#hold').innerText)")
    kept = page.text("#log")
    page.wait("Number(document.querySelector('#hold').innerText.replace(/[^0-9]/g, '')) > 5")
    assert page.text("#log") == kept
    page.key(" ")
    page.wait(f"document.querySelector('#log').innerText !== {json.dumps(kept)}")
    for button in ("1", "2", "3", "4"):
        page.js(f"document.querySelector('#outcomes button:nth-child({button})').click()")
    page.js(f"document.querySelector('#namespace').value = 'elsewhere'; {CHANGED}")
    page.wait(
        "document.querySelectorAll('#log li').length === 0 && !document.querySelector('#no-log').hidden"
    )
    page.js(f"document.querySelector('#namespace').value = ''; {CHANGED}")


CHANGED = "document.querySelector('#namespace').dispatchEvent(new Event('change'))"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_and_everything_has_a_name(page: Page, shop: Namespace, theme: str) -> None:
    page.prefer(theme)
    page.js(f"location.hash = '#/{shop.name}/checkout'")
    page.wait_text("#d-why", "What would change it")
    page.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.wait("document.querySelectorAll('#c-replicas tbody tr').length > 1")
    assert accessibility.breaches(page) == []
    page.resize(1280, 900)
    page.js("location.hash = ''")
    page.prefer("light")


def test_the_theme_is_the_readers_and_stays(
    browser: Browser, operator: OperatorProcess, shop: Namespace
) -> None:
    with browser.page(f"{operator.url}/", theme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.js(ground)
        page.tab_to("#theme")
        assert page.js("document.activeElement.innerText") == "Light theme"
        page.key("Enter")
        assert page.js(ground) != dark
        page.open(f"{operator.url}/?again")
        page.wait("document.querySelector('#theme').innerText === 'Dark theme'")
        assert page.js(ground) != dark
