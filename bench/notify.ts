import { businessDateOf } from '../billing/calendar/hours.ts';
import type { Carrier, SmsRequest } from '../billing/carriers/carrier.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import type { Job } from '../jobs/job.ts';
import { notify } from '../jobs/notify.ts';
import { runJob } from '../jobs/run.ts';
import { against, type BenchWith, rounded } from './figure.ts';
import { billingFile, drop } from './ingest.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

export const pacePerSecond = 200;
/** As good as none: no slot is waited for. */
const noPace = 1_000_000;

/**
 * First notices of a released file, already planned: sent at a pace, and as fast as they go. The carrier is a local one that
 * takes everything at once and writes nothing. The bare loop calls it for as many at a time and writes down, in one
 * statement each, that they are to be sent and that they were: as durable, and without bills, links, texts or history.
 */
export const notifyBench: BenchWith<{ messages: number }> = async (report, { messages }) => {
  const workshop = await openWorkshop();
  try {
    const sentAtMs: number[] = [];
    const carrier = localCarrier(() => sentAtMs.push(performance.now()));
    workshop.ports.carrier = carrier;

    await settle(workshop, noPace);
    await planned(workshop, 1, messages);
    const fast = await send(workshop, messages);
    const bare = await bareLoop(workshop, carrier, messages);
    report({
      name: 'notify_unpaced',
      value: rounded(messages / fast),
      unit: 'messages/s',
      better: 'higher',
      baseline: against(
        'a bare durable loop over the same carrier',
        messages / bare,
        'messages/s',
        messages / fast,
      ),
    });

    await settle(workshop, pacePerSecond);
    await planned(workshop, 2, messages);
    sentAtMs.length = 0;
    await send(workshop, messages);
    const held = heldPace(carrier, messages, sentAtMs);
    report({
      name: `notify_pace_of_${pacePerSecond}`,
      value: rounded(held),
      unit: 'segments/s',
      better: 'higher',
      baseline: against('the pace that was planned', pacePerSecond, 'segments/s', held),
    });
  } finally {
    await workshop.close();
  }
};

/** Messages a second up to the last slot's start: what goes in it has its time after that. */
export function heldPace(carrier: Carrier, messages: number, sentAtMs: readonly number[]): number {
  const inLastSlot = messages % batchOf(carrier) || batchOf(carrier);
  const before = messages - inLastSlot;
  return (before * 1000) / ((sentAtMs[before] ?? 0) - (sentAtMs[0] ?? 0));
}

export function localCarrier(onSend: (sms: Pick<SmsRequest, 'to' | 'body'>) => void): Carrier {
  let taken = 0;
  return {
    name: 'local',
    semantics: { callDeadlineMs: 10_000, notFoundConclusiveAfterMs: 60_000, concurrency: 64 },
    async send(sms) {
      onSend(sms);
      taken += 1;
      return { kind: 'accepted', providerId: `local-${taken}` };
    },
    lookup: async () => ({ kind: 'unknown', why: 'nothing is lost here' }),
    // biome-ignore lint/correctness/useYield: it keeps no list.
    list: async function* () {
      throw new Error('it keeps no list');
    },
  };
}

/** As the job has it. */
const batchOf = (carrier: Carrier): number => Math.min(pacePerSecond, carrier.semantics.concurrency * 2);

/** A merchant that sends at any hour. */
export async function settle(workshop: Workshop, paceSegmentsPerSecond: number): Promise<void> {
  const { settings } = workshop.merchant;
  const hours = { fromMinute: 0, untilMinute: 1440 };
  const notifySettings = { ...settings.notify, hours, paceSegmentsPerSecond };
  await applyMerchant(workshop.ports, { ...settings, notify: notifySettings }, 'bench');
  workshop.merchant = await merchantByCode(workshop.db, settings.code);
}

/** Bills whose notices are planned and not sent: whoever plans is stopped before it sends. */
export async function planned(workshop: Workshop, sequence: number, messages: number): Promise<void> {
  drop(workshop, sequence, billingFile(sequence, messages));
  await run(workshop, fetch);
  await run(workshop, ingest);
  const { hours } = workshop.merchant.settings.notify;
  workshop.merchant.settings.notify.hours = { fromMinute: 0, untilMinute: 0 };
  await run(workshop, notify);
  workshop.merchant.settings.notify.hours = hours;
}

/** Seconds. */
export async function send(workshop: Workshop, messages: number): Promise<number> {
  const from = performance.now();
  const counts = await run(workshop, notify);
  if (counts.sent !== messages) throw new Error(`${counts.sent} of ${messages} messages were sent`);
  return (performance.now() - from) / 1000;
}

async function run({ ports, merchant }: Workshop, job: Job): Promise<Record<string, number>> {
  const businessDate = businessDateOf(ports.clock.now(), merchant.settings.timezone).toString();
  const end = await runJob(ports, job, { merchant, businessDate });
  if (end.outcome !== 'done') throw new Error(`${job.name} ended ${end.outcome}`, { cause: end.failure });
  return end.counts;
}

/** Seconds. */
async function bareLoop({ db, merchant }: Workshop, carrier: Carrier, messages: number): Promise<number> {
  await db.run('create table bare (id text primary key, provider_id text)');
  const batch = carrier.semantics.concurrency * 2;
  const signal = new AbortController().signal;
  const [to, body] = ['+819012345678', 'みなとガス\n料金のお知らせ'];
  const from = performance.now();
  for (let at = 0; at < messages; at += batch) {
    const ids = Array.from({ length: Math.min(batch, messages - at) }, (_, no) => `bare.${at + no}`);
    await db.run('insert into bare (id) select * from unnest($1::text[])', [ids]);
    const answers = await Promise.all(
      ids.map((messageId) =>
        carrier.send({ messageId, merchantCode: merchant.code, to, body, sender: 'first' }, signal),
      ),
    );
    await db.run(
      `update bare b set provider_id = a.provider_id
       from unnest($1::text[], $2::text[]) as a(id, provider_id) where b.id = a.id`,
      [ids, answers.map((answer) => (answer.kind === 'accepted' ? answer.providerId : null))],
    );
  }
  const seconds = (performance.now() - from) / 1000;
  await db.run('drop table bare');
  return seconds;
}
