// One certificate and its history, each step with its event.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { certificatePage, devicePage, listPage } from '../core/addresses.js';
import { ago, when } from '../core/format.js';
import { status as label } from '../parts/status.js';
import { eventLink } from '../parts/event.js';
import { findingHead, findingList } from '../parts/findings.js';
import { every } from '../core/every.js';
import { remember } from '../core/tenants.js';
import { shownStatus } from './certificates.js';

const KINDS = {
  'certificate.issued': ['Issued', 'good'], 'certificate.imported': ['Imported', 'good'],
  'certificate.superseded': ['Superseded', 'idle'], 'certificate.held': ['Put on hold', 'warn'],
  'certificate.released': ['Released', 'good'], 'certificate.revoked': ['Revoked', 'bad'],
  'certificate.renewal_requested': ['Renewal requested', 'idle'], 'certificate.renewal_delivered': ['Command delivered', 'idle'],
  'certificate.renewal_refused': ['Request refused', 'warn'], 'certificate.renewal_resent': ['Sent again', 'idle'],
  'certificate.renewal_installed': ['Installed', 'good'], 'certificate.renewal_failed': ['Renewal failed', 'warn'],
  'client.ban_lifted': ['Ban lifted', 'idle'],
};

/** Of `client.cut`, by its outcome, which is the event's reason. */
const CUTS = {
  cut: ['Client disconnected', 'bad'], was_not_connected: ['Client was not connected', 'idle'],
  still_connected: ['Client is still connected', 'warn'],
};

export async function show(main, [tenant, authority, serial]) {
  remember(tenant);
  const path = tenantPath(tenant, 'certificates', authority, serial);
  const head = h('header', { class: 'head' }), life = h('section', { class: 'card span' });
  const facts = h('section', { class: 'card' }), findings = h('section', { class: 'card span' }), pem = h('section', { class: 'card' });
  let row = await get(path);
  document.title = `${row.device} · Refold`;
  render(main, head, h('div', { class: 'grid' }, life, facts, findings, pem));
  render(pem, h('h2', null, 'PEM'), h('details', null, h('summary', null, 'The certificate, then its authorities'),
    h('pre', null, row.certificate ?? 'Not available: its log segment is no longer on this disk.')));
  every(5000, async () => {
    row = await get(path);
    render(head, heading(tenant, row));
    render(facts, factsOf(tenant, row));
  }, (error) => render(facts, h('h2', null, 'Facts'), h('p', { class: 'refusal' }, error.message)));
  every(5000, async () => {
    const page = await get(`${path}/events`, { order: 'newest', limit: 200 });
    render(life, h('h2', null, 'History'), timeline(tenant, page.items));
  }, (error) => render(life, h('h2', null, 'History'), h('p', { class: 'refusal' }, error.message)));
  every(15_000, async () => {
    const audit = await get(tenantPath(tenant, 'certificates', 'findings'), { authority, serial });
    render(findings, findingHead(audit), findingList(tenant, audit.items, () => null));
  }, (error) => render(findings, h('h2', null, 'Findings'), h('p', { class: 'refusal' }, error.message)));
}

function heading(tenant, row) {
  return h('div', { class: 'title' },
    h('p', { class: 'crumbs' }, h('a', { href: listPage('/certificates', tenant) }, 'Certificates'), ' / ', tenant, ' / ', row.authority),
    h('h1', null, row.device, ' ', label(shownStatus(row))),
    h('p', { class: 'muted' }, row.status === 'REVOKED' ? [`${row.reason} · revoked `, when(row.changed_at, ago)]
      : ['expires ', when(row.not_after, ago)]));
}

function factsOf(tenant, row) {
  const other = (reference) => {
    const [authority, serial] = reference.split('/');
    return h('a', { href: certificatePage(tenant, authority, serial) }, h('code', null, serial));
  };
  const shown = [
    ['Device', h('a', { href: devicePage(tenant, row.device) }, row.device)], ['Authority', row.authority],
    ['Serial number', h('code', null, row.serial)],
    ['Valid from', when(row.not_before)], ['Valid until', when(row.not_after)],
    ['Renews', row.renews && other(row.renews)], ['Replaced by', row.replaced_by && other(row.replaced_by)],
    ['SHA-256 of the key', h('code', null, row.spki_sha256)],
  ];
  return [h('h2', null, 'Facts'), h('dl', { class: 'facts' }, shown.filter(([, value]) => value).map(([name, value]) =>
    [h('dt', { key: name + 'n' }, name), h('dd', { key: name }, value)]))];
}

function timeline(tenant, rows) {
  return h('ol', { class: 'timeline' }, rows.map((row) => {
    const cut = row.event_type === 'client.cut' && CUTS[row.reason];
    const [word, kind] = cut || (KINDS[row.event_type] ?? [row.event_type, 'idle']);
    return h('li', { key: row.position, class: kind },
      h('div', { class: 'line' }, h('b', null, word), row.reason && !cut && h('code', null, row.reason),
        h('span', { class: 'who' }, row.actor ? `by ${row.actor}` : ''),
        h('span', { class: 'end' }, when(row.at), eventLink(tenant, row.position))),
      row.note && h('p', null, row.note));
  }));
}
