import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import type { LearnedBy } from '../charges/charge.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import type { Db } from '../db.ts';
import type { SetupLookup } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { absenceProvesAfter, atMostAtOnce, nextAskAt, pageGraceMs } from '../trace/ask.ts';
import type { LearnedCardChange, OpenCardChange } from './card-change.ts';
import { askChangesLater, type CardChangeNews, changeNews, changesToAsk, openChanges } from './queries.ts';
import { recordCardChanges } from './record.ts';

type AskPorts = Pick<CheckoutPorts, 'clock' | 'ids' | 'sealer' | 'gateway'>;

const changesAtOnce = 32;
const asksAtOnce = 16;

/** A return or a webhook is a hint only: the gateway is asked, outside any transaction. Returns what is true afterwards. */
export async function learnCardChanges(
  db: Db,
  ports: AskPorts,
  merchant: Merchant,
  ids: readonly string[],
  how: 'return' | 'webhook',
): Promise<{ changes: CardChangeNews[]; unanswered: ReadonlySet<string> }> {
  const { clock, gateway } = ports;
  const one = { merchantId: merchant.id };
  const open = await db.transaction((tx) => openChanges(tx, merchant.id, ids), one);
  const answers = await askAll(ports, merchant.code, open, () => false);
  const learned = answers.flatMap(({ change, answer }): LearnedCardChange[] =>
    answer.kind === 'succeeded' || answer.kind === 'failed' ? [{ id: change.id, outcome: answer }] : [],
  );
  await clock.refresh();
  const act: Act = {
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: how === 'return' ? 'visit' : 'webhook',
    actor: how === 'return' ? 'return from the gateway' : `webhook of ${gateway.name}`,
    at: clock.now(),
  };
  const changes = await db.transaction(async (tx) => {
    await recordCardChanges(tx, { act, learnedBy: how, learned, ids: ports.ids, sealer: ports.sealer });
    return changeNews(tx, merchant.id, ids);
  }, one);
  const unanswered = answers.flatMap(({ change, answer }) => (answer.kind === 'unknown' ? [change.id] : []));
  return { changes, unanswered: new Set(unanswered) };
}

/** For the trace job: asks about every change whose time has come; a page that is over is closed first. */
export async function traceCardChanges(
  db: Db,
  ports: AskPorts & Pick<CheckoutPorts, 'crash'>,
  work: {
    merchant: Merchant;
    act: Act;
    stop: AbortSignal;
    inTransaction: Db['transaction'];
  },
): Promise<number> {
  const { clock, gateway } = ports;
  const { merchant, stop } = work;
  let asked = 0;
  while (!stop.aborted) {
    await clock.refresh();
    const askedAt = clock.now();
    const changes = await changesToAsk(db, merchant.id, instantText(askedAt), changesAtOnce);
    if (changes.length === 0) break;
    await ports.crash('card_change.before_lookup');
    const answers = await askAll(ports, merchant.code, changes, (change) => mustClose(change, askedAt));
    await ports.crash('card_change.after_lookup');
    await clock.refresh();
    const act = { ...work.act, at: clock.now() };
    const provesAbsence = (change: OpenCardChange) =>
      Temporal.Instant.compare(askedAt, absenceProvesAfter(change, gateway.semantics)) > 0;
    const judged = answers.map(({ change, answer }) => ({
      change,
      // A card that another gateway kept can be charged by nobody here: no money hangs on what became of it.
      outcome:
        change.gateway !== gateway.name && mustClose(change, askedAt)
          ? ({ kind: 'canceled', why: 'another_gateway' } as const)
          : outcomeOf(change, answer, provesAbsence(change)),
    }));
    await work.inTransaction(async (tx) => {
      await recordCardChanges(tx, {
        act,
        learnedBy: 'trace' satisfies LearnedBy,
        learned: judged.flatMap(({ change: { id }, outcome }) => (outcome === null ? [] : [{ id, outcome }])),
        ids: ports.ids,
        sealer: ports.sealer,
      });
      await askChangesLater(
        tx,
        merchant.id,
        judged.flatMap(({ change, outcome }) =>
          outcome === null ? [{ id: change.id, askAt: instantText(nextAskAt(change, askedAt)) }] : [],
        ),
      );
    });
    asked += changes.length;
  }
  return asked;
}

/** Null: to be asked about again. */
function outcomeOf(
  change: OpenCardChange,
  answer: SetupLookup,
  provesAbsence: boolean,
): LearnedCardChange['outcome'] | null {
  if (answer.kind === 'succeeded' || answer.kind === 'failed') return answer;
  if (answer.kind === 'not_found' && provesAbsence) return { kind: 'canceled', why: 'not_found' };
  return change.state === 'processing' ? { kind: 'unknown', why: 'no_outcome_recorded' } : null;
}

/** A page that nobody was shown, or whose time is over: it must keep no card any more before it is judged. */
function mustClose(change: OpenCardChange, now: Temporal.Instant): boolean {
  const endsAt = Temporal.Instant.from(change.page_ends_at).add({ milliseconds: pageGraceMs });
  return change.page_url === null || Temporal.Instant.compare(now, endsAt) >= 0;
}

async function askAll(
  { gateway, clock }: AskPorts,
  account: string,
  changes: readonly OpenCardChange[],
  close: (change: OpenCardChange) => boolean,
): Promise<{ change: OpenCardChange; answer: SetupLookup }[]> {
  return atMostAtOnce(asksAtOnce, changes, async (change) => {
    if (change.gateway !== gateway.name)
      return { change, answer: { kind: 'unknown', why: 'another_gateway' } };
    const signal = clock.deadline(gateway.semantics.callDeadlineMs);
    const known = { gatewaySessionId: change.gateway_session_id };
    const reference = referenceOf(change.id);
    try {
      const answer = close(change)
        ? await gateway.closeSetupPage(account, reference, signal, known)
        : await gateway.lookupSetup(account, reference, signal, known);
      return { change, answer };
    } catch (error) {
      return { change, answer: { kind: 'unknown', why: error instanceof Error ? error.name : 'error' } };
    }
  });
}
