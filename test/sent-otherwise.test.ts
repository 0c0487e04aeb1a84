import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type BillFields, billingFile, billingName, type Office, openOffice } from './inbox.ts';

/** How a merchant's system may write the same lines. */
interface Way {
  lines: readonly BillFields[];
  /** The first so many lines come in a file of their own; 0: one file. */
  cut: number;
  endOfLine: '\n' | '\r\n';
  mark: '' | '\ufeff';
}

/** What became of each line, without ids, dates of the clock and places in a file. */
interface Outcome {
  bills: unknown[];
  findings: unknown[];
  read: number;
  accepted: number;
  rejected: number;
  amount: number;
}

async function outcomeOf({ lines, cut, endOfLine, mark }: Way): Promise<Outcome> {
  const office: Office = await openOffice();
  try {
    const files = [lines.slice(0, cut), lines.slice(cut)].filter((part) => part.length > 0);
    for (const [at, part] of files.entries()) {
      const text = billingFile(at + 1, part);
      office.drop(billingName(at + 1), mark + text.replaceAll('\n', endOfLine));
    }
    await office.fetch();
    expect(await office.ingest()).toMatchObject({ counts: { files: files.length } });
    const [sums] = await office.db.query<Omit<Outcome, 'bills' | 'findings'>>(
      `select sum(lines_read)::int as read, sum(lines_accepted)::int as accepted, sum(lines_rejected)::int as rejected,
              sum(amount_accepted)::int as amount from billing_files`,
    );
    return {
      ...(sums as Omit<Outcome, 'bills' | 'findings'>),
      bills: await office.db.query(
        `select i.billing_number, u.customer_number, i.amount, i.due_on, i.billing_period, i.collection, i.state, a.act,
                a.act_on, encode(c.digest, 'hex') as contact, c.phone_kind, t.tax_amount
         from invoices i
         join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
         join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
         join agenda a on a.merchant_id = i.merchant_id and a.invoice_id = i.id
         join invoice_tax_lines t on t.merchant_id = i.merchant_id and t.invoice_id = i.id
         order by i.billing_number`,
      ),
      findings: await office.db.query(
        `select billing_number, code, severity, field from line_findings order by billing_number, code`,
      ),
    };
  } finally {
    await office.close();
  }
}

const faults: readonly BillFields[] = [
  {},
  { amount: '99999999999' },
  { due: '2026-02-30' },
  { period: '2026-13' },
  { phone: '03-1234-5678' },
  { collection: 'auto' },
  { customer: '' },
];

it('another order of lines, two files for one, CRLF or a byte order mark change no outcome', async () => {
  const lines = fc
    .array(fc.record({ fault: fc.constantFrom(...faults), yen: fc.integer({ min: 1, max: 90_000 }) }), {
      minLength: 1,
      maxLength: 12,
    })
    .map((drawn) =>
      drawn.map(
        ({ fault, yen }, at): BillFields => ({
          number: `N${String(at).padStart(2, '0')}`,
          customer: `C${at}`,
          amount: String(yen),
          ...fault,
        }),
      ),
    );
  const ways = lines.chain((given) =>
    fc.record({
      given: fc.constant(given),
      lines: fc.shuffledSubarray(given, { minLength: given.length }),
      cut: fc.nat(given.length),
      endOfLine: fc.constantFrom('\n' as const, '\r\n' as const),
      mark: fc.constantFrom('' as const, '\ufeff' as const),
    }),
  );
  await fc.assert(
    fc.asyncProperty(ways, async ({ given, ...way }) => {
      const plain = await outcomeOf({ lines: given, cut: 0, endOfLine: '\n', mark: '' });
      expect(plain.read).toBe(plain.accepted + plain.rejected);
      expect(await outcomeOf(way)).toEqual(plain);
    }),
    { numRuns: 8, seed: 20261125 },
  );
});
