import { contractsOf } from '../customers/queries.ts';
import type { Db } from '../db.ts';
import { changeHolds, type HoldChange } from '../holds/place.ts';
import type { Ids } from '../ports.ts';
import { type Applied, type ApplyFile, applyFile } from './apply.ts';
import type { Finding, ReadHold } from './file.ts';
import { unknownSubject } from './subjects.ts';

/** A `hold` file: places and lifts reasons not to charge or remind. */
export async function applyHolds(ports: { db: Db; ids: Ids }, input: ApplyFile<ReadHold>): Promise<Applied> {
  const { act, file, today } = input;
  return applyFile(ports, input, {
    keyOf: (line) => `${line.customerNumber} ${line.contractNumber} ${line.reason}`,
    keyField: 'customer_number',
    billingNumberOf: () => '',
    async apply(tx, lines) {
      const subjects = await contractsOf(
        tx,
        act.merchantId,
        lines.map((line) => line.ok),
      );
      const findings: Finding[] = [];
      const changes: HoldChange[] = [];
      lines.forEach(({ line, ok }, index) => {
        const { customer_id: customerId = null, contract_id: contractId = null } = subjects[index] ?? {};
        if (customerId === null || contractId === null) findings.push(unknownSubject(line, customerId));
        else
          changes.push({
            ...ok,
            customerId,
            // Without a contract all of the customer's are meant, not the default one.
            contractId: ok.contractNumber === '' ? null : contractId,
          });
      });
      await changeHolds(tx, ports.ids, { act, fileId: file.id, today }, changes);
      return findings;
    },
  });
}
