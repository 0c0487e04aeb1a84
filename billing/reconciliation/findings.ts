export type FindingOwner = 'gateway' | 'merchant' | 'operator';

export interface FindingRule {
  /** Who has to do something. */
  owner: FindingOwner;
  means: string;
  /** What later news settles it without a person. */
  settlesItself: string;
  /** What a person does before settling it by hand. */
  byHand: string;
  /** While it is open, no final result row of its bill goes out. */
  holdsResults: boolean;
  /** While it is open, the watermark stays before its day: no bill of the merchant is reminded, tried again or returned. */
  holdsDunning: boolean;
}

const holdsAll = { holdsResults: true, holdsDunning: true };
const holdsNothing = { holdsResults: false, holdsDunning: false };

/** Each kind of difference, who answers for it, and how it ends. docs/reconciliation.md shows this table. */
export const findingRules = {
  missing_here: {
    owner: 'operator',
    means: 'the gateway has money for no charge of ours',
    settlesItself: 'the charge is known here, or the report has the line no more',
    byHand:
      'find out whose money it is, have the gateway refund it or the merchant keep it; it is never booked by guess',
    holdsResults: false,
    holdsDunning: true,
  },
  missing_there: {
    owner: 'gateway',
    means: 'a payment is booked here and stands in no report',
    settlesItself: 'a report has it, whatever its date',
    byHand: 'get the gateway to confirm in writing where the money is',
    ...holdsAll,
  },
  not_booked: {
    owner: 'operator',
    means: 'the gateway has money for a charge of ours that has not succeeded here',
    settlesItself:
      'the gateway confirms the charge when asked, and it is booked; or the report has the line no more',
    byHand: 'clear up with the gateway why it reports a charge that it does not confirm',
    ...holdsAll,
  },
  amount_differs: {
    owner: 'gateway',
    means: 'the report has another amount than was asked for',
    settlesItself: 'the report says otherwise',
    byHand: 'have the gateway correct or refund it',
    ...holdsAll,
  },
  currency_differs: {
    owner: 'gateway',
    means: 'the report has another currency than was asked for',
    settlesItself: 'the report says otherwise',
    byHand: 'have the gateway correct or refund it',
    ...holdsAll,
  },
  captured_twice: {
    owner: 'gateway',
    means: 'one charge stands in the reports more than once',
    settlesItself: 'the reports have it once',
    byHand: 'have the second capture refunded at the gateway',
    ...holdsAll,
  },
  unexpected_kind: {
    owner: 'operator',
    means: 'money went back (a refund or chargeback) that was not asked for here',
    settlesItself: 'the report has the line no more',
    byHand: 'find out who made it, and tell the merchant',
    ...holdsAll,
  },
  preliminary_not_confirmed: {
    owner: 'gateway',
    means: 'a shop told of a payment two weeks ago, and it is neither certain nor taken back',
    settlesItself: 'the money is certain, or the shop takes its word back',
    byHand: 'ask the agency what became of the payment; the bill stays locked meanwhile',
    ...holdsNothing,
  },
  fee_differs: {
    owner: 'gateway',
    means: 'the fee is not the one agreed (`gateway.fee` in the settings)',
    settlesItself: 'report and settings agree',
    byHand: 'claim the difference, or correct the settings',
    ...holdsNothing,
  },
  payout_differs: {
    owner: 'gateway',
    means: 'a payout is not what its lines add up to',
    settlesItself: 'the gateway reports it otherwise',
    byHand: 'claim the difference from the gateway',
    ...holdsNothing,
  },
  not_paid_out: {
    owner: 'gateway',
    means: 'money that was reported is in no payout',
    settlesItself: 'a payout has it',
    byHand: 'ask the gateway when it pays out',
    ...holdsNothing,
  },
} as const satisfies Record<string, FindingRule>;

export type FindingKind = keyof typeof findingRules;

const kindsThat = (holds: (rule: FindingRule) => boolean): FindingKind[] =>
  (Object.keys(findingRules) as FindingKind[]).filter((kind) => holds(findingRules[kind]));

export const holdingResults = kindsThat((rule) => rule.holdsResults);
export const holdingDunning = kindsThat((rule) => rule.holdsDunning);

/** Something that differs between us and the outside, as it is found. */
export interface NewFinding {
  id: string;
  /**
   * What was compared: a settlement report, a payout, or the gateway's own list after a restore. Later news of one kind
   * settles nothing of another.
   */
  source: 'report' | 'payout' | 'list';
  kind: FindingKind;
  /** As the outside names it: a gateway's charge id, a payout id, a payment number. */
  subject: string;
  gateway: string | null;
  /** YYYY-MM-DD */
  reportDate: string | null;
  chargeId: string | null;
  invoiceId: string | null;
  ours: number | null;
  theirs: number | null;
  currency: string | null;
  owner: FindingOwner;
}
