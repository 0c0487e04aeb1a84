import type { FastifyReply, FastifyRequest } from 'fastify';
import type { WebContext } from './ports.ts';

/**
 * What every answer carries. No script, no frame, no font: the pages need none. Browsers apply `form-action`
 * to the redirect after a post too, so the gateway's origin stands beside our own.
 */
export function secureHeaders(
  context: Pick<WebContext, 'gatewayOrigins' | 'isSecure'>,
): Record<string, string> {
  const forms = ["'self'", ...context.gatewayOrigins].join(' ');
  return {
    'content-security-policy': `default-src 'none'; style-src 'self'; img-src 'self'; form-action ${forms}; frame-ancestors 'none'; base-uri 'none'`,
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=()',
    ...(context.isSecure ? { 'strict-transport-security': 'max-age=63072000; includeSubDomains' } : {}),
  };
}

/**
 * Whether a post comes from our own page. Browsers say so in Sec-Fetch-Site, older ones in Origin (`null` under our
 * Referrer-Policy). One that says nothing has still shown the visit's unguessable address and its SameSite cookie.
 */
export function isOurOwnPost(request: FastifyRequest, baseUrl: string): boolean {
  const site = request.headers['sec-fetch-site'];
  // `none` is a person's own doing, such as a reload.
  if (site !== undefined) return site === 'same-origin' || site === 'none';
  const { origin } = request.headers;
  return origin === undefined || origin === 'null' || origin === new URL(baseUrl).origin;
}

// 64 KiB instead of 8: pages of 5 kB then share their memory as small buffers do. One of its own for each is an eighth of
// what a page costs beside the database.
Buffer.poolSize = 65_536;

export function html(reply: FastifyReply, status: number, content: string): FastifyReply {
  // As bytes: their number is asked first, and counting them in text costs as much as writing them.
  return reply.code(status).type('text/html; charset=utf-8').send(Buffer.from(content));
}
