// The devices of a campaign: found by how their ids begin and by where they stand.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { devicePage } from '../core/addresses.js';
import { duration, percent, when } from '../core/format.js';
import { filters } from './filters.js';
import { status as label, words } from './status.js';
import { Table } from './table.js';
import { onKey } from '../core/keys.js';

const STATUSES = ['PENDING', 'DOWNLOADING', 'INSTALLING', 'VERIFYING', 'SUCCESS', 'FAILED', 'TIMED_OUT', 'UNREACHABLE', 'SKIPPED'];

export function partsTable(tenant, id) {
  const { search, chips, values, only } = filters(null, STATUSES, () => table.reload());
  const table = new Table({
    label: 'Devices of the campaign', key: (row) => row.device_id,
    href: (row) => devicePage(tenant, row.device_id),
    load: (after, limit) => get(tenantPath(tenant, 'campaigns', id, 'devices'), { ...values(), after, limit }),
    empty: 'No device matches.',
    columns: [
      { title: 'Device', cell: (row) => row.device_id, class: 'name' },
      { title: 'Status', cell: (row) => label(row.status) },
      { title: 'Progress', cell: (row) => bar(row), class: 'wide' },
      { title: 'Why', cell: (row) => why(row), class: 'grow cut' },
      { title: 'Attempt', cell: (row) => row.attempt || '–', class: 'number wide' },
      { title: 'Sent for', cell: (row) => when(row.dispatched_at), class: 'wide' },
      { title: 'Answered', cell: (row) => answered(row), class: 'wide' },
      { title: 'Ended', cell: (row) => when(row.completed_at), class: 'wide' },
    ],
  });
  const note = h('small', { class: 'muted' });
  onKey('f', 'Find a device of the campaign', () => search.focus());
  table.reload();
  return {
    element: h('section', { class: 'card parts', 'aria-label': 'Devices' },
      h('header', { class: 'head' }, h('h2', null, 'Devices ', note), h('span', { class: 'end' }, search)), chips, table.element),
    only: (name) => { only(name); table.element.scrollIntoView({ block: 'center' }); },
    refresh: () => table.refresh(),
    over: (at) => render(note, at === null ? '' : 'as they are now'),
  };
}

function bar(row) {
  const share = row.status === 'SUCCESS' ? 100 : row.progress_pct;
  if (share === null || share === undefined) return '–';
  return h('span', { class: 'progress', title: percent(share / 100, 0) }, h('span', { style: { width: `${share}%` } }));
}

function answered({ acknowledged_at: answer, dispatched_at: sent }) {
  if (!answer || !sent) return '–';
  return h('span', { title: answer }, 'after ' + duration((Date.parse(answer) - Date.parse(sent)) / 1000));
}

function why(row) {
  const kind = row.failure_kind ?? row.skip_kind;
  return [kind && kind !== row.status && h('code', null, words(kind)), ' ', row.error_message ?? ''];
}
