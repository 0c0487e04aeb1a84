import type { Knex } from 'knex';
import * as theBillingDay from './0001-the-billing-day.ts';
import * as ledgerMonths from './0002-ledger-months.ts';
import * as auditChain from './0003-audit-chain.ts';
import * as findings from './0004-findings.ts';
import * as alertDelivery from './0005-alert-delivery.ts';
import * as safeMode from './0006-safe-mode.ts';
import * as kindsGatesAdjustments from './0007-kinds-gates-adjustments.ts';
import * as recalls from './0008-recalls.ts';
import * as smsNews from './0009-sms-news.ts';
import * as temporaryNames from './0010-temporary-names.ts';
import * as payLinks from './0011-pay-links.ts';
import * as counterPayments from './0012-counter-payments.ts';
import * as chargeRuns from './0013-charge-runs.ts';
import * as loadInSteps from './0014-load-in-steps.ts';
import * as toldFiles from './0015-told-files.ts';
import * as rowsByFile from './0016-rows-by-file.ts';
import * as recallsTakenUp from './0017-recalls-taken-up.ts';
import * as creditsUsed from './0018-credits-used.ts';
import * as unreached from './0019-unreached.ts';
import * as bankDebits from './0020-bank-debits.ts';
import * as webSetsDebitDays from './0021-web-sets-debit-days.ts';
import * as cardChanges from './0022-card-changes.ts';
import * as cardRefreshes from './0023-card-refreshes.ts';
import * as givenByMerchants from './0024-given-by-merchants.ts';
import * as foundByBill from './0025-found-by-bill.ts';

export interface Migration {
  name: string;
  up(knex: Knex): Promise<void>;
}

/** In order; a released migration never changes. */
export const migrations: readonly Migration[] = [
  theBillingDay,
  ledgerMonths,
  auditChain,
  findings,
  alertDelivery,
  safeMode,
  kindsGatesAdjustments,
  recalls,
  smsNews,
  temporaryNames,
  payLinks,
  counterPayments,
  chargeRuns,
  loadInSteps,
  toldFiles,
  rowsByFile,
  recallsTakenUp,
  creditsUsed,
  unreached,
  bankDebits,
  webSetsDebitDays,
  cardChanges,
  cardRefreshes,
  givenByMerchants,
  foundByBill,
];
