/**
 * The default SMS texts. They are neutral, in the merchant's name, without a word from the merchant's files, and but for
 * the notice before a debit without amounts; the link stands alone on its line so that no phone takes a neighbour for a part of it.
 */

import { recallNotice } from '../recalls/recall.ts';
import { debitNotice, isFreshLink, saidIn } from './message.ts';

export type Language = 'ja' | 'en';

/** What a message says; several steps share one text. */
export type TextKind =
  | 'first_notice'
  | 'reminder_before_due'
  | 'reminder_after_due'
  | 'failure'
  | 'fallback_link'
  | 'card_ended'
  | 'fresh_link'
  | 'recall_notice'
  | 'debit_notice';

/**
 * The text for a step key. A reminder sent late speaks of the day on which it is sent, not of its name. `fellBackFor`: why a
 * link is offered for an automatic bill; where its card was lost before it was ever charged, the SMS says so.
 */
export function textKindOf(key: string, sentAfterDue: boolean, fellBackFor: string | null = null): TextKind {
  const step = saidIn(key);
  if (step === 'fallback_link' && fellBackFor?.startsWith('card_')) return 'card_ended';
  if (step === 'first_notice' || step === 'fallback_link') return step;
  if (step === recallNotice || step === debitNotice) return step;
  if (isFreshLink(step)) return 'fresh_link';
  if (step.startsWith('failure:')) return 'failure';
  if (step.startsWith('reminder:')) return sentAfterDue ? 'reminder_after_due' : 'reminder_before_due';
  throw new Error(`impossible state: no text for the step ${step}`);
}

/** Japanese words of at most 11 characters leave room for 9 of the name and 48 of the link within 70. */
const WORDS: Record<Language, Partial<Record<TextKind, string>>> = {
  ja: {
    first_notice: '料金のお知らせ',
    reminder_before_due: 'まもなくお支払期限です',
    reminder_after_due: 'お支払をご確認ください',
    failure: '自動支払いが未完了です',
    fallback_link: '自動支払いが未完了です',
    card_ended: 'カードの登録が無効です',
    fresh_link: '新しいリンクです',
  },
  en: {
    first_notice: 'your bill is ready.',
    reminder_before_due: 'your bill is due soon.',
    reminder_after_due: 'please check the payment of your bill.',
    failure: 'your automatic payment did not go through.',
    fallback_link: 'your automatic payment did not go through. Please pay here:',
    card_ended: 'your card on file can no longer be charged. Please pay here:',
    fresh_link: 'the new link that you asked for:',
  },
};

/** Texts for those who need not do anything. */
const WITHOUT_LINK: Record<Language, Partial<Record<TextKind, string>>> = {
  ja: {
    failure: '自動支払いができませんでした。後日あらためて手続きいたします。',
    recall_notice: '先日の料金のお知らせは誤りでした。お支払は不要です。お支払済の場合は返金します。',
  },
  en: {
    failure: 'your automatic payment did not go through. We will try again later.',
    recall_notice:
      'the bill we told you about was a mistake. Please do not pay it; what was paid is refunded.',
  },
};

/** Kinds of which a merchant may have words of its own: those that carry a link. */
export const ownKinds = [
  'first_notice',
  'reminder_before_due',
  'reminder_after_due',
  'failure',
  'fallback_link',
  'card_ended',
  'fresh_link',
] as const satisfies readonly TextKind[];

/** A merchant's own texts, with `{merchant}`, `{link}` and `{due_date}` in them. */
export type OwnTexts = Partial<Record<(typeof ownKinds)[number], Partial<Record<Language, string>>>>;

const placeholders = ['{merchant}', '{link}', '{due_date}'];

/** Why a text of a merchant's own cannot be sent; null: it can. */
export function problemOfText(text: string): string | null {
  if (text.length > 300) return 'must not be longer than 300 characters';
  if (/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text)) return 'must not contain control characters';
  const strange = (text.match(/\{[^{}]*\}|[{}]/g) ?? []).find((each) => !placeholders.includes(each));
  if (strange !== undefined) return `has ${strange}; known are ${placeholders.join(', ')}`;
  if (!text.includes('{merchant}')) return 'must name the {merchant}: customers do not know the sender';
  // A link beside words is one that phones cut off or lengthen; a second one looks like fraud.
  if (!/(^|\n)\{link\}$/.test(text) || text.split('{link}').length !== 2)
    return 'must end with {link} on a line of its own';
  return /https?:|www\./i.test(text) ? 'must hold no address but {link}' : null;
}

/** `12月28日` or `28 Dec`. */
function shortDate(day: string, language: Language): string {
  const [, month = '', date = ''] = day.split('-');
  if (language === 'ja') return `${Number(month)}月${Number(date)}日`;
  const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
  return `${Number(date)} ${months[Number(month) - 1]}`;
}

/** What the notice before a debit says: whole yen, and the day on which they are charged, YYYY-MM-DD. */
export interface Debit {
  amount: number;
  on: string;
}

/** `link` is null for a failure that will be tried again, a bill that was a mistake and a debit that is to come. */
export function textOf(message: {
  kind: TextKind;
  language: Language;
  merchantName: string;
  link: string | null;
  /** YYYY-MM-DD */
  dueOn: string;
  /** Of the settings under which the bill was taken in: the same text again, whatever was changed since. */
  own: OwnTexts | undefined;
  /** Of the bill, where it has a debit date. */
  debit?: Debit | null;
}): string {
  const { kind, language, merchantName, link, debit = null } = message;
  const own = message.own?.[kind as keyof OwnTexts]?.[language];
  if (own !== undefined && link !== null) {
    const filled: Record<string, string> = {
      '{merchant}': merchantName,
      '{due_date}': shortDate(message.dueOn, language),
      '{link}': link,
    };
    return own.replaceAll(/\{[a-z_]+\}/g, (placeholder) => filled[placeholder] ?? placeholder);
  }
  if (link === null) {
    const words = kind === debitNotice ? debitWords(language, debit) : WITHOUT_LINK[language][kind];
    if (words === undefined) throw new Error(`impossible state: ${kind} without a link`);
    return language === 'ja' ? `${merchantName}\n${words}` : `${merchantName}: ${words}`;
  }
  const words = WORDS[language][kind];
  if (words === undefined) throw new Error(`impossible state: ${kind} with a link`);
  return language === 'ja' ? `${merchantName}\n${words}\n${link}` : `${merchantName}: ${words}\n${link}`;
}

function debitWords(language: Language, debit: Debit | null): string | undefined {
  if (debit === null) return undefined;
  const amount = debit.amount.toLocaleString('en-US');
  const [, month, day] = debit.on.split('-').map(Number);
  return language === 'ja'
    ? `${month}月${day}日に${amount}円を自動払いでお支払いいただきます。`
    : `JPY ${amount} will be charged automatically on ${debit.on}.`;
}

export interface Segments {
  encoding: 'gsm-7' | 'ucs-2';
  /** Septets, or UTF-16 units. */
  units: number;
  count: number;
}

const GSM_BASIC = new Set(
  '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà',
);
/** Each takes an escape and itself: two septets. */
const GSM_EXTENSION = new Set('\f^{}\\[~]|€');

/** How many SMS a text costs: 160 septets or 70 UTF-16 units in one, 153 or 67 each in several. */
export function segmentsOf(text: string): Segments {
  const characters = [...text];
  const isGsm = characters.every((character) => GSM_BASIC.has(character) || GSM_EXTENSION.has(character));
  const sizes = characters.map((character) =>
    isGsm ? (GSM_EXTENSION.has(character) ? 2 : 1) : character.length,
  );
  const units = sizes.reduce((sum, size) => sum + size, 0);
  const encoding = isGsm ? 'gsm-7' : 'ucs-2';
  if (units <= (isGsm ? 160 : 70)) return { encoding, units, count: units === 0 ? 0 : 1 };

  // No segment ends inside an escape pair or a surrogate pair: such a character moves to the next one whole.
  const room = isGsm ? 153 : 67;
  let count = 1;
  let filled = 0;
  for (const size of sizes) {
    if (filled + size > room) {
      count += 1;
      filled = 0;
    }
    filled += size;
  }
  return { encoding, units, count };
}

/** Texts of a merchant that cost more than one segment with a link of this length; `apply` warns of each. */
export function costlyTexts(merchant: {
  name: Record<Language, string>;
  languages: readonly Language[];
  linkLength: number;
  own: OwnTexts | undefined;
}): { kind: TextKind; language: Language; segments: Segments }[] {
  const link = 'x'.repeat(merchant.linkLength);
  return merchant.languages.flatMap((language) =>
    (Object.keys(WORDS[language]) as TextKind[])
      .map((kind) => ({
        kind,
        language,
        segments: segmentsOf(
          textOf({
            kind,
            language,
            merchantName: merchant.name[language],
            link,
            // No date is written longer.
            dueOn: '2026-12-28',
            own: merchant.own,
          }),
        ),
      }))
      .filter(({ segments }) => segments.count > 1),
  );
}
