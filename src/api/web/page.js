// The page: asks the node, and has the sections drawn.
//
// Owns: when what is asked for, what the reader has opened, and what is said when no answer comes.
// Everything is asked of the node that served this page, by the routes that scripts use.

import { fill, h } from "./dom.js";
import * as sections from "./sections.js";
import { picture } from "./swarm.js";
import { peer, span } from "./text.js";

/** How often the node is asked while somebody looks, and while nobody does, in milliseconds. */
const EVERY = 2000;
const EVERY_HIDDEN = 30000;
/** Validators are counted from blocks, and who is connected changes slowly. */
const VALIDATORS_EVERY = 15000;
/** An answer that takes longer counts as none. */
const PATIENCE = 8000;
/** Rates that are remembered for the picture of the last minutes. */
const HISTORY = 120;
/** Certificates asked for at once: what the node allows. */
const BATCH = 64;

/** What the node has said. */
const known = {
  status: null,
  datasets: [],
  /** By network. */
  validators: new Map(),
  heights: new Map(),
  /** By network and height. They never change. */
  certificates: new Map(),
  jobs: null,
  rates: [],
  answered: 0,
  failure: null,
  // Whether even its status was not to be had: then nothing is.
  gone: false,
};

/** What the reader has asked to see. */
const view = {
  filter: "",
  open: new Set(),
  all: new Set(),
  certificate: new Set(),
  width: 0,
};

async function ask(route) {
  const response = await fetch(route, { signal: AbortSignal.timeout(PATIENCE) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.message ?? `the node answered ${response.status}`);
  return body;
}

/** What tells whether a log has gone on. */
function heads(status) {
  return JSON.stringify(status.networks.map((network) => [network.genesis, network.height]));
}

async function refresh() {
  known.gone = true;
  const status = await ask("/v1/status");
  known.gone = false;
  const before = known.status ? heads(known.status) : null;
  known.status = status;
  const now = { at: Date.now(), in: 0, out: 0 };
  for (const other of status.peers) {
    now.in += other.rate_in;
    now.out += other.rate_out;
  }
  known.rates = [...known.rates, now].slice(-HISTORY);
  if (heads(status) !== before) known.datasets = await ask("/v1/datasets");
  for (const { genesis, height } of status.networks) {
    const network = encodeURIComponent(genesis);
    const isNew = known.heights.get(genesis)?.height !== height;
    const counted = known.validators.get(genesis);
    if (isNew || !counted || now.at - counted.at > VALIDATORS_EVERY) {
      const report = await ask(`/v1/validators?network=${network}`);
      known.validators.set(genesis, { at: now.at, report });
    }
    if (isNew) {
      const rows = height > 0 ? await ask(`/v1/certificates?network=${network}`) : [];
      known.heights.set(genesis, { height, rows });
    }
  }
  await fetchCertificates();
}

/** Those of the versions that are shown. */
async function fetchCertificates() {
  const wanted = new Map();
  for (const { network, height } of sections.shownVersions(known, view)) {
    if (known.certificates.has(`${network}/${height}`)) continue;
    wanted.set(network, (wanted.get(network) ?? new Set()).add(height));
  }
  for (const [network, all] of wanted) {
    const heights = [...all];
    for (let from = 0; from < heights.length; from += BATCH) {
      const list = heights.slice(from, from + BATCH).join(",");
      const rows = await ask(`/v1/certificates?network=${encodeURIComponent(network)}&heights=${list}`);
      for (const row of rows) known.certificates.set(`${network}/${row.height}`, row);
    }
  }
}

function body(id) {
  return document.querySelector(`#${id} > .body`);
}

function draw() {
  drawState();
  if (!known.status) return;
  const { status } = known;
  const name = status.networks.find((network) => network.default)?.genesis ?? status.networks[0]?.genesis;
  fill(document.getElementById("node"), [
    h("span", { title: status.peer_id }, `node ${peer(status.peer_id)}`),
    name ? h("span", { title: name }, ` · network ${name.slice(0, 10)}`) : " · in no network",
    ` · version ${status.version} · up ${span(status.uptime_s)}`,
  ]);
  fill(document.getElementById("alerts"), sections.alerts(known));
  fill(document.getElementById("overview"), sections.overview(known));
  fill(body("datasets"), sections.datasets(known, view));
  fill(body("mounts"), sections.mounts(status));
  fill(body("cache"), sections.cache(status));
  fill(body("transfers"), sections.transfers(known));
  fill(body("validators"), sections.validators(known));
  drawSwarm();
  document.getElementById("main").setAttribute("aria-busy", "false");
}

function drawSwarm() {
  const place = body("swarm");
  // What is drawn in pixels depends on the room there is.
  view.width = place.clientWidth;
  fill(place, [picture(known.status, view.width), ...sections.peers(known.status)]);
}

function drawState() {
  const live = document.getElementById("live");
  const lost = known.failure !== null;
  document.documentElement.classList.toggle("lost", lost);
  live.className = lost ? "bad" : known.status ? "good" : "";
  const since = known.answered ? ` for ${span((Date.now() - known.answered) / 1000)}` : "";
  const text = lost ? `no answer${since}` : known.status ? "live" : "connecting";
  fill(live, [h("span", { class: "dot" }), ` ${text}`]);
  live.title = lost ? `${known.failure}. Is the node running? bcai status` : "";
}

let timer = null;
let asking = false;

async function turn() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    await refresh();
    known.answered = Date.now();
    known.failure = null;
    draw();
  } catch (error) {
    known.failure = error.message;
    draw();
  } finally {
    // Whatever could not be drawn, the next answer is asked for.
    asking = false;
    timer = setTimeout(turn, document.hidden ? EVERY_HIDDEN : EVERY);
  }
}

/** Jobs are told by the node as they go on; the browser connects again by itself. */
function watchJobs() {
  const events = new EventSource("/v1/jobs/events");
  events.addEventListener("jobs", (event) => {
    known.jobs = JSON.parse(event.data);
    if (known.status) fill(body("transfers"), sections.transfers(known));
  });
  addEventListener("pagehide", () => events.close());
}

function toggle(set, key) {
  if (!set.delete(key)) set.add(key);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  const sets = { certificate: view.certificate, all: view.all };
  toggle(sets[button.dataset.action], button.dataset.of);
  draw();
  turn();
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "filter") return;
  view.filter = event.target.value;
  draw();
});

document.addEventListener(
  "toggle",
  (event) => {
    const { key } = event.target.dataset;
    if (event.target.nodeName !== "DETAILS" || !key || event.target.open === view.open.has(key)) return;
    toggle(view.open, key);
    draw();
    turn();
  },
  true,
);

document.addEventListener("visibilitychange", () => document.hidden || turn());
new ResizeObserver(() => {
  if (known.status && body("swarm").clientWidth !== view.width) drawSwarm();
}).observe(body("swarm"));

watchJobs();
turn();
