import type { Db } from '../db.ts';
import { linkUrlOf } from '../links/token.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import { debitNotice } from './message.ts';
import { dueTexts } from './queries.ts';
import { segmentsOf, textKindOf, textOf } from './texts.ts';

export interface Preview extends Record<string, number> {
  messages: number;
  segments: number;
  /** Whole yen, rounded up; only where the merchant has a price for a segment. */
  cost_yen: number;
}

/** Amounts differ; a notice is never longer than this one. */
const longestDebit = { amount: 99_999_999, on: '2026-12-31' };

/** What would be sent by the end of a day, and what it costs, before anything is. Nothing is opened or derived for it. */
export async function previewDue(
  ports: { db: Pick<Db, 'query'>; baseUrl: string },
  merchant: Merchant,
  businessDate: string,
  /** Bills whose notice before a debit would be planned first; at most so many, for some have no phone. */
  debitsToTell: number,
): Promise<Omit<Preview, 'cost_yen'> & Partial<Preview>> {
  const { notify, name } = merchant.settings;
  const language = notify.languages[0] ?? 'ja';
  // Every token is as long as any other, and of letters that count alike.
  const link = linkUrlOf(ports.baseUrl, merchant.shortCode + 'x'.repeat(22));
  const preview = { messages: 0, segments: 0 };
  const due = await dueTexts(ports.db, merchant.id, businessDate);
  const versions = [...new Set(due.map((each) => each.settings_version))];
  const settings = await settingsByVersion(ports.db, merchant.id, versions);
  for (const {
    step,
    settings_version: version,
    is_late: isLate,
    has_link: hasLink,
    messages,
    ...bill
  } of due) {
    const body = textOf({
      kind: textKindOf(step, isLate, bill.fell_back_for),
      language,
      merchantName: name[language],
      link: hasLink ? link : null,
      dueOn: businessDate,
      own: settings.get(version)?.texts,
      debit: longestDebit,
    });
    preview.messages += messages;
    preview.segments += messages * segmentsOf(body).count;
  }
  if (debitsToTell > 0) {
    const body = textOf({
      kind: debitNotice,
      language,
      merchantName: name[language],
      link: null,
      dueOn: businessDate,
      own: undefined,
      debit: longestDebit,
    });
    preview.messages += debitsToTell;
    preview.segments += debitsToTell * segmentsOf(body).count;
  }
  const price = notify.pricePerSegmentYen ?? null;
  return price === null ? preview : { ...preview, cost_yen: Math.ceil(preview.segments * price) };
}
