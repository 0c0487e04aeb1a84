import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Carrier, ListedSms, SmsRequest } from '../../billing/carriers/carrier.ts';
import { twilioCarrier } from '../../billing/carriers/twilio.ts';
import { readSettings } from '../../cli/settings.ts';
import {
  account,
  type SignedCallback,
  signed,
  startTwilio,
  type TwilioStandIn,
} from '../stand-ins/twilio.ts';
import { freePort } from '../world.ts';

const baseUrl = 'https://pay.example.jp';
const noon = Date.parse('2026-11-25T03:00:00Z');

let twilio: TwilioStandIn;
let carrier: Carrier & { close(): Promise<void> };
let nowMs: number;

beforeAll(async () => {
  twilio = await startTwilio(() => nowMs);
  carrier = twilioCarrier({ ...account, apiUrl: twilio.url, baseUrl });
});

afterAll(async () => {
  await carrier.close();
  await twilio.close();
});

beforeEach(() => {
  nowMs = noon;
  twilio.taken.length = 0;
  twilio.creates.length = 0;
  twilio.complaints.length = 0;
  twilio.fault = () => null;
  twilio.listFault = null;
  twilio.pageAtMost = 1_000;
});

const request: SmsRequest = {
  messageId: '01KBRN0000000000000000000Z.reminder:+1bd',
  merchantCode: 'minato-gas',
  to: '+819012345678',
  body: 'みなとガス\n料金のお知らせ\nhttps://pay.example.jp/l/x’“{€',
  sender: 'first',
};

/** Never in time, and never long. */
const patience = () => AbortSignal.timeout(5_000);
const send = (change: Partial<SmsRequest> = {}, signal = patience()) =>
  carrier.send({ ...request, ...change }, signal);
const question = { ...request, claimedAt: new Date(noon).toISOString(), others: [] as string[] };
const lookup = (change: Partial<typeof question> = {}, signal = patience()) =>
  carrier.lookup({ ...question, ...change }, signal);
const read = ({ url, body, headers }: SignedCallback) =>
  carrier.readCallback?.({ url, rawBody: Buffer.from(body), headers });

describe('sending', () => {
  it('hands the text to Twilio as it is, once, with an address for news of it', async () => {
    expect(await send()).toEqual({ kind: 'accepted', providerId: twilio.taken[0]?.sid });
    expect(twilio.complaints).toEqual([]);
    expect(twilio.taken).toMatchObject([{ to: request.to, body: request.body }]);
    expect(twilio.taken[0]?.statusCallback).toMatch(
      /^https:\/\/pay\.example\.jp\/webhooks\/twilio\/minato-gas\?message=[\w-]+$/,
    );
  });

  it('from a second sender where there is one', async () => {
    for (const sender of ['first', 'second'] as const) await send({ sender });
    expect(twilio.creates.map(({ MessagingServiceSid }) => MessagingServiceSid)).toEqual([
      account.messagingServiceSid,
      account.secondMessagingServiceSid,
    ]);
    const alone = twilioCarrier({
      ...account,
      secondMessagingServiceSid: null,
      apiUrl: twilio.url,
      baseUrl,
    });
    expect([carrier.secondSender, alone.secondSender]).toEqual([true, undefined]);
    expect(await alone.send({ ...request, sender: 'second' }, patience())).toMatchObject({
      kind: 'not_executed',
      account: true,
    });
    expect(twilio.creates).toHaveLength(2);
    await alone.close();
  });

  it.each([
    ['busy', { kind: 'not_executed', retryAfterMs: 2_000 }, 0],
    ['unauthorised', { kind: 'not_executed', account: true }, 0],
    [21610, { kind: 'refused', code: '21610', unreached: 'opted_out' }, 0],
    [21614, { kind: 'refused', code: '21614', unreached: 'not_mobile' }, 0],
    [21703, { kind: 'not_executed', account: true }, 0],
    [21611, { kind: 'not_executed' }, 0],
    // A code that nobody has told us of: this message will not go, and that is all that is known.
    [29999, { kind: 'refused', code: '29999', unreached: null }, 0],
    ['error_before', { kind: 'unknown' }, 0],
    ['error_after', { kind: 'unknown' }, 1],
    ['reset_before', { kind: 'unknown' }, 0],
    ['reset_after', { kind: 'unknown' }, 1],
    ['garbled_after', { kind: 'unknown' }, 1],
  ] as const)('%s: is never sent a second time', async (fault, answer, taken) => {
    twilio.fault = () => fault;
    const answered = await send();
    expect(answered).toMatchObject(answer);
    expect(JSON.stringify(answered)).not.toContain(request.to.slice(1));
    expect(twilio.creates).toHaveLength(1);
    expect(twilio.taken).toHaveLength(taken);
  });

  it.each(['silent_before', 'silent_after'] as const)('%s: ends with the deadline', async (fault) => {
    const deadline = new AbortController();
    twilio.fault = () => {
      // Once it has arrived: what became of it then is known to Twilio alone.
      setImmediate(() => deadline.abort());
      return fault;
    };
    expect(await send({}, deadline.signal)).toMatchObject({ kind: 'unknown' });
    expect(twilio.creates).toHaveLength(1);
  });

  it('knows what cannot have left: a deadline that has passed, and nobody there', async () => {
    expect(await send({}, AbortSignal.abort())).toMatchObject({ kind: 'not_executed' });
    const nobody = twilioCarrier({ ...account, apiUrl: `http://127.0.0.1:${await freePort()}`, baseUrl });
    expect(await nobody.send(request, patience())).toMatchObject({
      kind: 'not_executed',
      why: 'ECONNREFUSED',
    });
    await nobody.close();
    expect(twilio.creates).toHaveLength(0);
  });
});

describe('looking a message up', () => {
  it('finds it by phone, text and time, also while it waits in Twilio’s queue', async () => {
    await send();
    const [message] = twilio.taken;
    if (message) message.sentAtMs = null;
    expect(await lookup()).toEqual({ kind: 'accepted', providerId: message?.sid });
    expect(await lookup({ body: `${request.body} ` })).toEqual({ kind: 'not_found' });
    expect(await lookup({ to: '+819000000000' })).toEqual({ kind: 'not_found' });
    expect(await lookup({ claimedAt: '2026-11-25T04:00:00Z' })).toEqual({ kind: 'not_found' });
  });

  it('takes no message that is another one of ours, nor one of another sender', async () => {
    await send();
    const [message] = twilio.taken;
    expect(await lookup({ others: [message?.sid ?? ''] })).toEqual({ kind: 'not_found' });
    if (message) message.service = `MG${'9'.repeat(32)}`;
    expect(await lookup()).toEqual({ kind: 'not_found' });
  });

  it('reads the list to its end, page by page', async () => {
    twilio.pageAtMost = 2;
    await send();
    for (let other = 0; other < 6; other += 1) await send({ body: `${other}` });
    expect(await lookup()).toMatchObject({ kind: 'accepted' });
  });

  it.each(['silent', 'error'] as const)('a list that is %s proves nothing', async (fault) => {
    await send();
    twilio.listFault = fault;
    expect(await lookup({}, AbortSignal.timeout(300))).toMatchObject({ kind: 'unknown' });
  });
});

describe('the list', () => {
  const all = async (from: string, until: string): Promise<ListedSms[]> => {
    const listed: ListedSms[] = [];
    for await (const sms of carrier.list('minato-gas', from, until, patience())) listed.push(sms);
    return listed;
  };

  it('has what was taken in the time asked for, and how to know it again', async () => {
    twilio.pageAtMost = 2;
    for (const minutes of [-90, -30, 0, 30]) {
      nowMs = noon + minutes * 60_000;
      await send({ body: `${minutes}` });
    }
    const listed = await all('2026-11-25T02:00:00Z', '2026-11-25T03:30:00Z');
    expect(listed.map((sms) => sms.sent?.body)).toEqual(['0', '-30']);
    expect(listed[0]).toEqual({
      messageId: null,
      providerId: twilio.taken[2]?.sid,
      takenAt: '2026-11-25T03:00:00Z',
      sent: { to: request.to, body: '0' },
    });
  });

  it('throws where it is cut off', async () => {
    await send();
    twilio.listFault = 'error';
    await expect(all('2026-11-25T02:00:00Z', '2026-11-25T03:30:00Z')).rejects.toThrow();
  });
});

describe('callbacks', () => {
  const status = async (word: string, code?: number) => {
    await send();
    return twilio.status(twilio.taken[0]?.sid ?? '', word, code);
  };

  it.each([
    ['accepted', 'queued'],
    ['queued', 'queued'],
    ['sending', 'sending'],
    ['sent', 'sent'],
    ['delivered', 'delivered'],
    ['canceled', 'failed'],
  ])('%s is news of our message', async (word, delivery) => {
    expect(read(await status(word))).toEqual({
      kind: 'status',
      messageId: request.messageId,
      providerId: twilio.taken[0]?.sid,
      delivery,
      code: null,
      unreached: delivery === 'failed' ? 'undelivered' : null,
    });
  });

  it('says why a phone was not reached', async () => {
    expect(read(await status('undelivered', 30006))).toMatchObject({
      code: '30006',
      unreached: 'not_mobile',
    });
    expect(read(await status('failed', 39999))).toMatchObject({ code: '39999', unreached: 'undelivered' });
    expect(read(await status('undelivered'))).toMatchObject({ code: null, unreached: 'undelivered' });
  });

  it('is nothing where the word is one that we do not know', async () => {
    expect(read(await status('teleported'))).toEqual({ kind: 'nothing' });
  });

  it('is believed only with its signature over this address and these fields, for this account', async () => {
    const genuine = await status('delivered');
    const fields = Object.fromEntries(new URLSearchParams(genuine.body));
    expect(read({ ...genuine, body: genuine.body.replace('delivered', 'undelivered') })).toBeNull();
    expect(read({ ...genuine, url: genuine.url.replace('minato-gas', 'kita-denryoku') })).toBeNull();
    expect(read({ ...genuine, url: `${genuine.url}x` })).toBeNull();
    expect(read({ ...genuine, headers: {} })).toBeNull();
    expect(read(signed(genuine.url, fields, 'another token'))).toBeNull();
    expect(read(signed(genuine.url, { ...fields, AccountSid: `AC${'0'.repeat(32)}` }))).toBeNull();
    expect(read(signed(genuine.url, { ...fields, MessagingServiceSid: `MG${'0'.repeat(32)}` }))).toBeNull();
    expect(read(signed(genuine.url, { ...fields, MessageSid: 'SMx' }))).toBeNull();
  });

  it.each([
    ['STOP', 'opted_out'],
    [' stop ', 'opted_out'],
    ['ＳＴＯＰ', 'opted_out'],
    ['停止', 'opted_out'],
    ['Start', 'opted_in'],
    ['stop please', undefined],
    ['ありがとう', undefined],
  ])('the answer %j', (text, kind) => {
    const news = read(twilio.inbound(`${baseUrl}/webhooks/twilio`, request.to, text));
    expect(news).toMatchObject(kind === undefined ? { kind: 'nothing' } : { kind, phone: request.to });
  });

  it('goes by the service’s own words where it has some', () => {
    const news = twilio.inbound(`${baseUrl}/webhooks/twilio`, request.to, 'やめて', { OptOutType: 'STOP' });
    expect(read(news)).toMatchObject({ kind: 'opted_out', phone: request.to });
  });
});

describe('settings', () => {
  const whole = {
    SEIKYU_CARRIER: 'twilio',
    SEIKYU_BASE_URL: baseUrl,
    SEIKYU_SECRET: 'a secret of tests, of at least 32 characters',
    TWILIO_ACCOUNT_SID: account.accountSid,
    TWILIO_AUTH_TOKEN: '0123456789abcdef0123456789abcdef',
    TWILIO_MESSAGING_SERVICE_SID: account.messagingServiceSid,
  };
  const faultsOf = (change: Record<string, string>): string => {
    try {
      readSettings({ environment: { ...whole, ...change }, envFile: '/nowhere/.env' });
      return '';
    } catch (error) {
      return (error as Error).message;
    }
  };

  it('are whole, or nothing starts', () => {
    expect(readSettings({ environment: whole, envFile: '/nowhere/.env' })).toMatchObject({
      carrier: 'twilio',
      twilio: { accountSid: account.accountSid, apiUrl: 'https://api.twilio.com' },
    });
    const empty = Object.fromEntries(Object.keys(whole).map((name) => [name, '']));
    const faults = faultsOf({ ...empty, SEIKYU_CARRIER: 'twilio', SEIKYU_SECRET: whole.SEIKYU_SECRET });
    for (const name of ['ACCOUNT_SID', 'AUTH_TOKEN', 'MESSAGING_SERVICE_SID'])
      expect(faults).toContain(`TWILIO_${name} is missing`);
    expect(faults).toContain('SEIKYU_BASE_URL is missing');
  });

  it('send the token in the clear to nobody, and repeat no part of one', () => {
    expect(faultsOf({ TWILIO_BASE_URL: 'http://twilio.example.jp' })).toContain('TWILIO_BASE_URL');
    expect(faultsOf({ TWILIO_BASE_URL: 'http://127.0.0.1:9000' })).toBe('');
    const swapped = faultsOf({ TWILIO_ACCOUNT_SID: whole.TWILIO_AUTH_TOKEN });
    expect(swapped).toContain('TWILIO_ACCOUNT_SID is none');
    expect(swapped).not.toContain('0123456789');
  });
});
