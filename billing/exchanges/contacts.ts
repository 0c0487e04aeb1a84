import { openContact, sealContact } from '../customers/contact.ts';
import { changeContacts, currentContacts, type NewContact } from '../customers/queries.ts';
import type { Db } from '../db.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { type Applied, type ApplyFile, applyFile } from './apply.ts';
import type { Finding, ReadContact } from './file.ts';
import { unknownSubject } from './subjects.ts';

/** A `contact` file: how customers are reached from now on, their name unchanged. Bills that are still owed follow. */
export async function applyContacts(
  ports: { db: Db; ids: Ids; sealer: Sealer },
  input: ApplyFile<ReadContact>,
): Promise<Applied> {
  const { act } = input;
  const { sealer } = ports;
  const header = await headerOf(input);
  return applyFile(ports, input, {
    keyOf: (line) => line.customerNumber,
    keyField: 'customer_number',
    billingNumberOf: () => '',
    async apply(tx, lines) {
      const known = new Map(
        (
          await currentContacts(
            tx,
            act.merchantId,
            lines.map((line) => line.ok.customerNumber),
          )
        ).map((contact) => [contact.customer_number, contact]),
      );
      const findings: Finding[] = [];
      const contacts: NewContact[] = [];
      for (const { line, ok } of lines) {
        const customer = known.get(ok.customerNumber);
        if (customer === undefined) {
          findings.push(unknownSubject(line, null));
          continue;
        }
        const name =
          customer.sealed === null
            ? ''
            : openContact(sealer, act.merchantId, ok.customerNumber, customer.sealed).name;
        const sealed = sealContact(sealer, act.merchantId, ok.customerNumber, {
          name,
          phone: ok.phone.e164,
          email: ok.email,
        });
        contacts.push({ ...sealed, customerId: customer.customer_id, phoneKind: ok.phone.kind });
      }
      if (contacts.length > 0) {
        assertState(header, `file ${input.file.id} has lines and no header`);
        const origin = { ...header, at: act.at };
        await changeContacts(tx, act.merchantId, sealer.keyId, origin, contacts);
      }
      return findings;
    },
  });
}

/** What is newer is told by the header, which a reader hands out only at the end: the file is read once more before. */
async function headerOf(
  input: ApplyFile<ReadContact>,
): Promise<{ businessDate: string; sequence: number } | null> {
  for await (const { verdict } of input.read()) {
    input.stop.throwIfAborted();
    if (verdict?.header)
      return { businessDate: verdict.header.businessDate, sequence: verdict.header.sequence ?? 0 };
  }
  return null;
}
