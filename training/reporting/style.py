"""The page's stylesheet: one column, system fonts, light and dark by what the reader's system asks for."""

from __future__ import annotations

from training.reporting.theme import variables

_LIGHT = (
    "--blue: #2563ad; --orange: #c2620c; --green: #2c7d4f; --red: #c3313b; --purple: #7550a8; "
    "--brown: #81563c; --pink: #b64d93; --olive: #7c7a12; --cyan: #0f7f92; "
    "--red-2: #d9777c; --red-3: #7f1d24; "
    "--paper: #ffffff; --raised: #f5f6f8; --ink: #171a1f; --soft: #565d69; --line: #dfe2e7; "
    "--accent: #2563ad;"
)
_DARK = (
    "--blue: #76aef0; --orange: #f0a35c; --green: #74c795; --red: #f2797f; --purple: #b79be6; "
    "--brown: #c99a7d; --pink: #e592c6; --olive: #c9c65a; --cyan: #62c6d8; "
    "--red-2: #f7b0b3; --red-3: #d9575f; "
    "--paper: #14171c; --raised: #1c2027; --ink: #eef0f3; --soft: #a2a9b5; --line: #2d333d; "
    "--accent: #76aef0;"
)
_RULES = """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
header, main { max-width: 1040px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 48px; }
header > p:first-child { margin: 0 0 4px; color: var(--accent); font-weight: 600; font-size: 14px; }
h1 { margin: 0; font-size: clamp(28px, 5vw, 40px); line-height: 1.15; letter-spacing: -0.02em;
  overflow-wrap: anywhere; }
.subtitle { margin: 8px 0 0; color: var(--soft); font-size: 17px; }
h2 { margin: 0 0 14px; font-size: 24px; letter-spacing: -0.01em; line-height: 1.25; }
h3 { margin: 32px 0 8px; font-size: 17px; line-height: 1.35; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 76ch; }
nav { position: sticky; top: 0; z-index: 1; margin-top: 32px; background: var(--paper);
  border-bottom: 1px solid var(--line); }
nav ul { max-width: 1040px; margin: 0 auto; padding: 0 24px; display: flex; gap: 24px; list-style: none;
  overflow-x: auto; }
nav a { display: block; padding: 12px 0; color: var(--soft); text-decoration: none; white-space: nowrap;
  font-size: 14px; font-weight: 500; }
nav a:hover, nav a:focus-visible { color: var(--ink); }
a:focus-visible, summary:focus-visible, pre:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; border-radius: 2px; }
section { padding: 40px 0 8px; scroll-margin-top: 44px; }
section + section { border-top: 1px solid var(--line); margin-top: 32px; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
  margin: 28px 0 0; }
.key div { background: var(--raised); border-radius: 10px; padding: 14px 16px; }
.key dt { color: var(--soft); font-size: 13px; line-height: 1.4; }
.key dd { margin: 2px 0 0; font-size: 26px; font-weight: 650; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.key div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.facts, .seen { display: grid; margin: 0 0 20px; font-size: 15px; }
.facts div { display: grid; grid-template-columns: 130px 1fr; gap: 16px; padding: 7px 0;
  border-bottom: 1px solid var(--line); }
.facts dt, .seen dt { color: var(--soft); }
.facts dd, .seen dd { margin: 0; overflow-wrap: anywhere; }
.seen { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 10px 20px; font-size: 14px;
  background: var(--raised); border-radius: 10px; padding: 14px 16px; }
.seen dt { font-size: 12.5px; }
.seen dd { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 8px 0 20px; font-size: 14.5px; }
caption { text-align: left; color: var(--soft); padding: 0 0 8px; font-size: 14px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: baseline; font-variant-numeric: tabular-nums; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 550; font-size: 13px; }
tbody th { font-weight: 450; overflow-wrap: anywhere; }
.number { text-align: right; }
tr.strong th, tr.strong td { font-weight: 650; }
figure { margin: 12px 0 20px; }
figure svg { display: block; width: 100%; min-width: 680px; height: auto; fill: var(--ink);
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
figcaption { color: var(--soft); font-size: 14px; margin-top: 6px; max-width: 90ch; }
pre { background: var(--raised); border-radius: 10px; padding: 14px 16px; overflow-x: auto; margin: 0 0 16px;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--accent); font-size: 15px; padding: 4px 0; }
details[open] > summary { margin-bottom: 8px; }
.note { color: var(--soft); font-size: 15px; }
@media (max-width: 600px) {
  header, main, nav ul { padding-left: 16px; padding-right: 16px; }
  .facts div { grid-template-columns: 1fr; gap: 0; }
}
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
STYLESHEET = (
    f":root {{ color-scheme: light dark; {_LIGHT} {variables(dark=False)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} {variables(dark=True)} }} }}\n{_RULES}"
)
