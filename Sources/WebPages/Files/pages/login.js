// Signing in with a token.
import { h, render } from '../core/dom.js';
import { signIn } from '../core/signing.js';

/**
 * Only addresses of this server, judged as the browser reads them: it drops tabs and line breaks, and takes what begins
 * with two slashes for another server's. The whole address, since a path may begin with two slashes again.
 */
export const next = (query) => {
  try {
    const asked = new URL(query.get('next') ?? '/', location.origin);
    return asked.origin === location.origin ? asked.href : '/';
  } catch {
    return '/';
  }
};

export async function show(main, _, query) {
  const refusal = h('p', { class: 'refusal', role: 'alert' });
  const token = h('input', {
    id: 'token', name: 'token', type: 'password', autocomplete: 'current-password', required: true, spellcheck: 'false',
  });
  const go = h('button', { class: 'primary', type: 'submit' }, 'Sign in');
  render(main, h('form', {
    class: 'card login',
    onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      render(refusal);
      try {
        await signIn(token.value.trim());
        location.replace(next(query));
      } catch (error) {
        render(refusal, error.message);
        go.disabled = false;
        token.select();
      }
    },
  },
  h('h1', null, 'Refold'),
  h('input', { name: 'username', autocomplete: 'username', value: 'token', hidden: true }),
  h('label', { class: 'field' }, 'Token', token),
  refusal, go,
  h('p', { class: 'muted' }, 'A token is made by ', h('code', null, 'refold token create'),
    '. The one of full power is the content of the file ', h('code', null, 'token'), ' in the data folder.')));
  token.focus();
}
