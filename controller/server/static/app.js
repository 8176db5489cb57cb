// What both pages share: elements, formats, requests with a token, server-sent events, theme, banner.
// Text from servers only ever becomes text nodes; nothing here or elsewhere sets innerHTML.

const SVG = "http://www.w3.org/2000/svg";
const SVG_NAMES = new Set(["svg", "path", "line", "text", "g", "rect"]);

export const $ = id => document.getElementById(id);

/** An element with attributes and children; false, null and undefined are left out. */
export function h(name, attributes = {}, ...children) {
  const node = SVG_NAMES.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("aria-") && value != null) node.setAttribute(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter(child => child != null && child !== false));
  return node;
}

/** Set a text only if it differs, so that nothing is drawn or read out again. */
export function setText(node, text) {
  const wanted = text == null ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Have `parent` hold one child for each item, made once for each key and kept where it is, focus and all. */
export function keyed(parent, items, key, make, update = () => {}) {
  const old = parent.keyedNodes || new Map(), now = new Map(items.map(item => [String(key(item)), item]));
  for (const [id, node] of old) if (!now.has(id)) node.remove();
  let place = parent.firstChild;
  for (const [id, item] of now) {
    const node = old.get(id) || make(item);
    update(node, item);
    now.set(id, node);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  parent.keyedNodes = now;
}

// Formats: one locale, the page's

const NUMBER = [0, 1, 2].map(digits => new Intl.NumberFormat("en", {maximumFractionDigits: digits}));
const FIXED = [0, 1, 2].map(digits => new Intl.NumberFormat("en", {minimumFractionDigits: digits, maximumFractionDigits: digits}));
export const NONE = "–";
const known = value => typeof value === "number" && Number.isFinite(value);

export const number = (value, digits = 0) => known(value) ? NUMBER[digits].format(value) : NONE;
export const fixed = (value, digits = 2) => known(value) ? FIXED[digits].format(value) : NONE;
/** Three digits or so, whatever the size. */
export const brief = value => !known(value) ? NONE : Math.abs(value) >= 100 ? number(value) : Math.abs(value) >= 10 ? number(value, 1) : number(value, 2);
export const percent = (value, digits = 0) => known(value) ? FIXED[digits].format(100 * value) + " %" : NONE;
export const milliseconds = value => !known(value) ? NONE : value >= 10000 ? number(value / 1000, 1) + " s" : number(value) + " ms";

const two = value => String(value).padStart(2, "0");
/** Seconds as 1:02:03. */
export function clock(seconds) {
  if (!known(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds)), hours = Math.floor(whole / 3600);
  return `${hours}:${two(Math.floor(whole % 3600 / 60))}:${two(whole % 60)}`;
}
/** Seconds as a duration in its two largest units. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 10) return number(seconds, 1) + " s";
  if (seconds < 100) return number(seconds) + " s";
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return minutes + " min";
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${two(minutes % 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
/** How long ago, in words. */
export const ago = seconds => !known(seconds) ? NONE : seconds < 2 ? "just now" : duration(Math.floor(seconds)) + " ago";
/** The local time of day of Unix seconds. */
export function timeOfDay(unixS, seconds = true) {
  const date = new Date(1000 * unixS);
  return `${two(date.getHours())}:${two(date.getMinutes())}` + (seconds ? `:${two(date.getSeconds())}` : "");
}

// Requests. A token comes in the fragment (#token=...), which is sent to nobody, and stays in this tab.

const TOKEN = "rl-scaler-token";
let given = "";
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  setToken(fragment.get("token"));
  history.replaceState(null, "", location.pathname + location.search);
}

export function setToken(token) {
  given = token;
  try { sessionStorage.setItem(TOKEN, token); } catch { /* kept for this page alone */ }
}

function token() {
  try { return given || sessionStorage.getItem(TOKEN) || ""; } catch { return given; }
}

function headers(more = {}) {
  return token() ? {...more, Authorization: "Bearer " + token()} : more;
}

/** A refusal in the server's own words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** JSON of a path relative to the page; a body is posted as JSON. Throws Refused, or TypeError without a server. */
export async function ask(path, body) {
  const options = body === undefined ? {headers: headers()}
    : {method: "POST", headers: headers({"Content-Type": "application/json"}), body: JSON.stringify(body)};
  const response = await fetch(path, {...options, cache: "no-store", credentials: "same-origin"});
  if (response.ok) return response.json();
  throw new Refused(response.status, await refusal(response));
}

async function refusal(response) {
  try {
    const {detail} = await response.json();
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map(told => told.msg || JSON.stringify(told)).join("; ");
    if (detail && detail.field) return `${detail.field}: ${detail.value} is not allowed, must be ${detail.allowed}`;
    return detail && detail.message ? detail.message : `the server answers ${response.status}`;
  } catch {
    return `the server answers ${response.status}`;
  }
}

// Server-sent events over fetch, which can send a header; EventSource cannot.

const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000, SILENT_MS = 45000;

/**
 * Follow a stream until `stop`: `onEvent(name, value)` for each event, `onState("live" | "off" | "token", message)`.
 * It is opened again after a break, and rests while the page is hidden.
 */
export function follow(path, onEvent, onState) {
  let stopped = false, wait = FIRST_WAIT_MS, timer = 0, aborter = null;

  async function open() {
    if (stopped || document.hidden) return;
    aborter = new AbortController();
    const mine = aborter;
    try {
      const response = await fetch(path, {headers: headers({Accept: "text/event-stream"}), cache: "no-store", signal: mine.signal});
      if (!response.ok) throw new Refused(response.status, await refusal(response));
      onState("live", "");
      await read(response.body, mine);
      throw new TypeError("the stream ended");
    } catch (error) {
      if (stopped || mine !== aborter || document.hidden) return;
      onState(error.status === 401 ? "token" : "off", error.status ? error.message : "");
      if (error.status === 401) return;
      timer = setTimeout(open, wait * (0.8 + 0.4 * Math.random()));
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }

  async function read(body, mine) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", silence = 0;
    try {
      for (;;) {
        clearTimeout(silence);
        silence = setTimeout(() => { reader.cancel(); mine.abort(); }, SILENT_MS);
        const {value, done} = await reader.read();
        if (done) return;
        text = (text + value).replaceAll("\r\n", "\n");
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) if (!stopped) take(part);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  function take(part) {
    let name = "message";
    const data = [];
    for (const line of part.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
    if (!data.length) return;
    wait = FIRST_WAIT_MS;
    onEvent(name, JSON.parse(data.join("\n")));
  }

  function shown() {
    clearTimeout(timer);
    const last = aborter;
    aborter = null;
    if (last) last.abort();
    open();
  }

  document.addEventListener("visibilitychange", shown);
  open();
  return {
    retry() { wait = FIRST_WAIT_MS; shown(); },
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
      if (aborter) aborter.abort();
    },
  };
}

/** The banner and the pill that say how the connection is. `retry` is called with a new token. */
export function connection(retry) {
  const banner = $("banner"), words = h("span"), pill = $("connection");
  const field = h("input", {type: "password", id: "token", autocomplete: "off", required: true});
  const form = h("form", {}, h("label", {for: "token"}, "Token"), field, h("button", {type: "submit"}, "Use it"));
  banner.append(words, form);
  form.addEventListener("submit", event => {
    event.preventDefault();
    setToken(field.value.trim());
    field.value = "";
    retry();
  });
  let last = 0;
  return {
    heard() { last = Date.now() / 1000; },
    state(state, message) {
      const live = state === "live";
      pill.dataset.state = live ? "live" : "off";
      setText(pill, live ? "Live" : state === "token" ? "Needs a token" : "Disconnected");
      const since = last ? `; what you see is from ${timeOfDay(last)}` : "";
      setText(words, live ? "" : state === "token" ? "This server needs a token."
        : message ? `The server refuses: ${message}` : `Disconnected${since}. Trying again.`);
      form.hidden = state !== "token";
      banner.hidden = live;
    },
  };
}

/** The button that switches between light and dark; the choice is remembered. */
export function themeButton(button, changed = () => {}) {
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => {
    button.replaceChildren(dark() ? "Light" : "Dark", h("span", {class: "roomy"}, " theme"));
    changed();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page alone */ }
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

const SPOKEN_EVERY_MS = 20000;

/** Says things to screen readers, politely and no more often than every 20 s unless they are `urgent`. */
export function speaker(node) {
  let spoken = Date.now();
  return (text, urgent = false) => {
    if (!urgent && Date.now() - spoken < SPOKEN_EVERY_MS) return;
    spoken = Date.now();
    setText(node, text);
  };
}

/** Calls `work` at most every `everyMs`, the last call always. */
export function throttled(work, everyMs) {
  let timer = 0, last = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => { timer = 0; last = Date.now(); work(); }, Math.max(0, last + everyMs - Date.now()));
  };
}

/** A bar with its numbers: `meter.set(used, total, text)`. */
export function meter(label, name, kind = "") {
  const fill = h("div", {class: "fill"}), value = h("span", {class: "value"});
  const node = h("div", {class: "meter " + kind, role: "meter", "aria-label": name, "aria-valuemin": 0},
    h("span", {class: "label"}, label), h("div", {class: "track"}, fill), value);
  node.set = (used, total, text) => {
    const share = total > 0 ? Math.min(1, Math.max(0, used / total)) : 0;
    fill.style.width = (100 * share).toFixed(1) + "%";
    node.toggleAttribute("data-full", share >= 0.999);
    node.setAttribute("aria-valuemax", total);
    node.setAttribute("aria-valuenow", Math.min(used, total));
    node.setAttribute("aria-valuetext", text);
    setText(value, text);
  };
  return node;
}
