import { Temporal } from 'temporal-polyfill';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { assertState } from '../../billing/refusal.ts';
import { jobs } from '../../jobs/jobs.ts';
import { messageOf, runJob } from '../../jobs/run.ts';
import type { System } from '../system.ts';
import { demoMerchants, inboundFile } from './bills.ts';
import { nextSequences } from './queries.ts';
import { serveDemoHome } from './serve.ts';

/** What the pay page asks for: the customers whose bills stay open all end like this. */
const lastFour = '1234';
const bills = 5;

export interface LeftOpen {
  bills: number;
  lastFour: string;
  /** What kept the morning from being done, or null. */
  failure: string | null;
}

/**
 * One more morning after the walk, when all its bills are final: a small file whose SMS nobody answers, so that a
 * visitor has links to follow.
 */
export async function leaveBillsOpen(system: System, stop: AbortSignal): Promise<LeftOpen> {
  const clock = system.virtualClock;
  const [demo] = demoMerchants;
  assertState(clock && demo, 'the demo has a virtual clock and merchants');
  const merchant = await merchantByCode(system.db, demo.code);
  const { timezone } = merchant.settings;
  const day = clock.now().toZonedDateTimeISO(timezone).toPlainDate();
  const date = day.toString();
  const sequence = (await nextSequences(system.db)).get(demo.code)?.next ?? 1;
  const dueOn = day.add({ months: 1 }).toString();
  const rows: string[][] = [];
  for (let index = 1; index <= bills; index++) {
    const amount = 3_000 + index * 417;
    const number = `TRY${date.replaceAll('-', '')}-${index}`;
    const phone = `080-9000-000${index}`;
    const words = `お試し ${demo.supply}`;
    rows.push([
      'D',
      number,
      `TRY${index}-${lastFour}`,
      '試験 太郎',
      phone,
      '',
      String(amount),
      '10',
      '',
      date.slice(0, 7),
      dueOn,
      'link',
      words,
    ]);
  }
  const home = await serveDemoHome(system);
  try {
    home.drop(demo.code, inboundFile({ code: demo.code, layout: null }, 'billing', date, sequence, rows));
    for (const [time, job] of [
      ['04:20', 'fetch'],
      ['04:20', 'ingest'],
      ['10:02', 'notify'],
    ] as const) {
      const at = day.toZonedDateTime({ timeZone: timezone, plainTime: Temporal.PlainTime.from(time) });
      if (Temporal.Instant.compare(at.toInstant(), clock.now()) > 0) await clock.set(at.toInstant());
      await clock.refresh();
      const end = await runJob(system.ports, jobs[job], {
        merchant,
        businessDate: date,
        worker: system.worker,
        stop,
      });
      if (end.outcome !== 'done') {
        return { bills, lastFour, failure: `${job} ${end.outcome}: ${messageOf(end.failure)}` };
      }
    }
    // Only now: a next run that planned anew would number its files before this one had been fetched.
    home.keepPlan(null);
    return { bills, lastFour, failure: null };
  } finally {
    await home.sftp.stop();
  }
}
