import type { PageMethod } from '../../billing/gateways/gateway.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { type Language, texts, wallTime } from '../texts.ts';
import { document, Icon, type Mood } from './layout.tsx';

export type PageState =
  | 'paid'
  | 'already_paid'
  | 'waiting'
  | 'paid_at_shop'
  | 'unfinished'
  | 'not_paid'
  | 'cancelled'
  | 'returned'
  | 'expired'
  | 'not_theirs'
  | 'stopped'
  | 'card_changed'
  | 'card_not_changed'
  | 'card_unfinished'
  | 'card_waiting'
  | 'link_sent'
  | 'link_enough'
  | 'link_not_possible'
  | 'resting'
  | 'unknown'
  | 'busy'
  | 'error';

/** A page that says where things stand and holds nothing personal. */
export function statePage(page: {
  state: PageState;
  language: Language;
  merchant: Merchant | null;
  otherLanguageUrl?: string | null;
  /** Where the visitor may go on. */
  billUrl?: string | null;
  /** For `already_paid`: where the visitor shows to be the customer. */
  receiptUrl?: string | null;
  /** For `paid`: automatic payment was set up with it. */
  enrolled?: boolean;
  /** For `not_paid`: what was tried; a card where it is not named. */
  method?: PageMethod;
  /** For `not_paid`: the page was left, so that nothing was tried. */
  wasLeft?: boolean;
}): string {
  const { state, language, merchant } = page;
  const words = texts[language];
  const name = merchant?.settings.name[language] ?? '';
  const [mood, title, text] = (
    {
      paid: ['good', words.paidTitle, words.paidText],
      already_paid: ['good', words.paidBefore, words.paidText],
      waiting: ['wait', words.waitingTitle, words.waitingText],
      paid_at_shop: ['good', words.paidAtShopTitle, words.paidAtShopText],
      unfinished: ['wait', words.unfinishedTitle, words.unfinishedText],
      not_paid: ['bad', words.notPaidTitle, words.notPaidText],
      cancelled: ['plain', words.cancelledTitle, words.cancelledText],
      returned: ['plain', words.returnedTitle, words.returnedText(name)],
      expired: ['plain', words.expiredTitle, words.expiredText(name)],
      not_theirs: ['good', words.givenBackTitle, words.givenBackText(name)],
      stopped: ['good', words.stoppedTitle, words.stoppedText(name)],
      card_changed: ['good', words.cardChangedTitle, words.cardChangedText(name)],
      card_not_changed: ['bad', words.cardNotChangedTitle, words.cardNotChangedText],
      card_unfinished: ['wait', words.cardUnfinishedTitle, words.cardUnfinishedText],
      card_waiting: ['wait', words.cardWaitingTitle, words.cardWaitingText],
      link_sent: ['good', words.linkSentTitle, words.linkSentText(hoursOf(merchant))],
      link_enough: ['wait', words.linkEnoughTitle, words.linkEnoughText(name)],
      link_not_possible: ['plain', words.linkNotPossibleTitle, words.linkNotPossibleText(name)],
      resting: ['wait', words.restingTitle, words.restingText],
      unknown: ['plain', words.unknownTitle, words.unknownText],
      busy: ['wait', words.busyTitle, words.busyText],
      error: ['bad', words.errorTitle, words.errorText],
    } satisfies Record<PageState, [Mood, string, string]>
  )[state];
  return document(
    {
      language,
      merchant,
      title,
      otherLanguageUrl: page.otherLanguageUrl ?? null,
    },
    <section class="card state" data-state={state}>
      <Icon mood={mood} />
      <h1>{title}</h1>
      <p>{text}</p>
      {state === 'not_paid' && page.wasLeft !== true && (
        <ul class="plain">
          {(page.method === 'wallet' ? words.notPaidByWalletTodo : words.notPaidTodo).map((line) => (
            <li>{line}</li>
          ))}
        </ul>
      )}
      {page.enrolled && <p class="notice good">{words.enrolled}</p>}
      {(state === 'waiting' || state === 'card_waiting') && (
        // No page that reloads by itself: whoever reads slowly, or hears it read, would be thrown back to its start.
        <a class="button" href={page.billUrl ?? ''}>
          {words.reload}
        </a>
      )}
      {page.billUrl && state === 'paid' && (
        <a class="button quiet" href={page.billUrl}>
          {words.receipt}
        </a>
      )}
      {page.receiptUrl && state === 'already_paid' && (
        <a class="button quiet" href={page.receiptUrl}>
          {words.receiptOrAutomatic}
        </a>
      )}
      {page.billUrl && state === 'card_changed' && (
        <>
          <p>{words.cardChangedOpenBill}</p>
          <a class="button" href={page.billUrl}>
            {words.back}
          </a>
        </>
      )}
      {page.billUrl && (state === 'card_not_changed' || state === 'card_unfinished') && (
        <a class="button" href={page.billUrl}>
          {words.cardAgain}
        </a>
      )}
      {page.billUrl && (state === 'unfinished' || state === 'not_paid') && (
        <a class="button" href={page.billUrl}>
          {words.back}
        </a>
      )}
    </section>,
  );
}

/** `09:00-19:30`: when SMS go. */
function hoursOf(merchant: Merchant | null): string {
  if (merchant === null) return '';
  const { fromMinute, untilMinute } = merchant.settings.notify.hours;
  return `${wallTime(fromMinute)}-${wallTime(untilMinute)}`;
}
