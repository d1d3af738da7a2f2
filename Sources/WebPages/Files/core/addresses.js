// Where the pages are.
import { tenantPath } from './api.js';

export const campaignPage = (tenant, id) => tenantPath(tenant, 'campaigns', String(id));
export const devicePage = (tenant, device) => tenantPath(tenant, 'devices', device);
export const certificatePage = (tenant, authority, serial) => tenantPath(tenant, 'certificates', authority, serial);
/** /campaigns, /campaigns/new, /devices, /certificates or /revocation of a tenant. */
export const listPage = (path, tenant) => `${path}?tenant=${encodeURIComponent(tenant)}`;
