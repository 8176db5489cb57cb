// The operator's page: RLScalers a page at a time, one of them in detail, and decisions as they are made.

import {$, ago, ask, brief, connection, follow, h, keyed, milliseconds, NONE, number, setText, speaker, themeButton, throttled, timeOfDay} from "./app.js";
import {lineChart} from "./chart.js";

const PAGE = 50, LIST_EVERY_MS = 3000, DETAIL_EVERY_MS = 5000, KEPT = 200;
const STATES = {
  notReady: ["Not ready", "bad"], sloMissed: ["Over objective", "bad"], fallback: ["Fallback", "warn"],
  unfamiliar: ["Unfamiliar", "warn"], limited: ["Limited", ""], shadow: ["Shadow", "accent"],
  paused: ["Paused", "warn"], ready: ["Ready", "good"],
};
const OUTCOMES = {ScaledUp: ["Scaled up", "accent"], ScaledDown: ["Scaled down", "good"], Held: ["Held", "warn"], NoChange: ["No change", ""]};
const WOULD = {ScaledUp: "Would go up", ScaledDown: "Would go down"};
/** The beginning of a message that the columns before it say already. */
const SAID = /^(\d+ -> \d+|stays at \d+): /;
const CLAMPS = ["SLOFloor", "OutOfDistribution", "MissingMetrics", "Schedule", "Activation", "MinStep", "StabilizationWindow",
  "ScalingPolicies", "MaxStep", "FlapBudget", "OutsideChange", "Bounds", "Budget", "Pools", "Canary"];

const list = {search: "", sort: "name", state: "", offset: 0, answer: null};
const log = {outcomes: new Set(["ScaledUp", "ScaledDown", "Held"]), clamp: "", namespace: "", held: false, kept: [], waiting: 0};
const chosen = {namespace: "", name: ""};
const say = speaker($("spoken"));
let stream = null;
const link = connection(() => { stream.retry(); refresh(); });

// RLScalers

const age = text => text ? Math.max(0, Date.now() / 1000 - Date.parse(text) / 1000) : NaN;
const pathOf = item => `${item.namespace}/${item.name}`;
const hrefOf = item => `#/${encodeURIComponent(item.namespace)}/${encodeURIComponent(item.name)}`;

function query() {
  const found = new URLSearchParams({sort: list.sort, limit: PAGE});
  if (list.search) found.set("search", list.search);
  if (list.state) found.set("state", list.state);
  if (list.offset) found.set("offset", list.offset);
  return found;
}

let asking = 0;
async function refresh() {
  const mine = ++asking;
  try {
    const answer = await ask(`v1/rlscalers?${query()}`);
    if (mine !== asking) return;
    list.answer = answer;
    link.heard();
    showList();
  } catch { /* the stream says that the server is away, or what it wants */ }
}

function showList() {
  const {total, matched, offset, items, operator, namespaces} = list.answer;
  setText($("version"), [operator.version, operator.leads ? "" : "stands by for another", operator.trouble || ""].filter(Boolean).join(" · "));
  showTiles();
  setText($("matched"), matched === total ? "" : `${number(matched)} of ${number(total)}`);
  keyed($("rows"), items, pathOf, makeRow, fillRow);
  const none = $("no-rows");
  none.hidden = items.length > 0;
  if (!items.length) setText(none, total ? "No RLScaler is like that." : "There are no RLScalers yet: kubectl apply one, and it is here within seconds.");
  $("pager").hidden = matched <= PAGE;
  setText($("range"), `${number(offset + 1)} to ${number(offset + items.length)} of ${number(matched)}`);
  $("previous").disabled = offset === 0;
  $("next").disabled = offset + items.length >= matched;
  keyed($("namespaces"), namespaces, name => name, name => h("option", {value: name}));
  say(`${total} RLScalers, ${list.answer.counts.notReady} not ready, ${list.answer.counts.sloMissed} over their objective`);
}

function showTiles() {
  const {total, counts} = list.answer;
  const tiles = [["", "RLScalers", total, ""]].concat(Object.entries(STATES).filter(([state]) => state !== "ready" && state !== "limited")
    .map(([state, [label, tone]]) => [state, label, counts[state], counts[state] && tone !== "accent" ? tone : ""]));
  keyed($("tiles"), tiles, tile => tile[0] || "all", ([state]) => {
    const node = h("button", {type: "button", class: "tile"}, h("span", {class: "value"}), h("span", {class: "name"}));
    node.addEventListener("click", () => { list.state = list.state === state ? "" : state; list.offset = 0; showTiles(); refresh(); });
    return node;
  }, (node, [state, label, count, tone]) => {
    setText(node.firstChild, number(count));
    setText(node.lastChild, label);
    node.dataset.tone = tone;
    node.setAttribute("aria-pressed", list.state === state);
  });
}

function makeRow(item) {
  const name = h("a", {href: hrefOf(item)}, item.name);
  const row = h("tr", {}, h("th", {scope: "row"}, name, h("div", {class: "quiet small"}, item.namespace)),
    h("td", {}, h("div", {class: "badges"})));
  for (const kind of ["", "roomy", "roomy", "roomy", "roomy"]) row.append(h("td", {class: "num " + kind}));
  row.append(h("td", {class: "roomy"}), h("td", {class: "num roomy quiet"}));
  return row;
}

function fillRow(row, item) {
  const cells = row.children;
  badges(cells[1].firstChild, item);
  setText(cells[2], moved(item));
  setText(cells[3], number(item.recommendedReplicas));
  setText(cells[4], number(item.hpaReplicas));
  setText(cells[5], brief(item.load));
  setText(cells[6], item.latencyMilliseconds == null ? NONE : milliseconds(item.latencyMilliseconds) + (item.slo ? ` of ${number(item.slo.milliseconds)}` : ""));
  cells[6].classList.toggle("bad-text", item.sloState === "missed");
  setText(cells[7], item.policy ? item.policy.name : NONE);
  setText(cells[8], ago(age(item.time)));
  if (item.namespace === chosen.namespace && item.name === chosen.name) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
}

function badges(host, item) {
  const why = item.conditions.find(condition => condition.type === "Ready");
  const alone = item.states.length === 1;
  const told = Object.keys(STATES).filter(state => item.states.includes(state) && (alone || state !== "ready"))
    .map(state => [state, STATES[state][0] + (state === "notReady" && why ? `: ${why.reason}` : ""), STATES[state][1]]);
  keyed(host, told, one => one[0], one => h("span", {class: "badge " + one[2]}), (node, one) => setText(node, one[1]));
}

function moved({currentReplicas: from, desiredReplicas: to}) {
  return from == null || to == null || from === to ? number(from) : `${number(from)} → ${number(to)}`;
}

// One of them

const time = (seconds, step = 1) => timeOfDay(seconds, step < 60);
const replicas = lineChart($("c-replicas"), {title: "Replicas", timeFormat: time, format: value => number(value, 1), height: 220, series: [
  {key: "load", label: "load", area: true},
  {key: "hpa", label: "HPA would", look: "s2", step: true},
  {key: "desired", label: "desired", look: "s3", step: true},
  {key: "current", label: "replicas", look: "s1", step: true}]});
const latency = lineChart($("c-latency"), {title: "Latency", timeFormat: time, format: milliseconds, height: 140,
  series: [{key: "latencyMilliseconds", label: "latency", look: "s1"}]});

function choose() {
  const [, namespace, name] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const known = Boolean(namespace && name);
  chosen.namespace = known ? namespace : "";
  chosen.name = known ? name : "";
  $("detail").hidden = !known;
  if (list.answer) showList();
  if (!known) return;
  setText($("h-detail"), `${namespace}/${name}`);
  for (const part of ["d-facts", "d-notes", "d-why", "d-states"]) { $(part).replaceChildren(); delete $(part).keyedNodes; }
  detail(true);
}

async function detail(fresh = false) {
  const {namespace, name} = chosen;
  if (!name || document.hidden) return;
  const path = `${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  try {
    const wanted = new URLSearchParams({namespace, search: `${namespace}/${name}`, limit: PAGE});
    const [timeline, told, listed] = await Promise.all([ask("v1/timeline/" + path), ask(`v1/explain/${path}?words=true`), ask(`v1/rlscalers?${wanted}`)]);
    if (namespace !== chosen.namespace || name !== chosen.name) return;
    const item = listed.items.find(one => one.name === name);
    if (item) showFacts(item, told);
    showTimeline(timeline, item);
    showWhy(told);
    if (fresh) $("detail").focus();
  } catch (error) {
    if (name === chosen.name) $("d-why").replaceChildren(h("p", {class: "error"}, error.message));
  }
}

function showFacts(item, told) {
  badges($("d-states"), item);
  const facts = [["Target", item.target], ["Mode", item.mode],
    ["Policy", told.policy ? [told.policy.name, told.policy.digest ? told.policy.digest.slice(0, 19) : ""].filter(Boolean).join(" ") : NONE],
    ["Bounds", item.maxReplicas == null ? NONE : `${number(item.minReplicas)} to ${number(item.maxReplicas)}`],
    ["Objective", item.slo ? `p${item.slo.percentile} within ${number(item.slo.milliseconds)} ms` : "none"],
    ["Last change", ago(age(item.lastScaleTime))]];
  keyed($("d-facts"), facts, fact => fact[0], fact => h("div", {}, h("dt", {}, fact[0]), h("dd")), (node, fact) => setText(node.lastChild, fact[1]));
  keyed($("d-notes"), notes(item), note => note.join(), ([tone, title, text]) => h("li", {}, h("span", {class: "badge " + tone}, title), h("span", {}, text)));
}

function notes(item) {
  const found = item.conditions.map(one => [one.type === "ScalingLimited" ? "" : one.type === "Paused" ? "warn" : "bad", `${one.type}: ${one.reason}`, one.message]);
  for (const pool of item.backends || [])
    found.push(["", `Pool ${pool.name}`, moved(pool) + " replicas" + (pool.weight == null ? "" : `, ${pool.weight} % of the traffic`)]);
  if (item.budget) found.push(["accent", `Budget ${item.budget.name}`, item.budget.message || `at most ${number(item.budget.cap)} replicas`]);
  if (item.policyCanary) found.push(["accent", `Policy canary ${item.policyCanary.name || ""}`, [item.policyCanary.phase, item.policyCanary.message].filter(Boolean).join(": ")]);
  if (item.canary) found.push(["accent", "Canary", [item.canary.phase, item.canary.weight == null ? "" : `${item.canary.weight} % of the traffic`, item.canary.message].filter(Boolean).join(", ")]);
  return found;
}

function showTimeline(timeline, item) {
  replicas.update({times: timeline.timesS, values: timeline});
  const measured = timeline.latencyMilliseconds.some(value => value != null);
  $("latency-part").hidden = !measured;
  if (measured) latency.update({times: timeline.timesS, values: timeline,
    reference: item && item.slo ? {value: item.slo.milliseconds, label: `objective ${number(item.slo.milliseconds)} ms`} : null});
}

let shownWhy = "";
function showWhy(told) {
  const mark = JSON.stringify([told.namespace, told.name, told.sections, told.recommendation]);
  const host = $("d-why");
  if (mark === shownWhy && host.firstChild) { setText(host.firstChild, told.headline); return; }
  shownWhy = mark;
  const parts = [h("p", {class: "headline"}, told.headline)];
  const groups = ((told.recommendation || {}).groups || []).filter(group => group.replicas).slice(0, 6);
  for (const {title, lines} of told.sections) {
    const bars = title === "What the policy asked for" && groups.length > 0;
    const shown = bars ? lines.filter(line => !line.startsWith("  ") && !line.endsWith(":")) : lines;
    parts.push(h("div", {}, h("h3", {}, title), h("ul", {class: "small"}, ...shown.map(line => h("li", {}, line.replace(/^- /, ""))))));
    if (bars) parts.push(mattered(groups), ...features(told.recommendation.features || []));
  }
  host.replaceChildren(...parts);
}

/** How many replicas each thing that the policy looks at adds or takes away. */
function mattered(groups) {
  const most = Math.max(...groups.map(group => Math.abs(group.replicas)));
  return h("div", {}, h("h3", {}, "What moved it, in replicas"), h("ul", {class: "bars"}, ...groups.map(({what, replicas: due}) => {
    const fill = h("span", {class: due < 0 ? "fill down" : "fill"}), share = 50 * Math.abs(due) / most;
    fill.style.width = share + "%";
    fill.style.left = (due < 0 ? 50 - share : 50) + "%";
    return h("li", {}, h("span", {}, what), h("span", {class: "track", "aria-hidden": "true"}, fill), h("span", {class: "num"}, (due > 0 ? "+" : "−") + brief(Math.abs(due))));
  })));
}

function features(found) {
  const signed = value => value ? (value > 0 ? "+" : "−") + brief(Math.abs(value)) : "0";
  const moving = found.filter(one => one.below || one.above);
  if (!moving.length) return [];
  const rows = moving.map(one => h("tr", {}, h("th", {scope: "row"}, one.description, h("div", {class: "quiet"}, one.name)),
    h("td", {class: "num"}, brief(one.value)), h("td", {class: "num"}, signed(one.below)), h("td", {class: "num"}, signed(one.above))));
  const heads = ["Feature", "Now", "If lower", "If higher"].map((text, index) => h("th", {scope: "col", class: index ? "num" : ""}, text));
  return [h("details", {class: "data"}, h("summary", {}, "Single features"), h("div", {class: "wide", tabindex: 0, role: "region", "aria-label": "Single features"},
    h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows))))];
}

// Decisions

function followed() {
  const found = new URLSearchParams();
  if (log.outcomes.size && log.outcomes.size < 4) found.set("outcome", [...log.outcomes].join(","));
  if (log.clamp) found.set("clamp", log.clamp);
  if (log.namespace) found.set("namespace", log.namespace);
  return `v1/events?${found}`;
}

function listen() {
  if (stream) stream.stop();
  log.kept = [];
  let first = true;
  stream = follow(followed(), (name, {decisions, missed}) => {
    link.heard();
    if (first) log.kept = [];
    first = false;
    const gap = missed ? [{missed, time: decisions.at(-1).time}] : [];
    log.kept = [...decisions, ...gap, ...log.kept].slice(0, KEPT);
    log.waiting += decisions.length;
    if (log.held) showHold(); else showLog();
  }, (state, message) => {
    first = true;
    link.state(state, message);
  });
}

const showLog = throttled(() => {
  log.waiting = 0;
  showHold();
  $("no-log").hidden = log.kept.length > 0;
  keyed($("log"), log.kept, one => one.missed ? "missed" + one.time : one.time + pathOf(one), makeLine);
}, 300);

function makeLine(one) {
  if (one.missed) return h("li", {}, h("span", {}), h("span", {}), h("span", {class: "what quiet"}, `${number(one.missed)} more were too many to show`));
  const [label, tone] = OUTCOMES[one.outcome] || [one.outcome, ""];
  const shadow = one.mode === "Shadow" && one.outcome in WOULD;
  return h("li", {}, h("time", {class: "time", datetime: one.time}, timeOfDay(Date.parse(one.time) / 1000)),
    h("span", {}, shadow ? h("span", {class: "badge"}, WOULD[one.outcome]) : h("span", {class: "badge " + tone}, label)),
    h("span", {class: "what"}, h("a", {href: hrefOf(one)}, pathOf(one)), " ", h("b", {}, moved(one)), " ", h("span", {class: "quiet"}, one.error || one.message.replace(SAID, ""))));
}

function showHold() {
  setText($("hold"), log.held && log.waiting ? `Hold still (${number(log.waiting)} new)` : "Hold still");
  $("hold").setAttribute("aria-pressed", log.held);
}

// Controls

function controls() {
  for (const [outcome, [label]] of Object.entries(OUTCOMES)) {
    const button = h("button", {type: "button", class: "toggle", "aria-pressed": log.outcomes.has(outcome)}, label);
    button.addEventListener("click", () => {
      if (!log.outcomes.delete(outcome)) log.outcomes.add(outcome);
      button.setAttribute("aria-pressed", log.outcomes.has(outcome));
      listen();
      showLog();
    });
    $("outcomes").append(button);
  }
  $("clamp").append(...CLAMPS.map(name => h("option", {value: name}, name)));
  $("clamp").addEventListener("change", event => { log.clamp = event.target.value; listen(); showLog(); });
  $("namespace").addEventListener("change", event => { log.namespace = event.target.value.trim(); listen(); showLog(); });
  $("hold").addEventListener("click", () => { log.held = !log.held; showHold(); if (!log.held) showLog(); });
  for (const form of [$("filters"), $("log-filters")]) form.addEventListener("submit", event => event.preventDefault());
  const searching = throttled(refresh, 250);
  $("search").addEventListener("input", event => { list.search = event.target.value.trim(); list.offset = 0; searching(); });
  $("sort").addEventListener("change", event => { list.sort = event.target.value; list.offset = 0; refresh(); });
  $("previous").addEventListener("click", () => { list.offset = Math.max(0, list.offset - PAGE); refresh(); });
  $("next").addEventListener("click", () => { list.offset += PAGE; refresh(); });
  $("close").addEventListener("click", () => {
    const back = document.querySelector('#rows tr[aria-current="true"] a');
    history.pushState(null, "", location.pathname + location.search);
    choose();
    (back || $("main")).focus();
  });
  themeButton($("theme"), () => { replicas.draw(); latency.draw(); });
  addEventListener("hashchange", choose);
}

controls();
listen();
choose();
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, LIST_EVERY_MS);
setInterval(() => detail(), DETAIL_EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { refresh(); detail(); } });
