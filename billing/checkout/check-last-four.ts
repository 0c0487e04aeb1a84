import { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db } from '../db.ts';
import type { Link } from './find-link.ts';
import { lockLink, setTries } from './queries.ts';

export type Checked = { kind: 'right' } | { kind: 'wrong' } | { kind: 'cooling'; until: string };

const triesInARow = 5;
const firstPauseMinutes = 10;
const longestPauseMinutes = 24 * 60;

/**
 * Whether the visitor knows the end of the customer number. After 5 wrong answers in a row the link rests for 10 minutes,
 * after the next 5 for 20, and so on up to a day: 10,000 possible endings take longer than any link lives.
 */
export async function checkLastFour(
  db: Db,
  now: Temporal.Instant,
  link: Link,
  answer: string,
): Promise<Checked> {
  return db.transaction(
    async (tx): Promise<Checked> => {
      const row = await lockLink(tx, link.merchantId, link.invoiceId, link.version);
      if (row === undefined) return { kind: 'wrong' };
      if (row.cool_until !== null && Temporal.Instant.compare(now, row.cool_until) < 0) {
        return { kind: 'cooling', until: row.cool_until };
      }
      if (isEndOf(row.customer_number, answer)) {
        if (row.wrong_tries > 0) await setTries(tx, link.merchantId, link.invoiceId, link.version, 0, null);
        return { kind: 'right' };
      }
      const tries = row.wrong_tries + 1;
      const minutes = pauseMinutes(tries);
      const until = minutes === 0 ? null : instantText(now.add({ minutes }));
      await setTries(tx, link.merchantId, link.invoiceId, link.version, tries, until);
      return until === null ? { kind: 'wrong' } : { kind: 'cooling', until };
    },
    { merchantId: link.merchantId },
  );
}

/** 0: no pause. */
export function pauseMinutes(wrongTries: number): number {
  if (wrongTries === 0 || wrongTries % triesInARow !== 0) return 0;
  return Math.min(firstPauseMinutes * 2 ** (wrongTries / triesInARow - 1), longestPauseMinutes);
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
