/* The report of one scenario, drawn from the JSON in this page. Everything that came from outside
   goes in as text, never as markup. */
(() => {
"use strict";
const R = JSON.parse(document.getElementById("report").textContent);
const $ = (id) => document.getElementById(id);
const END = R.series.at_ms.length ? R.series.at_ms[R.series.at_ms.length - 1] : R.ended_ms;
const SITES = R.sites.map((s) => s.name);
const color = (site) => `var(--s${SITES.indexOf(site) % 8})`;

/* ---- elements ---- */

function fill(e, attributes, children) {
  for (const [k, v] of Object.entries(attributes || {})) {
    if (k === "on") for (const [what, fn] of Object.entries(v)) e.addEventListener(what, fn);
    else if (v !== null && v !== undefined && v !== false) e.setAttribute(k, v);
  }
  for (const c of children) if (c !== null) e.append(c);
  return e;
}
const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/* ---- numbers ---- */

function time(ms) {
  const s = Math.floor(ms / 1000);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (s < 60) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s / 60} min`;
  const m = Math.floor(s / 60);
  if (m < 1440) return m % 60 ? `${Math.floor(m / 60)} h ${m % 60} min` : `${m / 60} h`;
  const h = Math.floor(m / 60);
  return h % 24 ? `${Math.floor(h / 24)} d ${h % 24} h` : `${h / 24} d`;
}
function bytes(n) {
  let unit = 0;
  for (; n >= 1000 && unit < 4; unit++) n /= 1000;
  return `${unit ? n.toFixed(1) : n} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}
function speed(bits) {
  if (!bits) return "unbounded";
  return bits >= 1e9 ? `${bits / 1e9} Gbit/s` : bits >= 1e6 ? `${bits / 1e6} Mbit/s` : `${bits / 1e3} kbit/s`;
}
const count = (n) => n.toLocaleString("en-US").replaceAll(",", " ");

/* ---- in short ---- */

function figure(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}
function short() {
  const good = R.failure === null;
  document.title = `${R.title || "Scenario"} - ClaudeFS`;
  $("title").textContent = R.title || "Scenario";
  $("about").textContent = R.about;
  $("verdict").textContent = good ? "every promise held" : "a promise was broken";
  const unseen = [R.answers_looked_at ? null : "answers in shared directories, for there are too many",
    R.order_looked_at ? null : "the order of operations at sites whose journal was trimmed before it was read"];
  const seen = R.answers_looked_at && R.order_looked_at;
  $("unseen").textContent = seen ? "" : `Not looked at: ${unseen.filter((x) => x !== null).join("; ")}.`;
  $("unseen").hidden = seen;
  $("verdict").classList.add(good ? "good" : "bad");
  $("failure").textContent = R.failure || "";
  $("failure").hidden = good;
  const heals = R.heals.filter((h) => h.caught_up_after_ms !== null);
  const last = heals[heals.length - 1];
  const sum = (list, key) => list.reduce((n, x) => n + x[key], 0);
  $("figures").append(
    figure("caught up after the last heal", last ? time(last.caught_up_after_ms) : "no heal"),
    figure("equal after the work ended", R.equal_after_ms === null ? "never" : time(R.equal_after_ms)),
    figure("largest lag", time(Math.max(0, ...R.links.map((l) => l.lag_max_ms)))),
    figure("conflicts", count(R.conflicts.count)),
    figure("calls answered", count(sum(R.sites, "calls"))),
    figure("of which changes", count(sum(R.sites, "changes"))),
    figure("over the links", bytes(sum(R.links, "bytes"))));
  $("foot").textContent = `Simulated on the real code. Seed ${R.seed}, trace ${R.trace}` +
    (R.shorter > 1 ? `, ${count(R.shorter)} times shorter than described.` : ".");
}

/* ---- the timeline ---- */

const LANE = 52, ROW = 20, CURVES = 230, TOP = 8, AXIS = 26;
const LAG_MIN = 10;
const STEPS = [100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5,
  108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];
const view = { from: 0, to: END, cursor: null, picked: null, hidden: new Set() };
let shape = null; /* what the last drawing measured */

const pairs = (() => {
  const seen = new Map();
  for (const c of R.cuts) {
    const key = [c.from, c.to].sort((a, b) => SITES.indexOf(a) - SITES.indexOf(b)).join(" – ");
    if (!seen.has(key)) seen.set(key, []);
    seen.get(key).push(c);
  }
  return [...seen].map(([name, cuts]) => ({ name, cuts }));
})();
const sides = R.conflicts.list.flatMap((c, i) => {
  const known = c.sides.filter((s) => SITES.includes(s.site));
  return known.length ? known.map((s) => ({ conflict: i, site: s.site, role: s.role, at: s.at_ms ?? c.noticed_at_ms }))
    : [{ conflict: i, site: c.noticed_by, role: "other", at: c.noticed_at_ms }];
}).sort((a, b) => a.at - b.at);

const lagMax = Math.max(1000, ...R.links.map((l) => l.lag_max_ms));
const lagHeight = (ms) =>
  Math.log(Math.max(ms, LAG_MIN) / LAG_MIN) / Math.log(lagMax * 1.3 / LAG_MIN) * (CURVES - 14);

function measure() {
  const width = Math.max(300, $("timeline").clientWidth);
  const names = Math.max(...SITES.map((s) => 22 + 8.4 * s.length), ...pairs.map((p) => 8 + 6.9 * p.name.length));
  const left = Math.min(Math.max(84, names + 8), width * 0.24);
  const rows = pairs.length * ROW + (pairs.length ? 12 : 0);
  const curves = TOP + SITES.length * LANE + rows + 20;
  return { width, left, right: width - 10, rows: TOP + SITES.length * LANE + 10, curves,
    base: curves + CURVES, height: curves + CURVES + AXIS };
}
const x = (ms) => shape.left + (ms - view.from) / (view.to - view.from) * (shape.right - shape.left);
const at = (px) => view.from + (px - shape.left) / (shape.right - shape.left) * (view.to - view.from);
const laneTop = (site) => TOP + SITES.indexOf(site) * LANE;

/* A span clipped to what is seen, or null. */
function clip(begin, end) {
  const a = Math.max(begin, view.from), b = Math.min(end, view.to);
  return a > b || (a === b && begin !== end) ? null : { x: x(a), width: Math.max(1.5, x(b) - x(a)) };
}

function axis(out) {
  const fits = (shape.right - shape.left) / 95;
  const step = STEPS.find((s) => (view.to - view.from) / s <= fits) || STEPS[STEPS.length - 1];
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step)
    out.append(svg("line", { class: "grid", x1: x(t), x2: x(t), y1: TOP, y2: shape.base }),
      svg("text", { x: x(t), y: shape.base + 17, "text-anchor": x(t) > shape.right - 25 ? "end" : "middle" }, t === 0 ? "0" : time(t)));
}
function lanes(out) {
  for (const site of SITES) {
    const y = laneTop(site);
    out.append(svg("rect", { class: "lane", x: shape.left, y, width: shape.right - shape.left, height: LANE - 8, rx: 5 }),
      svg("circle", { cx: 9, cy: y + LANE / 2 - 4, r: 5, fill: color(site) }),
      svg("text", { class: "site", x: 22, y: y + LANE / 2 + 1 }, site));
    const cut = R.cuts.filter((c) => c.from === site || c.to === site);
    for (const c of merged(cut)) {
      const s = clip(c.begin, c.end);
      if (s) out.append(svg("rect", { class: "cut", x: s.x, y, width: s.width, height: LANE - 8 }));
    }
    for (const d of R.downs.filter((q) => q.site === site)) {
      const s = clip(d.begin_ms, d.end_ms);
      if (s) out.append(svg("rect", { class: "down", x: s.x, y: y + 1, width: s.width, height: LANE - 10 },
        svg("title", {}, `${site} is down${d.for_ever ? " for ever" : ""} from ${time(d.begin_ms)} to ${time(d.end_ms)}`)));
    }
  }
}
/* Cuts of several directions that overlap are one shade. */
function merged(cuts) {
  const out = [];
  for (const c of [...cuts].sort((a, b) => a.begin_ms - b.begin_ms)) {
    const last = out[out.length - 1];
    if (last && c.begin_ms <= last.end) last.end = Math.max(last.end, c.end_ms);
    else out.push({ begin: c.begin_ms, end: c.end_ms });
  }
  return out;
}
/* One thin row for each pair that is ever cut; each direction has its own half of it. */
function rows(out) {
  pairs.forEach((p, i) => {
    const y = shape.rows + i * ROW + ROW / 2;
    const first = p.name.split(" – ")[0];
    out.append(svg("text", { x: shape.left - 8, y: y + 4, "text-anchor": "end" },
      p.name.length * 6.6 > shape.left - 8 ? `${p.name.slice(0, Math.floor((shape.left - 14) / 6.8))}…` : p.name,
      svg("title", {}, p.name)));
    for (const half of [-3, 3])
      out.append(svg("line", { class: "line", x1: shape.left, x2: shape.right, y1: y + half, y2: y + half }));
    for (const c of p.cuts) {
      const s = clip(c.begin_ms, c.end_ms), dy = c.from === first ? -3 : 3;
      if (s) out.append(svg("line", { class: "cutline", x1: s.x, x2: s.x + s.width, y1: y + dy, y2: y + dy },
        svg("title", {}, `${c.from} → ${c.to} is cut from ${time(c.begin_ms)} to ${time(c.end_ms)}`)));
    }
  });
}
function curves(out) {
  for (const ms of [10, 100, 1e3, 1e4, 6e4, 6e5, 36e5, 864e5, 6048e5]) {
    const y = shape.base - lagHeight(ms);
    if (ms > lagMax * 1.3) break;
    out.append(svg("line", { class: "grid", x1: shape.left, x2: shape.right, y1: y, y2: y }),
      svg("text", { x: shape.left - 8, y: y + 4, "text-anchor": "end" }, time(ms).replace(/\.0+ /, " ")));
  }
  out.append(svg("text", { class: "site", x: 0, y: shape.curves + 4 }, "Lag"));
  for (const c of merged(R.cuts)) {
    const s = clip(c.begin, c.end);
    if (s) out.append(svg("rect", { class: "cut", x: s.x, y: shape.curves, width: s.width, height: CURVES }));
  }
  for (const h of R.heals)
    if (h.caught_up_after_ms !== null && h.at_ms >= view.from && h.at_ms <= view.to)
      out.append(svg("line", { class: "heal", x1: x(h.at_ms), x2: x(h.at_ms), y1: shape.curves, y2: shape.base },
        svg("title", {}, `healed at ${time(h.at_ms)}: caught up after ${time(h.caught_up_after_ms)}`)));
  const box = svg("svg", { x: shape.left, y: shape.curves, width: shape.right - shape.left, height: CURVES + 2, overflow: "hidden" });
  for (const l of R.series.links) {
    if (view.hidden.has(`${l.from} ${l.to}`)) continue;
    let d = "", pen = "M";
    R.series.at_ms.forEach((t, i) => {
      const before = R.series.at_ms[i - 1] ?? t, after = R.series.at_ms[i + 1] ?? t;
      if (l.lag_ms[i] === null || after < view.from || before > view.to) { pen = "M"; return; }
      d += `${pen}${(x(t) - shape.left).toFixed(1)} ${(CURVES - lagHeight(l.lag_ms[i])).toFixed(1)}`;
      pen = "L";
    });
    box.append(svg("path", { class: "curve", d, stroke: color(l.from), "stroke-dasharray": dash(l) }));
  }
  out.append(box);
}
/* The colour is the sender's; the dashes are the receiver's, and keep two equal curves apart. */
function dash(l) {
  const dashes = ["none", "8 5", "2 4", "12 4 2 4", "16 5", "4 9", "1 6", "14 3 4 3"];
  return dashes[SITES.length < 3 ? SITES.indexOf(l.from) : SITES.indexOf(l.to)];
}

function happenings(out) {
  for (const e of R.events) {
    const thing = /is cut|is there again|isolated|rejoined/.test(e.what);
    if (thing || e.at_ms < view.from || e.at_ms > view.to) continue;
    const y = laneTop(e.site), px = x(e.at_ms);
    out.append(svg("path", { class: "event", d: `M${px - 6} ${y - 2}h12l-6 10z` }, svg("title", {}, `${time(e.at_ms)}: ${e.what}`)));
  }
}

/* ---- conflicts as marks ---- */

/* Marks of one lane and role that would lie on each other are one. */
function clusters() {
  const rule = $("rule").value, out = [], open = new Map();
  for (const s of sides) {
    if (s.at < view.from || s.at > view.to || (rule && String(R.conflicts.list[s.conflict].rule) !== rule)) continue;
    const kept = s.role === "kept", key = `${s.site} ${kept}`, last = open.get(key);
    if (last && x(s.at) - last.start < 19) { last.members.push(s); continue; }
    const c = { members: [s], kept, site: s.site, start: x(s.at), y: laneTop(s.site) + (kept ? 14 : 31) };
    open.set(key, c);
    out.push(c);
  }
  for (const c of out) {
    c.x = c.members.reduce((sum, m) => sum + x(m.at), 0) / c.members.length;
    c.r = Math.min(8, 4.5 + Math.log2(c.members.length));
  }
  return out.sort((a, b) => a.x - b.x || a.y - b.y);
}
function marks(out) {
  shape.clusters = clusters();
  shape.pair = svg("polyline", { class: "pair", points: "" });
  for (const c of shape.clusters) {
    const pick = () => select(c.members.map((m) => m.conflict));
    const attributes = { class: `conflict-mark ${c.kept ? "kept" : "other"}`, stroke: color(c.site),
      fill: c.kept ? color(c.site) : null, on: { click: pick, pointerenter: (e) => { if (e.pointerType === "mouse") pick(); } } };
    c.node = c.kept ? svg("circle", { cx: c.x, cy: c.y, r: c.r, ...attributes })
      : svg("path", { d: `M${c.x} ${c.y - c.r - 1}l${c.r + 1} ${c.r + 1}l${-c.r - 1} ${c.r + 1}l${-c.r - 1} ${-c.r - 1}z`, ...attributes });
    out.append(c.node);
    if (c.r > 6.4)
      out.append(svg("text", { class: `count ${c.kept ? "" : "other-count"}`, x: c.x, y: c.y + 4 },
        c.members.length > 99 ? "99+" : String(c.members.length)));
  }
  out.append(shape.pair);
  highlight();
}
/* The two sides of the picked conflict, and a line between them. */
function highlight() {
  const on = shape.clusters.filter((c) => c.members.some((m) => m.conflict === view.picked));
  for (const c of shape.clusters) c.node.classList.toggle("on", on.includes(c));
  shape.pair.setAttribute("points", on.length > 1 ? on.map((c) => `${c.x},${c.y}`).join(" ") : "");
}

function draw() {
  shape = measure();
  const out = svg("svg", { viewBox: `0 0 ${shape.width} ${shape.height}`, height: shape.height, role: "img",
    "aria-label": `Lanes of ${SITES.join(", ")}; partitions shaded; lag below; ${R.conflicts.count} conflicts` });
  out.append(svg("defs", {}, svg("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 7 }))));
  axis(out);
  lanes(out);
  rows(out);
  curves(out);
  happenings(out);
  shape.marks = svg("g", {});
  marks(shape.marks);
  shape.drag = svg("rect", { class: "drag", y: TOP, height: shape.base - TOP, width: 0 });
  shape.cursor = svg("line", { class: "cursor", y1: TOP, y2: shape.base, visibility: "hidden" });
  out.append(shape.marks, shape.drag, shape.cursor);
  $("timeline").replaceChildren(out);
  $("span").textContent = view.from === 0 && view.to === END ? `${time(END)} in all` : `${time(view.from)} to ${time(view.to)}`;
  $("whole").disabled = $("wider").disabled = view.from === 0 && view.to === END;
  cursor(view.cursor);
}
function marksAgain() {
  shape.marks.replaceChildren();
  marks(shape.marks);
}

/* ---- one moment ---- */

function sampleAt(ms) {
  const list = R.series.at_ms;
  let low = 0, high = list.length - 1;
  while (low < high) {
    const mid = Math.ceil((low + high) / 2);
    if (list[mid] <= ms) low = mid;
    else high = mid - 1;
  }
  return low;
}
function cursor(ms) {
  view.cursor = ms;
  const shown = ms !== null && ms >= view.from && ms <= view.to;
  shape.cursor.setAttribute("visibility", shown ? "visible" : "hidden");
  if (!shown) return;
  shape.cursor.setAttribute("x1", x(ms));
  shape.cursor.setAttribute("x2", x(ms));
  const i = sampleAt(ms), out = [el("b", {}, time(ms))];
  for (const l of R.series.links)
    if (!view.hidden.has(`${l.from} ${l.to}`))
      out.push(`  ·  ${l.from} → ${l.to}: `, l.lag_ms[i] === null ? "not known"
        : `${time(l.lag_ms[i])} behind${l.operations_to_go[i] ? `, ${count(l.operations_to_go[i])} to go` : ""}`);
  for (const s of R.series.sites) if (!s.up[i]) out.push(`  ·  ${s.name} is down`);
  $("moment").replaceChildren(...out);
}

function zoom(from, to) {
  const least = Math.max(200, END / 20000), middle = (from + to) / 2;
  const half = Math.min(END, Math.max(least, to - from)) / 2;
  view.from = Math.max(0, Math.min(middle - half, END - 2 * half));
  view.to = view.from + 2 * half;
  draw();
}
function scale(factor) {
  const middle = view.cursor !== null && view.cursor >= view.from && view.cursor <= view.to ? view.cursor
    : (view.from + view.to) / 2;
  const half = (view.to - view.from) * factor / 2;
  zoom(middle - half, middle + half);
}

function pointing() {
  const box = $("timeline");
  let start = null;
  const px = (e) => (e.clientX - box.getBoundingClientRect().left) * shape.width / box.clientWidth;
  const inside = (p) => Math.min(Math.max(p, shape.left), shape.right);
  box.addEventListener("pointerdown", (e) => { if (e.button === 0) start = inside(px(e)); });
  box.addEventListener("pointermove", (e) => {
    const p = inside(px(e));
    cursor(at(p));
    if (start !== null) {
      shape.drag.setAttribute("x", Math.min(start, p));
      shape.drag.setAttribute("width", Math.abs(p - start));
    }
  });
  const end = (e) => {
    if (start === null) return;
    const p = inside(px(e)), from = at(Math.min(start, p)), to = at(Math.max(start, p)), far = Math.abs(p - start) > 8;
    start = null;
    shape.drag.setAttribute("width", 0);
    if (e.type === "pointerup" && far) zoom(from, to);
  };
  box.addEventListener("pointerup", end);
  box.addEventListener("pointercancel", end);
  box.addEventListener("dblclick", () => zoom(0, END));
  box.addEventListener("keydown", keys);
}
function keys(e) {
  const step = (view.to - view.from) / (e.shiftKey ? 10 : 100);
  const moves = { ArrowLeft: -step, ArrowRight: step };
  const acts = { "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), 0: () => zoom(0, END),
    Home: () => move(0), End: () => move(END), n: () => next(1), p: () => next(-1) };
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (moves[e.key]) move((view.cursor ?? view.from) + moves[e.key]);
  else if (acts[e.key]) acts[e.key]();
  else return;
  e.preventDefault();
}
function move(ms) {
  const to = Math.min(END, Math.max(0, ms)), width = view.to - view.from;
  view.cursor = to;
  if (to < view.from) zoom(to, to + width);
  else if (to > view.to) zoom(to - width, to);
  else cursor(to);
}
/* The next mark to the right of the picked one, or to the left. */
function next(way) {
  const all = shape.clusters;
  const now = all.findIndex((c) => c.members.some((m) => m.conflict === view.picked));
  const to = all[now < 0 ? (way > 0 ? 0 : all.length - 1) : (now + way + all.length) % all.length];
  if (!to) return;
  select(to.members.map((m) => m.conflict));
  cursor(at(to.x));
}

/* ---- conflicts in words ---- */

function became(s) {
  const who = s.site || "somebody";
  if (s.kind === "removal") return `${who}: removed it`;
  return s.path === null ? `${who}: no name any more` : `${who}: now ${s.path}`;
}
function explained(c) {
  return el("div", { class: "picked" }, el("span", { class: "path" }, c.path || "?"), " ",
    el("span", { class: "what" }, c.what || "", `, noticed at ${c.noticed_by} after ${time(c.noticed_at_ms)}`),
    el("ul", {}, ...c.sides.map((s) => el("li", {}, `${became(s)} (${s.role === "kept" ? "keeps the name" : "gives way"}`,
      s.at_ms === null ? ")" : `; its change was made after ${time(s.at_ms)})`))));
}
function select(list) {
  const unique = [...new Set(list)];
  view.picked = unique[0];
  $("picked").replaceChildren(...unique.slice(0, 3).map((i) => explained(R.conflicts.list[i])),
    unique.length > 3 ? el("p", { class: "quiet" }, `and ${unique.length - 3} more at this mark: look closer`) : "");
  for (const row of $("list").querySelectorAll("tbody tr"))
    row.classList.toggle("on", row.dataset.conflicts.split(" ").some((i) => unique.includes(Number(i))));
  highlight();
}

/* ---- tables ---- */

function table(id, heads, lines) {
  $(id).replaceChildren(
    el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col", class: h.number ? "number" : null }, h.name)))),
    el("tbody", {}, ...lines.map((line) => el("tr", line.members ? { "data-conflicts": line.members.join(" "), on: { click: () => select(line.members) } } : {},
      ...line.cells.map((c, i) => el("td", { class: heads[i].number ? "number" : heads[i].wide ? "wide" : null }, c))))));
}
const plain = (...names) => names.map((name) => ({ name }));
const numbers = (...names) => names.map((name) => ({ name, number: true }));
const dotted = (site) => el("span", {}, el("span", { class: "dot", style: `background:${color(site)}` }), site);

function tables() {
  table("links", [...plain("Direction"), ...numbers("Latency", "Bandwidth", "Bytes", "Messages", "Stalls", "Resets", "Queue full", "Largest lag")],
    R.links.map((l) => ({ cells: [`${l.from} → ${l.to}`, l.direct ? `${l.latency_us / 1000} ms` : "no link", l.direct ? speed(l.bits_per_s) : "",
      bytes(l.bytes), count(l.messages), count(l.stalls), count(l.resets), count(l.queue_full), time(l.lag_max_ms)] })));
  table("sites", [...plain("Site", "Work"), ...numbers("Calls", "Errors", "Changes", "Mean answer", "Longest", "Conflicts", "Crashes", "Clock", "Drift")],
    R.sites.map((s) => ({ cells: [dotted(s.name), s.work + (s.lost ? " (lost)" : ""), count(s.calls), count(s.calls_failed),
      count(s.changes), `${(s.answer_mean_us / 1000).toFixed(3)} ms`, `${(s.answer_max_us / 1000).toFixed(1)} ms`,
      count(s.conflicts), count(s.crashes), s.clock_offset_ms === 0 ? "right" : `${s.clock_offset_ms > 0 ? "+" : "−"}${time(Math.abs(s.clock_offset_ms))}`,
      `${s.clock_drift_ppm} ppm`] })));
  table("events", [...plain("At"), { name: "What", wide: true }], R.events.map((e) => ({ cells: [time(e.at_ms), e.what] })));
  if (!R.events.length) $("events").replaceChildren(el("caption", {}, "Nothing."));
}
/* Conflicts that read the same (several writes that one removal did not know of) are one line. */
function alike(rule) {
  const out = [];
  R.conflicts.list.forEach((c, i) => {
    if (rule && String(c.rule) !== rule) return;
    const cells = [c.path || "?", c.what || "", time(c.noticed_at_ms),
      ...["kept", "other"].map((role) => c.sides.filter((s) => s.role === role).map(became).join("; "))];
    const last = out[out.length - 1];
    if (last && last.cells.join("\n") === cells.join("\n")) last.members.push(i);
    else out.push({ cells, members: [i] });
  });
  return out;
}
let listed = 25;
function conflictTable() {
  const all = alike($("rule").value);
  table("list", [{ name: "Path", wide: true }, ...plain("What"), ...numbers("Noticed"), { name: "Keeps the name", wide: true }, { name: "Gives way", wide: true }],
    all.slice(0, listed).map(({ cells, members }) => ({ members, cells: [
      el("button", { type: "button" }, cells[0]), cells[1] + (members.length > 1 ? `, ${members.length} times` : ""), ...cells.slice(2)] })));
  $("more").hidden = all.length <= listed;
  $("more").textContent = `More (${all.length - listed})`;
  if (!R.conflicts.count) $("list").replaceChildren(el("caption", {}, "None."));
}
function conflicts() {
  const name = (r) => `${r.what || `rule ${r.rule}`} (${count(r.count)})`;
  const told = R.conflicts.list.length < R.conflicts.count ? `, every ${Math.round(R.conflicts.count / R.conflicts.list.length)}th shown` : "";
  $("rule").append(el("option", { value: "" }, `all (${count(R.conflicts.count)}${told})`),
    ...R.conflicts.rules.map((r) => el("option", { value: r.rule }, name(r))));
  $("rule").addEventListener("change", () => { listed = 25; conflictTable(); marksAgain(); });
  $("more").addEventListener("click", () => { listed += 100; conflictTable(); });
  conflictTable();
}

/* ---- what the drawing means, and choices ---- */

function legend() {
  const icon = (...parts) => svg("svg", { width: 16, height: 16, viewBox: "0 0 16 16" }, ...parts);
  const item = (text, ...parts) => el("span", {}, icon(...parts), text);
  const has = (list) => list.length > 0;
  $("key").replaceChildren(...[
    has(R.cuts) ? item("cut off", svg("rect", { class: "cut", width: 16, height: 16 })) : null,
    has(R.downs) ? item("down", svg("rect", { class: "down", width: 16, height: 16 })) : null,
    has(R.conflicts.list) ? item("conflict: this side keeps the name", svg("circle", { class: "conflict-mark", cx: 8, cy: 8, r: 5, fill: "var(--quiet)", stroke: "var(--quiet)" })) : null,
    has(R.conflicts.list) ? item("conflict: this side gives way", svg("path", { class: "conflict-mark other", d: "M8 2l6 6l-6 6l-6-6z", stroke: "var(--quiet)" })) : null,
  ].filter((e) => e !== null));
}
function choices() {
  $("curves").replaceChildren(...R.series.links.map((l) => {
    const name = `${l.from} ${l.to}`;
    const input = el("input", { type: "checkbox", checked: "" , on: { change: (e) => {
      if (e.target.checked) view.hidden.delete(name);
      else view.hidden.add(name);
      draw();
    } } });
    return el("label", {}, input, svg("svg", { width: 30, height: 8, "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 30, y1: 4, y2: 4, stroke: color(l.from), "stroke-width": 3, "stroke-dasharray": dash(l) })),
      `${l.from} → ${l.to}`);
  }));
}

short();
tables();
conflicts();
choices();
draw();
legend();
pointing();
$("closer").addEventListener("click", () => scale(0.5));
$("wider").addEventListener("click", () => scale(2));
$("whole").addEventListener("click", () => zoom(0, END));
new ResizeObserver(() => { if (shape.width !== Math.max(300, $("timeline").clientWidth)) draw(); }).observe($("timeline"));
})();
