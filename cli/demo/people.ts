import { createHash } from 'node:crypto';

/** The demo's people are drawn by hash: the same seed and number give the same person in every run and process. */
export function draw(seed: string, ...about: (string | number)[]): number {
  const hash = createHash('sha256')
    .update([seed, ...about].join('|'))
    .digest();
  return hash.readUIntBE(0, 6) / 2 ** 48;
}

export function pick<T>(chance: number, weighted: readonly (readonly [number, T])[]): T {
  const total = weighted.reduce((sum, [weight]) => sum + weight, 0);
  let rest = chance * total;
  for (const [weight, item] of weighted) {
    rest -= weight;
    if (rest < 0) return item;
  }
  throw new Error('impossible state: nothing was drawn');
}

const familyNames = [
  '佐藤',
  '鈴木',
  '高橋',
  '田中',
  '伊藤',
  '渡辺',
  '山本',
  '中村',
  '小林',
  '加藤',
  '髙島',
  '﨑山',
  '吉田',
  '山田',
  '佐々木',
  '松本',
  '井上',
  '木村',
  '林',
  '斎藤',
];
const givenNames = [
  '花子',
  '健',
  '美咲',
  '大輔',
  '陽子',
  '誠',
  'さくら',
  '一郎',
  '翔太',
  '結衣',
  '直樹',
  '恵子',
  '拓也',
  '由美',
  '修',
  '明美',
  '和也',
  '真由美',
  '隆',
  '千尋',
];

export interface Person {
  customerNumber: string;
  name: string;
  /** Empty: the merchant has none; a landline: no SMS reaches it. */
  phone: string;
  conduct: Conduct;
}

/** What a customer does with an SMS. `card` and `savedCard` are names of the simulator's test cards. */
export interface Conduct {
  /** Reacts to this SMS about a bill, counted from 1; 0 = never. */
  reactsTo: number;
  declinedFirst: string | null;
  card: string;
  enrols: boolean;
  /** How this person pays. Whoever enrols pays by card. */
  pays: 'card' | 'barcode' | 'wallet';
  /** Pays at a shop although the card, or a shop, has taken the money already. */
  paysTwice: boolean;
  /** Types a wrong last four first. */
  fumbles: boolean;
  /** Leaves the gateway's page without paying at the first visit. */
  abandonsFirst: boolean;
  /** After paying gives automatic payment this other card; null: begins, and leaves the gateway's page. */
  changesCardTo?: string | null;
}

const declines = ['insufficient-funds', 'do-not-honor', 'expired', 'wrong-cvc', 'lost'];
const plain = ['visa', 'mastercard', 'jcb', 'visa-without-3ds'];
const challenges = ['visa-challenge', 'mastercard-challenge', 'jcb-challenge'];
/** What becomes of a saved card later: most are fine, and every fate of the table occurs. */
const saved: readonly (readonly [number, string])[] = [
  [55, 'visa'],
  [12, 'mastercard-challenge'],
  [8, 'jcb'],
  [5, 'later-insufficient-funds-once'],
  [3, 'later-insufficient-funds-twice'],
  [3, 'later-insufficient-funds'],
  [2, 'later-do-not-honor'],
  [1, 'later-lost'],
  [1, 'later-expired'],
  [1, 'later-closed'],
  [1, 'later-authentication'],
  [1, 'later-advice-02'],
  [1, 'later-advice-03'],
  [1, 'later-advice-24'],
  [0.5, 'later-unknown-code'],
  [1, 'timeout-before-effect'],
  [1, 'timeout-after-effect'],
  [1, 'error-before-effect'],
  [1, 'error-after-effect'],
  [1, 'rate-limited'],
];

function oneOf(seed: string, customer: string, what: string, names: readonly string[]): string {
  return names[Math.floor(draw(seed, customer, what) * names.length)] ?? '';
}

export function conductOf(seed: string, customer: string): Conduct {
  const enrols = draw(seed, customer, 'enrols') < 0.6;
  const isChallenged = draw(seed, customer, 'challenge') < 0.2;
  return {
    reactsTo: pick(draw(seed, customer, 'reacts'), [
      [55, 1],
      [14, 2],
      [6, 3],
      [25, 0],
    ]),
    declinedFirst:
      draw(seed, customer, 'declined') < 0.08 ? oneOf(seed, customer, 'decline', declines) : null,
    card: enrols
      ? pick(draw(seed, customer, 'saved'), saved)
      : oneOf(seed, customer, 'card', isChallenged ? challenges : plain),
    enrols,
    pays: enrols
      ? 'card'
      : pick(draw(seed, customer, 'way'), [
          [45, 'card'],
          [35, 'barcode'],
          [20, 'wallet'],
        ] as const),
    paysTwice: draw(seed, customer, 'twice') < 0.1,
    fumbles: draw(seed, customer, 'fumbles') < 0.04,
    abandonsFirst: draw(seed, customer, 'abandons') < 0.03,
  };
}

/** Customer `index` of a merchant; phones are unique over all merchants. */
export function person(
  seed: string,
  merchant: { code: string; prefix: string; customerDigits: number; no: number },
  index: number,
): Person {
  const customerNumber = `${merchant.prefix}${String(index).padStart(merchant.customerDigits, '0')}`;
  const block = String(merchant.no * 1000 + Math.floor(index / 10_000)).padStart(4, '0');
  const rest = String(index % 10_000).padStart(4, '0');
  const reach = draw(seed, merchant.code, customerNumber, 'phone');
  const phone = reach < 0.02 ? '' : reach < 0.04 ? `03-3${block.slice(1)}-${rest}` : `080-${block}-${rest}`;
  return {
    customerNumber,
    name: `${oneOf(seed, customerNumber, 'family', familyNames)} ${oneOf(seed, customerNumber, 'given', givenNames)}`,
    phone,
    conduct: conductOf(seed, customerNumber),
  };
}
