import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { invariants } from '../billing/checks/invariants.ts';
import { type CheckOptions, checkInvariants } from '../billing/checks/queries.ts';
import type { Db, Tx } from '../billing/db.ts';
import { references, uniqueKeys } from '../billing/guards/queries.ts';
import { referenceOf } from '../billing/ids.ts';
import { returnUnpaid } from '../billing/invoices/return.ts';
import { charge } from '../jobs/charge.ts';
import { deliver } from '../jobs/deliver.ts';
import { dunning } from '../jobs/dunning.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { type Bills, billsOf, expectInvariants } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

/**
 * Each invariant is broken by hand in a healthy world, in a transaction that is rolled back: exactly that one must be
 * named, with the thing that broke it. A check that never fails proves nothing.
 */

let database: TestDatabase;
let world: Bills;

beforeAll(async () => {
  database = await testDatabase();
  world = await billsOf(database.db, { code: 'minato-gas' });
  const { gateway, clock } = world;
  await world.make([
    { number: 'PAID' },
    { number: 'RETRIED' },
    { number: 'ASKED' },
    { number: 'LINK', collection: 'link' },
    { number: 'PARKED' },
    { number: 'STOLEN' },
    { number: 'LATE' },
    ...Array.from({ length: 17 }, (_, index) => ({ number: `SMALL-${index}`, amount: 777 })),
  ]);
  gateway.behave('tok_RETRIED', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
  gateway.behave('tok_PARKED', { declines: { gatewayCode: 'code_of_tomorrow', networkCode: 'ZZ' } });
  gateway.behave('tok_STOLEN', { declines: { gatewayCode: 'stolen_card', networkCode: '43' } });
  gateway.behave('tok_LATE', 'rate_limited');
  await world.run(charge);
  await world.run(charge);
  await database.db.run('update billing_files set amount_trailer = amount_accepted');
  await paidTwiceAfterReturn();
  await world.run(dunning);
  await world.run(deliver);
  // There is no server here to upload them to.
  await database.db.run(
    `update outward_files
     set state = 'delivered', parts = 1, renaming_part = 1, renaming_at = frozen_at, delivered_at = frozen_at`,
  );
  for (let day = 0; day < 4; day += 1) {
    clock.advance(86_400_000);
    await world.run(reconcile);
    await world.run(dunning);
  }
  gateway.behave('tok_ASKED2', 'timeout_after');
  await world.make([{ number: 'ASKED2' }]);
  await world.run(charge);
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});

/** The bill LATE goes back, then both of its attempts turn out to have taken the money. */
async function paidTwiceAfterReturn(): Promise<void> {
  const { db, ids, sealer } = world.ports;
  const { clock } = world;
  const act = () => ({
    merchantId: world.merchant.id,
    id: ids.uuid(),
    kind: 'command' as const,
    actor: 'test',
    at: clock.now(),
  });
  const [bill] = await db.query<{ id: string }>(`select id from invoices where billing_number = 'LATE'`);
  await db.transaction((tx) =>
    returnUnpaid(tx, act(), { businessDate: '2026-12-01', today: '2026-12-01' }, [bill?.id ?? '']),
  );
  clock.advance(60_000);
  for (const { id } of await db.query<{ id: string }>(
    `select id from charges where invoice_id = $1::uuid order by attempt_no`,
    [bill?.id],
  )) {
    world.gateway.captured.push({
      reference: referenceOf(id),
      invoiceId: bill?.id ?? '',
      amount: 5_000,
      currency: 'JPY',
      capturedAt: clock.now().toString(),
      gatewayChargeId: `ch-${id}`,
      method: null,
    });
    await db.transaction((tx) =>
      recordOutcomes(tx, {
        act: act(),
        timezone: 'Asia/Tokyo',
        learnedBy: 'report',
        ids,
        sealer,
        learned: [
          {
            chargeId: id,
            outcome: {
              kind: 'succeeded',
              captured: {
                gatewayChargeId: `ch-${id}`,
                amount: 5_000,
                currency: 'JPY',
                capturedAt: clock.now().toString(),
                method: 'card',
                savedMethod: null,
              },
            },
          },
        ],
      }),
    );
  }
}

class RolledBack extends Error {}

/** What check finds after `sql`, of which nothing stays. */
async function findAfter(sql: string, options: CheckOptions = { schema: false }) {
  let found: Awaited<ReturnType<typeof checkInvariants>>['invariants'] = [];
  await database.db
    .transaction(async (tx) => {
      // The books are closed to their owner too, who opens them here to break them.
      if (options.schema === false)
        await tx.run('grant update, delete on transfers, state_history to current_user');
      if (sql !== '') await tx.run(sql);
      found = (await checkInvariants(insideOf(tx), options)).invariants;
      throw new RolledBack();
    })
    .catch((error) => {
      if (!(error instanceof RolledBack)) throw error;
    });
  return found.filter(({ holds }) => !holds);
}

const insideOf = (tx: Tx): Db => ({ ...database.db, transaction: (work) => work(tx) });

const bill = (number: string) => `(select id from invoices where billing_number = '${number}')`;
const chargeOf = (number: string, attempt = 1) =>
  `(select id from charges where invoice_id = ${bill(number)} and attempt_no = ${attempt})`;
/** A row like another one, with some columns changed. */
const copyOf = (table: string, where: string, changes: Record<string, unknown>) =>
  `insert into ${table} select (jsonb_populate_record(null::${table}, to_jsonb(t) || '${JSON.stringify(changes)}')).*
   from ${table} t where ${where}`;
const newId = '01999999-9999-7999-8999-999999999999';
const message = (number: string, columns: Record<string, string>) =>
  `insert into messages (merchant_id, invoice_id, step, version, planned_on, ${Object.keys(columns).join(', ')})
   select merchant_id, id, 'failure:9', 1, '2026-12-01', ${Object.values(columns).join(', ')} from invoices where billing_number = '${number}'`;

test('a healthy world holds, all at once, one by one, and with the clock', async () => {
  await expectInvariants(database.db);
  expect(await findAfter('', { inBetween: true })).toEqual([]);
  expect(await findAfter('', { now: world.clock.now() })).toEqual([]);
  const { invariants: checked } = await checkInvariants(database.db);
  expect(checked.map(({ id }) => id)).toEqual(invariants.map(({ id }) => id));
  expect(invariants.map(({ id }) => id)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  const some = await checkInvariants(database.db, { only: [4, 9], elapsedMs: () => 0 });
  expect(some.invariants.map(({ id, milliseconds }) => [id, milliseconds])).toEqual([
    [4, 0],
    [9, 0],
  ]);
});

/** id, what is done, how, which kind and subject must be named, and what it unavoidably breaks as well. */
type Break = readonly [number, string, string | readonly string[], string, RegExp, number[]?];
const breaks: readonly Break[] = [
  [
    1,
    'a second file of one name',
    [
      'drop index billing_files_once_by_name',
      copyOf('billing_files', `kind = 'billing' and lines_read > 1`, {
        id: newId,
        sha256: 'x',
        sequence: null,
        lines_read: 0,
        lines_accepted: 0,
        amount_accepted: 0,
        removed_at: '2026-12-01T00:00:00Z',
      }),
    ],
    'file',
    /^bills-/,
  ],
  [
    1,
    'the same bytes again',
    [
      'drop index billing_files_once_by_bytes',
      copyOf('billing_files', `kind = 'billing' and lines_read > 1`, {
        id: newId,
        name: 'again',
        sequence: null,
        state: 'loading',
        removed_at: '2026-12-01T00:00:00Z',
      }),
    ],
    'file',
    /^again/,
  ],
  [
    1,
    'a sequence number again',
    [
      'drop index billing_files_once_by_sequence',
      copyOf('billing_files', `kind = 'billing' and lines_read > 1`, {
        id: newId,
        name: 'again',
        sha256: 'x',
        state: 'loading',
        removed_at: '2026-12-01T00:00:00Z',
      }),
    ],
    'file',
    /^again/,
  ],
  [
    2,
    'a line without an outcome',
    `update billing_files set lines_read = lines_read + 1 where lines_read > 1`,
    'file',
    /^bills-/,
  ],
  [
    2,
    'an amount that does not close',
    `update billing_files set amount_accepted = amount_accepted + 1 where lines_read > 1`,
    'file',
    /^bills-/,
  ],
  [
    2,
    'a line that is accepted and rejected',
    [
      `insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
       select merchant_id, file_id, line_no, 'E_RANGE', 'rejected', 'amount', '' from invoices where billing_number = 'LINK'`,
      `update billing_files set lines_read = lines_read + 1, lines_rejected = 1 where lines_read > 1`,
    ],
    'bill',
    /^LINK$/,
  ],
  [
    2,
    'two bills of one line',
    `update invoices set line_no = 2 where billing_number = 'RETRIED'`,
    'bill',
    /^(PAID|RETRIED)$/,
  ],
  [
    3,
    'two bills of one number',
    [
      'alter table invoices drop constraint invoices_merchant_id_billing_number_key',
      `update invoices set billing_number = 'PAID' where billing_number = 'LINK'`,
    ],
    'bill',
    /^PAID$/,
  ],
  [4, 'a second payment that is no credit', `delete from credits`, 'bill', /^LATE$/, [20]],
  [
    4,
    'two open charges',
    [
      copyOf('charges', `id = ${chargeOf('ASKED2')}`, { id: newId, attempt_no: 2 }),
      copyOf('state_history', `subject = 'charge' and subject_id = ${chargeOf('ASKED2')}`, {
        subject_id: newId,
      }),
    ],
    'bill',
    /^ASKED2$/,
    [10],
  ],
  [
    4,
    'an attempt before the end of the one before',
    [
      `update charges set started_at = started_at - interval '2 days' where id = ${chargeOf('LATE', 2)}`,
      `update state_history set at = at - interval '2 days' where subject_id = ${chargeOf('LATE', 2)} and version = 1`,
    ],
    'bill',
    /^LATE$/,
  ],
  [
    5,
    'an SMS after the payment',
    message('PAID', {
      state: `'sent'`,
      carrier: `'x'`,
      provider_id: `'p'`,
      claimed_at: `settled_at + interval '1 s'`,
      decided_at: `settled_at + interval '2 s'`,
    }),
    'message',
    /failure:9$/,
  ],
  [
    6,
    'a charge over another amount than bill and payment',
    `update charges set amount = amount + 1 where id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
    [9],
  ],
  [
    6,
    'a charge over another amount than its bill',
    `update charges set amount = 4 where id = ${chargeOf('STOLEN')}`,
    'charge',
    /^0/,
  ],
  [
    6,
    'a success without its payment',
    [
      `delete from allocations where payment_id = ${chargeOf('PAID')}`,
      `delete from payments where id = ${chargeOf('PAID')}`,
    ],
    'charge',
    /^0/,
    [14, 20],
  ],
  [
    7,
    'an entry booked in two months',
    copyOf('transfers', `entry_id = ${bill('PAID')}`, { month: '2026-01-01' }),
    'bill',
    /^PAID$/,
    [20],
  ],
  [
    7,
    'a run done with a chunk left',
    `update chunks set state = 'ready' where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    8,
    'a bill whose history ends before',
    `update invoices set version = version + 1 where billing_number = 'PAID'`,
    'bill',
    /^PAID$/,
  ],
  [
    8,
    'a bill in a state of which its history knows nothing',
    `update state_history set to_state = 'parked' where subject_id = ${bill('LINK')}`,
    'bill',
    /^LINK$/,
  ],
  [
    8,
    'a charge without its history',
    `delete from state_history where subject_id = ${chargeOf('PAID')} and version = 2`,
    'charge',
    /^0/,
  ],
  [
    8,
    'an outcome that nobody learned',
    `update charges set learned_by = null where id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
  ],
  [
    9,
    'a line that is unknown here',
    `update settlement_lines set charge_id = null where charge_id = ${chargeOf('PAID')}`,
    'charge',
    /./,
  ],
  [
    9,
    'a payment in no report',
    `delete from settlement_lines where charge_id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
  ],
  [
    9,
    'a report over another amount',
    `update settlement_lines set amount = 1 where charge_id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
  ],
  [
    10,
    'an open charge without a lock',
    `delete from collection_locks where charge_id = ${chargeOf('ASKED2')}`,
    'charge',
    /^0/,
  ],
  [
    10,
    'a lock without an open charge',
    copyOf('collection_locks', 'true', {}).replace(
      /to_jsonb\(t\) \|\| '.*?'/,
      `to_jsonb(t) || jsonb_build_object('invoice_id', ${bill('PAID')}, 'charge_id', ${chargeOf('PAID')})`,
    ),
    'bill',
    /^PAID$/,
  ],
  [
    10,
    'a fence that went back',
    `update runs set fence = 0 where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    10,
    'a pass that never ended',
    `update run_passes set outcome = null where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    10,
    'a chunk claimed without a fence',
    `update chunks set attempts = 9 where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    10,
    'two dates at once',
    [
      `update runs set state = 'running', lease_owner = 'p', lease_until = seikyu_now() + interval '1 h'
       where job = 'reconcile' and business_date >= '2026-12-04'`,
      `update run_passes set outcome = null, owner = 'p', started_at = seikyu_now() - interval '1 h'
       where job = 'reconcile' and business_date >= '2026-12-04'`,
    ],
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    11,
    'an open bill that nobody will look at',
    `delete from agenda where invoice_id = ${bill('LINK')}`,
    'bill',
    /^LINK$/,
  ],
  [
    11,
    'a parked bill that nobody is asked about',
    `update parked_items set resolved_at = parked_at`,
    'bill',
    /^PARKED$/,
  ],
  [
    11,
    'a final bill with a next step',
    `insert into agenda select merchant_id, id, 'dun', '2026-12-09' from invoices where billing_number = 'PAID'`,
    'bill',
    /^PAID$/,
  ],
  [
    11,
    'a lost SMS that nobody asks about',
    message('LINK', { state: `'unknown'`, carrier: `'x'`, claimed_at: 'created_at' }),
    'message',
    /failure:9$/,
  ],
  [
    12,
    'a gap in the attempts',
    `update charges set attempt_no = 3 where id = ${chargeOf('LATE', 2)}`,
    'bill',
    /^LATE$/,
  ],
  [
    12,
    'an attempt on a card declined for good',
    `update charges set payment_method_id = (select payment_method_id from charges where id = ${chargeOf('STOLEN')}) where id = ${chargeOf('ASKED2')}`,
    'charge',
    /^0/,
  ],
  [
    12,
    'an attempt on a card that was called closed before',
    [
      `insert into card_refreshes (merchant_id, id, gateway, business_date, state, version, asked_at, answered_at)
       select merchant_id, id, gateway, business_date, 'answered', 2, started_at - interval '2 hours',
              started_at - interval '1 hour'
       from charges where id = ${chargeOf('ASKED2')}`,
      `insert into card_refresh_lines (merchant_id, refresh_id, payment_method_id, enrolment_id, charge_on, answer)
       select c.merchant_id, c.id, c.payment_method_id, e.id, c.business_date, 'closed'
       from charges c
       join enrolments e on e.merchant_id = c.merchant_id and e.payment_method_id = c.payment_method_id
       where c.id = ${chargeOf('ASKED2')}`,
    ],
    'charge',
    /^0/,
  ],
  [
    12,
    'an attempt before its time',
    `update charges set retry_not_before = started_at + interval '3 days' where id = ${chargeOf('LATE')}`,
    'charge',
    /^0/,
  ],
  [
    12,
    'more attempts than a network allows',
    `update charges set payment_method_id = (select payment_method_id from charges where id = ${chargeOf('SMALL-0')}) where amount = 777`,
    'charge',
    /^0/,
  ],
  [
    12,
    'more attempts than the plan has',
    `update merchant_settings set settings = jsonb_set(settings, '{dunning,card,attempts}', '1')`,
    'bill',
    /^LATE$/,
  ],
  [
    13,
    'more given back than was taken for a bill',
    copyOf('transfers', `entry_id = ${chargeOf('PAID')}`, {
      entry_id: newId,
      event: 'refund',
      debit: 'receivable',
      credit: 'gateway_clearing',
      amount: 5_001,
    }),
    'bill',
    /^PAID$/,
    [20],
  ],
  [
    13,
    'a bill that waits in a recall that is over',
    `insert into recalls (merchant_id, id, file_id, state, version, bills, amount, begun_by, begun_at, ended_at, all_entered)
     select merchant_id, id, file_id, 'done', 2, 1, amount, 'x', created_at, created_at, true from invoices where id = ${bill('LATE')};
     insert into recall_bills (merchant_id, invoice_id, recall_id, state)
     select merchant_id, id, id, 'refunding' from invoices where id = ${bill('LATE')}`,
    'bill',
    /^LATE$/,
  ],
  [
    13,
    'more given back by the merchant than was taken for a bill',
    copyOf('transfers', `entry_id = ${chargeOf('PAID')}`, {
      entry_id: newId,
      event: 'refunded_by_merchant',
      debit: 'receivable',
      credit: 'given_by_merchant',
      amount: 5_001,
    }),
    'bill',
    /^PAID$/,
    [20],
  ],
  [
    13,
    'more given back than was taken from a customer',
    copyOf('transfers', `entry_id = ${chargeOf('PAID')}`, {
      entry_id: newId,
      event: 'refund',
      invoice_id: null,
      debit: 'customer_credit',
      credit: 'gateway_clearing',
      amount: 5_001,
    }),
    'customer',
    /^0/,
    [20],
  ],
  [
    14,
    'a final bill that is not told',
    `delete from result_rows where invoice_id = ${bill('STOLEN')}; update invoices set state = state; delete from result_rows where invoice_id = ${bill('LATE')}`,
    'bill',
    /^LATE$/,
  ],
  [
    14,
    'a bill told as something else',
    `update result_rows set outcome = 'cancelled' where invoice_id = ${bill('LATE')}`,
    'bill',
    /^LATE$/,
  ],
  [
    14,
    'another amount told than was paid',
    `update result_rows set amount_received = 1 where invoice_id = ${bill('PAID')}`,
    'bill',
    /^PAID$/,
  ],
  [
    14,
    'told as unpaid after the money was known',
    `update result_rows set known_at = known_at + interval '1 h' where outcome = 'unpaid'`,
    'bill',
    /^LATE$/,
  ],
  [
    14,
    'a file with a record less than it says',
    `update outward_files set records = records + 1 where kind = 'result'`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    14,
    'a file over another sum',
    `update outward_files set sum = sum + 1 where kind = 'result'`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    14,
    'a row twice in a file',
    `update result_rows set row_no = 1 where row_no = 2`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    14,
    'a gap in the files',
    `update outward_files set sequence = 7 where kind = 'result'`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    15,
    'bytes too many',
    `update outward_file_parts set content = content || 'x'::bytea`,
    'file',
    /_minato-gas_/,
  ],
  [
    15,
    'a part lost',
    `delete from outward_file_parts where file_id in (select id from outward_files where kind = 'result')`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    15,
    'other bytes',
    `update outward_file_parts set content = set_byte(content, 0, 65)`,
    'file',
    /_minato-gas_/,
  ],
  [
    17,
    'a number that could be a formula',
    `update invoices set billing_number = '=1+1' where billing_number = 'LINK'`,
    'bill',
    /^=1\+1$/,
  ],
  [
    17,
    'a description that turns the writing',
    `update invoices set description = E'a\\u202eb' where billing_number = 'LINK'`,
    'bill',
    /^LINK$/,
  ],
  [
    17,
    'a customer number with a line end',
    `update customers set customer_number = E'C\\n1' where customer_number = 'C-LINK'`,
    'customer',
    /^0/,
  ],
  [
    17,
    'a contract number with a quote',
    `update contracts set contract_number = '"' where contract_number = '' and id = (select contract_id from invoices where billing_number = 'LINK')`,
    'customer',
    /^0/,
  ],
  [
    17,
    'a file name that is a path',
    `update billing_files set name = '../' || name where lines_read > 1`,
    'file',
    /^0/,
  ],
  [
    17,
    'a copy that lies elsewhere',
    `update billing_files set archive_path = '/etc/passwd' where lines_read > 1`,
    'file',
    /^0/,
  ],
  [
    17,
    'an outward name that is none',
    `update outward_files set name = '../result.csv' where kind = 'result'`,
    'file',
    /^0/,
  ],
  [
    17,
    'a tax line with an issuer that is none',
    `insert into invoice_tax_lines select merchant_id, id, 1, '', 10, 1, 0, 'T1' from invoices where billing_number = 'LINK'`,
    'bill',
    /^LINK$/,
  ],
  [
    17,
    'a finding with a number that is none',
    `insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
     select merchant_id, file_id, line_no, 'W_FALLBACK_LINK', 'warning', '', '<b>' from invoices where billing_number = 'LINK'`,
    'file',
    /^bills-/,
  ],
  [
    18,
    'an SMS that nobody claimed',
    message('LINK', { state: `'sent'`, carrier: `'x'`, provider_id: `'p'` }),
    'message',
    /failure:9$/,
  ],
  [
    18,
    'an outcome before its beginning',
    `update charges set started_at = started_at + interval '1 day' where id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
  ],
  [
    18,
    'a file that appeared without a rename',
    `update outward_files set renaming_at = null, renaming_part = null where kind = 'result'`,
    'file',
    /^result_minato-gas_/,
  ],
  [
    18,
    'a server that anybody could be',
    `update merchant_settings set settings = jsonb_set(settings, '{exchange,sftp,hostKeys}', '[]')`,
    'merchant',
    /^minato-gas$/,
  ],
  ...[
    ['an e-mail address', 'cannot write to taro.yamada@example.co.jp'],
    ['a phone number', 'refused +819012345678'],
    ['a phone number', 'refused 090-1234-5678, no such number'],
    ['a pay link', 'GET /l/mg0123456789abcdefghijklmn gave 500'],
    ['a secret key', 'refused sk_live_0123456789abcdef'],
    ['a card number', 'declined 4242424242424242'],
    ['a card number', 'declined 3782 822463 10005'],
    ['a card number', 'declined 4242-4242-4242-4242.'],
  ].map(
    ([what, text]) =>
      [
        19,
        `${what} in an alert: ${text}`,
        `insert into alerts (merchant_id, id, level, cause, message, occurrences, first_at, last_at)
         select id, '${newId}', 'now', 'TEST', '${text}', 1, created_at, created_at from merchants`,
        'alert',
        /^TEST$/,
      ] as const,
  ),
  [
    19,
    'a phone number in a failure',
    `update run_passes set failure = 'tel 09012345678' where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    19,
    'a phone number in a chunk',
    `update chunks set failure = 'tel 09012345678' where job = 'reconcile' and business_date = '2026-12-04'`,
    'run',
    /^reconcile 2026-12-04$/,
  ],
  [
    19,
    'an address in a parked item',
    `update parked_items set context = '{"to":"a@example.com"}'`,
    'parked',
    /^invoice /,
  ],
  [
    19,
    'a card number in a description',
    `update invoices set description = 'card 4242 4242 4242 4242' where billing_number = 'LINK'`,
    'bill',
    /^LINK$/,
  ],
  [
    20,
    'a bill that was never booked',
    `delete from transfers where entry_id = ${bill('LINK')}`,
    'bill',
    /^LINK$/,
  ],
  [
    20,
    'a payment that was never booked',
    `update transfers set entry_id = '${newId}' where entry_id = ${chargeOf('PAID')}`,
    'charge',
    /^0/,
  ],
  [
    20,
    'a posting in another currency',
    `update transfers set currency = 'USD' where entry_id = ${bill('LINK')}`,
    'bill',
    /^LINK$/,
  ],
  [
    13,
    'a credit that is said to pay a bill and pays none',
    `update payments set reused = 1 where id in (select payment_id from credits)`,
    'charge',
    /^0/,
    [20],
  ],
  [20, 'a credit that the ledger does not know', `update credits set amount = 1`, 'charge', /^0/],
  [
    20,
    'an event that the chart does not know',
    `update transfers set event = 'gift' where entry_id = ${bill('LINK')}`,
    'bill',
    /^LINK$/,
  ],
  [
    20,
    'a step of an intent that its graph does not have',
    `update state_history set to_state = 'requires_capture'
     where from_state = 'processing'
       and subject_id = (select intent_id from charges where id = ${chargeOf('PAID')})`,
    'bill',
    /^PAID$/,
  ],
  [
    20,
    'a step that the graph does not have',
    [
      `update state_history set to_state = 'cancelled' where subject_id = ${bill('PAID')} and version = 2`,
      copyOf('state_history', `subject_id = ${bill('PAID')} and version = 2`, {
        version: 3,
        from_state: 'cancelled',
        to_state: 'paid',
      }),
      `update invoices set version = 3 where billing_number = 'PAID'`,
    ],
    'bill',
    /^PAID$/,
  ],
];

describe('broken by hand', () => {
  const cases = breaks.map(([id, what, sql, kind, subject, also = []]) => ({
    id,
    what,
    sql: typeof sql === 'string' ? sql : sql.join(';\n'),
    kind,
    subject,
    also,
  }));
  test.each(cases)('$id: $what', async ({ id, sql, kind, subject, also }) => {
    const found = await findAfter(sql);
    expect(found.map((invariant) => invariant.id)).toEqual([id, ...also].sort((one, other) => one - other));
    const named = found.find((invariant) => invariant.id === id)?.examples ?? [];
    expect(named).toContainEqual({
      merchant: 'minato-gas',
      kind,
      subject: expect.stringMatching(subject),
      detail: expect.any(String),
    });
  });

  test.each([
    [7, 'drop index result_rows_one_final', /^result_rows_one_final$/],
    [7, 'alter table collection_locks drop constraint collection_locks_pkey', /^collection_locks_pkey$/],
    [16, 'alter table invoices disable row level security', /^invoices$/],
    [16, 'drop policy charges_of_one_merchant on charges', /^charges$/],
    [16, 'create policy all_of_it on charges to seikyu_web using (true)', /^charges$/],
    [16, 'create unique index by_name on customers (customer_number)', /^by_name$/],
    [16, 'create table notes (merchant_id int not null)', /^notes$/],
    [
      16,
      'alter table payments drop constraint payments_merchant_id_invoice_id_fkey',
      /^payments to invoices$/,
    ],
    [
      16,
      `alter table credits add constraint loose foreign key (merchant_id, customer_id) references customers (merchant_id, id) not valid`,
      /^loose$/,
    ],
    [
      16,
      `alter table customers add unique (id, merchant_id);
       alter table credits add constraint crossed foreign key (customer_id, merchant_id) references customers (id, merchant_id)`,
      /^crossed$/,
    ],
    [20, 'grant update (amount) on transfers to seikyu_web', /^transfers$/],
    [20, 'grant delete on state_history to seikyu_web', /^state_history$/],
    [20, 'grant update on closed_months to current_user', /^closed_months$/],
  ])('%i: the schema after: %s', async (id, sql, subject) => {
    const found = await findAfter(sql, {});
    expect(found.map((invariant) => invariant.id)).toEqual([id]);
    expect(found[0]?.examples.map((violation) => violation.subject)).toContainEqual(
      expect.stringMatching(subject),
    );
  });

  test('every invariant is broken once', () => {
    const broken = new Set<number>([...breaks.map(([id]) => id), 7, 16, 20]);
    expect([...broken].sort((one, other) => one - other)).toEqual(invariants.map(({ id }) => id));
  });

  const long = `'2026-11-01T00:00:00Z'`;
  test.each([
    ['charge', `update collection_locks set ask_at = ${long}`, 'OUTCOME_UNKNOWN'],
    [
      'message',
      message('LINK', { state: `'sending'`, carrier: `'x'`, claimed_at: long, ask_at: long }),
      'MESSAGES_SENDING',
    ],
    [
      'message',
      `${message('LINK', { state: `'planned'` })}; update messages set planned_on = ${long} where step = 'failure:9'`,
      'CARRIER_BUSY',
    ],
    ['bill', `update agenda set act_on = ${long} where invoice_id = ${bill('LINK')}`, 'BILLS_LATE'],
    [
      'file',
      `update billing_files set state = 'fetched', fetched_at = ${long} where lines_read = 1`,
      'FILE_LOADING 1',
    ],
    [
      'file',
      `update outward_files set state = 'frozen', frozen_at = ${long} where kind = 'result'`,
      'DELIVER_SFTP_TIMEOUT',
    ],
    [
      'bill',
      `update result_rows set outward_file_id = null, row_no = null, known_at = ${long} where invoice_id = ${bill('PAID')}`,
      'TIE_OUT_OPEN:1',
    ],
    [
      'charge',
      `insert into webhook_events (merchant_id, gateway, event_id, reference, kind, received_at)
       select id, 'g', 'e', '01KBCZ0QXH7M2V6Y8N3T5R4W1A', 'charge', ${long} from merchants`,
      'WEBHOOKS_WAIT',
    ],
    [
      'card change',
      `insert into card_changes (merchant_id, id, contract_id, enrolment_id, invoice_id, link_version, gateway, state, version,
                                 terms_version, started_at, deadline_at, page_ends_at, ask_at)
       select e.merchant_id, e.id, e.contract_id, e.id, i.id, 1, 'g', 'unknown', 2, '', ${long}, ${long}, ${long}, ${long}
       from enrolments e join invoices i on i.merchant_id = e.merchant_id and i.contract_id = e.contract_id limit 1`,
      'CARD_CHANGE_UNKNOWN',
    ],
    [
      'run',
      `insert into runs (merchant_id, job, business_date, state, requested_at)
       select id, 'notify', '2026-11-01', 'requested', ${long} from merchants`,
      'RUN_SILENT notify',
    ],
  ])(
    '11: a %s that waits too long is named unless a person is called for it: %s',
    async (kind, sql, cause) => {
      const now = world.clock.now();
      const found = await findAfter(sql, { only: [11], now, schema: false });
      expect(found.map(({ violations, examples }) => [violations, examples[0]?.kind])).toEqual([[1, kind]]);
      const called = `${sql};
      insert into alerts (merchant_id, id, level, cause, message, occurrences, first_at, last_at)
      select id, '${newId}', 'now', '${cause}', '', 1, created_at, created_at from merchants`;
      expect(await findAfter(called, { only: [11], now, schema: false })).toEqual([]);
    },
  );
});

test('every key and reference of the schema is asked for', async () => {
  const rows = await database.db.query<{ from_table: string; to_table: string }>(
    `select f.relname as from_table, t.relname as to_table
     from pg_constraint c join pg_class f on f.oid = c.conrelid join pg_class t on t.oid = c.confrelid
     where c.contype = 'f' group by 1, 2 order by 1, 2`,
  );
  const standing: Record<string, string[]> = {};
  for (const { from_table, to_table } of rows)
    standing[from_table] = [...(standing[from_table] ?? []), to_table];
  // A new reference is added to billing/guards/queries.ts, so that its loss is noticed.
  expect(standing).toEqual(references);
  expect([...uniqueKeys].sort()).toEqual(uniqueKeys);
});
