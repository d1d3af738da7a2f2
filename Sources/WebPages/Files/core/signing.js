// Signing in with a token, and out. The session is a cookie that scripts cannot read, and a second half that only this
// origin's pages can: cookies go to every port of a host.
import { Problem, halfOfSession, keepHalf } from './api.js';

export async function signIn(token) {
  const response = await fetch('/login', {
    method: 'POST', headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify({ token }), cache: 'no-store',
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, answer);
  keepHalf(answer.csrf);
}

export async function signOut() {
  await fetch('/logout', { method: 'POST', headers: halfOfSession() });
  keepHalf(null);
  location.assign('/login');
}
