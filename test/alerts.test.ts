import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';
import { Temporal } from 'temporal-polyfill';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { causeOf, causes } from '../billing/alerts/causes.ts';
import { mailSender, subjectOf, textOf } from '../billing/alerts/mail.ts';
import {
  acknowledgeAlerts,
  openAlerts,
  raiseAlert,
  raiseStanding,
  resolveAlerts,
} from '../billing/alerts/queries.ts';
import { digestOf, isNoticeDue, nextTryAt } from '../billing/alerts/schedule.ts';
import { sendDueAlerts, testSenders } from '../billing/alerts/send.ts';
import type { AlertSender, Notice } from '../billing/alerts/sender.ts';
import { webhookSender } from '../billing/alerts/webhook.ts';
import { type VirtualClock, virtualClock } from '../billing/clock.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { watchTracer } from '../billing/trace/watch.ts';
import { readSettings } from '../cli/settings.ts';
import type { Ports } from '../jobs/ports.ts';
import { startAdmin } from '../web/admin.ts';
import { makeMerchant } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { portsFor } from './ports.ts';
import { filesUnder, read } from './source.ts';

const secret = 'a secret that the receiver knows too';
const minute = 60_000;
const hour = 60 * minute;

let database: TestDatabase;
let clock: VirtualClock;
let ports: Ports;
let merchant: Merchant;
let receiver: Receiver;
let post: Post;
let webhook: AlertSender;
let mail: AlertSender;

interface Receiver {
  server: Server;
  url: string;
  got: { body: string; headers: IncomingHttpHeaders }[];
  notices(): Notice[];
  /** How it answers; undefined = 200. */
  answer: ((response: ServerResponse) => void) | undefined;
}

interface Post {
  server: SMTPServer;
  url: string;
  got: { from: string; to: string[]; text: string }[];
}

async function openReceiver(): Promise<Receiver> {
  const got: Receiver['got'] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (piece) => {
      body += piece;
    });
    request.on('end', () => {
      got.push({ body, headers: request.headers });
      if (opened.answer) opened.answer(response);
      else response.end('ok');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const opened: Receiver = {
    server,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/alerts`,
    got,
    notices: () => got.map(({ body }) => JSON.parse(body) as Notice),
    answer: undefined,
  };
  return opened;
}

async function openPost(): Promise<Post> {
  const got: Post['got'] = [];
  const server = new SMTPServer({
    disabledCommands: ['AUTH', 'STARTTLS'],
    onData(stream, session, done) {
      const pieces: Buffer[] = [];
      stream.on('data', (piece: Buffer) => pieces.push(piece));
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        got.push({
          from: mailFrom === false ? '' : mailFrom.address,
          to: rcptTo.map(({ address }) => address),
          text: Buffer.concat(pieces).toString('utf8'),
        });
        done();
      });
    },
  });
  const listening = server.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  return { server, url: `smtp://127.0.0.1:${(listening.address() as AddressInfo).port}`, got };
}

beforeAll(async () => {
  database = await testDatabase();
  clock = virtualClock(database.db);
  await clock.set(Temporal.Instant.from('2026-12-01T01:00:00Z'));
  ports = portsFor(database.db, clock, {} as Gateway, '/nonexistent');
  merchant = await makeMerchant(ports, 'minato-gas', '');
});
afterAll(() => database?.drop());

beforeEach(async () => {
  await database.db.run(`delete from alert_deliveries`);
  await database.db.run(`delete from alerts`);
  // Ten in the morning in Tokyo; a digest of this day would hold nothing.
  await clock.set(Temporal.Instant.from('2026-12-01T01:00:00Z'));
  receiver = await openReceiver();
  post = await openPost();
  webhook = webhookSender({
    url: receiver.url,
    secret,
    nowMs: () => clock.now().epochMilliseconds,
    callDeadlineMs: 400,
  });
  mail = mailSender({
    smtpUrl: post.url,
    from: 'seikyu@example.jp',
    to: ['night@example.jp', 'office@example.jp'],
    callDeadlineMs: 5_000,
  });
  ports.alertSenders = [webhook];
  ports.crash = async () => undefined;
});
afterEach(async () => {
  await webhook.close();
  await mail.close();
  receiver.server.closeAllConnections();
  receiver.server.close();
  await new Promise<void>((resolve) => post.server.close(resolve));
});

const raise = (
  cause: string,
  level: 'now' | 'daily' | 'none' = 'now',
  message = 'something happened',
): Promise<void> =>
  raiseAlert(database.db, ports.ids.uuid(), clock.now(), {
    merchantId: merchant.id,
    level,
    cause,
    message,
  });
const acknowledge = (cause: string) =>
  acknowledgeAlerts(database.db, clock.now(), cause, 'minato-gas', 'hana@night');
const openCauses = async () =>
  (await openAlerts(database.db)).map(({ level, cause, occurrences }) => `${level} ${cause} ${occurrences}`);

describe('when notices are due', () => {
  const at = (text: string) => Temporal.Instant.from(`2026-12-01T${text}Z`);

  test.each([
    [0, null, '10:00', true],
    [1, '10:00', '10:59', false],
    [1, '10:00', '11:00', true],
    [2, '11:00', '14:59', false],
    [2, '11:00', '15:00', true],
    [9, '15:00', '18:59', false],
    [9, '15:00', '19:00', true],
  ])('told %i times, last at %s: at %s %s', (notices, last, now, due) => {
    expect(isNoticeDue({ notices, noticedAt: last === null ? null : at(last) }, at(now))).toBe(due);
  });

  test('a channel that fails is tried after 1, 1, 2, 5, 10 and then every 30 minutes', () => {
    const minutes = [1, 2, 3, 4, 5, 6, 60].map((attempts) =>
      nextTryAt(attempts, at('10:00')).since(at('10:00')).total('minutes'),
    );
    expect(minutes).toEqual([1, 1, 2, 5, 10, 30, 30]);
  });

  test.each([
    ['2026-11-30T22:59:59Z', 'Asia/Tokyo', null],
    ['2026-11-30T23:00:00Z', 'Asia/Tokyo', '2026-12-01'],
    ['2026-12-01T14:59:59Z', 'Asia/Tokyo', '2026-12-01'],
    ['2026-12-01T15:00:00Z', 'Asia/Tokyo', null],
    ['2026-12-01T08:00:00Z', 'UTC', '2026-12-01'],
  ])('at %s in %s the digest is that of %s', (now, zone, date) => {
    expect(digestOf(Temporal.Instant.from(now), zone)?.date ?? null).toBe(date);
  });
});

describe('one cause', () => {
  test('ten thousand failures in a hundred batches are one alert and one signed notice', async () => {
    await database.db.transaction(async (tx) => {
      for (let batch = 0; batch < 100; batch += 1)
        await raiseAlert(tx, ports.ids.uuid(), clock.now(), {
          merchantId: merchant.id,
          level: 'now',
          cause: 'AMOUNT_DIFFERS',
          message: `for charge ${batch}`,
          occurrences: 100,
        });
    });
    expect(await openCauses()).toEqual(['now AMOUNT_DIFFERS 10000']);
    expect(await sendDueAlerts(ports)).toEqual({ sent: 1, failed: 0, dropped: 0 });
    expect(await sendDueAlerts(ports)).toEqual({ sent: 0, failed: 0, dropped: 0 });
    expect(receiver.got).toHaveLength(1);
    const [{ body, headers }] = receiver.got as [Receiver['got'][0]];
    expect(JSON.parse(body)).toMatchObject({
      kind: 'alert',
      number: 1,
      alerts: [
        {
          merchant: 'minato-gas',
          level: 'now',
          cause: 'AMOUNT_DIFFERS',
          message: 'for charge 99',
          occurrences: 10_000,
          next: causes.AMOUNT_DIFFERS?.next,
        },
      ],
    });
    expect(headers['idempotency-key']).toBe(JSON.parse(body).id);
    const [, t = '', v1 = ''] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(headers['seikyu-signature'])) ?? [];
    expect(Number(t)).toBe(clock.now().epochMilliseconds / 1000);
    expect(createHmac('sha256', secret).update(`${t}.${body}`).digest('hex')).toBe(v1);
  });

  test('it is told again after an hour and every four, however often it happens, until a person has seen it', async () => {
    for (let minutes = 0; minutes < 10 * 60; minutes += 15) {
      await raise('GATEWAY_DOWN simulator');
      await sendDueAlerts(ports);
      await clock.advance(15 * minute);
    }
    expect(receiver.notices().map(({ number }) => number)).toEqual([1, 2, 3, 4]);
    expect(new Set(receiver.notices().map(({ id }) => id)).size).toBe(4);
    expect(await acknowledge('GATEWAY_DOWN simulator')).toBe(1);
    await clock.advance(5 * hour);
    expect(await sendDueAlerts(ports)).toEqual({ sent: 0, failed: 0, dropped: 0 });
    // If it happens again, it is news.
    await raise('GATEWAY_DOWN simulator');
    expect(await sendDueAlerts(ports)).toMatchObject({ sent: 1 });
    expect(receiver.notices().at(-1)?.number).toBe(1);
  });

  test('for the morning first, then for now: it becomes urgent, is sent, and does not go back', async () => {
    await raise('DELIVER_SFTP_UNREACHABLE', 'daily');
    expect(await sendDueAlerts(ports)).toMatchObject({ sent: 0 });
    await raise('DELIVER_SFTP_UNREACHABLE', 'now');
    await raise('DELIVER_SFTP_UNREACHABLE', 'daily');
    expect(await openCauses()).toEqual(['now DELIVER_SFTP_UNREACHABLE 3']);
    expect(await sendDueAlerts(ports)).toMatchObject({ sent: 1 });
  });

  test('what stands still is quiet for a day once a person knows, and news again when it was over in between', async () => {
    const stands = () =>
      raiseStanding(database.db, merchant.id, clock.now(), [
        { id: ports.ids.uuid(), level: 'now', cause: 'FILES_WAITING', message: '3 files', occurrences: 3 },
      ]);
    await stands();
    await stands();
    expect(await openCauses()).toEqual(['now FILES_WAITING 3']);
    await acknowledge('FILES_WAITING');
    await clock.advance(23 * hour);
    await stands();
    expect(await openCauses()).toEqual([]);
    await resolveAlerts(database.db, merchant.id, clock.now(), ['FILES_WAITING'], 'over');
    await stands();
    expect(await openCauses()).toEqual(['now FILES_WAITING 3']);
    await acknowledge('FILES_WAITING');
    await clock.advance(25 * hour);
    await stands();
    expect(await openCauses()).toEqual(['now FILES_WAITING 3']);
  });
});

test('the digest comes once a morning with what was open by then; what heals itself is in none', async () => {
  ports.alertSenders = [webhook, mail];
  await raise('LATE_PAYMENT', 'daily');
  await raise('CARRIER_BUSY', 'none');
  await clock.set(Temporal.Instant.from('2026-12-01T22:59:00Z'));
  await sendDueAlerts(ports);
  expect(receiver.got).toEqual([]);
  await clock.advance(minute);
  await raise('RUN_FAILING ingest');
  await clock.advance(minute);
  await raise('OVERPAID', 'daily');
  for (let times = 0; times < 3; times += 1) await sendDueAlerts(ports);
  const digests = receiver.notices().filter(({ kind }) => kind === 'digest');
  expect(digests).toMatchObject([
    { id: 'digest.2026-12-02', alerts: [{ cause: 'RUN_FAILING ingest' }, { cause: 'LATE_PAYMENT' }] },
  ]);
  expect(post.got.filter(({ text }) => text.includes('Subject: [Seikyu] 2 open alerts'))).toHaveLength(1);
  await acknowledge('RUN_FAILING ingest');
  await clock.advance(24 * hour);
  await sendDueAlerts(ports);
  expect(receiver.notices().at(-1)).toMatchObject({
    id: 'digest.2026-12-03',
    alerts: [{ cause: 'LATE_PAYMENT' }, { cause: 'OVERPAID' }],
  });
});

test('a mail names the cause, what to do and how to acknowledge it, under an id of its own', async () => {
  ports.alertSenders = [mail];
  await raise('TIE_OUT_OPEN', 'now', 'counts or amounts of billing.csv do not close');
  expect(await sendDueAlerts(ports)).toMatchObject({ sent: 1 });
  expect(post.got).toHaveLength(1);
  const [{ from, to, text }] = post.got as [Post['got'][0]];
  expect([from, ...to]).toEqual(['seikyu@example.jp', 'night@example.jp', 'office@example.jp']);
  expect(text).toMatch(/^Subject: \[Seikyu\] minato-gas TIE_OUT_OPEN\r$/m);
  expect(text).toMatch(/^Message-ID: <[0-9a-f-]{36}\.1@example\.jp>\r$/im);
  expect(text).toMatch(/^Auto-Submitted: auto-generated\r$/im);
  expect(text).toContain('counts or amounts of billing.csv do not close');
  const told = {
    merchant: 'minato-gas',
    level: 'now',
    cause: 'X_1',
    message: 'm',
    next: 'run `seikyu runs`',
  } as const;
  const notice: Notice = {
    id: 'a.2',
    kind: 'alert',
    number: 2,
    alerts: [{ ...told, occurrences: 7, firstAt: '2026-12-01T01:00:00Z', lastAt: '2026-12-01T02:00:00Z' }],
  };
  expect(subjectOf(notice)).toBe('[Seikyu] minato-gas X_1 (goes on, notice 2)');
  expect(textOf(notice)).toContain('What to do: run seikyu runs.');
  expect(textOf(notice)).toContain('seikyu alerts acknowledge "X_1" --merchant minato-gas');
});

describe('when a channel fails', () => {
  test.each([
    ['hangs', () => undefined],
    ['answers 500', (response: ServerResponse) => response.writeHead(500).end('what is this')],
    ['breaks off', (response: ServerResponse) => response.destroy()],
    ['redirects', (response: ServerResponse) => response.writeHead(302, { location: '/elsewhere' }).end()],
  ])('a webhook that %s keeps no mail waiting, and gets the same notice again', async (_, answer) => {
    ports.alertSenders = [webhook, mail];
    receiver.answer = answer;
    await raise('BILLS_LATE');
    await raise('RUN_LONG ingest');
    expect(await sendDueAlerts(ports)).toEqual({ sent: 2, failed: 1, dropped: 0 });
    expect(post.got).toHaveLength(2);
    receiver.answer = undefined;
    await clock.advance(minute);
    expect(await sendDueAlerts(ports)).toEqual({ sent: 2, failed: 0, dropped: 0 });
    expect(post.got).toHaveLength(2);
    const ids = receiver.notices().map(({ id }) => id);
    expect(ids).toHaveLength(3);
    expect(new Set(ids).size).toBe(2);
  });

  test('for long, the other channel tells of it; when a notice gets through, that is over', async () => {
    ports.alertSenders = [webhook, mail];
    receiver.answer = (response) => response.writeHead(503).end();
    await raise('BILLS_LATE');
    for (let minutes = 0; minutes < 30; minutes += 1) {
      await sendDueAlerts(ports);
      await clock.advance(minute);
    }
    expect(await openCauses()).toContain('now ALERT_CHANNEL_FAILS webhook 1');
    expect(post.got.filter(({ text }) => text.includes('ALERT_CHANNEL_FAILS webhook'))).not.toEqual([]);
    receiver.answer = undefined;
    await clock.advance(hour);
    await sendDueAlerts(ports);
    expect(await openCauses()).toEqual(['now BILLS_LATE 1']);
  });

  test('what was closed meanwhile is not sent any more', async () => {
    receiver.answer = (response) => response.writeHead(500).end();
    await raise('BILLS_LATE');
    expect(await sendDueAlerts(ports)).toMatchObject({ failed: 1 });
    await acknowledge('BILLS_LATE');
    await clock.advance(minute);
    expect(await sendDueAlerts(ports)).toEqual({ sent: 0, failed: 0, dropped: 1 });
    expect(receiver.got).toHaveLength(1);
  });
});

describe('several processes', () => {
  test('two that send at once send each notice once', async () => {
    ports.alertSenders = [webhook, mail];
    const causesRaised = ['BILLS_LATE', 'FILES_WAITING', 'RECEIPTS_DUE', 'RUN_SILENT ingest'];
    for (const cause of causesRaised) await raise(cause);
    const other = { ...ports };
    await Promise.all([sendDueAlerts(ports), sendDueAlerts(other), sendDueAlerts(ports)]);
    // One that came while another was planning looks a minute later.
    await sendDueAlerts(other);
    expect(
      receiver
        .notices()
        .map(({ alerts }) => alerts[0]?.cause)
        .sort(),
    ).toEqual([...causesRaised].sort());
    expect(post.got).toHaveLength(causesRaised.length);
  });

  test.each(['alerts.after_claim', 'alerts.after_send'] as const)(
    'one that dies at %s has its notice sent again under the same id, when its lease is over',
    async (point) => {
      await raise('BILLS_LATE');
      ports.crash = async (at) => {
        if (at === point) throw new Error('killed');
      };
      await expect(sendDueAlerts(ports)).rejects.toThrow('killed');
      ports.crash = async () => undefined;
      expect(await sendDueAlerts(ports)).toMatchObject({ sent: 0 });
      await clock.advance(2_000);
      expect(await sendDueAlerts(ports)).toMatchObject({ sent: 1 });
      await clock.advance(2_000);
      expect(await sendDueAlerts(ports)).toMatchObject({ sent: 0 });
      expect(receiver.got).toHaveLength(point === 'alerts.after_send' ? 2 : 1);
      expect(new Set(receiver.notices().map(({ id }) => id)).size).toBe(1);
    },
  );

  test('one that stood still after its claim sends nothing: another has the notice', async () => {
    await raise('BILLS_LATE');
    let elapsedMs = 0;
    const slow: Ports = {
      ...ports,
      clock: { ...clock, now: () => clock.now(), refresh: () => clock.refresh(), elapsedMs: () => elapsedMs },
      crash: async (at) => {
        if (at !== 'alerts.after_claim') return;
        elapsedMs += 60_000;
        await clock.advance(60_000);
        await sendDueAlerts(ports);
      },
    };
    expect(await sendDueAlerts(slow)).toMatchObject({ sent: 0, failed: 1 });
    expect(receiver.got).toHaveLength(1);
    await clock.advance(10 * minute);
    expect(await sendDueAlerts(ports)).toMatchObject({ sent: 0 });
  });
});

test('an operator can try the channels', async () => {
  ports.alertSenders = [webhook, mail];
  receiver.answer = (response) => response.writeHead(404).end();
  expect(await testSenders(ports)).toEqual([
    { channel: 'webhook', answer: { kind: 'not_accepted', why: 'status 404' } },
    { channel: 'mail', answer: { kind: 'accepted' } },
  ]);
  expect(post.got[0]?.text).toContain('Subject: [Seikyu] test');
  expect(await openCauses()).toEqual([]);
});

test('where trace has not ended well for half an hour, whoever lives says so; its next pass ends that', async () => {
  const passEnded = async (outcome: string, pass: number) => {
    await database.db.run(
      `insert into runs (merchant_id, job, business_date, state, pass, requested_at)
       values ($1, 'trace', '2026-12-01', 'done', $2, $3) on conflict do nothing`,
      [merchant.id, pass, clock.now().toString()],
    );
    await database.db.run(
      `insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at, finished_at, outcome)
       values ($1, 'trace', '2026-12-01', $2, '', '', $3, $3, $4)`,
      [merchant.id, pass, clock.now().toString(), outcome],
    );
  };
  await passEnded('done', 1);
  await clock.advance(30 * minute);
  await passEnded('failed', 2);
  await watchTracer(ports);
  expect(await openCauses()).toEqual([]);
  const admin = await startAdmin({ db: database.db, ports, port: 0 });
  const health = async () => {
    const response = await fetch(`${admin.url}/healthz`);
    return [response.status, await response.json()];
  };
  const last = { merchant: 'minato-gas', at: '2026-12-01T01:00:00Z' };
  expect(await health()).toMatchObject([200, { ok: true, trace: [{ ...last, isSilent: false }] }]);
  await clock.advance(minute);
  // Somebody outside notices also when nobody in here can say so.
  expect(await health()).toMatchObject([503, { ok: false, trace: [{ ...last, isSilent: true }] }]);
  await admin.close();
  await watchTracer(ports);
  await watchTracer(ports);
  expect(await openCauses()).toEqual(['now TRACE_SILENT 1']);
  expect((await openAlerts(database.db))[0]).toMatchObject({ merchant: '' });
  await passEnded('attention', 3);
  await watchTracer(ports);
  expect(await openCauses()).toEqual([]);
});

describe('settings', () => {
  const faults = (environment: Record<string, string>): string[] => {
    try {
      readSettings({ environment: { SEIKYU_HOME: '/nonexistent', ...environment } });
    } catch (error) {
      return (error as Error).message.split('\n').map((line) => line.split(';')[0] ?? '');
    }
    return [];
  };
  const webhookSet = {
    SEIKYU_ALERT_WEBHOOK: 'https://a.example.jp/?k=v',
    SEIKYU_ALERT_WEBHOOK_SECRET: secret,
  };
  const mailSet = {
    SEIKYU_ALERT_MAIL_TO: 'night@example.jp, office@example.jp',
    SEIKYU_ALERT_MAIL_FROM: 'seikyu@example.jp',
    SMTP_URL: 'smtp://seikyu:geheim%40@mail.example.jp:587',
  };

  test('for both ways', () => {
    const { alertWebhook, alertMail } = readSettings({
      environment: { SEIKYU_SECRET: secret, ...webhookSet, ...mailSet },
    });
    expect(alertWebhook).toEqual({ url: 'https://a.example.jp/?k=v', secret });
    expect(alertMail?.to).toEqual(['night@example.jp', 'office@example.jp']);
    expect(readSettings({ environment: { SEIKYU_SECRET: secret } })).toMatchObject({
      alertWebhook: undefined,
      alertMail: undefined,
    });
  });

  test.each([
    [{ SEIKYU_ALERT_WEBHOOK: 'https://a.example.jp' }, ['SEIKYU_ALERT_WEBHOOK_SECRET is missing']],
    [
      { ...webhookSet, SEIKYU_ALERT_WEBHOOK: 'http://a.example.jp/?token=1' },
      ['SEIKYU_ALERT_WEBHOOK is no address to post to'],
    ],
    [{ ...webhookSet, SEIKYU_ALERT_WEBHOOK_SECRET: 'short' }, ['SEIKYU_ALERT_WEBHOOK_SECRET is too short']],
    [{ SEIKYU_ALERT_MAIL_TO: 'a@example.jp' }, ['SEIKYU_ALERT_MAIL_FROM is missing', 'SMTP_URL is missing']],
    [
      { ...mailSet, SEIKYU_ALERT_MAIL_TO: 'a@example.jp,b', SMTP_URL: 'mail.example.jp:587' },
      ['SEIKYU_ALERT_MAIL_TO has a part that is no mail address', 'SMTP_URL is no mail server'],
    ],
    [{ ...mailSet, SMTP_URL: 'smtp://user@mail.example.jp' }, ['SMTP_URL is no mail server']],
  ])('%j is refused', (environment, expected) => {
    expect(faults(environment).sort()).toEqual([...expected].sort());
  });
});

test('each alert that is raised has its entry in the table of causes', () => {
  const raised = filesUnder('billing', /\.ts$/)
    .concat(filesUnder('jobs', /\.ts$/), filesUnder('web', /\.tsx?$/))
    .flatMap((path) => [...read(path).matchAll(/\b(?:cause|Cause)\b[^\n]*?['`]([A-Z][A-Z_]{3,})(?!-)/g)])
    .map((match) => match[1] ?? '');
  expect(raised.length).toBeGreaterThan(15);
  expect(raised.filter((cause) => cause !== 'TEST' && causeOf(cause) === undefined)).toEqual([]);
});
