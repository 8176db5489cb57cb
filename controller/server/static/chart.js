// A line chart for two or three series: SVG at the size of its place, a cursor for pointer and arrow keys, a table.

import {brief, h, keyed, NONE, setText} from "./app.js";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const TABLE_ROWS = 60;

/** Round steps that cut 0..most (or low..most) into about `count`. */
function ticks(low, most, count) {
  const raw = Math.max(most - low, 1e-9) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(size => size >= raw - 1e-12);
  const found = [];
  for (let value = Math.floor(low / step) * step; ; value += step) {
    found.push(Math.round(value / step) * step);
    if (value >= most - step * 1e-9) return found;
  }
}

function timeTicks(from, to, room) {
  const most = Math.max(2, Math.floor(room / 85));
  let step = STEPS_S.find(size => (to - from) / size <= most) || STEPS_S.at(-1);
  while ((to - from) / step > most) step *= 2;
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) found.push(time);
  return [found, step];
}

/**
 * A chart in `host`. options: title; series [{key, label, look, step, area}]; format(value); timeFormat(seconds, step of the axis);
 * height; compact (for small multiples: no legend, no table); low (of the axis, 0).
 * `update({times, values: {key: [...]}, reference: {value, label}, most})`; null values are gaps.
 */
export function lineChart(host, options) {
  const {title, series, compact = false, format = brief, timeFormat} = options;
  const height = options.height || 180;
  const legend = h("div", {class: "legend", "aria-hidden": "true"});
  const plot = h("div", {class: "plot", tabindex: 0, role: "slider", "aria-label": `${title}. Arrow keys move through time.`});
  const svg = h("svg", {height, "aria-hidden": "true"});
  plot.append(svg);
  host.classList.add("chart");
  host.replaceChildren(...(compact ? [plot] : [legend, plot]));
  const table = compact ? null : dataTable(host, options);
  let data = {times: [], values: {}}, cursor = null, shape = null;

  const at = index => series.filter(one => one.label).map(one => [one, (data.values[one.key] || [])[index]]);
  const shown = () => cursor == null ? data.times.length - 1 : Math.min(cursor, data.times.length - 1);

  function draw() {
    const width = plot.clientWidth;
    if (!width) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!data.times.length) {
      svg.replaceChildren(h("text", {x: width / 2, y: height / 2, "text-anchor": "middle"}, "Nothing to draw yet"));
      shape = null;
      tell();
      return;
    }
    shape = frame(width);
    const nodes = [...axes(shape), ...reference(shape)];
    for (const one of series) {
      const d = path(one, data.values[one.key] || [], shape);
      if (d) nodes.push(h("path", {d, class: one.area ? "area" : "line " + one.look}));
    }
    svg.replaceChildren(...nodes);
    if (cursor != null) svg.append(h("line", {class: "cursor", x1: shape.x(data.times[shown()]), x2: shape.x(data.times[shown()]), y1: shape.top, y2: shape.bottom}));
    tell();
  }

  function frame(width) {
    const known = series.flatMap(one => data.values[one.key] || []).filter(value => value != null);
    const most = data.most ?? Math.max(...known, data.reference ? data.reference.value : -Infinity);
    const low = options.low ?? 0;
    const marks = ticks(low, Number.isFinite(most) && most > low ? most : low + 1, compact ? 2 : 4);
    const labels = marks.map(mark => format(mark));
    const left = 10 + 6.6 * Math.max(...labels.map(label => label.length));
    const right = width - (compact ? 4 : 14), top = 8, bottom = height - (compact ? 18 : 24);
    const from = data.times[0], to = Math.max(data.times.at(-1), from + 1);
    const last = marks.at(-1);
    return {width, left, right, top, bottom, marks, labels, from, to,
      x: time => left + (right - left) * (time - from) / (to - from),
      y: value => bottom - (bottom - top) * (Math.min(value, last) - low) / (last - low)};
  }

  function axes({left, right, bottom, marks, labels, from, to, x, y}) {
    const nodes = marks.flatMap((mark, number) => [
      h("line", {class: "grid", x1: left, x2: right, y1: y(mark), y2: y(mark)}),
      h("text", {x: left - 7, y: y(mark) + 4, "text-anchor": "end"}, labels[number]),
    ]);
    const [times, step] = compact ? [[from, to], 60] : timeTicks(from, to, right - left);
    for (const time of times) {
      const place = x(time), anchor = place > right - 26 ? "end" : place < left + 26 ? "start" : "middle";
      nodes.push(h("text", {x: place, y: bottom + 16, "text-anchor": anchor}, timeFormat(time, step)));
    }
    return nodes;
  }

  function reference({left, right, top, y}) {
    if (!data.reference) return [];
    const place = y(data.reference.value), above = place > top + 16;
    return [h("line", {class: "reference", x1: left, x2: right, y1: place, y2: place}),
      h("text", {class: "reference-text", x: right, y: above ? place - 5 : place + 14, "text-anchor": "end"}, data.reference.label)];
  }

  function path(one, values, {x, y, bottom}) {
    let d = "", open = false, start = 0, last = 0;
    data.times.forEach((time, index) => {
      const value = values[index];
      if (value == null) { if (one.area && open) d += `V${bottom}H${start}Z`; open = false; return; }
      const px = x(time).toFixed(1), py = y(value).toFixed(1);
      if (!open) { d += one.area ? `M${px} ${bottom}V${py}` : `M${px} ${py}`; start = px; }
      else d += one.step ? `H${px}V${py}` : `L${px} ${py}`;
      open = true;
      last = px;
    });
    if (one.area && open) d += `L${last} ${bottom}H${start}Z`;
    return d;
  }

  function tell() {
    const index = shown(), none = index < 0;
    plot.setAttribute("aria-valuemin", 0);
    plot.setAttribute("aria-valuemax", Math.max(0, data.times.length - 1));
    plot.setAttribute("aria-valuenow", Math.max(0, index));
    const words = at(index).map(([one, value]) => `${one.label} ${value == null ? "unknown" : format(value)}`);
    plot.setAttribute("aria-valuetext", none ? "nothing yet" : `${timeFormat(data.times[index])}: ${words.join(", ")}`);
    if (compact) return;
    keyed(legend, [...at(index), ["time"]], ([one]) => one.key || "time", legendItem, (node, [one, value]) => {
      if (one === "time") setText(node, none || cursor == null ? "" : "at " + timeFormat(data.times[index]));
      else setText(node.lastChild, none || value == null ? NONE : format(value));
    });
  }

  function move(index) {
    cursor = index == null ? null : Math.max(0, Math.min(data.times.length - 1, index));
    draw();
  }

  plot.addEventListener("pointermove", event => {
    if (!shape) return;
    const time = shape.from + (event.offsetX - shape.left) / (shape.right - shape.left) * (shape.to - shape.from);
    move(nearest(data.times, time));
  });
  plot.addEventListener("pointerleave", () => move(null));
  plot.addEventListener("blur", () => move(null));
  plot.addEventListener("keydown", event => {
    const last = data.times.length - 1, step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10}[event.key];
    if (last < 0 || (step == null && !["Home", "End", "Escape"].includes(event.key))) return;
    event.preventDefault();
    move(event.key === "Home" ? 0 : event.key === "End" ? last : event.key === "Escape" ? null : shown() + step);
  });
  new ResizeObserver(() => draw()).observe(plot);

  return {
    draw,
    update(next) {
      data = next;
      draw();
      if (table) table(data);
    },
  };
}

function legendItem([one]) {
  if (one === "time") return h("span", {});
  const sample = h("svg", {viewBox: "0 0 20 10"}, one.area ? h("rect", {class: "area", width: 20, height: 10, rx: 2}) : h("path", {class: one.look, d: "M0 5H20"}));
  return h("span", {}, sample, one.label + " ", h("b"));
}

function nearest(times, time) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  return low > 0 && time - times[low - 1] < times[low] - time ? low - 1 : low;
}

/** The same numbers as a table, made while it is open; long series are thinned out. */
function dataTable(host, {title, series, format = brief, timeFormat}) {
  const named = series.filter(one => one.label);
  const body = h("tbody"), heads = named.map(one => h("th", {scope: "col", class: "num"}, one.label));
  const table = h("table", {}, h("caption", {class: "sr"}, title), h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "Time"), ...heads)), body);
  const details = h("details", {class: "data"}, h("summary", {}, "As a table", h("span", {class: "sr"}, `: ${title}`)),
    h("div", {class: "wide", tabindex: 0, role: "region", "aria-label": `${title}, table`}, table));
  host.append(details);
  let data = null;
  const fill = () => {
    if (!details.open || !data) return;
    const every = Math.max(1, Math.ceil(data.times.length / TABLE_ROWS)), last = data.times.length - 1;
    const rows = data.times.map((_, index) => last - index).filter(index => (last - index) % every === 0);
    body.replaceChildren(...rows.map(index => h("tr", {}, h("th", {scope: "row"}, timeFormat(data.times[index])),
      ...named.map(one => { const value = (data.values[one.key] || [])[index]; return h("td", {class: "num"}, value == null ? NONE : format(value)); }))));
  };
  details.addEventListener("toggle", fill);
  return next => { data = next; fill(); };
}
