import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ListedSms } from '../billing/carriers/carrier.ts';
import { outsideInvariants } from '../billing/checks/invariants.ts';
import {
  explainCharge,
  explainCustomer,
  explainFile,
  explainMessage,
  explainRun,
} from '../billing/explain/queries.ts';
import type { ListedCharge } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import { messageIdOf } from '../billing/messages/message.ts';
import { compareOutside } from '../billing/outside/compare.ts';
import { explainCommandOf } from '../cli/commands/check.ts';
import { buildProgram } from '../cli/program.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { type Bills, billsOf, expectInvariants } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

/** What the gateway and the carrier say themselves, against our books. */

let database: TestDatabase;
let world: Bills;
let bills: Map<string, string>;
const chargeIds = new Map<string, string>();

beforeAll(async () => {
  database = await testDatabase();
  world = await billsOf(database.db);
  bills = await world.make([
    { number: 'PAID' },
    { number: 'DECLINED' },
    { number: 'ASKED' },
    { number: 'LINK', collection: 'link' },
    { number: 'RETURNED', collection: 'link', dueOn: '2026-10-01' },
  ]);
  world.gateway.behave('tok_DECLINED', { declines: { gatewayCode: 'stolen_card', networkCode: '43' } });
  world.gateway.behave('tok_ASKED', 'timeout_after');
  await world.run(charge);
  const at = world.clock.now().toString();
  await database.db.run(
    `insert into messages (merchant_id, invoice_id, step, state, version, planned_on, carrier, provider_id, claimed_at, decided_at)
     select merchant_id, id, 'test', 'sent', 1, '2026-12-01', 'none', 'p-1', $1::timestamptz, $1::timestamptz
     from invoices where billing_number = 'LINK'`,
    [at],
  );
  await database.db.run(
    `insert into watermarks (merchant_id, method, complete_to) values ($1, 'card', '2026-11-30')`,
    [world.merchant.id],
  );
  await world.run(dunning);
  world.clock.advance(3_600_000);
  for (const row of await database.db.query<{ number: string; id: string }>(
    `select i.billing_number as number, c.id from charges c join invoices i on i.id = c.invoice_id`,
  ))
    chargeIds.set(row.number, row.id);
  await expectInvariants(database.db);
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});

const idOf = (number: string) => chargeIds.get(number) ?? '';
const billOf = (number: string) => bills.get(number) ?? '';
const capture = (change: Partial<ListedCharge>): ListedCharge => ({
  gatewayChargeId: 'ch_extra',
  reference: null,
  invoiceId: null,
  amount: 5_000,
  currency: 'JPY',
  refunded: 0,
  method: 'card',
  capturedAt: '2026-12-01T01:00:00Z',
  ...change,
});
const sms = (change: Partial<ListedSms>): ListedSms => ({
  messageId: null,
  providerId: 'p-extra',
  takenAt: '2026-12-01T01:00:00Z',
  ...change,
});
const sent = (): ListedSms => sms({ messageId: messageIdOf(billOf('LINK'), 'test'), providerId: 'p-1' });

/** Compares with the gateway's true list and the one SMS, changed as a case wants it. */
async function compareWith(
  charges: (listed: ListedCharge[]) => ListedCharge[] = (listed) => listed,
  messages: (listed: ListedSms[]) => ListedSms[] = (listed) => listed,
) {
  const { gateway, clock } = world;
  const compared = await compareOutside(
    database.db,
    {
      gateway: {
        name: gateway.name,
        async *listCharges(...asked) {
          const listed: ListedCharge[] = [];
          for await (const each of gateway.listCharges(...asked)) listed.push(each);
          yield* charges(listed);
        },
      },
      carrier: {
        name: 'none',
        async *list() {
          yield* messages([sent()]);
        },
      },
      sealer: world.ports.sealer,
      baseUrl: world.ports.baseUrl,
    },
    { merchants: [world.merchant], from: '2026-12-01', now: clock.now(), signal: clock.deadline(60_000) },
  );
  return compared;
}
const named = (compared: Awaited<ReturnType<typeof compareWith>>) =>
  compared.invariants
    .filter(({ holds }) => !holds)
    .map(({ id, examples }) => [id, ...examples.map(({ kind, subject }) => `${kind} ${subject}`)]);

describe('the outside lists', () => {
  test('agree with our books; a charge that is being asked about is no difference', async () => {
    const compared = await compareWith();
    expect(named(compared)).toEqual([]);
    expect(compared).toMatchObject({ ok: true, captures: 2, sms: 1 });
    expect(compared.invariants.map(({ id }) => id)).toEqual(outsideInvariants.map(({ id }) => id));
  });

  test('4: a bill captured twice is named, unless the second was given back', async () => {
    const second = { gatewayChargeId: 'ch_second', reference: referenceOf(idOf('PAID')) };
    expect(named(await compareWith((listed) => [...listed, capture(second)]))).toEqual([[4, 'bill PAID']]);
    expect(
      named(await compareWith((listed) => [...listed, capture({ ...second, refunded: 5_000 })])),
    ).toEqual([]);
  });

  test('4, 18: a second capture that we know nothing of, by the bill that it names', async () => {
    const forgotten = capture({ reference: referenceOf(billOf('LINK')), invoiceId: billOf('PAID') });
    expect(named(await compareWith((listed) => [...listed, forgotten]))).toEqual([
      [4, 'bill PAID'],
      [18, 'capture ch_extra'],
    ]);
  });

  test('5: an SMS taken twice, and one that the carrier never took', async () => {
    const message = `message ${billOf('LINK')} test`;
    expect(named(await compareWith(undefined, () => [sent(), sent()]))).toEqual([[5, message]]);
    expect(named(await compareWith(undefined, () => []))).toEqual([[5, message]]);
  });

  test('6: another amount or currency', async () => {
    const other = (change: Partial<ListedCharge>) =>
      compareWith((listed) =>
        listed.map((each) => (each.reference === referenceOf(idOf('PAID')) ? { ...each, ...change } : each)),
      );
    expect(named(await other({ amount: 4_999 }))).toEqual([[6, `charge ${idOf('PAID')}`]]);
    expect(named(await other({ currency: 'USD' }))).toEqual([[6, `charge ${idOf('PAID')}`]]);
  });

  test('9: a capture for what we call declined, and a payment that is not there', async () => {
    const taken = capture({ reference: referenceOf(idOf('DECLINED')) });
    expect(named(await compareWith((listed) => [...listed, taken]))).toEqual([
      [9, `charge ${idOf('DECLINED')}`],
    ]);
    expect(
      named(
        await compareWith((listed) => listed.filter((each) => each.reference !== referenceOf(idOf('PAID')))),
      ),
    ).toEqual([[9, `charge ${idOf('PAID')}`]]);
  });

  test('14, 18: money taken for a bill before it was told as unpaid', async () => {
    expect(await world.stateOf('RETURNED')).toBe('unpaid');
    const before = capture({ invoiceId: billOf('RETURNED'), capturedAt: '2026-12-01T00:30:00Z' });
    expect(named(await compareWith((listed) => [...listed, before]))).toEqual([
      [14, 'bill RETURNED'],
      [18, 'capture ch_extra'],
    ]);
  });

  test('18: what somebody else charged or sent on the same account', async () => {
    expect(named(await compareWith((listed) => [...listed, capture({ reference: 'ORDER-1' })]))).toEqual([
      [18, 'capture ch_extra'],
    ]);
    expect(named(await compareWith(undefined, (listed) => [...listed, sms({ messageId: 'x' })]))).toEqual([
      [18, 'sms p-extra'],
    ]);
    const never = sms({ messageId: messageIdOf(billOf('PAID'), 'first_notice') });
    expect(named(await compareWith(undefined, (listed) => [...listed, never]))).toEqual([
      [18, `message ${billOf('PAID')} first_notice`],
    ]);
  });

  test('that break off prove nothing: the check fails', async () => {
    await expect(
      compareWith(() => {
        throw new Error('cut off');
      }),
    ).rejects.toThrow('cut off');
  });
});

describe('every subject can be explained', () => {
  test('a charge by id and by the gateway’s id, with its payment and ledger', async () => {
    const [byId] = await explainCharge(database.db, { id: idOf('PAID'), gatewayChargeId: '' }, null);
    expect(byId).toMatchObject({ merchant: 'minato-gas', billing_number: 'PAID' });
    expect(byId?.facts.join('\n')).toMatch(/brought 5000 JPY by card/);
    expect(byId?.events.map(({ what }) => what)).toEqual(['charge', 'charge', 'ledger', 'result']);
    const gatewayChargeId = world.gateway.captured[0]?.gatewayChargeId ?? '';
    expect(await explainCharge(database.db, { id: null, gatewayChargeId }, 'minato-gas')).toEqual([byId]);
  });

  test('a message, a file, a run, a customer', async () => {
    const { db } = database;
    const [message] = await explainMessage(db, { invoiceId: billOf('LINK'), step: 'test' }, null);
    expect(message).toMatchObject({ subject: 'message test', billing_number: 'LINK' });
    const [{ name } = { name: '' }] = await db.query<{ name: string }>(`select name from billing_files`);
    const [file] = await explainFile(db, name, null);
    expect(file?.facts.join('\n')).toMatch(/lines read 5, accepted 5 over 25000, rejected 0/);
    const [run] = await explainRun(db, { job: 'charge', businessDate: '2026-12-01' }, null);
    expect(run?.events.map(({ what }) => what)).toEqual(['pass 1', 'chunk 1', 'pass 1']);
    const [customer] = await explainCustomer(db, 'C-PAID', null);
    expect(customer?.events.map(({ what }) => what).sort()).toEqual(['agreement', 'bill', 'card']);
    expect(await explainFile(db, 'none.csv', null)).toEqual([]);
  });

  test('check names a command for each kind, and that command exists', () => {
    const options = buildProgram({ stop: new AbortController().signal })
      .commands.find((command) => command.name() === 'explain')
      ?.options.map(({ long }) => long);
    const commandFor = (kind: string, subject: string) =>
      explainCommandOf({ kind, subject, merchant: 'gas', detail: '' });
    expect(commandFor('bill', 'B-1')).toBe('seikyu explain B-1 --merchant gas');
    expect(commandFor('run', 'charge 2026-12-01')).toBe(
      'seikyu explain --run "charge 2026-12-01" --merchant gas',
    );
    expect(commandFor('message', `${billOf('LINK')} test`)).toContain(messageIdOf(billOf('LINK'), 'test'));
    for (const kind of ['charge', 'message', 'file', 'run', 'customer']) {
      const [option] = /--\w+/.exec(commandFor(kind, `${billOf('LINK')} x`)) ?? [];
      expect(options).toContain(option);
    }
  });
});
