// One device: how it is, or was at any moment of the log.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { campaignPage, listPage } from '../core/addresses.js';
import { ago, count, moment, when } from '../core/format.js';
import { status as label } from '../parts/status.js';
import { eventLink } from '../parts/event.js';
import { momentBar } from '../parts/moments.js';
import { jsonTree } from '../parts/json.js';
import { session } from '../core/session.js';
import { every } from '../core/every.js';
import { remember } from '../core/tenants.js';

const MARKS = { CONNECTED: 'good', SUCCESS: 'good', CONNECTION_LOST: 'bad', FAILED: 'bad', TIMED_OUT: 'bad' };

export async function show(main, [tenant, device]) {
  remember(tenant);
  document.title = `${device} · Refold`;
  const path = tenantPath(tenant, 'devices', device);
  let now = await get(path), past = null, events = [];

  const head = h('header', { class: 'head' });
  const notes = h('div');
  const places = Object.fromEntries(['telemetry', 'shadow', 'facts', 'campaigns', 'connections', 'letters'].map((name) =>
    [name, h('section', { class: 'card' })]));
  const moments = momentBar(async (at) => {
    past = at === null ? null : await get(path, { at }).catch((error) => ({ error }));
    draw();
  });
  render(main, head, moments.element, notes, h('div', { class: 'grid' }, Object.values(places)));

  function draw() {
    const shown = past && !past.error ? past.device : past?.error ? null : now.device;
    moments.over(Date.parse(now.device.first_seen_at), Date.now(), events);
    render(head, heading(tenant, now.device, shown));
    render(notes, past?.error && h('p', { class: 'refusal' }, `${moment(moments.at)}: ${past.error.message}`),
      past && !past.error && h('p', { class: 'why' }, 'As of ', when(past.as_of.time), ', the last event then was ',
        eventLink(tenant, past.as_of.position)));
    if (!shown) return;
    render(places.telemetry, telemetry(shown));
    render(places.shadow, shadow(shown));
    render(places.facts, facts(tenant, shown, past ? null : now.gate));
  }

  async function refresh() {
    now = await get(path);
    draw();
  }
  async function refreshHistory() {
    const history = await get(`${path}/history`, { order: 'newest', limit: 200 });
    events = history.items.map((row) => ({ time: Date.parse(row.at), kind: MARKS[row.what] ?? 'idle' })).reverse();
    render(places.connections, connections(tenant, history.items.filter((row) => row.kind === 'connection')));
    render(places.campaigns, campaignsOf(tenant, history.items.filter((row) => row.kind === 'campaign')));
    draw();
  }
  async function refreshLetters() {
    const page = await get('/dead-letters', { tenant, device, order: 'newest', limit: 10 });
    render(places.letters, lettersOf(tenant, page.items));
  }
  if (moments.begin()) past = await get(path, { at: new Date(moments.at).toISOString() }).catch((error) => ({ error }));
  draw();
  every(3000, refresh, () => {});
  const failed = (place, title) => (error) => render(place, h('h2', null, title), h('p', { class: 'refusal' }, error.message));
  every(15_000, refreshHistory, failed(places.connections, 'Connection'));
  // Dead letters are for those who may see all tenants.
  places.letters.hidden = session.tenant !== null;
  if (session.tenant === null) every(15_000, refreshLetters, failed(places.letters, 'Dead letters'));
}

function heading(tenant, row, shown) {
  return h('div', { class: 'title' },
    h('p', { class: 'crumbs' }, h('a', { href: listPage('/devices', tenant) }, 'Devices'), ' / ', tenant,
      row.site_id && ` / ${row.site_id}`),
    h('h1', null, row.device_id, ' ', shown && label(shown.status)),
    shown && h('p', { class: 'muted' }, 'seen ', when(shown.last_seen_at, ago), ' · firmware ',
      h('b', null, shown.firmware_version ?? 'unknown'), ` · ${count(shown.message_count)} messages`,
      shown.rejected_count > 0 && h('span', { class: 'bad' }, ` · ${count(shown.rejected_count)} refused`)));
}

function telemetry(row) {
  const metrics = Object.entries(row.last_metrics ?? {});
  return [
    h('h2', null, 'Last telemetry', h('small', null, when(row.last_telemetry_at, ago))),
    metrics.length === 0 ? h('p', { class: 'muted' }, 'It has sent none.') : h('table', { class: 'plain' },
      h('tbody', null, metrics.map(([name, value]) => h('tr', { key: name },
        h('td', null, name), h('td', { class: 'number' }, metricValue(value)))))),
  ];
}

const metricValue = (value) => (value !== null && typeof value === 'object' ? JSON.stringify(value)
  : typeof value === 'number' ? h('b', null, Number.isInteger(value) ? count(value) : String(+value.toPrecision(7))) : String(value));

function shadow(row) {
  const version = row.reported_version;
  return [
    h('h2', null, 'Shadow', h('small', null, version === null || version === undefined ? '' : `version ${version}`)),
    row.reported_state ? jsonTree(row.reported_state) : h('p', { class: 'muted' }, 'It has reported none.'),
  ];
}

function facts(tenant, row, gate) {
  const shown = [
    ['First seen', when(row.first_seen_at)], ['Last seen', when(row.last_seen_at)], ['Last heartbeat', when(row.last_heartbeat_at)],
    ['Connection', row.connected === null ? 'not said' : row.connected ? 'connected' : 'not connected'],
    ['Telemetry', count(row.telemetry_count)], ['Heartbeats', count(row.heartbeat_count)], ['Acknowledgements', count(row.ack_count)],
    ['Last command', row.last_command_id && [h('code', null, row.last_command_id), ` ${row.last_command_status ?? ''} `,
      when(row.last_ack_at)]],
    ['Last sequence', row.last_seq === null ? null : count(row.last_seq)],
    ['Last event', eventLink(tenant, row.last_position)],
    ['Beyond its rate', gate && gate.rate_limited > 0 ? count(gate.rate_limited) : null],
    ['Without a certificate', gate && gate.without_certificate > 0 ? count(gate.without_certificate) : null],
  ];
  return [h('h2', null, 'Facts'), h('dl', { class: 'facts' }, shown.filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => [h('dt', { key: name + 'n' }, name), h('dd', { key: name }, value)]))];
}

function connections(tenant, rows) {
  return [h('h2', null, 'Connection'), rows.length === 0 && h('p', { class: 'muted' }, 'It has said nothing of its connection.'),
    h('ul', { class: 'rows tall' }, rows.map((row) => h('li', { key: row.position },
      label(row.what), h('span', { class: 'end' }, when(row.at), eventLink(tenant, row.position)))))];
}

function campaignsOf(tenant, rows) {
  return [h('h2', null, 'Campaigns'), rows.length === 0 && h('p', { class: 'muted' }, 'It has been in none.'),
    h('ul', { class: 'rows' }, rows.map((row) => h('li', { key: row.campaign_id },
      h('a', { href: campaignPage(tenant, row.campaign_id) }, `Campaign ${row.campaign_id}`),
      label(row.what), h('span', { class: 'cut muted' }, row.details?.error_message ?? ''),
      h('span', { class: 'end' }, when(row.at), eventLink(tenant, row.position)))))];
}

function lettersOf(tenant, rows) {
  return [h('h2', null, 'Dead letters'), rows.length === 0 && h('p', { class: 'muted' }, 'Every message of it was understood.'),
    h('ul', { class: 'rows' }, rows.map((row) => h('li', { key: row.position }, h('code', null, row.reason),
      h('span', { class: 'cut muted' }, row.topic), h('span', { class: 'end' }, when(row.at), eventLink(tenant, row.position)))))];
}
