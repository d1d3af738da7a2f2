// Who is looking, and what they may do.
import { get } from './api.js';

const RANKS = { viewer: 0, operator: 1, admin: 2 };

/** `tenant` null: all tenants. */
export const session = { name: null, role: 'viewer', tenant: null, csrf: null };

/** Asks the server. Without an answer one is a reader of this machine, as long as reading is open. */
export async function loadSession() {
  try {
    Object.assign(session, await get('/session'));
  } catch { /* The page's own questions will say what is wrong. */ }
  return session;
}

export const isSignedIn = () => session.csrf !== null;
export const mayOperate = () => isSignedIn() && RANKS[session.role] >= RANKS.operator;

export function goToLogin() {
  location.assign('/login?next=' + encodeURIComponent(location.pathname + location.search));
}
