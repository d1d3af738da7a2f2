// One event of the log, as it was recorded: the evidence behind what a page says.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { when } from '../core/format.js';
import { openDialog } from './dialog.js';
import { jsonTree } from './json.js';

/** A position that opens its event. */
export function eventLink(tenant, position) {
  if (position === null || position === undefined) return null;
  return h('button', { class: 'position', title: 'Show this event of the log', onclick: () => showEvent(tenant, position) },
    '#' + position);
}

async function showEvent(tenant, position) {
  const place = h('div', { class: 'event' }, 'Loading…');
  openDialog(`Event #${position}`, place);
  try {
    const event = await get(tenantPath(tenant, 'events', String(position)));
    render(place,
      h('dl', { class: 'facts' },
        fact('Received', when(event.received_at)), fact('Kind', event.kind), fact('Verdict', event.verdict),
        fact('Broker', event.broker), fact('Topic', event.topic && h('code', null, event.topic))),
      event.payload !== null && typeof event.payload === 'object'
        ? jsonTree(event.payload) : h('pre', null, String(event.payload ?? event.payload_base64 ?? '')));
  } catch (error) {
    render(place, h('p', { class: 'refusal' }, error.message));
  }
}

const fact = (name, value) => value && [h('dt', null, name), h('dd', null, value)];
