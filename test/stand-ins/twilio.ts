import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const account = {
  accountSid: `AC${'a1'.repeat(16)}`,
  authToken: 'a token of tests',
  messagingServiceSid: `MG${'b2'.repeat(16)}`,
  secondMessagingServiceSid: `MG${'c3'.repeat(16)}`,
};

/**
 * What goes wrong with one create. `_before`: it was not taken; `_after`: it was, and the sender hears nothing good of it.
 * A number is a 400 with that error code.
 */
export type TwilioFault =
  | null
  | 'silent_before'
  | 'silent_after'
  | 'reset_before'
  | 'reset_after'
  | 'error_before'
  | 'error_after'
  | 'garbled_after'
  | 'busy'
  | 'unauthorised'
  | number;

export interface TakenMessage {
  sid: string;
  to: string;
  body: string;
  statusCallback: string;
  takenAtMs: number;
  /** Null while it waits in the queue: a filter by date passes over it. */
  sentAtMs: number | null;
  status: string;
  service: string;
}

export interface SignedCallback {
  url: string;
  body: string;
  headers: Record<string, string>;
}

/**
 * A stand-in for Twilio's HTTP, written from what its documentation says and apart from the SDK: it keeps its own truth, takes
 * each create as a new message as Twilio does, and signs its callbacks by itself.
 */
export interface TwilioStandIn {
  url: string;
  /** What it took, oldest first. */
  taken: TakenMessage[];
  /** Creates that reached it, taken or not. */
  creates: Record<string, string>[];
  /** What a request had that Twilio would not have understood. */
  complaints: string[];
  /** What goes wrong with the next creates, by their form. */
  fault: (form: Record<string, string>) => TwilioFault;
  /** Whether lists are answered. */
  listFault: 'silent' | 'error' | null;
  /** At most so many in a page, whatever is asked for. */
  pageAtMost: number;
  /** News about a message, as it would be posted to the callback's address. */
  status(sid: string, status: string, code?: number): SignedCallback;
  /** A customer's answer, as it would be posted to the service's address. */
  inbound(url: string, from: string, text: string, more?: Record<string, string>): SignedCallback;
  close(): Promise<void>;
}

export async function startTwilio(now: () => number): Promise<TwilioStandIn> {
  const held = new Set<ServerResponse>();
  let made = 0;
  const listPath = `/2010-04-01/Accounts/${account.accountSid}/Messages.json`;
  const login = `Basic ${Buffer.from(`${account.accountSid}:${account.authToken}`).toString('base64')}`;

  function take(form: Record<string, string>): TakenMessage {
    made += 1;
    const message: TakenMessage = {
      sid: sidOf(made),
      to: form.To ?? '',
      body: form.Body ?? '',
      statusCallback: form.StatusCallback ?? '',
      takenAtMs: now(),
      sentAtMs: now(),
      status: 'accepted',
      service: form.MessagingServiceSid ?? '',
    };
    standIn.taken.push(message);
    return message;
  }

  function complain(request: IncomingMessage, form: Record<string, string>): void {
    const known = ['To', 'Body', 'MessagingServiceSid', 'StatusCallback', 'SmartEncoded'];
    const wrong = [
      request.headers['content-type']?.startsWith('application/x-www-form-urlencoded') ? '' : 'content type',
      request.headers['user-agent']?.startsWith('twilio-node/6.') ? '' : 'not sent by the official SDK',
      /^\+\d{8,15}$/.test(form.To ?? '') ? '' : 'To is not E.164',
      form.Body ? '' : 'no Body',
      [account.messagingServiceSid, account.secondMessagingServiceSid].includes(
        form.MessagingServiceSid ?? '',
      )
        ? ''
        : 'another messaging service',
      /^https:\/\//.test(form.StatusCallback ?? '') ? '' : 'StatusCallback is no https address',
      form.SmartEncoded === 'false' ? '' : 'SmartEncoded may change the text',
      ...Object.keys(form).map((name) => (known.includes(name) ? '' : `unknown field ${name}`)),
    ];
    standIn.complaints.push(...wrong.filter(Boolean));
  }

  function create(request: IncomingMessage, response: ServerResponse, form: Record<string, string>) {
    standIn.creates.push(form);
    complain(request, form);
    const fault = standIn.fault(form);
    if (typeof fault === 'number') {
      // The message repeats the phone, as Twilio's does.
      return answer(response, 400, refusal(400, fault, `'${form.To}' is refused`));
    }
    const message = fault === null || fault.endsWith('_after') ? take(form) : null;
    switch (fault) {
      case 'silent_before':
      case 'silent_after':
        held.add(response);
        return;
      case 'reset_before':
      case 'reset_after':
        request.socket.destroy();
        return;
      case 'error_before':
      case 'error_after':
        return answer(response, 500, refusal(500, 20500, 'an internal error'));
      case 'garbled_after':
        response.writeHead(201, { 'content-type': 'application/json' }).end('{"sid": "SM');
        return;
      case 'busy':
        return answer(response, 429, refusal(429, 20429, 'too many requests'), { 'retry-after': '2' });
      case 'unauthorised':
        return answer(response, 401, refusal(401, 20003, 'authenticate'));
      default:
        return answer(response, 201, resource(message as TakenMessage));
    }
  }

  function list(response: ServerResponse, query: URLSearchParams) {
    if (standIn.listFault === 'silent') {
      held.add(response);
      return;
    }
    if (standIn.listFault === 'error') return answer(response, 500, refusal(500, 20500, 'an internal error'));
    const [to, after, before] = [query.get('To'), query.get('DateSent>'), query.get('DateSent<')];
    const found = standIn.taken
      .filter((message) => to === null || message.to === to)
      .filter(({ sentAtMs }) => after === null || (sentAtMs !== null && sentAtMs >= Date.parse(after)))
      .filter(({ sentAtMs }) => before === null || (sentAtMs !== null && sentAtMs <= Date.parse(before)))
      .reverse();
    const size = Math.min(Number(query.get('PageSize') ?? 50), standIn.pageAtMost);
    const page = Number(query.get('Page') ?? 0);
    const next = new URLSearchParams(query);
    next.set('Page', String(page + 1));
    answer(response, 200, {
      messages: found.slice(page * size, (page + 1) * size).map(resource),
      page,
      page_size: size,
      next_page_uri: (page + 1) * size < found.length ? `${listPath}?${next}` : null,
    });
  }

  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const url = new URL(request.url ?? '', 'http://twilio.invalid');
    if (request.headers.authorization !== login || url.pathname !== listPath) {
      return answer(response, 404, refusal(404, 20404, 'not found'));
    }
    const form = Object.fromEntries(new URLSearchParams(Buffer.concat(parts).toString('utf8')));
    if (request.method === 'POST') create(request, response, form);
    else list(response, url.searchParams);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  const standIn: TwilioStandIn = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    taken: [],
    creates: [],
    complaints: [],
    fault: () => null,
    listFault: null,
    pageAtMost: 1_000,
    status(sid, status, code) {
      const message = standIn.taken.find((each) => each.sid === sid);
      if (message === undefined) throw new Error(`never taken: ${sid}`);
      message.status = status;
      return signed(message.statusCallback, {
        AccountSid: account.accountSid,
        MessagingServiceSid: account.messagingServiceSid,
        MessageSid: sid,
        SmsSid: sid,
        SmsStatus: status,
        MessageStatus: status,
        To: message.to,
        From: '+12025550100',
        ApiVersion: '2010-04-01',
        ...(code === undefined ? {} : { ErrorCode: String(code) }),
      });
    },
    inbound(url, from, text, more = {}) {
      made += 1;
      return signed(url, {
        AccountSid: account.accountSid,
        MessagingServiceSid: account.messagingServiceSid,
        MessageSid: sidOf(made),
        SmsStatus: 'received',
        From: from,
        To: '+12025550100',
        Body: text,
        ...more,
      });
    },
    async close() {
      for (const response of held) response.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return standIn;
}

/** The signature of Twilio's documentation: the address, then each field and its value in the order of their names. */
export function signed(
  url: string,
  fields: Record<string, string>,
  token = account.authToken,
): SignedCallback {
  const text = Object.keys(fields)
    .sort()
    .reduce((soFar, name) => soFar + name + fields[name], url);
  return {
    url,
    body: new URLSearchParams(fields).toString(),
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      'x-twilio-signature': createHmac('sha1', token).update(text, 'utf8').digest('base64'),
    },
  };
}

const sidOf = (no: number): string => `SM${no.toString(16).padStart(32, '0')}`;

const refusal = (status: number, code: number, message: string) => ({
  status,
  code,
  message,
  more_info: `https://www.twilio.com/docs/errors/${code}`,
});

const dateOf = (ms: number | null): string | null =>
  ms === null ? null : new Date(ms).toUTCString().replace('GMT', '+0000');

function resource(message: TakenMessage) {
  return {
    sid: message.sid,
    account_sid: account.accountSid,
    messaging_service_sid: message.service,
    to: message.to,
    from: null,
    body: message.body,
    status: message.status,
    direction: 'outbound-api',
    num_segments: '0',
    num_media: '0',
    date_created: dateOf(message.takenAtMs),
    date_updated: dateOf(message.takenAtMs),
    date_sent: dateOf(message.sentAtMs),
    error_code: null,
    error_message: null,
    price: null,
    price_unit: null,
    api_version: '2010-04-01',
    uri: '',
    subresource_uris: {},
  };
}

function answer(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}
