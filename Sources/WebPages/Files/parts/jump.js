// The field in the bar that goes to a device by its name: `tenant/device`, or the device alone where one tenant is known.
import { h } from '../core/dom.js';
import { devicePage } from '../core/addresses.js';
import { knownTenant } from '../core/tenants.js';

export function jump() {
  const field = h('input', {
    id: 'jump', type: 'search', placeholder: 'tenant/device', 'aria-label': 'Go to a device', spellcheck: 'false',
    autocomplete: 'off', enterkeyhint: 'go',
    onkeydown: (event) => { if (event.key === 'Escape') field.blur(); },
  });
  return h('form', {
    role: 'search', class: 'jump',
    onsubmit: (event) => {
      event.preventDefault();
      const typed = field.value.trim();
      if (typed === '') return;
      const slash = typed.indexOf('/');
      const tenant = slash < 0 ? knownTenant() : typed.slice(0, slash), device = typed.slice(slash + 1);
      if (!tenant) { location.assign('/devices?search=' + encodeURIComponent(device)); return; }
      location.assign(devicePage(tenant, device));
    },
  }, field);
}
