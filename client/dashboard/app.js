'use strict';
// The page shows what /events says. All text goes in as text, never as markup.
const $ = id => document.getElementById(id);
const el = (name, props, ...kids) => {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(props || {})) k === 'class' ? e.className = v : e.setAttribute(k, v);
  e.append(...kids.filter(k => k !== null && k !== undefined));
  return e;
};
const svg = (name, props, text) => {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
};
const fill = (parent, ...kids) => parent.replaceChildren(...kids);

const seconds = s => s === null || s === undefined ? '–' : s < 0.0005 ? '0 s' : s < 1 ? `${Math.round(s * 1000)} ms`
  : s < 100 ? `${s.toFixed(1)} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${(s / 3600).toFixed(1)} h`
  : `${(s / 86400).toFixed(1)} days`;
const count = n => n === undefined ? '–' : Math.round(n).toLocaleString('en');
const bytes = n => {
  if (n === undefined) return '–';
  let i = 0;
  while (n >= 1024 && i < 5) { n /= 1024; i++; }
  return `${i && n < 100 ? n.toFixed(1) : Math.round(n)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][i]}`;
};
const pairs = rows => rows.filter(r => r).flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)]);

const GOOD = ['connected'], HALF = ['half_connected', 'paused', 'paused_there', 'loading_snapshot', 'held'];
const tone = state => GOOD.includes(state) ? 'good' : HALF.includes(state) ? 'warn' : 'bad';
const words = state => (state || 'unknown').replaceAll('_', ' ');
const HEALTH = { in_step: ['in step', 'good'], lagging: ['lagging', 'warn'], unreachable: ['a site is not reached', 'bad'] };

function showHead(s) {
  const [text, cls] = s.peers.length ? HEALTH[s.health] || [words(s.health), 'warn'] : ['alone: no other site', 'good'];
  $('site').textContent = s.name;
  document.title = `${s.name}: ${text}`;
  if ($('health').textContent !== text) $('health').textContent = text;
  $('health').className = `pill ${cls}`;
}

function showMap(s) {
  const narrow = innerWidth < 600, n = s.peers.length, w = narrow ? 360 : 900, h = n > 2 ? 300 : 130;
  const cx = n === 1 ? w * 0.22 : w / 2, cy = h / 2;
  const root = svg('svg', { viewBox: `0 0 ${w} ${h}`, role: 'img',
    'aria-label': `${s.name} and ${s.peers.map(p => `${p.name} (${words(p.state)})`).join(', ') || 'no other site'}` });
  s.peers.forEach((p, i) => {
    const a = n === 1 ? 0 : n === 2 ? Math.PI * i : 2 * Math.PI * i / n - Math.PI / 2;
    const x = cx + Math.cos(a) * w * (n === 1 ? 0.56 : 0.36), y = cy + Math.sin(a) * h * 0.34;
    root.append(svg('line', { x1: cx, y1: cy, x2: x, y2: y, class: tone(p.state) }));
    root.append(svg('text', { x: (cx + x) / 2, y: (cy + y) / 2 - 10, class: 'what' },
      p.state === 'connected' ? `${(p.rtt_ms || 0).toFixed(1)} ms` : words(p.state)));
    root.append(svg('circle', { cx: x, cy: y, r: 13 }), svg('text', { x, y: y - 22 }, p.name));
  });
  root.append(svg('circle', { cx, cy, r: 17, class: 'me' }), svg('text', { x: cx, y: cy - 27 }, s.name),
    svg('text', { x: cx, y: cy + 38, class: 'what' }, 'this site'));
  fill($('map'), root);
}

function way(p, dir) {
  const inwards = dir === 'in', lag = inwards ? p.lag_in_s : p.lag_out_s;
  const go = p[`${dir}_ops_to_go`], left = p[`${dir}_left_s`];
  return el('div', { class: `way ${dir}` },
    el('p', { class: 'dir' }, inwards ? `from ${p.name} to here` : `from here to ${p.name}`),
    el('p', { class: `big ${lag > 10 ? 'bad' : lag > 2 ? 'warn' : ''}` }, seconds(lag)),
    el('dl', {}, ...pairs([
      ['to go', go ? `${count(go)} operations${p[`${dir}_bytes_to_go`] ? `, ${bytes(p[`${dir}_bytes_to_go`])}` : ''}` : 'nothing'],
      ['rate', `${count(p[`${dir}_ops_per_s`])} /s`],
      ['time left', go ? (left === null || left === undefined ? 'not known' : seconds(left)) : '–'],
      inwards && ['visible after', `p50 ${seconds(p.visible_p50_ms / 1000)}, p99 ${seconds(p.visible_p99_ms / 1000)}`]])));
}

function showCards(s) {
  fill($('cards'), ...(s.peers.length ? s.peers.map(p => el('article', { class: 'card' },
    el('header', {}, el('h3', {}, p.name), el('p', { class: `pill ${tone(p.state)}` }, words(p.state))),
    p.in_ops === undefined ? '' : el('div', { class: 'ways' }, way(p, 'in'), way(p, 'out')),
    el('dl', {}, ...pairs([
      ['address', p.address || 'none: it dials us'],
      ['clock', p.clock_ahead_ms === null || p.clock_ahead_ms === undefined ? 'not known'
        : `${Math.abs(p.clock_ahead_ms).toFixed(1)} ms ${p.clock_ahead_ms < 0 ? 'behind' : 'ahead'}${p.clock_alarm ? ': set it right' : ''}`],
      typeof p.resync_in_seconds === 'number' ? ['journals', p.resync_in_seconds > 0
        ? `kept for it for another ${seconds(p.resync_in_seconds)}; after that it has to come back as a new site`
        : 'not kept for it any longer: it has to come back as a new site'] : null,
      p.error ? ['trouble', p.error] : null]))))
    : [el('p', { class: 'quiet' }, 'No other site yet: ', el('code', {}, 'claudefs peer invite'), ' makes a token for one.')]));
}

const became = c => c.other_path && c.winner ? `: ${c.winner}'s keeps the name, ${c.loser}'s is ${c.other_path}`
  : c.winner && !/^0+$/.test(c.winner) ? `: ${c.winner}'s holds` : '';
function showConflicts(s) {
  const list = s.conflicts || [];
  fill($('conflicts'), ...(list.length ? list.map(c => el('div', { class: 'conflict' },
    el('p', { class: 'path' }, c.path),
    el('p', {}, `${c.what || `rule ${c.rule}`}${became(c)}`),
    el('p', { class: 'quiet' }, c.time ? new Date(c.time).toLocaleString() : ''),
    el('dl', {}, ...pairs([['look', el('code', {}, `claudefs conflicts show ${c.id}`)],
      ['decide', el('code', {}, `claudefs conflicts resolve ${c.id} --keep mine|theirs|both`)],
      ['take that back', el('code', {}, `claudefs conflicts undo ${c.id}`)]]))))
    : [el('p', { class: 'quiet' }, 'No open conflicts.')]));
}

// How much smaller the files become: each bar beside the longest.
function showReduction(sp) {
  const inline = sp.inline_bytes || 0, plain = sp.plain_bytes + inline, live = sp.live_bytes + inline;
  const rows = [['in files', sp.logical_bytes], ['after deduplication', plain], ['after compression', live]];
  const most = Math.max(1, ...rows.map(r => r[1]));
  const times = sp.logical_bytes && live ? sp.logical_bytes / live : null;
  fill($('reduction'), ...rows.flatMap(([k, v]) => {
    const bar = el('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.width = `${100 * v / most}%`;
    return [el('dt', {}, k), el('dd', {}, bytes(v)), el('dd', { class: 'track' }, bar)];
  }));
  $('reduction-text').textContent = times === null ? 'No files yet.'
    : times >= 1 ? `${times.toFixed(times < 10 ? 1 : 0)} times less than the files hold.`
    : 'More than the files hold: former versions and what waits for the next garbage pass are in it.';
}

function showSpace(s) {
  const sp = s.space, journal = (s.shards || []).reduce((a, x) => a + x.journal_bytes, 0), v = s.versions || {};
  showReduction(sp);
  fill($('space'), ...pairs([
    ['mounts', count(s.sessions)],
    ['on disk', `${bytes(sp.file_bytes)} of chunks (${count(sp.chunks)}), ${bytes(journal)} of journals`],
    ['free', bytes(sp.free_bytes)],
    typeof v.count === 'number' ? ['versions', `${count(v.count)} former, kept for ${seconds(v.keep_s)}`] : null,
    sp.damaged ? ['damaged', `${count(sp.damaged)} chunks: run claudefs fsck --repair`] : null,
    ['conflicts', `${count(s.conflicts_open)} open`],
    ['site', s.site]]));
}

function showMounts(s) {
  const all = s.mounts || [];
  if (!all.length) return fill($('mounts'), el('tbody', {}, el('tr', {}, el('td', { class: 'quiet' }, 'Nobody has mounted this site.'))));
  fill($('mounts'), el('thead', {}, el('tr', {}, ...['mount', 'state', 'for', 'open files', 'to acknowledge']
    .map(h => el('th', { scope: 'col' }, h)))), el('tbody', {}, ...all.map(x => el('tr', {},
    el('th', { scope: 'row' }, x.name || 'unnamed'),
    ...[x.connected ? 'connected' : 'away', seconds(x.age_s), count(x.open), count(x.unacknowledged)]
      .map(v => el('td', {}, String(v)))))));
}

const leads = (s, x) => x.role === 'nobody' ? 'nobody' : x.primary === s.site ? `${s.name} (this node)` : x.primary;
function showShards(s) {
  fill($('shards'), el('thead', {}, el('tr', {}, ...['shard', 'leader', 'epoch', 'journal', 'durable', 'under way', 'waiting']
    .map(h => el('th', { scope: 'col' }, h)))), el('tbody', {}, ...(s.shards || []).map(x => el('tr', {},
    el('th', { scope: 'row' }, String(x.id)),
    ...[leads(s, x), x.epoch, bytes(x.journal_bytes), count(x.durable), count(x.outbox), count(x.waiting)]
      .map(v => el('td', {}, String(v)))))));
}

// ---- history ----
let plot = null, shown = null;
function showChoices(s) {
  const names = s.peers.map(p => p.name), select = $('peer');
  if (names.join() === [...select.options].map(o => o.value).join()) return;
  const before = select.value;
  fill(select, ...names.map(n => el('option', { value: n }, n)));
  if (names.includes(before)) select.value = before;
  loadHistory();
}
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
async function loadHistory() {
  const peer = $('peer').value, grain = document.querySelector('[name=grain]:checked').value;
  if (!peer) return;
  const answer = await fetch(`/api/history?peer=${encodeURIComponent(peer)}&grain=${grain}`).catch(() => null);
  if (!answer || !answer.ok) return;
  const h = await answer.json();
  const x = h.lag_in_s.map((_, i) => h.first_s + i * h.step_s);
  const axis = { stroke: style('--quiet'), grid: { stroke: style('--line'), width: 1 }, ticks: { stroke: style('--line') } };
  const line = (label, color) => ({ label, stroke: style(color), width: 2, spanGaps: false, points: { show: x.length < 3 },
    value: (u, v) => v === null ? '–' : seconds(v) });
  const opts = { width: $('chart').clientWidth, height: 260, cursor: { y: false },
    scales: { y: { range: (u, min, max) => [0, Math.max(1, max * 1.1)] } },
    series: [{}, line(`${peer} to here`, '--in'), line(`here to ${peer}`, '--out')],
    axes: [{ ...axis, space: 90 }, { ...axis, size: 64, values: (u, vs) => vs.map(v => seconds(v)) }] };
  const key = `${peer} ${grain} ${opts.width} ${style('--bg')}`, data = [x, h.lag_in_s, h.lag_out_s];
  if (plot && shown === key) plot.setData(data);
  else { if (plot) plot.destroy(); plot = new uPlot(opts, data, $('chart')); shown = key; }
  const spread = a => {
    const known = a.filter(v => v !== null).sort((x, y) => x - y), at = q => seconds(known[Math.ceil(q * known.length) - 1] || 0);
    return `p50 ${at(0.5)}, p99 ${at(0.99)}, worst ${at(1)}`;
  };
  const text = `In this time, from ${peer} to here: ${spread(h.lag_in_s)}; from here to ${peer}: ${spread(h.lag_out_s)}.`;
  $('chart-text').textContent = text;
  $('chart').setAttribute('aria-label', `Lag over time. ${text}`);
}
$('peer').addEventListener('change', loadHistory);
$('grain').addEventListener('change', loadHistory);
addEventListener('resize', loadHistory);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', loadHistory);
setInterval(loadHistory, 5000);

// ---- live ----
let heard = 0;
function show(s) {
  heard = Date.now();
  s.peers ||= [];
  showHead(s); showMap(s); showCards(s); showConflicts(s); showSpace(s); showMounts(s); showShards(s); showChoices(s);
}
const source = new EventSource('/events');
source.onmessage = e => show(JSON.parse(e.data));
setInterval(() => {
  const silent = heard ? (Date.now() - heard) / 1000 : 0;
  $('fresh').textContent = silent > 4 ? `no news for ${seconds(silent)}: the daemon does not answer` : '';
  if (silent > 4) { $('health').textContent = 'not connected'; $('health').className = 'pill bad'; }
}, 1000);
