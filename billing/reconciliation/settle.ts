import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { assertState, Refusal } from '../refusal.ts';
import { closeAlerts } from './compare.ts';
import { type Finding, findingById, settleFindings } from './queries.ts';

const howCharacters = 500;

/**
 * A person settles a finding and says how; what it held goes on with the next runs. Once it is settled, settling it again
 * changes nothing. Refusals: FINDING_UNKNOWN, FINDING_HOW (no reason, or one that is no line of text).
 */
export async function settleFindingByHand(
  ports: { db: Db; clock: Clock; ids: Ids },
  id: string,
  how: string,
  actor: string,
): Promise<{ finding: Finding; settledNow: boolean }> {
  const reason = how.trim();
  if (reason === '' || reason.length > howCharacters || /[\p{Cc}\p{Zl}\p{Zp}]/u.test(reason)) {
    throw new Refusal('FINDING_HOW', `how it was settled is a line of 1 to ${howCharacters} characters`, {
      next: 'Say who did what, such as --how "refunded at the gateway on 3 December, ticket 4711". No personal data.',
      exitCode: 2,
    });
  }
  await ports.clock.refresh();
  const at = ports.clock.now();
  return ports.db.transaction(async (tx) => {
    const known = await findingOf(tx, id);
    const act = {
      merchantId: known.merchant_id,
      id: ports.ids.uuid(),
      kind: 'command' as const,
      actor,
      at,
    };
    const moved = await settleFindings(tx, act, [{ id: known.id, how: reason }], true);
    if (moved > 0) {
      await recordAct(tx, act);
      await closeAlerts(tx, act);
    }
    const finding = await findingById(tx, known.id);
    assertState(finding, 'a finding was settled that is gone');
    return { finding, settledNow: moved === 1 };
  });
}

/** Refusal FINDING_UNKNOWN where there is none with this id. */
export async function findingOf(
  db: Pick<Db, 'query'>,
  id: string,
): Promise<Finding & { merchant_id: number }> {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id);
  const finding = isId ? await findingById(db, id) : undefined;
  if (finding) return finding;
  throw new Refusal('FINDING_UNKNOWN', `there is no finding ${JSON.stringify(id.slice(0, 60))}`, {
    next: 'Take the id as it stands in: seikyu findings list',
    exitCode: 2,
  });
}
