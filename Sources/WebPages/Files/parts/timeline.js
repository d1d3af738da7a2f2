// What was decided, by whom, why, and on what evidence; newest first.
import { h } from '../core/dom.js';
import { when, count, many, percent } from '../core/format.js';
import { eventLink } from './event.js';
import { words } from './status.js';

const KINDS = {
  created: ['Created', 'idle'], started: ['Started', 'busy'], paused: ['Paused', 'warn'], resumed: ['Resumed', 'busy'],
  aborted: ['Aborted', 'bad'], completed: ['Completed', 'good'], deleted: ['Deleted', 'idle'],
  retried: ['Failed devices are tried again', 'busy'], stage_begun: ['Stage begun', 'busy'],
  dispatched: ['sent for', 'soft'], published: ['taken by the broker', 'soft'], devices_ended: ['ended', 'soft'],
};

export const timelineKind = (row) => KINDS[row.event_type]?.[1] ?? 'idle';

/** What changes a campaign's course, not the batches in between. */
export const isTurn = (row) => timelineKind(row) !== 'soft';

export function timelineTitle(row) {
  const [word] = KINDS[row.event_type] ?? [row.event_type];
  switch (row.event_type) {
  case 'stage_begun': return `Stage ${(row.stage ?? 0) + 1} begun`;
  case 'dispatched': case 'published': return `${many(row.devices, 'device')} ${word}`;
  case 'devices_ended': return `${many(row.devices, 'device')}: ${words(row.status_after ?? word)}`;
  default: return word;
  }
}

/** @param at what was decided after this moment is shown as not yet decided; null: now */
export function timeline(tenant, rows, at = null) {
  return h('ol', { class: 'timeline' }, rows.map((row) => h('li', {
    key: row.position, class: `${timelineKind(row)}${at !== null && Date.parse(row.at) > at ? ' later' : ''}`,
  },
  h('div', { class: 'line' },
    h('b', null, timelineTitle(row)), row.code && h('code', null, row.code),
    h('span', { class: 'who' }, row.actor === 'engine' ? 'by the engine' : row.actor ? `by ${row.actor}` : ''),
    h('span', { class: 'end' }, when(row.at), eventLink(tenant, row.position))),
  row.reason && h('p', null, row.reason),
  isTurn(row) && row.counts && h('p', { class: 'muted' }, standing(row.counts)),
  evidence(tenant, row))));
}

function evidence(tenant, row) {
  const weighs = Array.isArray(row.evidence) ? row.evidence : [];
  const hasCause = row.cause !== null && row.cause !== undefined;
  if (!hasCause && weighs.length === 0) return null;
  return h('p', { class: 'evidence' },
    hasCause && [h('span', null, 'because of'), eventLink(tenant, row.cause)],
    weighs.length > 0 && [h('span', null, 'evidence'), weighs.map((one) => typeof one === 'object'
      ? h('span', { class: 'pair' }, one.device_id, eventLink(tenant, one.position))
      : eventLink(tenant, one))]);
}

function standing(counts) {
  const results = counts.succeeded + counts.failed;
  const share = results > 0 ? ` (${percent(counts.failed / results)} of the results)` : '';
  return `${count(counts.succeeded)} succeeded, ${count(counts.failed)} failed${share}, ${count(counts.in_flight)} in flight, `
    + `${count(counts.pending)} pending, ${count(counts.skipped)} skipped`;
}
