// The API's client: the same routes that programs use.

/** What the API says is wrong (RFC 9457), or that it does not answer (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.code = body.code ?? '';
    this.position = body.position;
  }
}

const HALF = 'session';
let half = null;
try { half = localStorage.getItem(HALF); } catch { /* A browser that keeps nothing has it for this page only. */ }

// Another tab has signed in or out.
addEventListener('storage', (event) => { if (event.key === HALF) half = event.newValue; });

/** The session's second half, without which its cookie opens nothing; null: none. */
export function keepHalf(text) {
  half = text ?? null;
  try {
    if (half) localStorage.setItem(HALF, half); else localStorage.removeItem(HALF);
  } catch { /* As above. */ }
}

/** What every request of a session has to bring along. */
export const halfOfSession = () => (half ? { 'X-CSRF-Token': half } : {});

/** GET /api/v1 + path. `query`'s missing values are left out. */
export const get = (path, query, signal) => ask('GET', path, query, undefined, signal);
export const post = (path, body) => ask('POST', path, null, body ?? {});
export const remove = (path) => ask('DELETE', path, null);

export const tenantPath = (tenant, ...rest) =>
  '/tenants/' + [tenant, ...rest].map((part) => encodeURIComponent(part)).join('/');

async function ask(method, path, query, body, signal) {
  const url = new URL('/api/v1' + path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  const headers = { Accept: 'application/json', ...halfOfSession() };
  if (method !== 'GET') {
    headers['Idempotency-Key'] = uniqueKey();
    if (body !== undefined) headers['Content-Type'] = 'application/json';
  }
  let response;
  try {
    response = await fetch(url, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { detail: 'Refold does not answer. It may be starting again.' });
  }
  const text = await response.text();
  if (!response.ok) throw new Problem(response.status, parsed(text) ?? { title: response.statusText });
  return text === '' ? null : parsed(text);
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

/** `crypto.randomUUID` is for secure contexts only; a proxy may serve plain HTTP inside a network. */
function uniqueKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
