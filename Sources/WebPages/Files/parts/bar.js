// The bar above every page: where one is, how the system is, where one can go.
import { h, s, render } from '../core/dom.js';
import { onStatus } from '../core/live.js';
import { onKey, showKeys } from '../core/keys.js';
import { theme, nextTheme } from '../core/theme.js';
import { session, isSignedIn } from '../core/session.js';
import { signOut } from '../core/signing.js';
import { jump } from './jump.js';

const LINKS = [
  ['/', 'Overview', ['overview'], 'g o'],
  ['/campaigns', 'Campaigns', ['campaigns', 'campaign', 'create'], 'g c'],
  ['/devices', 'Devices', ['devices', 'device'], 'g d'],
  ['/certificates', 'Certificates', ['certificates', 'certificate'], 'g s'],
  ['/revocation', 'Revocation', ['revocation'], 'g r'],
];

export function showBar(page) {
  const state = h('a', { class: 'pill', href: '/', title: 'How the system is' }, '…');
  const account = h('span', { class: 'account' });
  const themeButton = h('button', { class: 'ghost', onclick: () => { nextTheme(); nameTheme(); } });
  const nameTheme = () => {
    themeButton.title = `Colours: ${theme()}`;
    themeButton.setAttribute('aria-label', themeButton.title);
    render(themeButton, { auto: '◐', light: '☀', dark: '☾' }[theme()]);
  };
  nameTheme();
  render(document.getElementById('bar'),
    h('a', { class: 'brand', href: '/', 'aria-label': 'Refold, overview' }, mark(), h('span', null, 'Refold')),
    h('nav', { 'aria-label': 'Pages' }, LINKS.map(([href, text, pages]) =>
      h('a', { href, 'aria-current': pages.includes(page) ? 'page' : null }, text))),
    jump(),
    h('span', { class: 'end' },
      state, account, themeButton,
      h('button', { class: 'ghost', title: 'Keys (?)', 'aria-label': 'Keys', onclick: showKeys }, '?')));
  render(account, isSignedIn()
    ? h('button', { class: 'ghost', title: 'Sign out', onclick: signOut }, session.name ?? 'signed in')
    : h('a', { class: 'button ghost', href: '/login?next=' + encodeURIComponent(location.pathname + location.search) }, 'Sign in'));
  for (const [href, text, , keys] of LINKS) onKey(keys, text, () => location.assign(href));
  onKey('/', 'Find a device', () => document.getElementById('jump').focus());
  onKey('t', 'Colours: light, dark, as the system', () => themeButton.click());
  onKey('?', 'These keys', showKeys);
  onStatus((status, error) => {
    state.hidden = error?.status === 403;
    const word = error ? 'no answer' : status.state;
    state.className = `pill ${error ? 'bad' : { healthy: 'good', degraded: 'warn', held: 'bad' }[word]}`;
    render(state, word);
  });
}

const mark = () => s('svg', { viewBox: '0 0 32 32', width: 24, height: 24, 'aria-hidden': 'true' },
  s('rect', { width: 32, height: 32, rx: 7, class: 'mark' }),
  s('path', { d: 'M7 22 16 7l9 15M11.5 22 16 14.5 20.5 22', class: 'mark-line' }));
