// Statuses as small labels: a word, a sign and a colour, so that no one of them is needed to know.
import { h } from '../core/dom.js';

const KINDS = {
  RUNNING: ['busy', '▶'], PAUSED: ['warn', '❚❚'], COMPLETED: ['good', '✓'], ABORTED: ['bad', '■'], CREATED: ['idle', '○'],
  SUCCESS: ['good', '✓'], FAILED: ['bad', '✕'], TIMED_OUT: ['bad', '◷'], UNREACHABLE: ['bad', '⌀'], SKIPPED: ['skip', '»'],
  DOWNLOADING: ['busy', '↓'], INSTALLING: ['busy', '⚙'], VERIFYING: ['busy', '◎'], PENDING: ['idle', '·'],
  ONLINE: ['good', '●'], STALE: ['warn', '◐'], OFFLINE: ['idle', '○'],
  CONNECTED: ['good', '●'], DISCONNECTED: ['idle', '○'], CONNECTION_LOST: ['bad', '✕'],
  ACTIVE: ['good', '✓'], SUPERSEDED: ['idle', '»'], HELD: ['warn', '❚❚'], REVOKED: ['bad', '✕'], EXPIRED: ['bad', '◷'],
  PROVED: ['good', '✓'], UNPROVED: ['bad', '✕'], WRITTEN: ['busy', '·'], RELOADED: ['busy', '↻'], UNUSED: ['idle', '»'],
  critical: ['bad', '✕'], high: ['bad', '▲'], medium: ['warn', '◆'], low: ['idle', '·'],
  running: ['good', '●'], paused: ['warn', '❚❚'], waiting: ['warn', '◷'], failed: ['bad', '✕'], rebuilding: ['busy', '↻'],
};

export const words = (status) => status.toLowerCase().replaceAll('_', ' ');

export function status(name) {
  if (!name) return h('span', { class: 'faint' }, '–');
  const [kind, sign] = KINDS[name] ?? ['idle', '·'];
  return h('span', { class: `status ${kind}` }, h('i', { 'aria-hidden': 'true' }, sign), words(name));
}
