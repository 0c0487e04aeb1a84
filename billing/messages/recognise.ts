import { Temporal } from 'temporal-polyfill';
import { applyCountedOffset, formatOffset } from '../calendar/offsets.ts';
import type { ListedSms } from '../carriers/carrier.ts';
import type { Db } from '../db.ts';
import { linkTokenOf, linkUrlOf, shortCodeOf } from '../links/token.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import type { MerchantSettings } from '../merchants/settings.ts';
import type { Sealer } from '../sealing.ts';
import { debitNotice, messageIdOf } from './message.ts';
import { type AddressedBill, billsOfPhones, debitOf, knownSms, type StepOfBill } from './queries.ts';
import { type TextKind, textKindOf, textOf } from './texts.ts';

export interface RecogniseWork {
  merchant: Merchant;
  carrier: string;
  /** What pay links start with. */
  baseUrl: string;
}

const tokenIn = /\/l\/([0-9A-Za-z]{23,64})$/;

/**
 * Names the SMS of a list whose carrier keeps no id of ours: by the carrier's own id where it is known here, otherwise by
 * phone, link, words and day, all of which follow from the bill. Those of other merchants are left out; one that cannot be
 * named stays without an id.
 */
export async function recognise(
  ports: { db: Pick<Db, 'query'>; sealer: Sealer },
  work: RecogniseWork,
  listed: readonly ListedSms[],
): Promise<ListedSms[]> {
  const { db, sealer } = ports;
  const { merchant, carrier } = work;
  const nameless = listed.flatMap((sms) =>
    sms.messageId === null && sms.sent !== undefined
      ? [{ ...sms, sent: sms.sent, phoneDigest: sealer.digest(`phone:${sms.sent.to}`) }]
      : [],
  );
  if (nameless.length === 0) return [...listed];
  const known = new Map(
    (await knownSms(db, merchant.id, carrier, nameless)).map((row) => [row.provider_id, row]),
  );
  const strange = nameless.filter(
    (sms) => !known.has(sms.providerId) && !isOfAnother(merchant, sms.sent.body),
  );
  const bills = new Map<string, AddressedBill[]>();
  if (strange.length > 0) {
    for (const bill of await billsOfPhones(
      db,
      merchant.id,
      strange.map((sms) => sms.phoneDigest),
    )) {
      const phone = bill.phone_digest.toString('hex');
      bills.set(phone, [...(bills.get(phone) ?? []), bill]);
    }
  }
  const versions = [...new Set([...bills.values()].flat().map((bill) => bill.settings_version))];
  const settings = await settingsByVersion(db, merchant.id, versions);
  const names = new Map<string, string | null>();
  const taken = new Set<string>();
  // The oldest first: of two that say the same, the earlier one is the earlier step.
  for (const sms of [...strange].sort((one, other) => (one.takenAt < other.takenAt ? -1 : 1))) {
    const ofPhone = bills.get(sms.phoneDigest.toString('hex')) ?? [];
    const name = nameOf(sealer, work, sms, ofPhone, settings, taken);
    if (name !== null) taken.add(name);
    // Nothing that we would write, to a phone that is nobody's here: another system's.
    if (name !== null || ofPhone.length > 0 || tokenIn.test(sms.sent.body)) names.set(sms.providerId, name);
  }
  return listed.flatMap((sms) => {
    if (sms.messageId !== null || sms.sent === undefined) return [sms];
    const row = known.get(sms.providerId);
    if (row !== undefined) return [{ ...sms, messageId: messageIdOf(row.invoice_id, row.step) }];
    const name = names.get(sms.providerId);
    return name === undefined ? [] : [{ ...sms, messageId: name }];
  });
}

function isOfAnother(merchant: Merchant, body: string): boolean {
  const token = tokenIn.exec(body)?.[1];
  return token !== undefined && shortCodeOf(token) !== merchant.shortCode;
}

function nameOf(
  sealer: Sealer,
  { merchant, baseUrl }: RecogniseWork,
  sms: ListedSms & { sent: { body: string } },
  bills: readonly AddressedBill[],
  settings: ReadonlyMap<number, MerchantSettings>,
  taken: ReadonlySet<string>,
): string | null {
  const { timezone, name, languages } = { ...merchant.settings, ...merchant.settings.notify };
  const on = Temporal.Instant.from(sms.takenAt).toZonedDateTimeISO(timezone).toPlainDate();
  const token = tokenIn.exec(sms.sent.body)?.[1] ?? null;
  const link = token === null ? null : linkUrlOf(baseUrl, token);
  const says = (bill: AddressedBill, kind: TextKind): boolean =>
    (link !== null || kind === 'failure' || (kind === debitNotice && bill.debit_on !== null)) &&
    languages.some((language) => {
      const own = settings.get(bill.settings_version)?.texts;
      const text = textOf({
        kind,
        language,
        merchantName: name[language],
        link,
        dueOn: bill.due_on,
        debit: debitOf(bill),
        own,
      });
      return text === sms.sent.body;
    });
  for (const bill of bills) {
    if (token !== null && !isTokenOf(sealer, merchant, bill, token)) continue;
    const isLate = on.toString() > bill.due_on;
    const step = stepsOf(merchant, bill, on).find(
      (each) =>
        // Why it fell back may be forgotten here: either text is the step's.
        [textKindOf(each, isLate), textKindOf(each, isLate, 'card_ended')].some((kind) => says(bill, kind)) &&
        !taken.has(messageIdOf(bill.invoice_id, each)),
    );
    if (step !== undefined) return messageIdOf(bill.invoice_id, step);
  }
  return null;
}

/** Steps that may have gone on a day, the likeliest first: planned ones by the day they were for, then what the plan says. */
function stepsOf(merchant: Merchant, bill: AddressedBill, on: Temporal.PlainDate): string[] {
  const day = on.toString();
  const dueOn = Temporal.PlainDate.from(bill.due_on);
  const byDay = (one: { on: string }, other: { on: string }) => (one.on < other.on ? 1 : -1);
  const planned = bill.steps
    .filter((each: StepOfBill) => each.provider_id === null && each.planned_on <= day)
    .map((each) => ({ step: each.step, on: each.planned_on }));
  const reminders = merchant.settings.notify.reminders.map((offset) => ({
    step: `reminder:${formatOffset(offset)}`,
    on: applyCountedOffset(dueOn, offset).toString(),
  }));
  const unplanned = [
    { step: 'first_notice', on: bill.business_date },
    ...reminders,
    ...(bill.debit_on !== null && day < bill.debit_on ? [{ step: debitNotice, on: bill.business_date }] : []),
    { step: 'fallback_link', on: bill.business_date },
  ].filter(({ step, on: from }) => from <= day && !bill.steps.some((each) => each.step === step));
  return [...planned.sort(byDay), ...unplanned.sort(byDay)].map(({ step }) => step);
}

/** Also of a link that is not known here any more: versions count up, and one more than the newest may have been made. */
function isTokenOf(sealer: Sealer, merchant: Merchant, bill: AddressedBill, token: string): boolean {
  const made = bill.newest_link + 2;
  return Array.from({ length: made }, (_, index) => index + 1).some(
    (version) => linkTokenOf(sealer, merchant, bill.invoice_id, version, sealer.keyId) === token,
  );
}
