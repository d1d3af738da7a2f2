// The certificates of a tenant: what needs attention, when they expire, and all of them.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { certificatePage, devicePage } from '../core/addresses.js';
import { chooseTenant } from '../core/tenants.js';
import { ago, count, many, when } from '../core/format.js';
import { filters } from '../parts/filters.js';
import { status as label } from '../parts/status.js';
import { findingHead, findingList } from '../parts/findings.js';
import { Table } from '../parts/table.js';
import { every } from '../core/every.js';

const STATUSES = ['ACTIVE', 'SUPERSEDED', 'HELD', 'REVOKED', 'EXPIRED'];

export async function show(main, _, query) {
  const { tenant, choice } = await chooseTenant();
  if (!tenant) {
    render(main, h('section', { class: 'empty' }, h('h1', null, 'No certificates yet'), h('p', null,
      'Create an authority with ', h('code', null, 'refold ca init'), ', then issue with ', h('code', null, 'refold cert issue'), '.')));
    return;
  }
  const { search, chips, values } = filters(query, STATUSES, () => table.reload());
  const table = new Table({
    label: 'Certificates', key: (row) => `${row.authority}/${row.serial}`,
    href: (row) => certificatePage(tenant, row.authority, row.serial),
    load: (after, limit) => get(tenantPath(tenant, 'certificates'), { ...values(), after, limit }),
    empty: 'No certificate matches.',
    columns: [
      { title: 'Device', cell: (row) => row.device, class: 'name' },
      { title: 'Status', cell: (row) => label(shownStatus(row)) },
      { title: 'Expires', cell: (row) => when(row.not_after, ago) },
      { title: 'Authority', cell: (row) => row.authority, class: 'wide' },
      { title: 'Serial number', cell: (row) => h('code', null, row.serial), class: 'wide' },
      { title: 'Reason', cell: (row) => row.reason ?? '–', class: 'wide' },
      { title: 'Changed', cell: (row) => when(row.changed_at), class: 'wide' },
    ],
  });
  const findings = h('section', { class: 'card span' }), expiries = h('section', { class: 'card' });
  render(main, h('header', { class: 'head' }, h('h1', null, 'Certificates'), choice, h('span', { class: 'end' }, search)),
    h('div', { class: 'grid' }, findings, expiries), chips, table.element);
  table.grid.focus();
  const failed = (error) => render(findings, h('h2', null, 'Findings'), h('p', { class: 'refusal' }, error.message));
  every(15_000, async () => {
    const audit = await get(tenantPath(tenant, 'certificates', 'findings'));
    render(findings, findingsOf(tenant, audit));
    render(expiries, expiriesOf(audit));
  }, failed);
  every(15_000, () => table.refresh());
}

/** Expiry is no event: what was live has the status EXPIRED from its end on. */
export const shownStatus = (row) =>
  (['ACTIVE', 'SUPERSEDED'].includes(row.status) && Date.parse(row.not_after) < Date.now() ? 'EXPIRED' : row.status);

function findingsOf(tenant, audit) {
  const all = Object.values(audit.counts).reduce((sum, one) => sum + one, 0);
  return [
    findingHead(audit, all > 0 && h('span', { class: 'muted' }, count(all))),
    findingList(tenant, audit.items, (item) => [
      item.serial && h('a', { href: certificatePage(tenant, item.authority, item.serial) }, item.device),
      !item.serial && item.device && h('a', { href: devicePage(tenant, item.device) }, item.device),
      !item.serial && item.authority && h('span', null, `authority ${item.authority}`),
    ]),
  ];
}

function expiriesOf(audit) {
  const { weeks, later } = audit.expiries, most = Math.max(1, ...weeks), begin = Date.parse(audit.audited_at);
  const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
  const name = (week) => day.format(new Date(begin + week * 7 * 86_400_000));
  return [
    h('h2', null, 'Expiries by week', h('small', null, many(weeks.reduce((sum, one) => sum + one, later), 'live certificate'))),
    h('ol', { class: 'weeks' }, weeks.map((number, week) => h('li', { key: week },
      h('span', { class: 'muted' }, week === 0 ? 'this week' : name(week)),
      h('span', { class: 'week-bar' }, h('i', {
        class: week === 0 ? 'bad' : week < 4 ? 'warn' : 'idle', style: { width: `${(number / most) * 100}%` },
      })),
      h('span', { class: 'number' }, count(number))))),
    h('p', { class: 'muted' }, `${count(later)} later`),
  ];
}
