// What a person wants to see first: what is wrong now, how much comes in, how far behind the tables are, how the fleet is.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { campaignPage, listPage } from '../core/addresses.js';
import { onStatus, history } from '../core/live.js';
import { bytes, compact, count, duration, many, percent, when } from '../core/format.js';
import { spark } from '../parts/spark.js';
import { meter, legend, FLEET_SHARES, CAMPAIGN_SHARES, campaignCounts } from '../parts/meter.js';
import { status as label } from '../parts/status.js';
import { tenants } from '../core/tenants.js';
import { every } from '../core/every.js';
import { session } from '../core/session.js';

const WINDOW = 10 * 60_000;

export async function show(main) {
  const wrong = h('section', { class: 'wrong', 'aria-label': 'What is wrong now' });
  const tiles = h('section', { class: 'tiles', 'aria-label': 'Now' });
  const fleet = h('section', { class: 'card' }, h('h2', null, 'Fleet'), h('p', { class: 'muted' }, 'Loading…'));
  const running = h('section', { class: 'card' }, h('h2', null, 'Campaigns'), h('p', { class: 'muted' }, 'Loading…'));
  const projections = h('section', { class: 'card' });
  const brokers = h('section', { class: 'card' });
  const keeping = h('section', { class: 'card' });
  const letters = h('section', { class: 'card' }, h('h2', null, 'Dead letters'), h('p', { class: 'muted' }, 'Loading…'));
  render(main, h('h1', { class: 'hidden' }, 'Overview'), wrong, tiles,
    h('div', { class: 'overview' }, fleet, running, projections, h('div', { class: 'column' }, brokers, keeping), letters));
  onStatus((status, error) => {
    // The system as a whole is not for those who may see one tenant.
    const isOnesOwn = error?.status === 403;
    for (const place of [wrong, tiles, projections, brokers, keeping, letters]) place.hidden = isOnesOwn;
    if (isOnesOwn) return;
    render(wrong, whatIsWrong(status, error));
    if (!status) return;
    render(tiles, tilesOf(status));
    render(projections, projectionsOf(status));
    render(brokers, brokersOf(status));
    render(keeping, keepingOf(status.log));
  });
  every(5000, async () => {
    const all = await tenants();
    render(fleet, fleetOf(all));
    render(running, campaignsOf(await activeCampaigns(all)));
  }, (error) => render(fleet, h('h2', null, 'Fleet'), h('p', { class: 'refusal' }, error.message)));
  every(10_000, async () => {
    if (session.tenant === null) render(letters, lettersOf(await get('/dead-letters', { order: 'newest', limit: 6 })));
  }, (error) => render(letters, h('h2', null, 'Dead letters'), h('p', { class: 'refusal' }, error.message)));
}

function whatIsWrong(status, error) {
  if (error) return h('ul', { class: 'reasons bad' }, h('li', null, error.message));
  if (status.reasons.length === 0) return h('p', { class: 'reasons good' }, 'Nothing is wrong.');
  return h('ul', { class: `reasons ${status.state === 'held' ? 'bad' : 'warn'}` }, status.reasons.map((text) => h('li', null, text)));
}

function tilesOf(status) {
  const now = Date.now(), recent = history.filter((one) => one.time > now - WINDOW);
  const first = recent[0], last = recent.at(-1);
  // The chart begins with what is known, at least half a minute wide.
  const scale = { from: Math.min(first?.time ?? now, now - 30_000), to: last?.time ?? now };
  const lag = status.projections.reduce((most, one) => Math.max(most, one.lag_seconds), 0);
  const behind = status.projections.reduce((most, one) => Math.max(most, one.lag_events), 0);
  const kept = status.log.keeping;
  return [
    tile('Ingest', last ? [compact(last.rate), h('small', null, ' events/s')] : '…',
      first ? `the last ${duration(Math.round((now - first.time) / 1000))}` : '',
      spark(recent.map((one) => [one.time, one.rate]), { ...scale, least: 10 })),
    tile('Lag of the tables', duration(lag), many(behind, 'event') + ' behind',
      spark(recent.map((one) => [one.time, one.lag]), { ...scale, kind: lag > 5 ? 'warn' : 'accent' })),
    tile('Durable events', compact(status.log.durable), `${count(status.log.durable)} in ${many(status.log.segments, 'segment')}`),
    tile('Log', bytes(status.log.bytes), kept.disk_full_seconds
      ? `disk full in ${duration(kept.disk_full_seconds)}` : `${bytes(kept.disk_free_bytes)} free`),
  ];
}

const tile = (name, figure, more, chart) => h('div', { class: 'tile' },
  h('h2', null, name), h('p', { class: 'figure' }, figure), h('p', { class: 'muted' }, more), chart);

function fleetOf(all) {
  const sum = { online: 0, stale: 0, offline: 0 };
  for (const one of all) for (const [name] of FLEET_SHARES) sum[name] += one[name];
  const total = sum.online + sum.stale + sum.offline;
  const link = (status) => `/devices?status=${status.toUpperCase()}`;
  return [
    h('h2', null, 'Fleet', h('small', null, many(total, 'device'))),
    total === 0 && h('p', { class: 'muted' }, 'No device has been heard of.'),
    total > 0 && [meter(sum, FLEET_SHARES, { label: 'Fleet' }), legend(sum, FLEET_SHARES, link)],
    all.length > 1 && h('table', { class: 'plain' },
      h('thead', null, h('tr', null, ['Tenant', 'Devices', '', 'Online'].map((text) => h('th', null, text)))),
      h('tbody', null, all.slice(0, 8).map((one) => h('tr', { key: one.tenant_id },
        h('td', null, h('a', { href: listPage('/devices', one.tenant_id) }, one.tenant_id)),
        h('td', { class: 'number' }, count(one.devices)), h('td', { class: 'wide-cell' }, meter(one, FLEET_SHARES, { thin: true })),
        h('td', { class: 'number' }, percent(one.devices > 0 ? one.online / one.devices : NaN)))))),
    all.length > 8 && h('p', { class: 'muted' }, `and ${many(all.length - 8, 'tenant')} more`),
  ];
}

async function activeCampaigns(all) {
  const lists = await Promise.all(all.slice(0, 8).flatMap((one) => ['RUNNING', 'PAUSED'].map((status) =>
    get(tenantPath(one.tenant_id, 'campaigns'), { status, limit: 20 }))));
  return lists.flatMap((page) => page.items).sort((a, b) => b.id - a.id);
}

function campaignsOf(rows) {
  return [
    h('h2', null, 'Campaigns under way', h('a', { href: '/campaigns' }, 'all')),
    rows.length === 0 && h('p', { class: 'muted' }, 'None is running or paused.'),
    h('ul', { class: 'rows' }, rows.slice(0, 6).map((row) => {
      const counts = campaignCounts(row), ended = counts.total - counts.pending - counts.in_flight;
      return h('li', { key: row.id },
        h('a', { href: campaignPage(row.tenant_id, row.id) }, row.name), label(row.status),
        h('span', { class: 'end muted' }, `${percent(ended / counts.total)} of ${compact(counts.total)}`),
        meter(counts, CAMPAIGN_SHARES, { thin: true }));
    })),
  ];
}

function projectionsOf(status) {
  return [
    h('h2', null, 'Projections', h('small', null, `head at ${count(status.log.durable - 1)}`)),
    h('div', { class: 'scroll-x' }, h('table', { class: 'plain' },
      h('thead', null, h('tr', null, ['Name', 'State', 'Position', 'Behind', 'Lag', 'Parked'].map((text, index) =>
        h('th', { class: index === 2 ? 'number wide' : index > 1 ? 'number' : null }, text)))),
      h('tbody', null, status.projections.map((one) => h('tr', { key: `${one.name}/${one.partition}` },
        h('td', null, one.name, h('small', null, ` v${one.version}`),
          one.last_error && h('p', { class: 'refusal' }, one.last_error)),
        h('td', null, label(one.state), one.rebuild && h('small', null,
          ` rebuilding ${percent(one.rebuild.end > 0 ? one.rebuild.folded / one.rebuild.end : NaN)}`)),
        h('td', { class: 'number wide' }, count(one.position)), h('td', { class: 'number' }, count(one.lag_events)),
        h('td', { class: 'number' }, duration(one.lag_seconds)),
        h('td', { class: one.parked_keys > 0 ? 'number bad' : 'number' }, count(one.parked_keys))))))),
  ];
}

function brokersOf(status) {
  const line = (name, connected, more, error) => h('li', { key: name },
    h('b', null, name), label(connected ? 'CONNECTED' : 'DISCONNECTED'), h('span', { class: 'end muted' }, more),
    error && h('p', { class: 'refusal' }, error));
  return [
    h('h2', null, 'Connections'),
    h('ul', { class: 'rows' },
      status.brokers.map((one) => line(one.name, one.connected,
        !one.connected ? '' : !one.subscribed ? 'not subscribed' : one.session_present ? 'its session went on' : 'a new session',
        one.subscribed ? null : one.last_error)),
      line('PostgreSQL', status.database.connected, '', status.database.connected ? null : status.database.last_error)),
  ];
}

function keepingOf(log) {
  const kept = log.keeping, rows = [];
  const add = (name, value, more, isBad = false) => rows.push(
    h('dt', { key: name + 'n' }, name), h('dd', { key: name, class: isBad ? 'bad' : null }, value, more && h('small', null, more)));
  add('Events to be had', `from ${count(kept.horizon)} on`,
    kept.first_position > kept.horizon ? ` ${count(kept.first_position)} here` : null);
  if (kept.checkpoint) {
    add('Signed through', count(kept.checkpoint.size), kept.checkpoint.at && [' ', when(kept.checkpoint.at)],
      Boolean(kept.checkpoint.problem));
  }
  if (kept.scrub) {
    add('Read back', many(kept.scrub.passes, 'whole pass', 'whole passes'), ` now at ${count(kept.scrub.position)}`);
    add('Damaged places', count(kept.scrub.damaged), null, kept.scrub.damaged > 0);
  }
  if (kept.archive) {
    add('Archived through', count(kept.archive.through),
      kept.archive.waiting > 0 ? ` ${kept.archive.waiting} wait` : null, kept.archive.behind);
  }
  if (kept.self_check) {
    add('Tables and log', kept.self_check.agrees === null ? 'not compared' : kept.self_check.agrees ? 'agree' : 'differ',
      kept.self_check.at && [' ', when(kept.self_check.at)], kept.self_check.agrees === false);
  }
  if (kept.lost_events > 0) add('Events given up', count(kept.lost_events), null, true);
  return [h('h2', null, 'The log'), h('dl', { class: 'facts' }, rows)];
}

function lettersOf(page) {
  return [
    h('h2', null, 'Dead letters'),
    page.items.length === 0 && h('p', { class: 'muted' }, 'Every message was understood.'),
    h('ul', { class: 'rows' }, page.items.map((row) => h('li', { key: `${row.position} ${row.projection}` },
      h('code', null, row.reason), h('span', { class: 'cut' }, row.topic), h('span', { class: 'end' }, when(row.at))))),
  ];
}
