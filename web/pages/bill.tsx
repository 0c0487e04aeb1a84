import type { VNode } from 'preact';
import { mayChangeCard } from '../../billing/card-changes/start.ts';
import type { BillRow, TaxLine } from '../../billing/checkout/bill.ts';
import { endOf } from '../../billing/checkout/check-last-four.ts';
import type { PayMethod } from '../../billing/checkout/methods.ts';
import type { BillView } from '../../billing/checkout/view-bill.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { paths } from '../paths.ts';
import { type Language, longDate, longMonth, money, texts } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { OtherMethods } from './barcode.tsx';
import { kept } from './kept.ts';
import { document } from './layout.tsx';

export interface BillPage {
  view: BillView;
  visit: Visit;
  /** YYYY-MM-DD, the merchant's. */
  today: string;
  otherLanguageUrl: string;
  /** The ways to pay that are offered; those of a bill that cannot be paid are of no interest. */
  methods?: readonly PayMethod[];
  /** The gateway could not be reached: when the visitor may come back, `10:15`. */
  gatewayDownUntil?: string;
}

/** The bill that can be paid, or whose payment is under way on the gateway's page. */
export function billPage({
  view,
  visit,
  today,
  otherLanguageUrl,
  gatewayDownUntil,
  methods = ['card'],
}: BillPage): string {
  const { bill, merchant, state, taxLines } = view;
  const { language } = visit;
  const words = texts[language];
  const hasForm = methods.includes('card') || state === 'in_payment';
  const isWallet = state === 'in_payment' && bill.session_method === 'wallet';
  return document(
    { language, merchant, title: words.billTitle, otherLanguageUrl },
    <>
      {gatewayDownUntil !== undefined && (
        <p class="notice bad" role="alert">
          {words.gatewayDown(gatewayDownUntil)}
        </p>
      )}
      <section class="card">
        <h1 class="bill-title">{words.billTitle}</h1>
        <Amount bill={bill} language={language} />
        <p class={bill.due_on < today ? 'due over' : 'due'}>
          {(bill.due_on < today ? words.overdue : words.dueOn)(longDate(bill.due_on, language))}
        </p>
        <Facts bill={bill} language={language} isKnown={isKnown(view)} />
        <Taxes bill={bill} lines={taxLines} language={language} isKnown={isKnown(view)} />
      </section>
      {hasForm && (
        <form
          class="card"
          method="post"
          action={isWallet ? paths.payBy.of(visit.id, 'wallet') : paths.pay.of(visit.id)}
        >
          {state === 'in_payment' ? (
            <GoOn bill={bill} language={language} />
          ) : (
            <Enrol bill={bill} merchant={merchant} language={language} isKnown={isKnown(view)} />
          )}
          <button type="submit">
            {state === 'in_payment' ? words.goOn : words.pay(money(bill.amount, bill.currency, language))}
          </button>
          {!isWallet && kept(words, 'secure', () => <Secure text={words.secure} />)}
        </form>
      )}
      <OtherMethods
        methods={methods.filter((method) => state === 'owed' || method !== bill.session_method)}
        isAlone={!hasForm}
        byCard={
          isWallet && methods.includes('card') ? words.pay(money(bill.amount, bill.currency, language)) : null
        }
        visit={visit}
        language={language}
      />
      {!visit.checked && (
        <p class="aside">
          <a href={paths.notMine.of(visit.id)}>{words.notMine}</a>
        </p>
      )}
      <Automatic view={view} visit={visit} />
    </>,
  );
}

function Secure({ text }: { text: string }): VNode {
  return (
    <p class="secure">
      <svg
        width="18"
        height="18"
        viewBox="0 0 24 24"
        fill="none"
        stroke="currentColor"
        stroke-width="2"
        aria-hidden="true"
      >
        <rect x="5" y="11" width="14" height="9" rx="2" />
        <path d="M8 11V8a4 4 0 0 1 8 0v3" />
      </svg>
      <span>{text}</span>
    </p>
  );
}

/** The bill after it was paid: what the customer keeps as a record, on paper too. */
export function receiptPage({ view, visit, otherLanguageUrl }: BillPage): string {
  const { bill, merchant, taxLines } = view;
  const { language } = visit;
  const words = texts[language];
  return document(
    { language, merchant, title: words.receiptTitle, otherLanguageUrl },
    <section class="card receipt" data-state="receipt">
      <p class="notice good">{words.paidBefore}</p>
      <h1>{words.receiptTitle}</h1>
      <p>{words.receiptText}</p>
      <Amount bill={bill} language={language} />
      <dl class="facts">
        {bill.paid_on !== null && (
          <div>
            <dt>{words.receiptDate}</dt>
            <dd>{longDate(bill.paid_on, language)}</dd>
          </div>
        )}
        {bill.paid_by !== null && (
          <div>
            <dt>{words.receiptMethod}</dt>
            <dd>{words.paidBy[bill.paid_by] ?? bill.paid_by}</dd>
          </div>
        )}
        {bill.paid_back > 0 && (
          <div>
            <dt>{words.receiptPaidBack}</dt>
            <dd>{money(bill.paid_back, bill.currency, language)}</dd>
          </div>
        )}
        <div>
          <dt>{words.receiptIssuer}</dt>
          <dd>{merchant.settings.name[language]}</dd>
        </div>
      </dl>
      <Facts bill={bill} language={language} isKnown={isKnown(view)} />
      <Taxes bill={bill} lines={taxLines} language={language} isKnown={isKnown(view)} isOpen />
      {bill.enrolled_by !== null && <p class="notice good">{words.enrolled}</p>}
      <Automatic view={view} visit={visit} />
      <p class="small no-print">{words.receiptHint}</p>
    </section>,
  );
}

/** Only for who has passed the check: the link alone changes and ends nothing. */
function Automatic({ view, visit }: { view: BillView; visit: Visit }): VNode | null {
  const { bill, state } = view;
  const words = texts[visit.language];
  if (!visit.checked || bill.enrolled_by === null) return null;
  return (
    <p class="aside no-print">
      {mayChangeCard(bill, state) && (
        <>
          <a href={paths.card.of(visit.id)}>{words.anotherCard}</a>
          <br />
        </>
      )}
      <a href={paths.stop.of(visit.id)}>{words.stop}</a>
    </p>
  );
}

/** A merchant that asks nothing shows nothing of the customer's use to whoever holds the link. */
function isKnown(view: BillView): boolean {
  return view.merchant.settings.checkout.ask !== 'nothing';
}

function Amount({ bill, language }: { bill: BillRow; language: Language }): VNode {
  const text = money(bill.amount, bill.currency, language);
  return (
    <p class="amount">
      {text.endsWith('円') ? (
        <>
          {text.slice(0, -1)}
          <small>円</small>
        </>
      ) : (
        text
      )}
    </p>
  );
}

function Facts(props: { bill: BillRow; language: Language; isKnown: boolean }): VNode | null {
  const { bill, language, isKnown } = props;
  const words = texts[language];
  return (
    <dl class="facts">
      {isKnown && (
        <>
          <div>
            <dt>{words.period}</dt>
            <dd>{longMonth(bill.billing_period, language)}</dd>
          </div>
          {bill.usage_from !== null && bill.usage_to !== null && (
            <div>
              <dt>{words.usage}</dt>
              <dd>
                {words.usageFromTo(longDate(bill.usage_from, language), longDate(bill.usage_to, language))}
              </dd>
            </div>
          )}
          {bill.description !== '' && (
            <div>
              <dt>{words.description}</dt>
              <dd>{bill.description}</dd>
            </div>
          )}
          <div>
            <dt>{words.customerNumber}</dt>
            <dd>{words.customerNumberEnd(endOf(bill.customer_number))}</dd>
          </div>
        </>
      )}
      <div>
        <dt>{words.billingNumber}</dt>
        <dd>{bill.billing_number}</dd>
      </div>
    </dl>
  );
}

function Taxes(props: {
  bill: BillRow;
  lines: readonly TaxLine[];
  language: Language;
  isKnown: boolean;
  isOpen?: boolean;
}): VNode | null {
  const { bill, lines, language, isKnown, isOpen } = props;
  if (lines.length === 0) return null;
  const words = texts[language];
  const issuers = [...new Set(lines.flatMap((line) => line.issuer_registration_number ?? []))];
  return (
    <details open={isOpen}>
      <summary>{words.tax}</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">{words.taxItem}</th>
            <th scope="col">{words.taxable}</th>
            <th scope="col">{words.taxAmount}</th>
          </tr>
        </thead>
        <tbody>
          {lines.map((line) => (
            <tr>
              <td>
                {isKnown && line.description !== '' ? (
                  <>
                    {line.description} <small>{words.taxRate(line.tax_rate)}</small>
                  </>
                ) : (
                  words.taxRate(line.tax_rate)
                )}
              </td>
              <td>{money(line.taxable_amount, bill.currency, language)}</td>
              <td>{money(line.tax_amount, bill.currency, language)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {issuers.length > 0 && (
        <p class="small">
          {words.registration} {issuers.join(', ')}
        </p>
      )}
    </details>
  );
}

function GoOn({ bill, language }: { bill: BillRow; language: Language }): VNode {
  const words = texts[language];
  return (
    <>
      <p class="notice wait">
        {words.inPayment} {bill.session_enrol ? words.inPaymentEnrol : words.inPaymentNoEnrol}
      </p>
      <p class="small">{words.inPaymentStop}</p>
      {bill.session_enrol && <input type="hidden" name="enrol" value="yes" />}
    </>
  );
}

export function accountOf(bill: BillRow, language: Language): string {
  const words = texts[language];
  return `${words.customerNumber} ${words.customerNumberEnd(endOf(bill.customer_number))}`;
}

/** When a bill under automatic payment is charged. */
export function debitDayOf(merchant: Merchant, language: Language): string {
  const words = texts[language];
  const { debitDay } = merchant.settings.autopay;
  return debitDay === 'due_date' ? words.debitOnDueDate : words.debitOnDay(debitDay);
}

/** Says whose account and which utility it is for: the holder of the card need not be the customer. */
function Enrol(props: { bill: BillRow; merchant: Merchant; language: Language; isKnown: boolean }): VNode {
  const { bill, merchant, language, isKnown } = props;
  const words = texts[language];
  const account = isKnown ? accountOf(bill, language) : `${words.billingNumber} ${bill.billing_number}`;
  return (
    <>
      <label class="tick">
        <input type="checkbox" name="enrol" value="yes" aria-describedby="enrol-text enrol-account" />
        <span>
          <strong>{bill.enrolled_by !== null ? words.changeCard : words.enrol}</strong>
          <span class="small" id="enrol-text">
            {bill.enrolled_by !== null ? words.changeCardText : words.enrolText}
          </span>
          <span class="small account" id="enrol-account">
            {words.enrolAccount(merchant.settings.name[language], account)}
          </span>
        </span>
      </label>
      {kept(merchant, `terms ${language} ${isKnown}`, () => (
        <Terms merchant={merchant} language={language} isKnown={isKnown} />
      ))}
    </>
  );
}

function Terms(props: { merchant: Merchant; language: Language; isKnown: boolean }): VNode {
  const { merchant, language, isKnown } = props;
  const { name, contactPhone } = merchant.settings;
  const words = texts[language];
  return (
    <details>
      <summary>{words.terms}</summary>
      <ul class="terms">
        {words
          .termsList(name[language], debitDayOf(merchant, language), contactPhone, isKnown)
          .map((term) => (
            <li>{term}</li>
          ))}
      </ul>
    </details>
  );
}
