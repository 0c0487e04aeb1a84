import fc from 'fast-check';
import { Temporal } from 'temporal-polyfill';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { referenceOf } from '../billing/ids.ts';
import { charge } from '../jobs/charge.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import type { Job } from '../jobs/job.ts';
import { notify } from '../jobs/notify.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { billingFile, billingName, type Office, openOffice } from './inbox.ts';

/** The promise beside the tick: the next bill is charged, and brings no link. Files come through the inbox, late at times. */
let office: Office;
let gateway: FakeGateway;
let sequence = 0;

beforeAll(async () => {
  office = await openOffice();
  gateway = fakeGateway(office.clock);
  office.ports.gateway = gateway;
});
afterAll(() => office?.close());

const months = 3;
const firstDay = Temporal.PlainDate.from('2026-12-01');

const customers = fc.array(
  fc.record({
    /** Of the months, the one whose bill is paid with the tick. */
    month: fc.integer({ min: 0, max: months - 2 }),
    /** Days from that bill's coming until then; up to a month, so that the next file may come on the same day. */
    afterDays: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 26, max: 34 })),
    /** Paid in the morning, before that day's file is taken in. */
    isEarly: fc.boolean(),
  }),
  { minLength: 3, maxLength: 5 },
);
/** How many days a file comes after the business date in its header. */
const lags = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: months, maxLength: months });

test('who pays with the tick gets no link for the next bill and is charged once, whenever enrolment, file and charge fall', async () => {
  let free = firstDay;
  const seen = { auto: 0, sameDay: 0, lateFile: 0 };
  await fc.assert(
    fc.asyncProperty(customers, lags, async (people, lagDays) => {
      const began = free;
      // Each try has months of its own, also while a failing one is made smaller.
      free = began.add({ days: 30 * months + 90 });
      const dates = lagDays.map((_, month) => began.add({ days: 30 * month }));
      const comes = lagDays.map((lag, month) => (dates[month] as Temporal.PlainDate).add({ days: lag }));
      const ticks = people.map(({ month, afterDays }) =>
        (comes[month] as Temporal.PlainDate).add({ days: afterDays }),
      );
      const dueOf = (date: Temporal.PlainDate) => date.add({ days: 40 });
      const numberOf = (who: number, month: number) => `${began}-${who}-${month}`;
      const pays = async (day: Temporal.PlainDate, isEarly: boolean) => {
        for (const [who, person] of people.entries()) {
          const tick = ticks[who] as Temporal.PlainDate;
          // A bill that came today cannot have been paid this morning.
          const early = person.isEarly && person.afterDays > 0;
          if (tick.equals(day) && early === isEarly) await payAndEnrol(numberOf(who, person.month));
        }
      };
      const days = [
        ...comes,
        ...ticks,
        ...dates.flatMap((date) => [dueOf(date), dueOf(date).add({ days: 5 })]),
      ];
      for (const day of inOrder(days)) {
        office.clock.set(`${day}T01:00:00Z`);
        await pays(day, true);
        for (const [month, comesOn] of comes.entries()) {
          if (!comesOn.equals(day)) continue;
          const date = dates[month] as Temporal.PlainDate;
          await receive(
            date,
            people.map((_, who) => ({ who, number: numberOf(who, month), due: `${dueOf(date)}` })),
          );
        }
        await run(notify);
        await pays(day, false);
        await run(charge);
      }
      for (const [who, person] of people.entries()) {
        for (let month = 0; month < months; month++) {
          const comesOn = comes[month] as Temporal.PlainDate;
          const tick = ticks[who] as Temporal.PlainDate;
          const early = person.isEarly && person.afterDays > 0;
          const order = Temporal.PlainDate.compare(tick, comesOn);
          const isAfter = order < 0 || (order === 0 && early);
          const bill = await billOf(numberOf(who, month));
          if (!isAfter) {
            expect(bill).toMatchObject({ collection: 'link', auto: 0, links: 1 });
            continue;
          }
          seen.auto += 1;
          if (order === 0) seen.sameDay += 1;
          if (Temporal.PlainDate.compare(dates[month] as Temporal.PlainDate, tick) < 0) seen.lateFile += 1;
          expect(bill).toEqual({ collection: 'auto', state: 'paid', auto: 1, links: 0, payments: 1 });
        }
      }
    }),
    // Each try is years later than the one before it: smaller ones would come to dates that no file may have.
    { numRuns: 10, seed: 20_261_201, endOnFailure: true },
  );
  expect(seen.auto).toBeGreaterThan(20);
  expect(seen.sameDay).toBeGreaterThan(0);
  expect(seen.lateFile).toBeGreaterThan(0);
  const { invariants } = await checkInvariants(office.db);
  expect(invariants.filter((invariant) => invariant.violations > 0)).toEqual([]);
}, 120_000);

function inOrder(days: readonly Temporal.PlainDate[]): Temporal.PlainDate[] {
  return [...new Set(days.map(String))].sort().map((day) => Temporal.PlainDate.from(day));
}

function today(): string {
  return office.clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString();
}

async function run<Payload>(job: Job<Payload>): Promise<void> {
  await office.run(job as unknown as Job, today());
}

async function receive(
  date: Temporal.PlainDate,
  bills: readonly { who: number; number: string; due: string }[],
): Promise<void> {
  sequence += 1;
  office.drop(
    billingName(sequence),
    billingFile(
      sequence,
      bills.map(({ who, number, due }) => ({
        number,
        customer: `C-${number.slice(0, 10)}-${who}`,
        period: `${date.year}-${String(date.month).padStart(2, '0')}`,
        due,
      })),
      { businessDate: `${date}` },
    ),
  );
  await run(fetch);
  await run(ingest);
  const [file] = await office.db.query(
    `select state, lines_accepted from billing_files where sequence = $1`,
    [sequence],
  );
  expect(file).toEqual({ state: 'released', lines_accepted: bills.length });
}

async function payAndEnrol(number: string): Promise<void> {
  const { db, ports, merchant } = office;
  const [bill] = await db.query<{ id: string; version: number }>(
    `select i.id, max(l.version) as version from invoices i
     join links l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
     where i.merchant_id = $1 and i.billing_number = $2 group by i.id`,
    [merchant.id, number],
  );
  const started = await startCheckout(db, ports, {
    link: { merchantId: merchant.id, invoiceId: bill?.id ?? '', version: bill?.version ?? 0 },
    method: 'card',
    enrol: true,
    language: 'ja',
    returnUrlOf: (chargeId) => `https://pay.invalid/return/${chargeId}`,
  });
  expect(started.kind).toBe('redirect');
  const [open] = await db.query<{ charge_id: string }>(
    `select charge_id from collection_locks where merchant_id = $1 and invoice_id = $2::uuid`,
    [merchant.id, bill?.id],
  );
  const chargeId = open?.charge_id ?? '';
  gateway.customerPays(referenceOf(chargeId), `tok_${number}`);
  await learnFromGateway(db, ports, merchant, [chargeId], 'return');
}

async function billOf(number: string): Promise<unknown> {
  const [bill] = await office.db.query(
    `select i.collection, i.state,
            (select count(*) from charges c where c.invoice_id = i.id and c.origin = 'auto') as auto,
            (select count(*) from links l where l.invoice_id = i.id) as links,
            (select count(*) from payments p where p.invoice_id = i.id) as payments
     from invoices i where i.billing_number = $1`,
    [number],
  );
  return bill;
}
