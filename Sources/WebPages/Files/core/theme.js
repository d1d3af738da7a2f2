// Light, dark, or as the system says. Kept in this browser.
const NAMES = ['auto', 'light', 'dark'];

const stored = () => { try { return localStorage.getItem('theme') ?? 'auto'; } catch { return 'auto'; } };
export const theme = () => (NAMES.includes(stored()) ? stored() : 'auto');

export function applyTheme(name = theme()) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

export function nextTheme() {
  const name = NAMES[(NAMES.indexOf(theme()) + 1) % NAMES.length];
  try { localStorage.setItem('theme', name); } catch { /* A browser that keeps nothing shows it until it leaves. */ }
  applyTheme(name);
  return name;
}
