// Which CRL is in force at which broker, and how long until a broker refuses everyone.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { listPage } from '../core/addresses.js';
import { chooseTenant } from '../core/tenants.js';
import { ago, count, duration, when } from '../core/format.js';
import { status as label } from '../parts/status.js';
import { findingHead, findingList } from '../parts/findings.js';
import { every } from '../core/every.js';

const CODES = ['revoked_sending', 'crl_expiring', 'authority_expiring', 'authority_key_missing'];

export async function show(main) {
  const { tenant, choice } = await chooseTenant();
  if (!tenant) {
    render(main, h('section', { class: 'empty' }, h('h1', null, 'No CRLs yet'), h('p', null,
      'Refold issues CRLs once there is an authority: ', h('code', null, 'refold ca init'))));
    return;
  }
  const brokers = h('section', { class: 'card' }), lists = h('section', { class: 'card' }), findings = h('section', { class: 'card' });
  render(main, h('header', { class: 'head' }, h('h1', null, 'Revocation'), choice,
    h('span', { class: 'end' }, h('a', { href: `${listPage('/certificates', tenant)}&status=REVOKED` }, 'revoked certificates'))),
  brokers, lists, findings);
  const failed = (place, title) => (error) => render(place, h('h2', null, title), h('p', { class: 'refusal' }, error.message));
  every(3000, async () => {
    const page = await get(tenantPath(tenant, 'enforcement'));
    render(brokers, h('h2', null, 'Brokers'), brokersOf(page.items));
  }, failed(brokers, 'Brokers'));
  every(3000, async () => {
    const page = await get(tenantPath(tenant, 'crls'));
    render(lists, h('h2', null, 'CRLs'), listsOf(page.items));
  }, failed(lists, 'CRLs'));
  every(15_000, async () => {
    const audit = await get(tenantPath(tenant, 'certificates', 'findings'), { code: CODES.join() });
    render(findings, findingHead(audit), findingList(tenant, audit.items, (item) => item.device ?? `authority ${item.authority}`));
  }, failed(findings, 'Findings'));
}

/** Time until brokers refuse every client; red in the last quarter of the CRL's life. */
function lockOut(crl) {
  if (!crl.next_update) return '–';
  const end = Date.parse(crl.next_update), seconds = (end - Date.now()) / 1000;
  const isNear = seconds < (end - Date.parse(crl.this_update)) / 4000;
  return h('span', { class: isNear ? 'bad' : null, title: crl.next_update }, seconds <= 0 ? 'now' : duration(seconds));
}

const STATES = {
  PENDING: 'The newest CRL is not at the broker yet.',
  WRITTEN: 'The newest CRL is published for the broker (its file, or /crl/). It is not proved to be in force.',
  RELOADED: 'The broker was told to read the newest CRL. It is not proved to be in force.',
  PROVED: 'The newest CRL is in force: the broker refuses its canary and accepts a live certificate.',
  UNPROVED: 'Writing, reloading or proving failed.',
  UNUSED: 'Not proved. No certificate of this authority is in use.',
};

function table(titles, rows) {
  return h('div', { class: 'scroll-x' }, h('table', { class: 'plain' },
    h('thead', null, h('tr', null, titles.map(([title, kind]) => h('th', { class: kind, scope: 'col' }, title)))),
    h('tbody', null, rows)));
}

const step = (number, at, newest) => h('span', { class: number === newest ? null : 'muted', title: `CRL ${number}` },
  at ? when(at, ago) : '–', number !== newest && number > 0 && h('small', null, ' an earlier CRL'));

function brokersOf(rows) {
  if (rows.length === 0) {
    return h('p', { class: 'muted' }, 'No broker enforces CRLs. Set ', h('code', null, 'broker.crl_file'), ', ',
      h('code', null, 'crl_reload_command'), ' and ', h('code', null, 'crl_probe_url'), ' (docs/certificates.md).');
  }
  return table([['Broker'], ['Authority'], ['State'], ['Last proved CRL', 'number'], ['Written'], ['Reloaded'], ['Proved'],
    ['Time to proof', 'number'], ['Not disconnected', 'number'], ['Lock-out in', 'number']],
  rows.map((row) => h('tr', { key: `${row.broker} ${row.authority}` },
      h('td', null, h('b', null, row.broker), row.error && h('p', { class: 'refusal' }, row.error)), h('td', null, row.authority),
      h('td', { title: STATES[row.state] }, label(row.state)),
      h('td', { class: 'number' }, row.proved > 0 ? String(row.proved) : '–'),
      h('td', null, step(row.written, row.written_at, row.number)), h('td', null, step(row.reloaded, row.reloaded_at, row.number)),
      h('td', null, step(row.proved, row.proved_at, row.number)),
      h('td', { class: 'number' }, row.proved_ms === undefined ? '–' : `${count(row.proved_ms)} ms`),
      h('td', { class: 'number', title: 'revoked certificates whose clients may be connected' },
        h('span', { class: row.uncut > 0 ? 'bad' : null }, count(row.uncut)),
        row.banned > 0 && h('small', null, ` ${count(row.banned)} banned`)),
      h('td', { class: 'number' }, lockOut(row)))));
}

function listsOf(rows) {
  if (rows.length === 0) return h('p', { class: 'muted' }, 'No CRL was issued yet.');
  return table([['Authority'], ['Number', 'number'], ['Entries', 'number'], ['Issued'], ['Next update'], ['Lock-out in', 'number'], ['']],
    rows.map((row) => h('tr', { key: row.authority },
      h('td', null, h('b', null, row.authority)), h('td', { class: 'number' }, String(row.number)),
      h('td', { class: 'number' }, count(row.entries)), h('td', null, when(row.this_update, ago)), h('td', null, when(row.next_update)),
      h('td', { class: 'number' }, lockOut(row)),
      h('td', null, row.is_outdated && label('PENDING'), ' ', h('a', { href: `/crl/${encodeURIComponent(row.authority)}.pem` }, 'PEM')))));
}
