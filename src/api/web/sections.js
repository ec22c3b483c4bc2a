// The sections of the page: from what the node has said to elements.
//
// Owns: what is shown of each part of a node, and in which words. Decides nothing about what is asked for but which versions
// are on display. Every text that comes from the node goes through `h`, which makes text of it and nothing else.

import { h, s } from "./dom.js";
import { ago, count, moment, peer, percent, rate, short, size, some, span } from "./text.js";

/** Datasets and versions that are shown unless the reader asks for more. */
const DATASETS = 200;
const VERSIONS = 8;
/** Datasets from which on a filter is offered. */
const FILTER = 6;
/** Peers in the table. */
const PEERS = 50;
const RATES_WIDTH = 240;
const RATES_HEIGHT = 40;

function table(name, columns, rows) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((row) => {
    const cells = row.cells.map((cell, at) =>
      h("td", { class: columns[at][1], "data-label": columns[at][0] }, h("div", {}, cell)),
    );
    return [h("tr", { "data-key": row.key }, cells), row.below ?? null];
  });
  return h(
    "table",
    {},
    h("caption", { class: "hidden" }, name),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, body),
  );
}

function empty(...words) {
  return h("p", { class: "empty" }, words);
}

function id(text, shown) {
  return h("code", { title: text }, shown);
}

function bar(share, kind, label) {
  const wide = Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10;
  return s(
    "svg",
    { class: `meter ${kind}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("rect", { class: "rest", width: 100, height: 6 }),
    s("rect", { class: "part", width: wide, height: 6 }),
  );
}

// Alerts

export function alerts(known) {
  if (!known.gone) return found(known.status);
  const say = (command) => h("code", {}, command);
  const text = ["The node does not answer: what is below was so before. On its machine, ", say("bcai status"), " and ", say("bcai doctor"), " say more."];
  const before = known.status.alerts.length > 0 ? found(known.status) : [];
  return [h("p", { class: "fine gone", role: "status" }, ...text), ...before];
}

/** What the node says that is wrong. */
function found(status) {
  const marks = { info: "i", warning: "!", error: "!!", critical: "!!!" };
  const noted = status.alerts_acknowledged;
  const more = noted > 0 ? h("p", { class: "quiet" }, `${some(noted, "alert")} acknowledged; bcai alerts shows all.`) : null;
  if (status.alerts.length === 0) {
    return [h("p", { class: "fine", role: "status" }, h("span", { class: "mark" }, "✓"), " Nothing is wrong."), more];
  }
  const items = status.alerts.map((alert) =>
    h(
      "li",
      { class: alert.severity, "data-key": alert.id },
      h("span", { class: "mark", "aria-hidden": "true" }, marks[alert.severity]),
      h(
        "div",
        {},
        h("p", { class: "what" }, h("strong", {}, alert.severity), " ", alert.text),
        h("p", { class: "remedy" }, alert.remedy),
        h("p", { class: "quiet" }, h("code", {}, alert.id), ` · since ${ago(alert.first_ms).replace(" ago", "")}`),
      ),
    ),
  );
  return [h("ul", { class: "alerts", role: "alert" }, items), more];
}

// At a glance

function tile(title, value, below, more = null) {
  return h(
    "div",
    { class: "tile", "data-key": title },
    h("p", { class: "title" }, title),
    h("p", { class: "value" }, value),
    h("p", { class: "quiet" }, below),
    more,
  );
}

/** The rates of the last minutes, what comes above the line and what goes below it. */
function rates(history) {
  const top = Math.max(1, ...history.map((now) => Math.max(now.in, now.out)));
  const middle = RATES_HEIGHT / 2;
  const area = (of, sign) => {
    const step = RATES_WIDTH / Math.max(1, history.length - 1);
    const points = history.map((now, at) => `${(at * step).toFixed(1)},${(middle - (sign * of(now) * middle) / top).toFixed(1)}`);
    const end = (Math.max(0, history.length - 1) * step).toFixed(1);
    return `0,${middle} ${points.join(" ")} ${end},${middle}`;
  };
  return s(
    "svg",
    {
      class: "rates",
      viewBox: `0 0 ${RATES_WIDTH} ${RATES_HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `Rates of the last minutes, at most ${rate(top)}`,
    },
    s("polygon", { class: "in", points: area((now) => now.in, 1) }),
    s("polygon", { class: "out", points: area((now) => now.out, -1) }),
    s("line", { x1: 0, x2: RATES_WIDTH, y1: middle, y2: middle }),
  );
}

export function overview(known) {
  const { status, datasets } = known;
  const { cache } = status;
  const versions = datasets.reduce((sum, dataset) => sum + dataset.versions.length, 0);
  const connected = status.peers.filter((other) => other.state === "connected").length;
  const network = status.networks.find((one) => one.default) ?? status.networks[0];
  const now = known.rates.at(-1) ?? { in: 0, out: 0 };
  const head = network?.head_age_s;
  return [
    tile("Datasets", count(datasets.length), some(versions, "version")),
    tile("Mounts", count(status.mounts.length), size(status.mounts.reduce((sum, mount) => sum + mount.bytes, 0))),
    tile(
      "Cache hits",
      cache.hit_ratio === null ? "–" : percent(cache.hit_ratio, 1),
      `${size(cache.saved_bytes)} did not have to be fetched`,
    ),
    tile("Peers", count(connected), `connected, of ${count(status.peers.length)} known`),
    tile(
      "Height",
      network ? count(network.height) : "–",
      !network ? "in no network" : head === null ? "the log is empty" : `newest block ${span(head)} old`,
    ),
    tile("Memory", size(status.resident_bytes), `process ${status.pid}`),
    h(
      "div",
      { class: "tile wide", "data-key": "rates" },
      h("p", { class: "title" }, "Peers, now"),
      h("p", { class: "value" }, h("span", { class: "in" }, `↓ ${rate(now.in)}`), " ", h("span", { class: "out" }, `↑ ${rate(now.out)}`)),
      rates(known.rates),
    ),
  ];
}

// Datasets

function keyOf(dataset) {
  return `${dataset.genesis}/${dataset.name}`;
}

function matching(known, view) {
  const wanted = view.filter.trim().toLowerCase();
  return known.datasets.filter((dataset) => dataset.name.toLowerCase().includes(wanted));
}

function versionsOf(dataset, view) {
  const newest = [...dataset.versions].sort((one, other) => other.height - one.height);
  return view.all.has(keyOf(dataset)) ? newest : newest.slice(0, VERSIONS);
}

/** Network and height of each version on display, whose certificates are wanted. */
export function shownVersions(known, view) {
  const open = matching(known, view).slice(0, DATASETS).filter((dataset) => view.open.has(keyOf(dataset)));
  return open.flatMap((dataset) =>
    versionsOf(dataset, view).map((version) => ({ network: dataset.genesis, height: version.height })),
  );
}

function signers(certificate) {
  const seat = (one) =>
    h(
      "li",
      { class: one.signed ? "signed" : "absent" },
      h("span", { class: "mark", "aria-hidden": "true" }, one.signed ? "✓" : "–"),
      h(
        "div",
        {},
        h("code", {}, one.voter),
        h("span", { class: "quiet" }, ` weight ${count(one.weight)}${one.signed ? "" : ", is not in it"}`),
      ),
    );
  return [
    h(
      "p",
      {},
      `Height ${count(certificate.height)}, round ${certificate.round}, decided ${moment(certificate.time_ms)}: `,
      `${count(certificate.signed_weight)} of ${count(certificate.weight)} of the weight has signed the header `,
      h("code", {}, certificate.header),
      ".",
    ),
    h("ul", { class: "seats" }, certificate.seats.map(seat)),
  ];
}

function version(known, view, dataset, one) {
  const certificate = known.certificates.get(`${dataset.genesis}/${one.height}`);
  const key = `${keyOf(dataset)}@${one.version}`;
  const shown = certificate && view.certificate.has(key);
  const signed = certificate?.seats.filter((seat) => seat.signed).length;
  const button = certificate
    ? h(
        "button",
        { type: "button", "data-action": "certificate", "data-of": key, "aria-expanded": shown ? "true" : "false" },
        `${signed} of ${certificate.seats.length}, ${percent(certificate.signed_weight, certificate.weight)}`,
      )
    : "…";
  const tags = one.tags.map((tag) => [" ", h("span", { class: "tag" }, tag)]);
  const yanked = one.yanked === null ? null : h("div", { class: "yanked" }, `withdrawn: ${one.yanked}`);
  return {
    key,
    cells: [
      [h("strong", { class: one.yanked === null ? "" : "struck" }, one.version), tags, yanked],
      size(one.bytes),
      h("span", { title: moment(one.time_ms) }, ago(one.time_ms)),
      count(one.height),
      button,
    ],
    below: shown ? h("tr", { class: "below", "data-key": `${key} certificate` }, h("td", { colspan: 5 }, signers(certificate))) : null,
  };
}

function dataset(known, view, one) {
  const key = keyOf(one);
  const open = view.open.has(key);
  const newest = one.versions.find((candidate) => candidate.tags.includes("latest")) ?? one.versions.at(-1);
  const columns = [["Version", "name"], ["Size", "number"], ["Published", "word"], ["Height", "number"], ["Signed by", "number"]];
  const hidden = one.versions.length - VERSIONS;
  const more =
    hidden > 0
      ? h(
          "button",
          { type: "button", "data-action": "all", "data-of": key },
          view.all.has(key) ? "Show fewer" : `Show ${count(hidden)} older`,
        )
      : null;
  return h(
    "details",
    { "data-key": key, open },
    h(
      "summary",
      {},
      h("strong", {}, one.name),
      h("span", { class: "quiet" }, newest ? ` ${newest.version} · ${size(newest.bytes)} · ${some(one.versions.length, "version")}` : ""),
    ),
    open
      ? [
          h("p", { class: "quiet" }, "of ", id(one.owner, short(one.owner)), ", in network ", id(one.genesis, short(one.genesis))),
          table(`Versions of ${one.name}`, columns, versionsOf(one, view).map((row) => version(known, view, one, row))),
          more,
        ]
      : null,
  );
}

export function datasets(known, view) {
  if (known.datasets.length === 0) {
    return [empty("No dataset is known here. ", h("code", {}, "bcai publish DIR NAME@VERSION"), " makes one.")];
  }
  const found = matching(known, view);
  const filter =
    known.datasets.length > FILTER
      ? h(
          "p",
          { class: "filter", "data-key": "filter" },
          h("label", { for: "filter" }, "Name "),
          h("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false" }),
          h("span", { class: "quiet" }, ` ${count(found.length)} of ${count(known.datasets.length)}`),
        )
      : null;
  const left = found.length > DATASETS ? h("p", { class: "quiet" }, `and ${count(found.length - DATASETS)} more: type a part of the name`) : null;
  return [filter, ...found.slice(0, DATASETS).map((one) => dataset(known, view, one)), left];
}

// Mounts

export function mounts(status) {
  if (status.mounts.length === 0) {
    return [empty("Nothing is mounted. ", h("code", {}, "bcai mount NAME@VERSION DIR"), " makes a dataset a directory.")];
  }
  const rows = status.mounts.map((mount) => ({
    key: mount.dir,
    cells: [
      h("code", { class: "path" }, mount.dir),
      [
        mount.version ? `${mount.version.name}@${mount.version.version}` : id(mount.snapshot, short(mount.snapshot)),
        mount.follows ? h("div", { class: "quiet" }, "follows the tag") : null,
      ],
      [size(mount.bytes), h("div", { class: "quiet" }, some(mount.inodes, "inode"))],
      [mount.io, h("div", { class: "quiet" }, mount.io_reason)],
      mount.fetch,
    ],
  }));
  return [table("Mounts", [["Directory"], ["Version", "name"], ["Size", "number"], ["Read by"], ["Fetch", "word"]], rows)];
}

// Cache

export function cache(status) {
  const { cache: now } = status;
  const of = now.max_bytes;
  const parts = [
    ["pinned", "Pinned", now.pinned_bytes],
    ["cached", "Cached", now.cached_bytes],
    ["files", "Copies for the kernel", now.blob_file_bytes],
  ];
  let at = 0;
  const drawn = parts.map(([kind, , bytes]) => {
    const wide = of > 0 ? (bytes * 100) / of : 0;
    at += wide;
    return s("rect", { class: kind, x: at - wide, width: wide, height: 10 });
  });
  const legend = parts.map(([kind, name, bytes]) => h("li", {}, h("span", { class: `swatch ${kind}` }), `${name} ${size(bytes)}`));
  const facts = [
    ["Found here", count(now.hits)],
    ["Waited for", count(now.misses)],
    ["Fetched", `${count(status.fetch.fetched)} (${size(status.fetch.fetched_bytes)})`],
    ["Evicted", `${count(now.evicted)} (${size(now.evicted_bytes)})`],
    ["Not cached", count(now.bypassed)],
    ["Tried again", count(status.fetch.retries)],
    ["Wrong bytes", count(status.fetch.corrupt)],
    ["Published here", size(now.published_bytes)],
    ["Served in place", size(now.in_place_bytes)],
    ["Not stored twice", size(now.deduplicated_bytes)],
    ["Scrubbed", status.scrub.whole_unix_ms === null ? "not yet" : ago(status.scrub.whole_unix_ms)],
    ["Repaired", count(status.scrub.repaired)],
    ["Damaged", count(status.scrub.damaged.length)],
  ];
  const pins = now.pins.map((pin) => ({
    key: `${pin.snapshot} ${pin.paths.join(" ")}`,
    cells: [
      [pin.reference, pin.paths.length > 0 ? h("div", { class: "quiet" }, pin.paths.join(" ")) : null],
      size(pin.bytes),
      pin.replica ? "as a replica" : pin.whole ? "held" : "being made",
    ],
  }));
  return [
    h("p", {}, h("strong", {}, size(now.used_bytes)), ` of ${size(of)} used, ${size(now.free_bytes)} until eviction`),
    s(
      "svg",
      {
        class: "stack",
        viewBox: "0 0 100 10",
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": parts.map(([, name, bytes]) => `${name} ${size(bytes)}`).join(", "),
      },
      s("rect", { class: "rest", width: 100, height: 10 }),
      drawn,
    ),
    h("ul", { class: "legend" }, legend),
    h("dl", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    pins.length > 0 ? [h("h3", {}, "Pins"), table("Pins", [["What", "name"], ["Size", "number"], ["State", "word"]], pins)] : null,
  ];
}

// Transfers

function running(job) {
  const bytes = job.bytes_total > 0;
  const [done, total] = bytes ? [job.bytes_done, job.bytes_total] : [job.files_done, job.files_total];
  const far = bytes ? `${size(done)} of ${size(total)}` : total > 0 ? `${count(done)} of ${some(total, "file")}` : some(done, "file");
  const left = job.eta_s === null ? null : `${span(job.eta_s)} left`;
  const facts = [job.phase, far, job.rate > 0 ? rate(job.rate) : null, left].filter(Boolean);
  return h(
    "li",
    { "data-key": `job ${job.id}` },
    h("p", {}, h("strong", {}, job.kind), " ", h("span", { class: "path" }, job.subject)),
    h("progress", { max: Math.max(1, total), value: total > 0 ? Math.min(done, total) : null, "aria-label": `${job.kind} ${job.subject}` }),
    h("p", { class: "quiet" }, facts.join(" · ")),
  );
}

function ended(job) {
  const words = { done: "done", failed: "failed", cancelled: "given up", interrupted: "cut off" };
  return h(
    "li",
    { class: job.outcome, "data-key": `job ${job.id} ${job.kind} ${job.subject}` },
    h("span", { class: "mark", "aria-hidden": "true" }, job.outcome === "done" ? "✓" : "✗"),
    h(
      "div",
      {},
      h("span", {}, `${job.kind} `, h("span", { class: "path" }, job.subject)),
      h("span", { class: "quiet" }, ` ${words[job.outcome]} ${ago(job.ended_ms)}`, job.seconds > 0 ? `, after ${span(job.seconds)}` : ""),
      job.error ? h("p", { class: "remedy" }, job.error.message, job.error.hint ? `: ${job.error.hint}` : "") : null,
    ),
  );
}

export function transfers(known) {
  const jobs = known.jobs ?? { running: known.status.transfers, ended: [] };
  const now = jobs.running.length > 0 ? h("ul", { class: "jobs", "data-key": "now" }, jobs.running.map(running)) : empty("No job runs.");
  const over =
    jobs.ended.length > 0
      ? [h("h3", { "data-key": "over" }, "Ended"), h("ul", { class: "ended", "data-key": "ended" }, jobs.ended.slice(0, 8).map(ended))]
      : [];
  return [now, ...over];
}

// Peers

export function peers(status) {
  const { limits, origins } = status;
  const rows = status.peers.slice(0, PEERS).map((other) => ({
    key: other.peer_id,
    cells: [
      [id(other.peer_id, peer(other.peer_id)), h("div", { class: "quiet path" }, other.address.replace(/\/p2p\/[^/]*$/, ""))],
      [
        h("span", { class: `grade ${other.state === "connected" ? other.grade : other.state}` }, other.state === "connected" ? other.grade : other.state),
        other.relayed ? h("div", { class: "quiet" }, "through a relay") : null,
      ],
      other.rtt_ms === null ? "–" : `${other.rtt_ms < 10 ? other.rtt_ms.toFixed(1) : Math.round(other.rtt_ms)} ms`,
      [h("span", { class: "in" }, size(other.bytes_in)), other.rate_in >= 1 ? h("div", { class: "quiet" }, rate(other.rate_in)) : null],
      [h("span", { class: "out" }, size(other.bytes_out)), other.rate_out >= 1 ? h("div", { class: "quiet" }, rate(other.rate_out)) : null],
      other.failures > 0 ? `${count(other.failures)} (${percent(other.failure_share, 1)})` : "none",
    ],
  }));
  const columns = [["Peer"], ["Health", "word"], ["Round trip", "number"], ["In", "number"], ["Out", "number"], ["Failures", "number"]];
  const limited = [
    limits.download === null ? null : `at most ${rate(limits.download)} in`,
    limits.upload === null ? null : `at most ${rate(limits.upload)} out`,
  ].filter(Boolean);
  const stores = origins.map((origin) => ({
    key: origin.url,
    cells: [h("code", { class: "path" }, origin.url), count(origin.requests), count(origin.failed), size(origin.bytes_in)],
  }));
  return [
    limited.length > 0 ? h("p", { class: "quiet" }, `Limits: ${limited.join(", ")}`) : null,
    rows.length > 0 ? table("Peers", columns, rows) : empty("No peer is known. ", h("code", {}, "bcai peers add ADDRESS"), " connects to one."),
    status.peers.length > PEERS ? h("p", { class: "quiet" }, `and ${count(status.peers.length - PEERS)} more: bcai peers`) : null,
    stores.length > 0 ? table("Origins", [["Origin"], ["Requests", "number"], ["Failed", "number"], ["In", "number"]], stores) : null,
  ];
}

// Validators

/** One column for each of the newest heights, as high as the weight that has signed it. */
function heights(rows) {
  const oldest = [...rows].reverse();
  const columns = oldest.map((row, at) => {
    const share = row.weight > 0 ? row.signed_weight / row.weight : 0;
    const high = Math.max(2, share * 36);
    const signed = row.seats.filter((seat) => seat.signed).length;
    const words = `height ${row.height}: ${signed} of ${row.seats.length} have signed, ${percent(row.signed_weight, row.weight)} of the weight; ${some(row.entries, "entry", "entries")}; round ${row.round}; ${moment(row.time_ms)}`;
    return s("rect", { class: row.entries > 0 ? "entries" : "heartbeat", x: at * 10 + 1, y: 40 - high, width: 8, height: high }, s("title", {}, words));
  });
  const wide = Math.max(320, oldest.length * 10);
  const quorum = 40 - (36 * 2) / 3;
  return s(
    "svg",
    { class: "heights", viewBox: `0 0 ${wide} 40`, role: "img", "aria-label": `Signatures of the newest ${rows.length} heights` },
    columns,
    s("line", { x1: 0, x2: wide, y1: quorum, y2: quorum }),
  );
}

function network(known, one) {
  const report = known.validators.get(one.genesis)?.report;
  const rows = known.heights.get(one.genesis)?.rows ?? [];
  const role = one.validator ? "this node decides it" : "this node follows it";
  const head = one.head_age_s === null ? "no block yet" : `newest block ${span(one.head_age_s)} old`;
  const title = h("h3", {}, id(one.genesis, short(one.genesis)), one.default ? [" ", h("span", { class: "tag" }, "default")] : null);
  const forked = one.forked ? h("p", { class: "remedy" }, one.forked) : null;
  if (!report) return h("div", { "data-key": one.genesis }, title, forked);
  const voting = report.validators.filter((row) => row.weight > 0 || row.next_weight > 0 || row.standing === "jailed");
  const body = voting.map((row) => ({
    key: row.voter,
    cells: [
      [id(row.voter, short(row.voter)), row.here ? [" ", h("span", { class: "tag" }, "this node")] : null],
      h("span", { class: row.here || row.connected ? "grade good" : "grade lost" }, row.here ? "here" : row.connected ? "connected" : "not connected"),
      [
        `${count(row.weight)} (${percent(row.weight, report.weight)})`,
        row.next_weight !== row.weight ? h("div", { class: "quiet" }, `next ${count(row.next_weight)}`) : null,
      ],
      [
        bar(row.could_sign > 0 ? row.signed / row.could_sign : 0, "", `${row.signed} of ${row.could_sign}`),
        h("span", { class: "quiet" }, `${row.signed} of ${row.could_sign}`),
      ],
      row.standing,
    ],
  }));
  return h(
    "div",
    { "data-key": one.genesis, class: "network" },
    title,
    forked,
    h(
      "p",
      {},
      `Height ${count(one.height)}, ${head}; ${role}. `,
      h("span", { class: "quiet" }, `Policy ${report.params.policy}, epoch ${count(report.epoch)}; ${count(report.quorum)} of ${count(report.weight)} of the weight decides.`),
    ),
    rows.length > 0
      ? [heights(rows), h("p", { class: "quiet" }, `Weight that has signed the newest ${some(rows.length, "height")}; the line is two thirds. Full columns have entries.`)]
      : null,
    table("Validators", [["Validator"], ["Seen", "word"], ["Weight", "number"], [`Signed, of ${report.counted}`], ["Standing", "word"]], body),
  );
}

export function validators(known) {
  const { networks } = known.status;
  if (networks.length === 0) {
    return [empty("This node is in no network. ", h("code", {}, "bcai init"), " makes one, ", h("code", {}, "bcai init --join URI"), " joins one.")];
  }
  return networks.map((one) => network(known, one));
}
