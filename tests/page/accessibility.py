"""Rules of accessibility as small checks of a page in Chromium; each returns what breaks it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.page.browser import Page

WIDTHS = (360, 768, 1280)
CONTROLS = {
    *("button", "link", "textbox", "searchbox", "combobox", "slider", "checkbox", "radio", "spinbutton"),
    *("meter", "img", "region", "group", "list", "table", "navigation", "search", "form", "dialog"),
}
MUST_BE_NAMED = CONTROLS - {"list", "table", "group", "form"}

CONTRAST = """(() => {
  const parse = text => {
    const parts = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    if (!text.startsWith("color(")) return [parts[0], parts[1], parts[2], parts[3] ?? 1];
    return [255 * parts[0], 255 * parts[1], 255 * parts[2], parts[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = node => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    const root = parse(getComputedStyle(document.body).backgroundColor);
    return layers.reverse().reduce((under, top) => over(top, under), root);
  };
  const found = [];
  const check = (node, text, style) => {
    const under = behind(node), svg = node instanceof SVGElement;
    const colour = over(parse(svg ? style.fill : style.color), under);
    const [a, b] = [light(colour), light(under)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${text.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let checked = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, text = walker.currentNode.data;
    if (!text.trim() || !node.checkVisibility({visibilityProperty: true})) continue;
    if (node.closest(".sr, option, script, :disabled")) continue;
    check(node, text, getComputedStyle(node));
    checked += 1;
  }
  for (const node of document.querySelectorAll("input[placeholder]"))
    if (node.checkVisibility()) check(node, node.placeholder, getComputedStyle(node, "::placeholder"));
  return {found: [...new Set(found)], checked};
})()"""

STRUCTURE = """(() => {
  const found = [], all = selector => [...document.querySelectorAll(selector)];
  const ids = all("[id]").map(node => node.id);
  const say = (wrong, text) => { if (wrong) found.push(text); };
  for (const id of ids) say(ids.indexOf(id) !== ids.lastIndexOf(id), `two elements have the id ${id}`);
  for (const name of ["aria-labelledby", "aria-describedby", "for", "list"])
    for (const node of all(`[${name}]`))
      for (const id of node.getAttribute(name).split(" ")) say(!ids.includes(id), `${name} names ${id}`);
  say(document.documentElement.lang !== "en", "the page has no language");
  say(!document.title, "the page has no title");
  say(all("h1").length !== 1, "there is not one h1");
  for (const name of ["header", "main", "footer"])
    say(all(`body > ${name}`).length !== 1, `there is not one ${name}`);
  let level = 0;
  for (const node of all("h1, h2, h3, h4").filter(node => node.checkVisibility())) {
    const own = Number(node.tagName[1]);
    say(own > level + 1, `"${node.textContent}" skips a level of headings`);
    level = own;
  }
  for (const node of all("th")) say(!node.scope, `a th has no scope: ${node.textContent}`);
  for (const node of all("ul > *, ol > *")) say(node.tagName !== "LI", `${node.tagName} in a list`);
  for (const node of all("dl > *")) say(!node.querySelector("dt, dd"), "a dl without terms");
  for (const node of all("[tabindex]")) say(node.tabIndex > 0, "a positive tabindex");
  const scrolls = node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
  for (const node of all("*").filter(node => node.scrollWidth > node.clientWidth + 1 && scrolls(node)))
    say(node.tabIndex < 0, `what scrolls cannot be reached by keyboard: ${node.className}`);
  return found;
})()"""


def breaches(page: Page) -> list[str]:
    """All of it, on a phone, a tablet and a desktop, as which the page is left."""
    found = contrast(page) + structure(page) + names(page) + focus_is_seen(page)
    return found + [wide for width in WIDTHS for wide in fits(page, width)]


def names(page: Page) -> list[str]:
    """Controls, meters, pictures and regions without a name, and those of one kind with the same name."""
    nodes = page.nodes()
    unnamed = [
        f"a {node['role']} has no name"
        for node in nodes
        if node["role"] in MUST_BE_NAMED and not node["name"]
    ]
    kinds = Counter(
        (node["role"], node["name"]) for node in nodes if node["role"] in ("slider", "textbox", "combobox")
    )
    return unnamed + [f"{count} times {kind}" for kind, count in kinds.items() if count > 1]


def structure(page: Page) -> list[str]:
    """Ids, references, headings, landmarks, tables, lists, focus."""
    return list(page.js(STRUCTURE))


def contrast(page: Page) -> list[str]:
    """Text below 4.5 to 1 (3 to 1 where it is large) against what is behind it."""
    found: dict[str, Any] = page.js(CONTRAST)
    assert found["checked"] > 30, "there must be text to check"
    return list(found["found"])


def fits(page: Page, width: int) -> list[str]:
    """What is wider than a screen of this width."""
    page.resize(width, 800)
    page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    wide = page.js("document.documentElement.scrollWidth")
    return [f"the page is {wide} wide on a screen of {width}"] if wide > width else []


def focus_is_seen(page: Page, most: int = 25) -> list[str]:
    """Elements that Tab reaches and that do not show it."""
    page.js("document.activeElement.blur(), window.scrollTo(0, 0)")
    found = []
    for _ in range(most):
        page.key("Tab")
        shown = page.js("""(() => {
          const node = document.activeElement;
          if (node === document.body) return "";
          const marked = [node, node.nextElementSibling].filter(Boolean).some(one => {
            const style = getComputedStyle(one);
            return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
          });
          return marked ? "" : node.outerHTML.slice(0, 80);
        })()""")
        if shown:
            found.append(str(shown))
    return found
