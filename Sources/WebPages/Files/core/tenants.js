// Whose fleet is looked at: in the address, else as last time, else the first there is.
import { h } from './dom.js';
import { get } from './api.js';
import { session } from './session.js';

export function knownTenant() {
  const inPath = location.pathname.match(/^\/tenants\/([^/]+)\//);
  if (inPath) return decodeURIComponent(inPath[1]);
  const asked = new URLSearchParams(location.search).get('tenant');
  if (asked) return asked;
  if (session.tenant) return session.tenant;
  try { return localStorage.getItem('tenant'); } catch { return null; }
}

export function remember(tenant) {
  try { localStorage.setItem('tenant', tenant); } catch { /* Then it is asked for each time. */ }
}

/** All tenants one may see: [{tenant_id, devices, online, stale, offline}]. */
export async function tenants() { return (await get('/tenants')).items; }

/** The tenant to show, and a list to choose another from. */
export async function chooseTenant() {
  const all = await tenants();
  const names = all.map((one) => one.tenant_id);
  const known = knownTenant();
  const tenant = names.includes(known) ? known : names[0] ?? known;
  if (tenant) remember(tenant);
  const choice = h('label', { class: 'choice' }, h('span', { class: 'muted' }, 'Tenant'),
    h('select', {
      onchange: (event) => {
        const url = new URL(location.href);
        url.searchParams.set('tenant', event.target.value);
        location.assign(url);
      },
    }, names.map((name) => h('option', { value: name, selected: name === tenant }, name))));
  return { tenant, choice: names.length > 1 ? choice : null };
}
