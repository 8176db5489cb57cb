// The job scheduler's page: servers, queue, decisions, and all strategies on the same stream of jobs.

import {$, ask, brief, clock, connection, duration, fixed, follow, h, keyed, meter, number, percent, setText, speaker, themeButton, throttled} from "./app.js";
import {lineChart} from "./chart.js";

const SHOWN_SERVERS = 64, DRAW_EVERY_MS = 200, CHARTS_EVERY_MS = 1000, SEND_EVERY_MS = 200;
const ACTIONS = {place: ["Placed", "good"], hold: ["Waits", "warn"], reject: ["Refused", "bad"]};
const METRICS = {
  meanSlowdown: ["Mean slowdown", value => fixed(value, 2), 1],
  utilisation: ["Utilisation", value => percent(value), 0],
  queue: ["Queue, jobs", value => number(value), 0],
};

let shot = null, metric = "meanSlowdown";
const say = speaker($("spoken"));
const stream = {};
const link = connection(() => stream.followed.retry());
const charts = new Map();

function take(snapshot) {
  shot = snapshot;
  link.heard();
  draw();
  drawCharts();
}

// What is seen

const draw = throttled(() => {
  showControls();
  showTiles();
  showServers();
  showQueue();
  showDecisions();
  showComparison();
  const own = chosen();
  say(`${clock(shot.clockS)}: ${number(shot.queue.length)} jobs wait` + (own ? `, mean slowdown ${fixed(own.meanSlowdown)}` : ""));
}, DRAW_EVERY_MS);

const chosen = () => shot.comparison.find(one => one.strategy === shot.strategy);

function showTiles() {
  const own = chosen() || {};
  const tiles = [
    ["Simulated time", clock(shot.clockS), shot.paused ? "paused" : ""],
    ["Jobs finished", number(own.finished), ""],
    ["Jobs waiting", number(shot.queue.length), ""],
    ["Mean slowdown", fixed(own.meanSlowdown), ""],
    ["Mean wait", duration(own.meanWaitS), ""],
    ["Utilisation", percent(own.utilisation), ""],
  ];
  keyed($("tiles"), tiles, tile => tile[0], ([name]) => h("div", {class: "tile"}, h("dt", {class: "name"}, name), h("dd", {class: "value"}, h("span"), " ", h("span", {class: "unit"}))),
    (node, [, value, unit]) => {
      setText(node.lastChild.firstChild, value);
      setText(node.lastChild.lastChild, unit);
    });
}

function showServers() {
  const servers = shot.servers.slice(0, SHOWN_SERVERS), busy = shot.servers.filter(server => server.jobs).length;
  setText($("server-count"), `${number(busy)} of ${number(shot.servers.length)} busy` + (shot.servers.length > SHOWN_SERVERS ? `, the first ${SHOWN_SERVERS} are shown` : ""));
  $("no-servers").hidden = servers.length > 0;
  keyed($("servers"), servers, server => server.name, makeServer, (node, server) => {
    setText(node.note, `${brief(server.speed)}× speed · ${number(server.jobs)} ${server.jobs === 1 ? "job" : "jobs"}`);
    for (const [bar, use] of [[node.cpu, server.cpu], [node.memory, server.memory]])
      bar.set(use.used, use.total, `${brief(use.used)} of ${brief(use.total)}`);
  });
}

function makeServer({name}) {
  const node = h("li", {class: "server"}, h("div", {class: "head"}, h("h3", {}, name), h("span", {class: "quiet small"})));
  node.note = node.firstChild.lastChild;
  node.cpu = meter("CPU", `CPU of ${name}`);
  node.memory = meter("Memory", `Memory of ${name}`, "memory");
  node.append(node.cpu, node.memory);
  return node;
}

function showQueue() {
  const {length, jobs} = shot.queue;
  setText($("queue-count"), length > jobs.length ? `the first ${jobs.length} of ${number(length)}` : length ? number(length) : "");
  $("no-queue").hidden = jobs.length > 0;
  $("queue-table").hidden = jobs.length === 0;
  keyed($("queue"), jobs, job => job.id, job => {
    const row = h("tr", {}, h("th", {scope: "row"}, String(job.id)));
    for (let cell = 0; cell < 4; cell++) row.append(h("td", {class: "num"}));
    return row;
  }, (row, job) => {
    [brief(job.cpu), brief(job.memory), duration(job.estimateS), duration(job.waitedS)].forEach((text, cell) => setText(row.children[cell + 1], text));
  });
}

function showDecisions() {
  $("no-log").hidden = shot.decisions.length > 0;
  keyed($("log"), shot.decisions, one => `${one.atS} ${one.job} ${one.action} ${one.server}`, one => {
    const [label, tone] = ACTIONS[one.action] || [one.action, ""], reason = one.reason || "";
    return h("li", {}, h("span", {class: "time"}, clock(one.atS)), h("span", {}, h("span", {class: "badge " + tone}, label)),
      h("span", {class: "what"}, h("b", {}, `job ${one.job}`), one.server && !reason.startsWith(one.server) ? ` → ${one.server} ` : " ", h("span", {class: "quiet"}, reason)));
  });
}

const COLUMNS = [
  ["finished", number, Math.max], ["meanSlowdown", value => fixed(value), Math.min],
  ["meanWaitS", duration, Math.min], ["utilisation", value => percent(value, 1), null], ["queue", number, null],
];

/** Left out on a narrow screen. */
const ROOMY = new Set(["finished", "utilisation"]);

/** NaN where all are alike. */
function bestOf(values, better) {
  return better && Math.max(...values) > Math.min(...values) ? better(...values) : NaN;
}

function showComparison() {
  const best = COLUMNS.map(([key, , better]) => bestOf(shot.comparison.map(one => one[key]).filter(Number.isFinite), better));
  keyed($("comparison"), shot.comparison, one => one.strategy, one => {
    const row = h("tr", {}, h("th", {scope: "row"}, one.strategy, " ", h("span", {class: "badge accent", hidden: true}, "shown above")));
    for (const [key] of COLUMNS) row.append(h("td", {class: ROOMY.has(key) ? "num roomy" : "num"}));
    return row;
  }, (row, one) => {
    const own = one.strategy === shot.strategy;
    row.firstChild.lastChild.hidden = !own;
    if (own) row.setAttribute("aria-current", "true"); else row.removeAttribute("aria-current");
    COLUMNS.forEach(([key, format], index) => {
      setText(row.children[index + 1], format(one[key]));
      row.children[index + 1].classList.toggle("best", one[key] === best[index]);
    });
  });
}

// Small multiples: a chart for each strategy, the others in grey, one scale

const drawCharts = throttled(() => {
  const names = Object.keys(shot.history.series);
  keyed($("multiples"), names, name => name, name => {
    const place = h("div"), node = h("li", {}, h("div", {class: "head"}, h("h3", {title: name}, name), h("b", {})), place);
    node.shown = node.firstChild.lastChild;
    node.place = place;
    return node;
  }, (node, name) => {
    setText(node.shown, METRICS[metric][1](shot.history.series[name][metric].at(-1)));
    node.classList.toggle("own", name === shot.strategy);
  });
  for (const name of [...charts.keys()]) if (!names.includes(name)) charts.delete(name);
  const all = names.flatMap(name => shot.history.series[name][metric]).filter(Number.isFinite);
  const most = metric === "utilisation" ? 1 : Math.max(METRICS[metric][2] + 1, ...all);
  for (const node of $("multiples").children) {
    const name = node.querySelector("h3").textContent;
    const values = Object.fromEntries(names.map(other => [other, shot.history.series[other][metric]]));
    chartFor(node.place, name, names).update({times: shot.history.timesS, values, most});
  }
}, CHARTS_EVERY_MS);

function chartFor(place, name, names) {
  const mark = JSON.stringify([metric, names]), kept = charts.get(name);
  if (kept && kept.mark === mark) return kept.chart;
  const [title, format, low] = METRICS[metric];
  const series = names.filter(other => other !== name).map(key => ({key, look: "faint"}));
  const chart = lineChart(place, {title: `${title}, ${name}`, compact: true, height: 110, low, format, timeFormat: clock,
    series: [...series, {key: name, label: title, look: "s1 strong"}]});
  charts.set(name, {mark, chart});
  return chart;
}

// Controls: what the server says is shown, except in a control that is being moved

const sent = {};
let touched = 0;

function showControls() {
  setText($("pause"), shot.paused ? "Resume" : "Pause");
  keyed($("strategy"), shot.strategies, one => one.name, one => h("option", {value: one.name}, one.name));
  setText($("described"), (shot.strategies.find(one => one.name === shot.strategy) || {}).description || "");
  if (Date.now() - touched < 1500) return;
  $("strategy").value = shot.strategy;
  $("speed").value = Math.log10(shot.speed);
  $("rate").value = Math.log10(shot.jobRate);
  showSpeed(shot.speed);
  showRate(shot.jobRate);
}

const round = value => Number(value.toPrecision(2));

function showSpeed(speed) {
  setText($("speed-shown"), `${brief(speed)}× real time`);
  $("speed").setAttribute("aria-valuetext", `${brief(speed)} times real time`);
}

function showRate(rate) {
  const text = rate >= 1 ? `${brief(rate)} jobs/s` : rate >= 1 / 60 ? `${brief(60 * rate)} jobs/min` : `${brief(3600 * rate)} jobs/h`;
  setText($("rate-shown"), text);
  $("rate").setAttribute("aria-valuetext", text.replace("/", " a "));
}

const send = throttled(async () => {
  const body = {...sent};
  for (const key of Object.keys(sent)) delete sent[key];
  try {
    take(await ask("v1/demo/control", body));
    setText($("refused"), "");
  } catch (error) {
    setText($("refused"), error.status ? error.message : "The server is away; nothing was changed.");
    touched = 0;
    if (shot) draw();
  }
}, SEND_EVERY_MS);

function control(change) {
  touched = Date.now();
  Object.assign(sent, change);
  send();
}

function controls() {
  $("controls").addEventListener("submit", event => event.preventDefault());
  $("pause").addEventListener("click", () => {
    if (!shot) return;
    control({paused: !shot.paused});
    say(shot.paused ? "Resumed" : "Paused", true);
  });
  $("reset").addEventListener("click", () => { control({reset: true}); say("Started over", true); });
  $("strategy").addEventListener("change", event => control({strategy: event.target.value}));
  for (const [id, name, show] of [["speed", "speed", showSpeed], ["rate", "jobRate", showRate]])
    $(id).addEventListener("input", event => {
      const value = round(10 ** Number(event.target.value));
      show(value);
      control({[name]: value});
    });
  for (const radio of document.querySelectorAll('input[name="metric"]'))
    radio.addEventListener("change", () => { metric = radio.value; if (shot) drawCharts(); });
  themeButton($("theme"), () => { for (const {chart} of charts.values()) chart.draw(); });
}

controls();
stream.followed = follow("v1/demo/events", (name, value) => { if (name === "state") take(value); }, link.state);
