import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { addContracts, addCustomersByNumber, contractsOf } from '../customers/queries.ts';
import { customerUnknown } from '../customers/unknown.ts';
import type { Db, Tx } from '../db.ts';
import { endEnrolments, type NewEnrolment, startEnrolments } from '../enrolments/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
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
export async function applyEnrolments(
  ports: EnrolPorts,
  input: ApplyFile<ReadEnrolment> & { debitsAccounts: boolean },
): Promise<Applied> {
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
      if (byBank > 0 && !input.debitsAccounts) {
        await raiseAlert(tx, ports.ids.uuid(), act.at, {
          merchantId: act.merchantId,
          level: 'daily',
          cause: 'BANK_BY_LINK',
          message:
            'bank mandates are kept, and their bills go by link: the merchant has nobody who debits accounts',
          occurrences: byBank,
        });
      }
      return findings;
    },
  });
}

/** As a file would do it; the merchant does not know of it, and is told. Refusal CUSTOMER_UNKNOWN. */
export async function changeEnrolmentByHand(
  ports: EnrolPorts & { clock: Clock },
  merchant: Merchant,
  line: ReadEnrolment,
  actor: string,
): Promise<void> {
  const act = await commandAct(ports, merchant.id, actor);
  await ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    await makeSubjects(tx, ports.ids, { act }, [{ ok: line }]);
    const [subject] = await contractsOf(tx, merchant.id, [line]);
    if (!subject?.customer_id || !subject.contract_id) throw customerUnknown();
    const { customer_id: customerId, contract_id: contractId } = subject;
    if (line.what === 'end') await endEnrolments(tx, act, [contractId], true);
    else {
      const enrolment = enrolmentOf(ports, line, customerId, contractId);
      await startEnrolments(tx, act, [{ ...enrolment, source: 'operator', told: true }]);
    }
  });
}

/** A start makes the customer and the contract. */
async function makeSubjects(
  tx: Tx,
  ids: Ids,
  { act }: Pick<ApplyFile<ReadEnrolment>, 'act'>,
  lines: readonly Pick<Line<ReadEnrolment>, 'ok'>[],
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
