import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { causes } from '../billing/alerts/causes.ts';
import { raiseAlert } from '../billing/alerts/queries.ts';
import { fixedClock } from '../billing/clock.ts';
import type { LookupAnswer } from '../billing/gateways/gateway.ts';
import { changeHalt } from '../billing/runs/halt.ts';
import { absenceProvesAfter, judgeAnswer, mustClosePage } from '../billing/trace/ask.ts';
import { processes } from '../billing/trace/processes.ts';
import type { OpenCharge } from '../billing/trace/queries.ts';
import { charge } from '../jobs/charge.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { fakeGateway } from './fake-gateway.ts';

let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});
beforeEach(async () => {
  world?.close();
  merchants += 1;
  world = await billsOf(database.db, { code: `water-${merchants}` });
});

const chargeState = async () =>
  (
    await database.db.query<{ state: string; asks: number }>(
      `select state, asks from charges where merchant_id = $1 order by attempt_no desc limit 1`,
      [world.merchant.id],
    )
  )[0];
const alerts = async () =>
  (
    await database.db.query<{ cause: string; level: string }>(
      `select cause, level from alerts where merchant_id = $1 and resolved_at is null order by cause`,
      [world.merchant.id],
    )
  ).map((alert) => `${alert.level} ${alert.cause}`);

describe('what an answer means', () => {
  const { semantics } = fakeGateway(fixedClock('2026-12-01T00:00:00Z'));
  const clock = fixedClock('2026-12-01T00:00:00Z');
  const open: OpenCharge = {
    id: '0193d000-0000-7000-8000-000000000000',
    state: 'unknown',
    origin: 'auto',
    gateway: 'simulator',
    amount: 5_000,
    currency: 'JPY',
    started_at: '2026-12-01T00:00:00Z',
    deadline_at: '2026-12-01T00:01:00Z',
    asks: 0,
    hosted_page_url: null,
    gateway_session_id: null,
    page_ends_at: null,
  };
  const page: OpenCharge = {
    ...open,
    origin: 'link',
    state: 'requires_action',
    hosted_page_url: 'https://pay.invalid/1',
    page_ends_at: '2026-12-01T00:30:00Z',
  };
  const at = (text: string) => {
    clock.set(text);
    return clock.now();
  };

  test('"not found" proves nothing before deadline, call and window have passed', () => {
    expect(absenceProvesAfter(open, semantics).toString()).toBe('2026-12-01T00:02:10Z');
    const notFound: LookupAnswer = { kind: 'not_found' };
    expect(judgeAnswer(open, notFound, at('2026-12-01T00:02:10Z'), semantics).kind).toBe('ask_again');
    expect(judgeAnswer(open, notFound, at('2026-12-01T00:02:10.001Z'), semantics)).toEqual({
      kind: 'learned',
      outcome: { kind: 'canceled', why: 'not_found' },
    });
  });

  test.each([
    [0, '2026-12-01T01:01:00Z'],
    [1, '2026-12-01T01:02:00Z'],
    [2, '2026-12-01T01:05:00Z'],
    [3, '2026-12-01T01:15:00Z'],
    [4, '2026-12-01T02:00:00Z'],
    [99, '2026-12-01T02:00:00Z'],
  ])('after %i questions the next comes at %s', (asks, next) => {
    const judged = judgeAnswer(
      { ...open, asks },
      { kind: 'unknown', why: '' },
      at('2026-12-01T01:00:00Z'),
      semantics,
    );
    expect(judged.kind === 'ask_again' && judged.at.toString()).toBe(next);
  });

  test('a hosted page is closed only after its end; one that nobody was shown at once', () => {
    expect(mustClosePage(page, at('2026-12-01T00:30:59Z'))).toBe(false);
    expect(mustClosePage(page, at('2026-12-01T00:31:00Z'))).toBe(true);
    expect(mustClosePage({ ...page, hosted_page_url: null }, at('2026-12-01T00:03:00Z'))).toBe(true);
    expect(mustClosePage(open, at('2026-12-02T00:00:00Z'))).toBe(false);
  });

  test('an open page is asked about when it ends, and is no unknown', () => {
    expect(judgeAnswer(page, { kind: 'pending' }, at('2026-12-01T00:10:00Z'), semantics)).toMatchObject({
      kind: 'ask_again',
    });
    const judged = judgeAnswer(page, { kind: 'pending' }, at('2026-12-01T00:10:00Z'), semantics);
    expect(judged.kind === 'ask_again' && judged.at.toString()).toBe('2026-12-01T00:31:00Z');
  });
});

describe('the trace job', () => {
  test('money that was taken without an answer is found and booked; asking again changes nothing', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_after');
    await world.run(charge);
    world.clock.advance(61_000);
    expect((await world.run(trace)).counts).toMatchObject({ asked: 1, succeeded: 1 });
    expect(await world.stateOf('A')).toBe('paid');
    const asked = world.gateway.lookups.length;
    expect((await world.run(trace)).counts.asked).toBeUndefined();
    expect(world.gateway.lookups).toHaveLength(asked);
  });

  test('while the gateway is silent it asks less and less often, guesses nothing, and calls a person after a day', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_before');
    await world.run(charge);
    world.gateway.down = true;
    for (let minute = 0; minute < 120; minute += 1) {
      world.clock.advance(60_000);
      await world.run(trace, '2026-12-01');
    }
    const asks = (await chargeState())?.asks ?? 0;
    expect(asks).toBeGreaterThan(4);
    expect(asks).toBeLessThan(10);
    expect(world.gateway.lookups.length).toBeLessThan(10);
    expect(await chargeState()).toMatchObject({ state: 'unknown' });
    expect(await alerts()).toEqual([]);
    world.clock.advance(86_400_000);
    expect(await world.run(trace)).toMatchObject({ outcome: 'attention', counts: { unknown_too_long: 1 } });
    expect(await alerts()).toEqual(['now OUTCOME_UNKNOWN']);

    world.gateway.down = false;
    world.clock.advance(3_600_000);
    await world.run(trace);
    expect(await chargeState()).toMatchObject({ state: 'canceled' });
    expect(await alerts()).toEqual([]);
  });

  test('bills that nobody would look at again and runs that fell silent are told to a person', async () => {
    await world.make([{ number: 'A' }]);
    await database.db.run(`delete from agenda where merchant_id = $1`, [world.merchant.id]);
    await database.db.run(
      `insert into runs (merchant_id, job, business_date, state, pass, lease_owner, lease_until, requested_at)
       values ($1, 'ingest', '2026-11-30', 'running', 1, 'gone', '2020-01-01', '2020-01-01')`,
      [world.merchant.id],
    );
    const end = await world.run(trace);
    expect(end).toMatchObject({ outcome: 'attention', counts: { forgotten_bills: 1, silent_runs: 1 } });
    expect(await alerts()).toEqual(['now BILLS_FORGOTTEN', 'now RUN_SILENT ingest']);
  });

  test('a job that fails again and again, and bills whose step is long overdue, are told to a person', async () => {
    await world.make([
      { number: 'LATE', actOn: '2026-11-26' },
      { number: 'SOON', actOn: '2026-11-27' },
      { number: 'PARKED', actOn: '2026-11-01' },
    ]);
    await database.db.run(
      `update invoices set state = 'parked' where merchant_id = $1 and billing_number = 'PARKED'`,
      [world.merchant.id],
    );
    const failing = async (job: string, outcomes: readonly string[]) => {
      await database.db.run(
        `insert into runs (merchant_id, job, business_date, state, requested_at)
         values ($1, $2, '2026-12-01', 'failed', '2026-12-01')`,
        [world.merchant.id, job],
      );
      await database.db.run(
        `insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at, outcome)
         select $1, $2, '2026-12-01', n, '', '', '2026-12-01', o from unnest($3::text[]) with ordinality as p(o, n)`,
        [world.merchant.id, job, outcomes],
      );
    };
    await failing('ingest', ['done', 'failed', 'failed', 'failed']);
    await failing('dunning', ['failed', 'failed']);
    await failing('notify', ['failed', 'failed', 'failed', 'done']);
    const end = await world.run(trace);
    expect(end).toMatchObject({ outcome: 'attention', counts: { failing_runs: 1, late_bills: 1 } });
    expect(await alerts()).toEqual(['now BILLS_LATE', 'now RUN_FAILING ingest']);
  });
});

describe('each process is confirmed, or alerted within its time', () => {
  const run = (sql: string, ...values: unknown[]) => database.db.run(sql, [world.merchant.id, ...values]);
  const now = () => world.clock.now().toString();
  const file = (state: string, more: { settled?: boolean; removed?: boolean } = {}) =>
    run(
      `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
                                  settings_version, state, fetched_on, fetched_at, removed_at, settled_at)
       values ($1, $2, 'billing.csv', 'billing', 'x', 1, true, '', 'standard/1', 1, $3, '2026-12-01', $4, $5, $6)`,
      world.ports.ids.uuid(),
      state,
      now(),
      more.removed === false ? null : now(),
      more.settled ? now() : null,
    );
  const message = async (state: string, more: { askAt?: string; decided?: string } = {}) => {
    const bills = await world.make([{ number: 'M', collection: 'link', actOn: '2027-12-01' }]);
    await run(
      `insert into messages (merchant_id, invoice_id, step, state, version, planned_on, claimed_at, ask_at, decided_at)
       values ($1, $2, 'first_notice', $3, 1, '2026-12-01', $4, $5, $6)`,
      bills.get('M'),
      state,
      now(),
      more.askAt ?? null,
      more.decided ?? null,
    );
  };
  const theRun = (state: string, lease: string | null) =>
    run(
      `insert into runs (merchant_id, job, business_date, state, pass, lease_owner, lease_until, requested_at)
       values ($1, 'ingest', '2026-12-01', $2, 1, 'gone', $3, $4)`,
      state,
      lease,
      now(),
    );
  const pass = () =>
    run(
      `insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at)
       values ($1, 'ingest', '2026-12-01', 1, '', '', $2)`,
      now(),
    );

  const stories: Record<
    string,
    { begin: () => Promise<unknown>; end: () => Promise<unknown>; cause?: string }
  > = {
    WEBHOOKS_WAITING: {
      begin: () =>
        run(
          `insert into webhook_events (merchant_id, gateway, event_id, reference, kind, received_at)
           values ($1, 'another', 'e', 'r', 'k', $2)`,
          now(),
        ),
      end: () => run(`update webhook_events set handled_at = received_at where merchant_id = $1`),
    },
    CARD_CHANGE_UNKNOWN: {
      begin: async () => {
        const bills = await world.make([{ number: 'C', actOn: '2027-12-01' }]);
        const [methodId, enrolmentId] = [world.ports.ids.uuid(), world.ports.ids.uuid()];
        await run(
          `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, state, created_at)
           select $1, $2, customer_id, 'another', 'card', '', 1, 'active', $3 from invoices where id = $4`,
          methodId,
          now(),
          bills.get('C'),
        );
        await run(
          `insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version, effective_from,
                                   name_digest, terms_version, source, started_at, ended_at)
           select $1, $2, customer_id, contract_id, $3, 'ended', 2, '2026-11-01', '', '', 'test', $4, $4
           from invoices where id = $5`,
          enrolmentId,
          methodId,
          now(),
          bills.get('C'),
        );
        await run(
          `insert into card_changes (merchant_id, id, contract_id, enrolment_id, invoice_id, link_version, gateway, state, version,
                                     terms_version, started_at, deadline_at, page_ends_at, ask_at)
           select $1, $2, contract_id, $2, id, 1, 'another', 'unknown', 2, '', $3, $3, $3, '2027-12-01' from invoices where id = $4`,
          enrolmentId,
          now(),
          bills.get('C'),
        );
      },
      end: () =>
        run(`update card_changes set state = 'canceled', decided_at = started_at where merchant_id = $1`),
    },
    MESSAGES_SENDING: {
      begin: () => message('sending'),
      end: () => run(`update messages set state = 'sent' where merchant_id = $1`),
    },
    MESSAGES_UNKNOWN: {
      begin: () => message('unknown', { askAt: now() }),
      end: () => run(`update messages set state = 'sent' where merchant_id = $1`),
    },
    MESSAGES_PLANNED: {
      begin: () => message('planned'),
      end: () => run(`update messages set state = 'skipped' where merchant_id = $1`),
    },
    FILES_WAITING: {
      begin: () => file('fetched'),
      end: () => run(`update billing_files set state = 'refused' where merchant_id = $1`),
    },
    FILES_LOADING: {
      begin: () => file('loading'),
      end: () => run(`update billing_files set state = 'released' where merchant_id = $1`),
    },
    REMOVALS_UNFINISHED: {
      begin: () => file('released', { removed: false }),
      end: () => run(`update billing_files set removed_at = fetched_at where merchant_id = $1`),
    },
    RECEIPTS_DUE: {
      begin: () => file('refused', { settled: true }),
      end: () =>
        run(
          `insert into outward_files (merchant_id, id, kind, sequence, name, business_date, input_file_id, records, sum,
                                      sha256, size_bytes, state, frozen_at)
           select $1, id, 'receipt', 1, 'receipt.csv', '2026-12-01', id, 1, 0, '', 1, 'delivered', $2
           from billing_files where merchant_id = $1`,
          now(),
        ),
    },
    UNREACHED_UNTOLD: {
      begin: () => message('failed', { decided: now() }),
      end: () => run(`update messages set looked_at = decided_at where merchant_id = $1`),
    },
    RESULTS_DUE: {
      begin: async () => {
        const bills = await world.make([{ number: 'R', actOn: '2027-12-01' }]);
        await run(
          `insert into result_rows (merchant_id, invoice_id, outcome, cause_id, reason, method, amount, amount_received, known_at)
           values ($1, $2, 'pending', $2, '', '', 1, 0, $3)`,
          bills.get('R'),
          now(),
        );
      },
      end: () => run(`delete from result_rows where merchant_id = $1`),
    },
    FILES_UNDELIVERED: {
      begin: () =>
        run(
          `insert into outward_files (merchant_id, id, kind, sequence, name, business_date, records, sum, sha256, size_bytes,
                                      state, frozen_at)
           values ($1, $2, 'result', 1, 'result.csv', '2026-12-01', 1, 0, '', 1, 'frozen', $3)`,
          world.ports.ids.uuid(),
          now(),
        ),
      end: () => run(`update outward_files set state = 'delivered' where merchant_id = $1`),
    },
    RUN_WAITING: {
      begin: () => theRun('requested', null),
      end: () => run(`update runs set state = 'done' where merchant_id = $1 and job = 'ingest'`),
      cause: 'RUN_WAITING ingest',
    },
    RUN_PAUSED: {
      begin: async () => {
        await changeHalt(
          world.ports,
          world.merchant,
          { job: 'charge', businessDate: '2026-12-01', what: 'pause' },
          'operator@test',
        );
      },
      end: () => run(`delete from run_halts where merchant_id = $1`),
      cause: 'RUN_PAUSED charge',
    },
    RUN_LONG: {
      begin: async () => {
        await theRun('running', '2999-01-01');
        await pass();
      },
      end: () => run(`update runs set state = 'done' where merchant_id = $1 and job = 'ingest'`),
      cause: 'RUN_LONG ingest',
    },
  };
  /** They have stories of their own above; the silence of a worker is told by the database's own clock. */
  const toldAbove = ['OUTCOME_UNKNOWN', 'RUN_SILENT', 'RUN_FAILING', 'BILLS_LATE', 'BILLS_FORGOTTEN'];

  test('there is a story of each', () => {
    const traced = processes.flatMap(({ cause }) => cause ?? []);
    expect([...Object.keys(stories), ...toldAbove].sort()).toEqual([...traced].sort());
  });

  test.each(Object.entries(stories))('%s', async (word, { begin, end, cause = word }) => {
    const minutes = processes.find((each) => each.cause === word)?.minutes ?? 0;
    await begin();
    // A day's first pass reads every open bill; so does this one.
    const look = (date: string) => world.run(trace, date);
    world.clock.advance(minutes * 60_000 - 1);
    if (word !== 'MESSAGES_PLANNED') {
      await look('2026-12-01');
      expect(await alerts()).toEqual([]);
    }
    world.clock.advance(2);
    const day = word === 'MESSAGES_PLANNED' ? '2026-12-06' : '2026-12-02';
    expect((await look(day)).outcome).toBe('attention');
    expect(await alerts()).toEqual([`${causes[word]?.level} ${cause}`]);
    await end();
    expect((await look(day)).outcome).toBe('done');
    expect(await alerts()).toEqual([]);
  });

  test('a visit is over when its time is; not while its charge has no conclusive outcome', async () => {
    const bills = await world.make([
      { number: 'OVER', collection: 'link', actOn: '2027-12-01' },
      { number: 'OPEN', collection: 'link', actOn: '2027-12-01' },
    ]);
    for (const [number, state] of [
      ['OVER', 'failed'],
      ['OPEN', 'unknown'],
    ] as const) {
      const id = world.ports.ids.uuid();
      await run(
        `insert into checkout_sessions (merchant_id, id, invoice_id, link_version, state, version, language, started_at, expires_at)
         values ($1, $2, $3, 1, 'open', 1, 'ja', $4, $5)`,
        id,
        bills.get(number),
        now(),
        world.clock.now().add({ minutes: 30 }).toString(),
      );
      await run(
        `insert into payment_intents (merchant_id, id, invoice_id, session_id, origin, amount, currency, state, version, created_at)
         values ($1, $2, $3, $2, 'link', 5000, 'JPY', 'requires_payment_method', 1, $4)`,
        id,
        bills.get(number),
        now(),
      );
      await run(
        `insert into charges (merchant_id, id, intent_id, invoice_id, session_id, attempt_no, origin, gateway, amount, currency,
                              state, version, business_date, started_at, deadline_at)
         values ($1, $2, $2, $3, $2, 1, 'link', 'simulator', 5000, 'JPY', $4, 1, '2026-12-01', $5, $5)`,
        id,
        bills.get(number),
        state,
        now(),
      );
      if (state === 'unknown')
        await run(
          `insert into collection_locks (merchant_id, invoice_id, charge_id, locked_at, ask_at) values ($1, $2, $3, $4, '2027-01-01')`,
          bills.get(number),
          id,
          now(),
        );
    }
    const states = async () =>
      (
        await database.db.query<{ state: string }>(
          `select i.billing_number || ' ' || s.state || ' ' || p.state as state
           from checkout_sessions s
           join invoices i on i.merchant_id = s.merchant_id and i.id = s.invoice_id
           join payment_intents p on p.merchant_id = s.merchant_id and p.session_id = s.id
           where s.merchant_id = $1 order by 1`,
          [world.merchant.id],
        )
      ).map(({ state }) => state);
    world.clock.advance(30 * 60_000);
    await world.run(trace);
    expect(await states()).toEqual([
      'OPEN open requires_payment_method',
      'OVER open requires_payment_method',
    ]);
    world.clock.advance(61_000);
    expect((await world.run(trace)).counts.sessions_expired).toBe(1);
    expect(await states()).toEqual(['OPEN open requires_payment_method', 'OVER expired canceled']);
  });
});

describe('what has proof of its own', () => {
  const raise = (cause: string, level: 'now' | 'daily' | 'none' = 'now') =>
    raiseAlert(database.db, world.ports.ids.uuid(), world.clock.now(), {
      merchantId: world.merchant.id,
      level,
      cause,
      message: '',
    });

  test('the gateway is back when a charge that began later has its answer', async () => {
    await world.make([{ number: 'A' }, { number: 'B', actOn: '2026-12-02' }]);
    world.gateway.behave('tok_A', 'timeout_after');
    await world.run(charge);
    await raise('GATEWAY_DOWN simulator');
    world.clock.advance(61_000);
    // The gateway has charged A before: that is no news of now.
    await world.run(trace);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await alerts()).toEqual(['now GATEWAY_DOWN simulator']);
    world.clock.advance(86_400_000);
    await world.run(charge);
    expect(await world.stateOf('B')).toBe('paid');
    await world.run(trace);
    expect(await alerts()).toEqual([]);
  });

  test('a job is mended by a good pass, a partner by the job that reaches it, a report by being stored', async () => {
    for (const cause of [
      'RUN_FAILING dunning',
      'SFTP_TIMEOUT',
      'DELIVER_SFTP_DENIED',
      'SETTLEMENT_REPORT_LATE 2026-11-28',
    ])
      await raise(cause);
    await raise('LATE_PAYMENT', 'daily');
    await world.run(trace);
    expect(await alerts()).toHaveLength(5);
    world.clock.advance(60_000);
    for (const [job, outcome] of [
      ['dunning', 'failed'],
      ['fetch', 'done'],
      ['deliver', 'attention'],
    ]) {
      await database.db.run(
        `insert into runs (merchant_id, job, business_date, state, requested_at) values ($1, $2, '2026-12-01', 'done', $3)`,
        [world.merchant.id, job, world.clock.now().toString()],
      );
      await database.db.run(
        `insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at, finished_at, outcome)
         values ($1, $2, '2026-12-01', 1, '', '', $3, $3, $4)`,
        [world.merchant.id, job, world.clock.now().toString(), outcome],
      );
    }
    await database.db.run(
      `insert into settlement_reports (merchant_id, gateway, report_date, lines, amount, fee, fee_tax, stored_at)
       values ($1, 'simulator', '2026-11-28', 0, 0, 0, 0, '2026-12-01')`,
      [world.merchant.id],
    );
    await world.run(trace);
    expect(await alerts()).toEqual(['daily LATE_PAYMENT', 'now RUN_FAILING dunning']);
  });

  test('what a person was to look at is over when nothing is parked for it; what heals itself after a quiet day', async () => {
    await raise('TIE_OUT_OPEN');
    await raise('CARRIER_BUSY', 'none');
    await database.db.run(
      `insert into parked_items (merchant_id, id, subject, subject_id, reason, context, parked_at)
       values ($1, $2, 'file', 'f', 'TIE_OUT_OPEN', '{}', '2026-12-01')`,
      [world.merchant.id, world.ports.ids.uuid()],
    );
    world.clock.advance(86_399_000);
    await world.run(trace);
    expect(await alerts()).toEqual(['none CARRIER_BUSY', 'now TIE_OUT_OPEN']);
    await database.db.run(`update parked_items set resolved_at = parked_at where merchant_id = $1`, [
      world.merchant.id,
    ]);
    world.clock.advance(2_000);
    await world.run(trace);
    expect(await alerts()).toEqual([]);
  });
});
