/** Every address of the public server: the pattern that routes, and how to write one. */
export const paths = {
  /** What the SMS carries. Changes nothing but the visitor's cookie. */
  link: { pattern: '/l/:token', of: (token: string) => `/l/${token}` },
  /** A visit to one bill; the cookie that opens it is sent to this path only. */
  bill: { pattern: '/b/:visit', of: (visit: string) => `/b/${visit}` },
  check: { pattern: '/b/:visit/check', of: (visit: string) => `/b/${visit}/check` },
  /** From a bill that is paid to its receipt: asks as for one that is owed. */
  receipt: { pattern: '/b/:visit/receipt', of: (visit: string) => `/b/${visit}/receipt` },
  /** "This is not for me": a GET asks, a POST does. */
  notMine: { pattern: '/b/:visit/not-mine', of: (visit: string) => `/b/${visit}/not-mine` },
  /** Ends automatic payment: a GET asks, a POST does. */
  stop: { pattern: '/b/:visit/stop', of: (visit: string) => `/b/${visit}/stop` },
  /** Another card for automatic payment: a GET asks, a POST opens the gateway's page. */
  card: { pattern: '/b/:visit/card', of: (visit: string) => `/b/${visit}/card` },
  /** A further link, by SMS to the phone that the merchant gave. */
  freshLink: { pattern: '/b/:visit/new-link', of: (visit: string) => `/b/${visit}/new-link` },
  pay: { pattern: '/b/:visit/pay', of: (visit: string) => `/b/${visit}/pay` },
  /** The same by another way than a card: `wallet`. */
  payBy: {
    pattern: '/b/:visit/pay/:method',
    of: (visit: string, method: string) => `/b/${visit}/pay/${method}`,
  },
  /** Posted to it is issued, read it is shown. */
  barcode: { pattern: '/b/:visit/barcode', of: (visit: string) => `/b/${visit}/barcode` },
  /** Where the gateway sends the visitor back; works without the cookie. */
  back: { pattern: '/r/:nonce', of: (nonce: string) => `/r/${nonce}` },
  /** The same after another card was chosen. */
  cardBack: { pattern: '/c/:nonce', of: (nonce: string) => `/c/${nonce}` },
  /** How to tell a genuine SMS: for everybody. */
  genuine: { pattern: '/sms', of: () => '/sms' },
  logo: {
    pattern: '/logo-:merchant-:version.svg',
    of: (shortCode: string, version: number) => `/logo-${shortCode}-${version}.svg`,
  },
  style: { pattern: '/style-:version.css', of: (version: string) => `/style-${version}.css` },
  brand: {
    pattern: '/brand-:color.css',
    of: (color: string) => `/brand-${color.replace('#', '').toLowerCase()}.css`,
  },
  webhook: {
    pattern: '/webhooks/:gateway/:merchant',
    of: (gateway: string, merchant: string) => `/webhooks/${gateway}/${merchant}`,
  },
  /** What became of an SMS of a merchant; the carrier's adapter writes it with our id of the message behind it. */
  smsStatus: { of: (carrier: string, merchant: string) => `/webhooks/${carrier}/${merchant}` },
  /** What customers answer to the sender. */
  smsAnswer: { of: (carrier: string) => `/webhooks/${carrier}` },
  health: { pattern: '/healthz', of: () => '/healthz' },
  favicon: { pattern: '/favicon.ico', of: () => '/favicon.ico' },
} as const;

/** The same for the operators' pages. */
export const adminPaths = {
  status: '/',
  outbox: '/outbox',
  style: '/admin.css',
  health: '/healthz',
} as const;
