// All campaigns of a tenant, newest first.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { campaignPage, listPage } from '../core/addresses.js';
import { chooseTenant } from '../core/tenants.js';
import { count, duration, percent, when } from '../core/format.js';
import { CAMPAIGN_SHARES, campaignCounts, meter } from '../parts/meter.js';
import { status as label, words } from '../parts/status.js';
import { Table } from '../parts/table.js';
import { every } from '../core/every.js';
import { onKey } from '../core/keys.js';
import { mayOperate } from '../core/session.js';

const STATUSES = ['RUNNING', 'PAUSED', 'CREATED', 'COMPLETED', 'ABORTED'];

export async function show(main, _, query) {
  const { tenant, choice } = await chooseTenant();
  if (!tenant) {
    render(main, h('section', { class: 'empty' }, h('h1', null, 'No tenant yet'), h('p', null,
      'A tenant is there as soon as one of its devices has been heard, or something was made for it.')));
    return;
  }
  const status = STATUSES.includes(query.get('status')) ? query.get('status') : null;
  const table = new Table({
    label: 'Campaigns', key: (row) => row.id, limit: 100,
    href: (row) => campaignPage(tenant, row.id),
    load: (after, limit) => get(tenantPath(tenant, 'campaigns'), { status, limit, after, order: 'newest' }),
    empty: status ? `No campaign is ${words(status)}.` : 'No campaign yet.',
    columns: [
      { title: 'Campaign', cell: (row) => row.name, class: 'name' },
      { title: 'Status', cell: (row) => label(row.status) },
      { title: 'Progress', cell: (row) => meter(campaignCounts(row), CAMPAIGN_SHARES, { thin: true }), class: 'grow' },
      { title: 'Ended', cell: (row) => percent((row.succeeded + row.failed + (row.skipped ?? 0)) / row.total_devices), class: 'number' },
      { title: 'Failed', cell: (row) => failedShare(row), class: 'number' },
      { title: 'Devices', cell: (row) => count(row.total_devices), class: 'number' },
      { title: 'Firmware', cell: (row) => row.firmware_version ?? `#${row.firmware_version_id}`, class: 'wide' },
      { title: 'Rollout', cell: (row) => row.rollout_strategy, class: 'wide' },
      { title: 'Started', cell: (row) => when(row.started_at), class: 'wide' },
      { title: 'Took', cell: (row) => row.started_at && duration(((row.completed_at ? Date.parse(row.completed_at) : Date.now())
        - Date.parse(row.started_at)) / 1000), class: 'wide number' },
    ],
  });
  const chip = (value, text) => {
    const url = new URL(location.href);
    if (value) url.searchParams.set('status', value); else url.searchParams.delete('status');
    return h('a', { class: 'chip', href: url.pathname + url.search, 'aria-current': value === status ? 'true' : null }, text);
  };
  const create = mayOperate() && h('a', { class: 'button primary', href: listPage('/campaigns/new', tenant) }, 'New campaign');
  render(main, h('header', { class: 'head' }, h('h1', null, 'Campaigns'), choice, h('span', { class: 'end' }, create)),
    h('nav', { class: 'chips', 'aria-label': 'Status' }, chip(null, 'All'), STATUSES.map((one) => chip(one, words(one)))), table.element);
  if (create) onKey('n', 'New campaign', () => create.click());
  table.grid.focus();
  every(3000, () => table.refresh());
}

function failedShare(row) {
  const results = row.succeeded + row.failed;
  return results === 0 ? '–' : h('span', { class: row.failed > 0 ? 'bad' : null }, percent(row.failed / results));
}
