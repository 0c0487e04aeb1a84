import { AsyncLocalStorage } from 'node:async_hooks';
import { Agent, request } from 'undici';

/**
 * How the SDK's requests travel. Its own clients are not used: their time limit ends with the answer's headers, so that a
 * body that stops half-way would hang for ever; and a closed connection they send again by themselves.
 */
export interface StripeHttp {
  /** What the SDK takes as its `httpClient`. */
  client: {
    getClientName(): string;
    makeRequest(
      host: string,
      port: string,
      path: string,
      method: string,
      headers: Record<string, string | number | string[]>,
      body: string,
      protocol: string,
    ): Promise<HttpAnswer>;
  };
  /** Every request of `work` ends with this signal. */
  within<Result>(signal: AbortSignal, work: () => Promise<Result>): Promise<Result>;
  /** Stripe's clock less ours, by the last answer; null before the first. */
  skewMs(): number | null;
  close(): Promise<void>;
}

interface HttpAnswer {
  getStatusCode(): number;
  getHeaders(): Record<string, string>;
  getRawResponse(): { headers: Record<string, string> };
  toStream(): never;
  toJSON(): Promise<unknown>;
}

/** The line broke. Without a `code`: at some codes the SDK would send the request again. */
export class LineBroken extends Error {
  /** No byte can have reached Stripe. */
  readonly notSent: boolean;

  constructor(why: string, notSent: boolean) {
    super(why);
    this.name = 'LineBroken';
    this.notSent = notSent;
  }
}

/** A page of 100 balance transactions with their charges is some 500 kB. */
const answerBytesAtMost = 8 * 1_048_576;

/** Errors that come before a connection stands. Everything else may have reached Stripe. */
const neverConnected = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

export function stripeHttp(options: { connections: number; nowMs: () => number }): StripeHttp {
  // Idle connections close here before Stripe closes them there, so that a request never meets a dying one.
  const agent = new Agent({
    connections: options.connections,
    pipelining: 1,
    keepAliveTimeout: 4_000,
    connect: { timeout: 5_000 },
    headersTimeout: 0,
    bodyTimeout: 60_000,
  });
  const deadlines = new AsyncLocalStorage<AbortSignal>();
  let skewMs: number | null = null;

  return {
    within: (signal, work) => deadlines.run(signal, work),
    skewMs: () => skewMs,
    close: () => agent.destroy(),
    client: {
      getClientName: () => 'undici',
      async makeRequest(host, port, path, method, headers, body, protocol) {
        const signal = deadlines.getStore();
        if (signal === undefined) throw new Error('impossible state: a request without a deadline');
        if (signal.aborted) throw new LineBroken('the deadline passed before the call', true);
        try {
          const response = await request(`${protocol}://${host}:${port}${path}`, {
            dispatcher: agent,
            method: method as 'GET' | 'POST',
            headers: Object.fromEntries(
              Object.entries(headers).map(([name, value]) => [name, String(value)]),
            ),
            body: method === 'GET' ? null : body,
            signal,
          });
          const text = await boundedText(response.body);
          const told = flat(response.headers);
          const sentAt = Date.parse(told.date ?? '');
          if (!Number.isNaN(sentAt)) skewMs = sentAt - options.nowMs();
          return answerOf(response.statusCode, told, text);
        } catch (error) {
          if (error instanceof LineBroken) throw error;
          const code = codeOf(error);
          throw new LineBroken(code, neverConnected.has(code));
        }
      },
    },
  };
}

function answerOf(status: number, headers: Record<string, string>, text: string): HttpAnswer {
  return {
    getStatusCode: () => status,
    getHeaders: () => headers,
    getRawResponse: () => ({ headers }),
    toStream: () => {
      throw new Error('impossible state: nothing is streamed');
    },
    async toJSON() {
      const body: unknown = JSON.parse(text);
      // The SDK takes every answer without an `error` for a success, whatever its status.
      if (status < 300 || isError(body)) return body;
      return { error: { type: 'api_error', message: 'malformed answer' } };
    },
  };
}

function isError(body: unknown): boolean {
  return (
    typeof body === 'object' &&
    body !== null &&
    'error' in body &&
    typeof body.error === 'object' &&
    body.error !== null
  );
}

function flat(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  // What Stripe notes for developers, the SDK would print.
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined || name === 'stripe-notice'
        ? []
        : [[name, Array.isArray(value) ? value.join(',') : value]],
    ),
  );
}

async function boundedText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body) {
    sizeBytes += part.byteLength;
    if (sizeBytes > answerBytesAtMost) throw new LineBroken('answer too long', false);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function codeOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  if (!(error instanceof Error)) return 'unknown_error';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.name;
}
