import { raiseAlert } from '../alerts/queries.ts';
import { addContracts, addCustomersByNumber, contractsOf } from '../customers/queries.ts';
import type { Db, Tx } from '../db.ts';
import { endEnrolments, type NewEnrolment, startEnrolments } from '../enrolments/queries.ts';
import type { Ids } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import { type Applied, type ApplyFile, applyFile, type Line } from './apply.ts';
import type { Finding, ReadEnrolment } from './file.ts';
import { unknownSubject } from './subjects.ts';

export interface EnrolPorts {
  db: Db;
  ids: Ids;
  sealer: Sealer;
  /** The gateway whose tokens the merchant sends. */
  gateway: { name: string };
}

/**
 * An `enrolment` file. The agreement was made with the merchant, so it is not told of it again: the receipt is the answer.
 * A start where one is active replaces it, a change where none is starts it, and what has ended already may end.
 */
export async function applyEnrolments(ports: EnrolPorts, input: ApplyFile<ReadEnrolment>): Promise<Applied> {
  const { act } = input;
  return applyFile(ports, input, {
    keyOf: (line) => `${line.customerNumber} ${line.contractNumber}`,
    keyField: 'customer_number',
    billingNumberOf: () => '',
    async apply(tx, lines) {
      await makeSubjects(tx, ports.ids, input, lines);
      const subjects = await contractsOf(
        tx,
        act.merchantId,
        lines.map((line) => line.ok),
      );
      const findings: Finding[] = [];
      const starting: NewEnrolment[] = [];
      const ending: string[] = [];
      lines.forEach(({ line, ok }, index) => {
        const { customer_id: customerId = null, contract_id: contractId = null } = subjects[index] ?? {};
        if (customerId === null || contractId === null) findings.push(unknownSubject(line, customerId));
        else if (ok.what === 'end') ending.push(contractId);
        else starting.push(enrolmentOf(ports, ok, customerId, contractId));
      });
      await endEnrolments(tx, act, ending, false);
      await startEnrolments(tx, act, starting);
      const byBank = starting.filter((enrolment) => enrolment.kind === 'bank').length;
      if (byBank > 0) {
        await raiseAlert(tx, ports.ids.uuid(), act.at, {
          merchantId: act.merchantId,
          level: 'daily',
          cause: 'BANK_BY_LINK',
          message: 'bank mandates are kept, and their bills go by link: this version does not debit accounts',
          occurrences: byBank,
        });
      }
      return findings;
    },
  });
}

/** A start makes the customer and the contract. */
async function makeSubjects(
  tx: Tx,
  ids: Ids,
  { act }: ApplyFile<ReadEnrolment>,
  lines: readonly Line<ReadEnrolment>[],
): Promise<void> {
  const starts = lines.filter((line) => line.ok.what === 'start').map((line) => line.ok);
  if (starts.length === 0) return;
  const numbers = [...new Set(starts.map((start) => start.customerNumber))];
  await addCustomersByNumber(
    tx,
    act.merchantId,
    act.at,
    numbers.map((customerNumber) => ({ id: ids.uuid(), customerNumber })),
  );
  const contracts = starts
    .filter((start) => start.contractNumber !== '')
    .map(({ customerNumber, contractNumber }) => ({ id: ids.uuid(), customerNumber, contractNumber }));
  if (contracts.length > 0) await addContracts(tx, act.merchantId, contracts);
}

function enrolmentOf(
  ports: EnrolPorts,
  line: ReadEnrolment,
  customerId: string,
  contractId: string,
): NewEnrolment {
  const methodId = ports.ids.uuid();
  const isBank = line.method === 'bank';
  const secret = isBank ? JSON.stringify([line.account, line.holder]) : line.account;
  return {
    enrolmentId: ports.ids.uuid(),
    methodId,
    customerId,
    contractId,
    gateway: isBank ? 'bank' : ports.gateway.name,
    kind: line.method,
    sealedToken: ports.sealer.seal('method', secret, methodId),
    keyId: ports.sealer.keyId,
    brand: null,
    lastFour: null,
    expires: null,
    networkTransactionId: null,
    threeDsEci: null,
    effectiveFrom: line.effectiveFrom,
    nameDigest: null,
    termsVersion: 'merchant',
    source: 'file',
    told: false,
  };
}
