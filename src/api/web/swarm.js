// The swarm as a picture: this node in the middle, its peers around it.
//
// Owns: where a peer is drawn, and what that says: the farther out, the longer the round trip; the thicker its lines, the
// more is on its way; its colour is its grade. The table below the picture says the same in words.

import { s } from "./dom.js";
import { peer, rate, some } from "./text.js";

/** Peers that are drawn, in a wide and a narrow picture. */
const DRAWN = 32;
const DRAWN_NARROW = 14;
const NARROW = 520;
/** Round trips of the rings, in milliseconds. What is beyond the last is drawn on it. */
const RINGS = [1, 10, 100, 1000];
/** Share of the picture that the innermost ring takes. */
const INNER = 0.3;
/** Lines of so many bytes a second and more are as thick as any. */
const FAST = 100 * 2 ** 20;

/** How far out a round trip is drawn, from 0 to 1. */
function distance(ms) {
  const far = Math.log10(Math.min(1000, Math.max(1, ms))) / 3;
  return INNER + (1 - INNER) * far;
}

/** How thick a rate is drawn. */
function thickness(bytes) {
  if (bytes < 1) return 0;
  return 1 + (6 * Math.log10(1 + bytes)) / Math.log10(FAST);
}

function chosen(peers, most) {
  const worth = (one) => (one.state === "connected" ? 1e15 : 0) + one.rate_in + one.rate_out + one.score;
  const best = [...peers].sort((one, other) => worth(other) - worth(one)).slice(0, most);
  // Always in the same order, so that nobody moves when another comes closer.
  return best.sort((one, other) => (one.peer_id < other.peer_id ? -1 : 1));
}

function line(kind, from, to, aside, bytes) {
  const thick = thickness(bytes);
  if (thick === 0) return null;
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const dx = ((to.y - from.y) / length) * aside;
  const dy = (-(to.x - from.x) / length) * aside;
  return s("line", {
    class: `flow ${kind}`,
    x1: (from.x + dx).toFixed(1),
    y1: (from.y + dy).toFixed(1),
    x2: (to.x + dx).toFixed(1),
    y2: (to.y + dy).toFixed(1),
    "stroke-width": thick.toFixed(1),
  });
}

function drawn(one, at, middle, narrow) {
  const connected = one.state === "connected";
  const kind = connected ? one.grade : one.state;
  const words = [
    `${one.peer_id}: ${connected ? one.grade : one.state}`,
    one.relayed ? "through a relay" : null,
    one.rtt_ms === null ? null : `${one.rtt_ms.toFixed(1)} ms`,
    `in ${rate(one.rate_in)}, out ${rate(one.rate_out)}`,
  ];
  // Where there is little room, the table has to say it.
  const flows = narrow ? [] : [
    one.rate_in >= 1 ? `↓${rate(one.rate_in)}` : null,
    one.rate_out >= 1 ? `↑${rate(one.rate_out)}` : null,
  ].filter(Boolean);
  const below = at.y >= middle.y ? 1 : -1;
  const anchor = at.x < 70 ? "start" : at.x > 2 * middle.x - 70 ? "end" : "middle";
  const text = (dy, kind, what) => s("text", { class: kind, x: at.x.toFixed(1), y: (at.y + dy).toFixed(1), "text-anchor": anchor }, what);
  const side = thickness(one.rate_out) / 2 + thickness(one.rate_in) / 2 > 0 ? 0.5 : 0;
  return s(
    "g",
    { "data-key": one.peer_id },
    s("title", {}, words.filter(Boolean).join(", ")),
    connected
      ? s("line", {
          class: one.relayed ? "link relayed" : "link",
          x1: middle.x,
          y1: middle.y,
          x2: at.x.toFixed(1),
          y2: at.y.toFixed(1),
        })
      : null,
    line("in", at, middle, -side - thickness(one.rate_in) / 2, one.rate_in),
    line("out", middle, at, -side - thickness(one.rate_out) / 2, one.rate_out),
    s("circle", { class: `peer ${kind}`, cx: at.x.toFixed(1), cy: at.y.toFixed(1), r: narrow ? 7 : 8 }),
    text(below > 0 ? 21 : -13, "name", peer(one.peer_id)),
    flows.length > 0 ? text(below > 0 ? 34 : -26, "rate", flows.join(" ")) : null,
  );
}

/** A picture as wide as there is room for. */
export function picture(status, width) {
  const wide = Math.max(240, width);
  const narrow = wide < NARROW;
  const high = Math.round(Math.min(460, Math.max(310, wide * 0.7)));
  const middle = { x: wide / 2, y: high / 2 };
  const reach = { x: wide / 2 - 44, y: high / 2 - 42 };
  const peers = chosen(status.peers, narrow ? DRAWN_NARROW : DRAWN);
  const ring = (ms) => {
    const far = distance(ms);
    return [
      s("ellipse", { class: "ring", cx: middle.x, cy: middle.y, rx: (reach.x * far).toFixed(1), ry: (reach.y * far).toFixed(1) }),
      s("text", { class: "scale", x: middle.x, y: (middle.y - reach.y * far - 3).toFixed(1), "text-anchor": "middle" }, ms < 1000 ? `${ms} ms` : "1 s"),
    ];
  };
  const place = (one, at) => {
    // Between the captions of the rings, which stand straight above.
    const angle = ((at + 0.5) / peers.length) * 2 * Math.PI - Math.PI / 2;
    const far = one.state === "connected" ? distance(one.rtt_ms ?? 1000) : 1;
    return { x: middle.x + Math.cos(angle) * reach.x * far, y: middle.y + Math.sin(angle) * reach.y * far };
  };
  const connected = status.peers.filter((one) => one.state === "connected").length;
  const left = status.peers.length - peers.length;
  return s(
    "svg",
    {
      class: "swarm",
      "data-key": "picture",
      viewBox: `0 0 ${wide} ${high}`,
      width: wide,
      height: high,
      role: "img",
      "aria-label": `This node and ${some(connected, "connected peer")}; the table below names them`,
    },
    RINGS.map(ring),
    peers.map((one, at) => drawn(one, place(one, at), middle, narrow)),
    s("circle", { class: "self", cx: middle.x, cy: middle.y, r: 15 }),
    s("text", { class: "self", x: middle.x, y: middle.y + 30, "text-anchor": "middle" }, "this node"),
    left > 0 ? s("text", { class: "scale", x: wide - 4, y: high - 5, "text-anchor": "end" }, `${left} more`) : null,
  );
}
