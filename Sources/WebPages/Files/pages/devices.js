// The fleet of a tenant.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { devicePage } from '../core/addresses.js';
import { chooseTenant } from '../core/tenants.js';
import { ago, count, when } from '../core/format.js';
import { filters } from '../parts/filters.js';
import { status as label } from '../parts/status.js';
import { Table } from '../parts/table.js';
import { every } from '../core/every.js';

const STATUSES = ['ONLINE', 'STALE', 'OFFLINE'];

const refused = (number) => h('span', { class: number > 0 ? 'bad' : null }, count(number));

export async function show(main, _, query) {
  const { tenant, choice } = await chooseTenant();
  if (!tenant) {
    render(main, h('section', { class: 'empty' }, h('h1', null, 'No device yet'), h('p', null,
      'A device is there as soon as it has published something under tenant/…/device/…')));
    return;
  }
  const { search, chips, values } = filters(query, STATUSES, () => table.reload());
  const table = new Table({
    label: 'Devices', key: (row) => row.device_id,
    href: (row) => devicePage(tenant, row.device_id),
    load: (after, limit) => get(tenantPath(tenant, 'devices'), { ...values(), after, limit }),
    empty: 'No device matches.',
    columns: [
      { title: 'Device', cell: (row) => row.device_id, class: 'name' },
      { title: 'Status', cell: (row) => label(row.status) },
      { title: 'Last seen', cell: (row) => when(row.last_seen_at, ago) },
      { title: 'Site', cell: (row) => row.site_id ?? '–', class: 'wide' },
      { title: 'Firmware', cell: (row) => row.firmware_version ?? '–' },
      { title: 'Messages', cell: (row) => count(row.message_count), class: 'number wide' },
      { title: 'Refused', cell: (row) => refused(row.rejected_count), class: 'number wide' },
      { title: 'First seen', cell: (row) => when(row.first_seen_at), class: 'wide' },
    ],
  });
  render(main, h('header', { class: 'head' }, h('h1', null, 'Devices'), choice, h('span', { class: 'end' }, search)), chips, table.element);
  table.grid.focus();
  every(5000, () => table.refresh());
}
