import { Temporal } from 'temporal-polyfill';
import twilio from 'twilio';
import { Agent, request } from 'undici';
import type { Carrier, Delivery, SmsAnswer, SmsNews } from './carrier.ts';
import { twilioCodes } from './twilio-codes.ts';

export interface TwilioOptions {
  /** `AC` and 32 hexadecimal digits. */
  accountSid: string;
  /** Signs callbacks too. */
  authToken: string;
  /** `MG` and 32 hexadecimal digits. */
  messagingServiceSid: string;
  /** Another one, for phones that the first does not reach; null: there is none. */
  secondMessagingServiceSid: string | null;
  /** `https://api.twilio.com` */
  apiUrl: string;
  /** Where Twilio reaches us: `https://pay.example.jp`. */
  baseUrl: string;
}

type Client = ReturnType<typeof twilio>;
type Filter = NonNullable<Parameters<Client['messages']['page']>[0]>;
type Listed = Awaited<ReturnType<Client['messages']['list']>>[number];

const answerBytesAtMost = 8 * 1_048_576;
const pageSize = 1_000;
/** A phone has some dozens in a window of minutes at most; more is another use of the account, and proves nothing. */
const lookedThroughAtMost = 2_000;
/** Twilio's clock and ours. */
const clockDifferenceMs = 5 * 60_000;
/** What was taken is dated when it was sent on, a queue later. */
const queuedAtMost = { hours: 24 };

/** Errors that come before a connection stands. Everything else may have reached Twilio. */
const neverConnected: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

const deliveryOf: Readonly<Record<string, Delivery>> = {
  accepted: 'queued',
  scheduled: 'queued',
  queued: 'queued',
  sending: 'sending',
  sent: 'sent',
  failed: 'failed',
  canceled: 'failed',
  undelivered: 'undelivered',
  delivered: 'delivered',
  read: 'delivered',
};

/** The words that Twilio itself takes for a wish to hear no more, or again. */
const stopWords = ['STOP', 'STOPALL', 'UNSUBSCRIBE', 'CANCEL', 'END', 'QUIT', 'OPTOUT', 'REVOKE', '停止'];
const startWords = ['START', 'UNSTOP', 'YES', '再開'];

/** The call did not come to an answer. */
class NoAnswer extends Error {
  readonly wasSent: boolean;
  constructor(code: string, wasSent: boolean) {
    super(code);
    this.wasSent = wasSent;
  }
}

/** What the call itself showed beside what the SDK makes of it. */
interface Call {
  client: Client;
  retryAfterMs(): number | null;
}

/**
 * Twilio by its official SDK, which builds each request and reads each answer; the request itself is made here, under the
 * caller's deadline and never a second time: a create that is repeated is a second SMS. Twilio keeps no id of ours. It stands
 * in the callback's address; without a callback a message is known again by its phone, its text and its time.
 */
export function twilioCarrier(options: TwilioOptions): Carrier & { close(): Promise<void> } {
  const { accountSid, authToken, messagingServiceSid, secondMessagingServiceSid, baseUrl } = options;
  const services: readonly (string | null | undefined)[] = [messagingServiceSid, secondMessagingServiceSid];
  const api = new URL(options.apiUrl);
  const concurrency = 40;
  const agent = new Agent({
    connections: concurrency,
    pipelining: 1,
    keepAliveTimeout: 4_000,
    connect: { timeout: 5_000 },
    // The deadline is the caller's signal.
    headersTimeout: 0,
    bodyTimeout: 0,
  });

  async function exchange(asked: SdkRequest, signal: AbortSignal) {
    if (signal.aborted) throw new NoAnswer('the deadline passed before the call', false);
    const url = new URL(asked.uri);
    url.protocol = api.protocol;
    url.host = api.host;
    url.search += encoded(asked.params ?? {});
    const login = Buffer.from(`${asked.username}:${asked.password}`).toString('base64');
    try {
      const answer = await request(url, {
        dispatcher: agent,
        method: asked.method.toUpperCase() as 'GET' | 'POST',
        headers: { ...asked.headers, authorization: `Basic ${login}` },
        body: asked.data === undefined ? null : encoded(asked.data),
        signal,
      });
      return {
        statusCode: answer.statusCode,
        body: await boundedText(answer.body),
        headers: answer.headers,
      };
    } catch (error) {
      const code = codeOf(error);
      throw new NoAnswer(code, !neverConnected.has(code));
    }
  }

  /** A client for one call: the SDK has no deadline of the caller's to hand through. */
  function call(signal: AbortSignal): Call {
    let retryAfterMs: number | null = null;
    const httpClient = {
      async request(asked: SdkRequest) {
        const answer = await exchange(asked, signal);
        retryAfterMs = secondsToMs(answer.headers['retry-after']);
        return answer;
      },
    };
    const client = twilio(accountSid, authToken, {
      httpClient: httpClient as unknown as NonNullable<SdkOptions['httpClient']>,
    });
    return { client, retryAfterMs: () => retryAfterMs };
  }

  const ours = (sms: Listed): boolean =>
    services.includes(sms.messagingServiceSid) && sms.direction.startsWith('outbound');

  return {
    name: 'twilio',
    ...(secondMessagingServiceSid === null ? {} : { secondSender: true as const }),
    semantics: { callDeadlineMs: 10_000, notFoundConclusiveAfterMs: 600_000, concurrency },
    close: () => agent.destroy(),

    async send({ messageId, merchantCode, to, body, sender }, signal) {
      const service = sender === 'first' ? messagingServiceSid : secondMessagingServiceSid;
      // It was planned while there was one.
      if (service === null)
        return { kind: 'not_executed', why: 'no second sender is set', retryAfterMs: null, account: true };
      const { client, retryAfterMs } = call(signal);
      try {
        const taken = await client.messages.create({
          to,
          body,
          messagingServiceSid: service,
          statusCallback: callbackUrlOf(baseUrl, merchantCode, messageId),
          // What was counted is what is sent: no letter is exchanged for another.
          smartEncoded: false,
        });
        return isSid(taken.sid) ? { kind: 'accepted', providerId: taken.sid } : unreadable;
      } catch (error) {
        return answerOf(error, retryAfterMs());
      }
    },

    async lookup({ to, body, sender, claimedAt, others }, signal) {
      const service = sender === 'first' ? messagingServiceSid : secondMessagingServiceSid;
      const { client } = call(signal);
      const from = Temporal.Instant.from(claimedAt).epochMilliseconds - clockDifferenceMs;
      let looked = 0;
      try {
        // By phone alone: a filter by date would pass over what was taken and is not sent on yet.
        for await (const sms of messagesIn(client, { to, pageSize })) {
          const isTheOne =
            ours(sms) &&
            sms.messagingServiceSid === service &&
            sms.body === body &&
            takenMs(sms) >= from &&
            !others.includes(sms.sid);
          if (isTheOne) return { kind: 'accepted', providerId: sms.sid };
          looked += 1;
          if (looked >= lookedThroughAtMost) return { kind: 'unknown', why: 'the list is too long' };
        }
        return { kind: 'not_found' };
      } catch (error) {
        return { kind: 'unknown', why: whyOf(error) };
      }
    },

    async *list(_merchantCode, from, until, signal) {
      const { client } = call(signal);
      const [first, last] = [Temporal.Instant.from(from), Temporal.Instant.from(until)];
      // The SDK takes texts where it says dates, and leaves them as they are.
      const sentAfter = secondOf(first.subtract({ milliseconds: clockDifferenceMs })) as unknown as Date;
      const sentBefore = secondOf(last.add(queuedAtMost)) as unknown as Date;
      const filter = { dateSentAfter: sentAfter, dateSentBefore: sentBefore, pageSize };
      for await (const sms of messagesIn(client, filter)) {
        const atMs = takenMs(sms);
        if (!ours(sms) || atMs < first.epochMilliseconds || atMs >= last.epochMilliseconds) continue;
        yield {
          messageId: null,
          providerId: sms.sid,
          takenAt: Temporal.Instant.fromEpochMilliseconds(atMs).toString(),
          sent: { to: sms.to, body: sms.body },
        };
      }
    },

    readCallback({ url, rawBody, headers }) {
      const form = formOf(rawBody);
      const signature = headers['x-twilio-signature'] ?? '';
      if (!twilio.validateRequest(authToken, signature, url, form)) return null;
      const { AccountSid, MessagingServiceSid = messagingServiceSid, MessageSid: providerId = '' } = form;
      if (AccountSid !== accountSid || !services.includes(MessagingServiceSid)) return null;
      if (!isSid(providerId)) return null;
      const messageId = messageIdIn(url);
      return messageId === null ? inboundNews(form, providerId) : statusNews(form, providerId, messageId);
    },
  };
}

/** Page by page, so that memory stays bounded; the newest first. */
async function* messagesIn(client: Client, filter: Filter): AsyncGenerator<Listed> {
  let page: { instances: Listed[]; nextPage(): Promise<unknown> | undefined } | undefined =
    await client.messages.page(filter);
  while (page !== undefined) {
    yield* page.instances;
    page = (await page.nextPage()) as typeof page;
  }
}

type SdkOptions = NonNullable<Parameters<typeof twilio>[2]>;

/** What the SDK hands to its HTTP client. */
interface SdkRequest {
  method: string;
  uri: string;
  username: string;
  password: string;
  headers: Record<string, string>;
  params?: Readonly<Record<string, unknown>>;
  data?: Readonly<Record<string, unknown>>;
}

const unreadable = { kind: 'unknown', why: 'an answer that cannot be read' } as const;

function answerOf(error: unknown, retryAfterMs: number | null): SmsAnswer {
  if (error instanceof NoAnswer) {
    return error.wasSent
      ? { kind: 'unknown', why: error.message }
      : { kind: 'not_executed', why: error.message, retryAfterMs: null };
  }
  const refusal = refusalOf(error);
  if (refusal === null) return unreadable;
  const { status, code } = refusal;
  const why = `${status} ${code}`;
  // Twilio may have taken it all the same.
  if (status < 400 || status >= 500 || status === 408) return { kind: 'unknown', why };
  const meaning = twilioCodes.codes[code];
  const about = meaning?.about ?? (status === 429 ? 'busy' : status === 400 ? 'message' : 'account');
  if (about === 'message') return { kind: 'refused', code, unreached: meaning?.unreached ?? null };
  const waiting = { kind: 'not_executed', why, retryAfterMs } as const;
  return about === 'account' ? { ...waiting, account: true } : waiting;
}

/** An answer that is no success, as the SDK throws it. Its message may name the phone, and is left alone. */
function refusalOf(error: unknown): { status: number; code: string } | null {
  if (typeof error !== 'object' || error === null || !('status' in error)) return null;
  const code = 'code' in error ? error.code : undefined;
  return {
    status: Number(error.status),
    code: typeof code === 'number' || typeof code === 'string' ? String(code).slice(0, 12) : 'without a code',
  };
}

function whyOf(error: unknown): string {
  if (error instanceof NoAnswer) return error.message;
  const refusal = refusalOf(error);
  return refusal === null ? unreadable.why : `${refusal.status} ${refusal.code}`;
}

function statusNews(form: Readonly<Record<string, string>>, providerId: string, messageId: string): SmsNews {
  const delivery = deliveryOf[form.MessageStatus ?? ''];
  if (delivery === undefined) return { kind: 'nothing' };
  const failed = delivery === 'failed' || delivery === 'undelivered';
  const code = failed && /^\d{1,6}$/.test(form.ErrorCode ?? '') ? (form.ErrorCode as string) : null;
  const unreached = failed ? (twilioCodes.codes[code ?? '']?.unreached ?? 'undelivered') : null;
  return { kind: 'status', messageId, providerId, delivery, code, unreached };
}

function inboundNews(form: Readonly<Record<string, string>>, providerId: string): SmsNews {
  const phone = form.From ?? '';
  if (!/^\+\d{5,15}$/.test(phone)) return { kind: 'nothing' };
  // Where the messaging service knows words of its own it says what it understood.
  const word = (form.OptOutType ?? form.Body ?? '').normalize('NFKC').trim().toUpperCase();
  if (stopWords.includes(word)) return { kind: 'opted_out', phone, providerId };
  if (startWords.includes(word)) return { kind: 'opted_in', phone, providerId };
  return { kind: 'nothing' };
}

/** Letters that no proxy and no signature rewrites: a step has colons and signs. */
function callbackUrlOf(baseUrl: string, merchantCode: string, messageId: string): string {
  return `${baseUrl}/webhooks/twilio/${merchantCode}?message=${Buffer.from(messageId).toString('base64url')}`;
}

function messageIdIn(url: string): string | null {
  const written = new URL(url).searchParams.get('message');
  return written === null ? null : Buffer.from(written, 'base64url').toString('utf8');
}

/** Fields of a form; one that stands there twice is signed in a way that only Twilio's own tools need. */
function formOf(rawBody: Buffer): Record<string, string> {
  const form: Record<string, string> = Object.create(null);
  for (const [name, value] of new URLSearchParams(rawBody.toString('utf8'))) form[name] = value;
  return form;
}

const isSid = (text: unknown): text is string =>
  typeof text === 'string' && /^(SM|MM)[0-9a-f]{32}$/i.test(text);

const takenMs = (sms: Listed): number => sms.dateCreated.getTime();

const secondOf = (instant: Temporal.Instant): string => instant.toString({ smallestUnit: 'second' });

function encoded(fields: Readonly<Record<string, unknown>>): string {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined) form.append(name, String(each));
    }
  }
  return form.toString();
}

function codeOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  if (!(error instanceof Error)) return 'unknown_error';
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}

async function boundedText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body) {
    sizeBytes += part.byteLength;
    if (sizeBytes > answerBytesAtMost) throw new Error('answer too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function secondsToMs(header: string | string[] | undefined): number | null {
  const text = Array.isArray(header) ? header[0] : header;
  return text !== undefined && /^\d{1,4}$/.test(text) ? Number(text) * 1000 : null;
}
