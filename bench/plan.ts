import { billsPerChunk, planFor } from '../billing/autopay/plan.ts';
import { approvePlanned, plannedCharges, rangesDue } from '../billing/autopay/queries.ts';
import { businessDateOf } from '../billing/calendar/hours.ts';
import { enrolledBills } from './autopay.ts';
import { against, type BenchWith, median, rounded } from './figure.ts';
import { openWorkshop } from './workshop.ts';

const rounds = 3;

/** The plan of a day: cut into chunks, counted for a dry run, and written down with an approval; medians of three. */
export const planBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openWorkshop();
  const { db, merchant, ports } = workshop;
  try {
    const today = businessDateOf(ports.clock.now(), merchant.settings.timezone).toString();
    await enrolledBills(workshop, lines, today, null);
    const plan = planFor(merchant, 'simulator', today);
    const join = await seconds(async () => {
      const [row] = await db.query<{ bills: number }>(
        `select count(*) as bills, sum(i.amount) as amount
         from agenda a
         join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
         join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
         join enrolments e on e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active'
         join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id and m.state = 'active'
         where a.merchant_id = $1 and a.act = 'charge' and a.act_on <= $2::date`,
        [merchant.id, today],
      );
      expectAll(row?.bills, lines);
    });
    const tell = (name: string, took: number) =>
      report({
        name,
        value: rounded(took),
        unit: 's',
        better: 'lower',
        baseline: against('the bare join that selects the bills', join, 's', took),
      });
    const chunks = await seconds(async () => {
      const ranges = await rangesDue(db, merchant.id, 'charge', today, billsPerChunk);
      expectAll(
        ranges.reduce((sum, { bills }) => sum + bills, 0),
        lines,
      );
    });
    tell('plan', chunks);
    const counted = await seconds(async () => {
      const rows = await plannedCharges(db, plan);
      expectAll(rows.find(({ reason }) => reason === null)?.bills, lines);
    });
    tell('plan_dry_run', counted);
    const approved = await seconds(async () => {
      const act = { merchantId: merchant.id, id: ports.ids.uuid(), kind: 'command' as const, actor: 'bench' };
      const undo = new Error('undone');
      await db
        .transaction(async (tx) => {
          const written = await approvePlanned(tx, plan, { ...act, at: ports.clock.now() });
          expectAll(written?.charges, lines);
          throw undo;
        })
        .catch((error) => {
          if (error !== undo) throw error;
        });
    });
    tell('plan_approved', approved);
  } finally {
    await workshop.close();
  }
};

async function seconds(work: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const from = performance.now();
    await work();
    times.push((performance.now() - from) / 1000);
  }
  return median(times);
}

function expectAll(found: number | undefined, wanted: number): void {
  if (found !== wanted) throw new Error(`${found} of ${wanted} bills were planned`);
}
