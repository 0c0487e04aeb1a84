import { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Db, Tx } from '../db.ts';
import { defaultFailureBudget } from '../merchants/settings.ts';
import type { Clock, Ids } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import type { Link } from './find-link.ts';
import { coolNetwork, countFailure, lockLink, merchantOf, networkCoolsUntil, setTries } from './queries.ts';

export type Checked = { kind: 'right' } | { kind: 'wrong' } | { kind: 'cooling'; until: string };

const triesInARow = 5;
const firstPauseMinutes = 10;
const longestPauseMinutes = 24 * 60;

/** Thousands of phones share one address of their network, and a few in a hundred of their owners mistype. */
const networkTriesInARow = 30;
const firstNetworkPauseMinutes = 1;
const longestNetworkPauseMinutes = 60;
const windowMinutes = 60;

export interface CheckPorts {
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
}

/**
 * Whether the visitor knows the end of the customer number. After 5 wrong answers in a row the link rests for 10 minutes,
 * after the next 5 for 20, and so on up to a day: 10,000 possible endings take longer than any link lives. After 30 from
 * one network within an hour all links rest there, for a minute at first. Neither locks a customer out: a link that they
 * asked for anew has no wrong answers, and counts none of others. `network`: null where the address tells nothing.
 */
export async function checkLastFour(
  db: Db,
  ports: CheckPorts,
  link: Link,
  answer: string,
  network: string | null,
): Promise<Checked> {
  const now = ports.clock.now();
  const networkDigest = network === null ? null : ports.sealer.digest(`network:${network}`);
  return db.transaction(
    async (tx): Promise<Checked> => {
      const row = await lockLink(tx, link.merchantId, link.invoiceId, link.version);
      if (row === undefined) return { kind: 'wrong' };
      if (row.cool_until !== null && Temporal.Instant.compare(now, row.cool_until) < 0) {
        return { kind: 'cooling', until: row.cool_until };
      }
      if (networkDigest !== null && !row.is_fresh) {
        const until = await networkCoolsUntil(tx, link.merchantId, networkDigest);
        if (until !== null && Temporal.Instant.compare(now, until) < 0) return { kind: 'cooling', until };
      }
      if (isEndOf(row.customer_number, answer)) {
        if (row.wrong_tries > 0) await setTries(tx, link.merchantId, link.invoiceId, link.version, 0, null);
        return { kind: 'right' };
      }
      const tries = row.wrong_tries + 1;
      const minutes = pauseMinutes(tries);
      const until = minutes === 0 ? null : instantText(now.add({ minutes }));
      await setTries(tx, link.merchantId, link.invoiceId, link.version, tries, until);
      await countWrong(tx, ports, link.merchantId, networkDigest);
      return until === null ? { kind: 'wrong' } : { kind: 'cooling', until };
    },
    { merchantId: link.merchantId },
  );
}

async function countWrong(
  tx: Tx,
  ports: CheckPorts,
  merchantId: number,
  networkDigest: Buffer | null,
): Promise<void> {
  const now = ports.clock.now();
  const { ofNetwork, ofAll } = await countFailure(tx, merchantId, {
    networkDigest,
    now,
    since: now.subtract({ minutes: windowMinutes }),
  });
  const minutes = networkPauseMinutes(ofNetwork);
  if (networkDigest !== null && minutes > 0) {
    await coolNetwork(tx, merchantId, networkDigest, now.add({ minutes }));
  }
  const settings = (await merchantOf(tx, merchantId))?.settings;
  const budget = settings?.checkout.failureBudget ?? defaultFailureBudget;
  if (ofAll !== budget) return;
  await raiseAlert(tx, ports.ids.uuid(), now, {
    merchantId,
    level: 'now',
    cause: 'CHECKS_FAILING',
    message: `${budget} wrong answers within an hour to the question on pay pages (checkout.failure_budget)`,
    occurrences: budget,
  });
}

/** 0: no pause. */
export function pauseMinutes(wrongTries: number): number {
  return growing(wrongTries, triesInARow, firstPauseMinutes, longestPauseMinutes);
}

/** The same for all that come from one network. */
export function networkPauseMinutes(wrongTries: number): number {
  return growing(wrongTries, networkTriesInARow, firstNetworkPauseMinutes, longestNetworkPauseMinutes);
}

function growing(tries: number, inARow: number, first: number, longest: number): number {
  if (tries === 0 || tries % inARow !== 0) return 0;
  return Math.min(first * 2 ** (tries / inARow - 1), longest);
}

/** The last four letters or digits, in any width and case; also the whole number for whoever types it all. */
export function isEndOf(customerNumber: string, answer: string): boolean {
  const end = endOf(customerNumber);
  const given = lettersAndDigits(answer);
  return end !== '' && (given === end || given === lettersAndDigits(customerNumber));
}

/** What is asked for, and all that is shown of the number. */
export function endOf(customerNumber: string): string {
  return lettersAndDigits(customerNumber).slice(-4);
}

function lettersAndDigits(text: string): string {
  return text
    .normalize('NFKC')
    .toUpperCase()
    .replace(/[^0-9A-Z]/g, '');
}
