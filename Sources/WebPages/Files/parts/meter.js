// How devices divide: a bar of shares, and the same in words. Each share has its colour and, for those who see no
// colours, its place and its name.
import { h } from '../core/dom.js';
import { count, percent } from '../core/format.js';

/** Of a campaign, in the order of life. */
export const CAMPAIGN_SHARES = [
  ['succeeded', 'Succeeded', 'good'], ['in_flight', 'In flight', 'busy'], ['failed', 'Failed', 'bad'],
  ['skipped', 'Skipped', 'skip'], ['pending', 'Pending', 'idle'],
];
export const FLEET_SHARES = [['online', 'Online', 'good'], ['stale', 'Stale', 'warn'], ['offline', 'Offline', 'idle']];

/** `values`: {succeeded: 12, …}; what is missing is 0. */
export function meter(values, shares, { label = '', thin = false } = {}) {
  const total = shares.reduce((sum, [name]) => sum + (values[name] ?? 0), 0);
  const said = shares.filter(([name]) => values[name] > 0).map(([name, word]) => `${word} ${count(values[name])}`).join(', ');
  return h('div', { class: thin ? 'meter thin' : 'meter', role: 'img', 'aria-label': `${label} ${said || 'none'}`.trim(), title: said },
    shares.filter(([name]) => values[name] > 0).map(([name, , kind]) =>
      h('span', { key: name, class: `share ${kind}`, style: { 'flex-grow': values[name] / total } })));
}

export function legend(values, shares, link = null) {
  const total = shares.reduce((sum, [name]) => sum + (values[name] ?? 0), 0);
  return h('ul', { class: 'legend' }, shares.map(([name, word, kind]) => {
    const text = [h('i', { class: `dot ${kind}` }), h('span', null, word), h('b', null, count(values[name] ?? 0)),
      h('small', null, total > 0 ? percent((values[name] ?? 0) / total) : '')];
    return h('li', { key: name }, link ? h('a', { href: link(name) }, text) : text);
  }));
}

/** A campaign's row as counts that add up to its devices. */
export function campaignCounts(row) {
  const total = row.total_devices ?? 0, { succeeded = 0, failed = 0, skipped = 0 } = row;
  const open = Math.max(0, total - succeeded - failed - skipped);
  const inFlight = Math.min(open, row.in_flight ?? 0);
  return { total, succeeded, failed, skipped, in_flight: inFlight, pending: open - inFlight };
}
