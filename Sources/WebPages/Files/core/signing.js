// Signing in with a token, and out. The token goes into a cookie that scripts cannot read.
import { Problem } from './api.js';

export async function signIn(token) {
  const response = await fetch('/login', {
    method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify({ token }), cache: 'no-store',
  });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
}

export async function signOut() {
  await fetch('/logout', { method: 'POST' });
  location.assign('/login');
}
