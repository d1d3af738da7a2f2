// Findings of the certificates' audit: what is wrong, since when, on what evidence, and what to do.
import { h } from '../core/dom.js';
import { ago, when } from '../core/format.js';
import { eventLink } from './event.js';
import { status as label, words } from './status.js';

/** The title of a card of findings, and a warning where some are missing. */
export function findingHead(audit, ...numbers) {
  return [
    h('h2', null, 'Findings', ...numbers, h('small', null, 'checked ', when(audit.audited_at, ago))),
    audit.senders_unknown && h('p', { class: 'why warn' },
      `Findings about devices that send are missing: ${audit.senders_unknown}`),
  ];
}

/** @param subject(item) the certificate, device or authority that it is about */
export function findingList(tenant, items, subject) {
  if (items.length === 0) return h('p', { class: 'muted' }, 'No findings.');
  return h('ul', { class: 'rows tall findings' }, items.map((item) => h('li', {
    key: `${item.code} ${item.authority ?? ''} ${item.serial ?? ''} ${item.device ?? ''}`,
  },
  label(item.severity), h('b', null, words(item.code)), subject(item), h('span', { class: 'end muted' }, when(item.since, ago)),
  h('p', null, item.text, ' ', item.evidence.map((one) => h('span', { class: 'pair' },
    h('span', { class: 'muted' }, one.what), eventLink(tenant, one.position)))),
  h('p', { class: 'muted' }, remedy(item.remedy)))));
}

/** Commands stand between backticks. */
const remedy = (text) => text.split('`').map((part, index) => (index % 2 === 1 ? h('code', null, part) : part));
