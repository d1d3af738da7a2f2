// Begins every page: the bar above, the keys, and the module that shows what the address names.
import { h, render } from './dom.js';
import { applyTheme } from './theme.js';
import { loadSession, goToLogin } from './session.js';
import { showBar } from '../parts/bar.js';

applyTheme();

const PAGES = [
  [/^\/$/, 'overview', 'Overview'],
  [/^\/login$/, 'login', 'Sign in'],
  [/^\/campaigns$/, 'campaigns', 'Campaigns'],
  [/^\/campaigns\/new$/, 'create', 'New campaign'],
  [/^\/tenants\/([^/]+)\/campaigns\/(\d+)$/, 'campaign', 'Campaign'],
  [/^\/devices$/, 'devices', 'Devices'],
  [/^\/tenants\/([^/]+)\/devices\/([^/]+)$/, 'device', 'Device'],
  [/^\/certificates$/, 'certificates', 'Certificates'],
  [/^\/tenants\/([^/]+)\/certificates\/([^/]+)\/([^/]+)$/, 'certificate', 'Certificate'],
  [/^\/revocation$/, 'revocation', 'Revocation'],
];

async function start() {
  const main = document.getElementById('main');
  const [match, name, title] = PAGES
    .map(([pattern, ...rest]) => [location.pathname.match(pattern), ...rest])
    .find(([found]) => found) ?? [null];
  if (!match) {
    showBar('');
    render(main, h('section', { class: 'empty' }, h('h1', null, 'Nothing is here'), h('p', null, location.pathname)));
    return;
  }
  document.title = `${title} · Refold`;
  const [page] = await Promise.all([import(`../pages/${name}.js`), loadSession()]);
  if (name !== 'login') showBar(name);
  try {
    await page.show(main, match.slice(1).map(decodeURIComponent), new URLSearchParams(location.search));
  } catch (error) {
    showFailure(main, error);
  }
  main.dataset.ready = 'true';
}

function showFailure(main, error) {
  if (error.status === 401) { goToLogin(); return; }
  const title = error.status === 404 ? 'There is no such thing' : error.status === 403 ? 'Not for you' : 'This cannot be shown';
  render(main, h('section', { class: 'empty' },
    h('h1', null, title), h('p', null, error.message),
    h('button', { onclick: () => location.reload() }, 'Try again')));
}

start();
