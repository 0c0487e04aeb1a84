import { enrolledBills, settle } from './autopay.ts';
import { openChargeWorkshop } from './charge-runs.ts';
import { against, type BenchWith, rounded } from './figure.ts';

const ratePerSecond = 100;
const workers = 2;

/** A gateway that refuses what comes faster than its rate, and two workers that have been told the rate. */
export const rateLimitBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openChargeWorkshop();
  try {
    await settle(workshop, { gateway: { fee: null, ratePerSecond } });
    await enrolledBills(workshop, lines, workshop.today, workshop.token);
    await workshop.control({ rateLimitPerSecond: ratePerSecond });
    const run = await workshop.charge(workers);
    if (run.charged !== lines) throw new Error(`${run.charged} of ${lines} bills were charged`);
    report({
      name: `rate_limit_of_${ratePerSecond}`,
      value: rounded(run.seconds),
      unit: 's',
      better: 'lower',
      baseline: against('the least time that the limit allows', lines / ratePerSecond, 's', run.seconds),
    });
    const calls = run.seen.reduce((sum, each) => sum + each.calls, 0);
    const tooFast = run.seen.reduce((sum, each) => sum + each.tooFast, 0);
    report({
      name: 'rate_limit_refused',
      value: rounded((100 * tooFast) / calls),
      unit: '% of answers',
      better: 'lower',
    });
  } finally {
    await workshop.close();
  }
};
