import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { standingCredits } from '../../billing/credits/queries.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { listMerchants, merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import {
  enterGivenBack,
  paymentMeant,
  type RefundablePayment,
  type RefundedByHand,
  refundablePayment,
  refundByHand,
} from '../../billing/refunds/by-hand.ts';
import { listRefunds } from '../../billing/refunds/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { operatorName } from '../operator.ts';
import { localTime, type Output } from '../output.ts';
import type { System } from '../system.ts';
import { yen } from './charge-plan.ts';
import { parseCount } from './parse-count.ts';
import { withSystem } from './with-system.ts';

interface GivenOptions extends RefundOptions {
  on: string;
  reference?: string;
}

interface RefundOptions {
  json: boolean;
  merchant?: string;
  amount: number;
  reason: string;
  yes: boolean;
  again: boolean;
}

const shown = 200;

export function addRefundCommands(program: Command): void {
  const refund = program.command('refund').description('money that goes back to customers, by hand');
  refund
    .command('make', { isDefault: true })
    .argument('<bill or payment>', 'a billing number; or a payment’s id, where a bill was paid twice')
    .requiredOption('--amount <yen>', 'how much, up to what is left of the payment', parseCount)
    .requiredOption('--reason <text>', 'why: one line, kept with the refund, no personal data')
    .option('--merchant <code>', 'whose bill; needed where several merchants are here')
    .option('--yes', 'for scripts: does not ask for the amount again', false)
    .option(
      '--again',
      'the same amount for the same reason went back before, and is to go back once more',
      false,
    )
    .description('gives a payment or a part of it back by the card or wallet that it came from')
    .addHelpText(
      'after',
      `
Shows the payment and asks for the amount once more, unless --yes. The gateway is asked at once; the bill stays paid, and the
merchant is told by an adjustment. A payment may go back in parts, up to what was taken; one at a time.
Exit code 3 while the gateway has not answered (trace asks), and where it refuses; 1 where certainly nothing happened.

Examples:
  $ seikyu refund MG2611-00001 --amount 1200 --reason "read the meter twice, ticket 4711"
  $ seikyu refund make MG2611-00001 --amount 1200 --reason "ticket 4711" --yes --json`,
    )
    .action((what: string, options: RefundOptions) =>
      withSystem(options, (system, output) => make(system, output, what, options)),
    );
  refund
    .command('given')
    .argument('<bill or payment>', 'a billing number; or a payment’s id, where a bill was paid twice')
    .requiredOption('--amount <yen>', 'how much the merchant gave back', parseCount)
    .requiredOption('--on <YYYY-MM-DD>', 'the day on which it did')
    .requiredOption('--reason <text>', 'why and how: one line, kept with the refund, no personal data')
    .option('--merchant <code>', 'whose bill; needed where several merchants are here')
    .option('--yes', 'for scripts: does not ask for the amount again', false)
    .option(
      '--reference <reference>',
      'after a restore: under which the merchant was told, from the adjustment file',
    )
    .option('--again', 'so much was given back for the same reason before, and was given once more', false)
    .description(
      'enters that the merchant gave money back itself: what a shop or a bank took has no other way',
    )
    .addHelpText(
      'after',
      `
No gateway hears of it: the money must have gone, by bank transfer say. Never for a payment whose refund is without an outcome,
and not where the gateway can still send it: it would go twice. The merchant is told by an adjustment; a recall that waits for
this payment ends with the next trace. In safe mode it is taken too: what was entered after the backup is entered again before
restore end.

Example:
  $ seikyu refund given MG2611-00001 --amount 5000 --on 2026-12-03 --reason "bank transfer, ticket 4711"`,
    )
    .action((what: string, options: GivenOptions) =>
      withSystem(options, (system, output) => enter(system, output, what, options)),
    );
  refund
    .command('list')
    .option('--merchant <code>', 'of one merchant')
    .option('--credits', 'instead, what is left over of payments and goes back to nobody by itself', false)
    .description('refunds, the newest first: how much, why, by whom, and what became of them')
    .addHelpText(
      'after',
      '\nExit code 3 while one has no outcome.\n\nExample:\n  $ seikyu refund list --merchant minato-gas',
    )
    .action((options: { json: boolean; merchant?: string; credits: boolean }) =>
      withSystem(options, (system, output) => list(system, output, options)),
    );
}

async function make(system: System, output: Output, what: string, options: RefundOptions): Promise<number> {
  const merchant = await ownerOf(system, options.merchant);
  const gateway = await system.needGateway();
  const payment = await refundablePayment(system.db, merchant, gateway.name, what);
  if (!options.yes) await confirm(payment, options, output);
  const { amount, reason, again } = options;
  const ended = await refundByHand(system.ports, merchant, {
    chargeId: payment.charge_id,
    amount,
    reason,
    again,
    by: operatorName(),
  });
  const { charge_id: charge, billing_number: bill } = payment;
  output.document({ merchant: merchant.code, bill, charge, amount, ...ended });
  output.line(`${bill}: ${sayEnd(ended, amount)}`);
  return ended.state === 'succeeded' ? 0 : ended.state === 'canceled' ? 1 : 3;
}

async function enter(system: System, output: Output, what: string, options: GivenOptions): Promise<number> {
  const merchant = await ownerOf(system, options.merchant);
  const payment = await paymentMeant(system.db, merchant, what);
  if (!options.yes) await confirm(payment, options, output);
  const { amount, reason, again, reference, on: givenOn } = options;
  const { charge_id: charge, billing_number: bill } = payment;
  const by = operatorName();
  const wish = {
    chargeId: charge,
    amount,
    reason,
    again,
    givenOn,
    by,
    ...(reference !== undefined && { reference }),
  };
  const { id, left } = await enterGivenBack(system.ports, merchant, wish);
  output.document({ merchant: merchant.code, bill, charge, amount, id, left });
  output.line(
    `${bill}: entered that ${merchant.code} gave ${yen(amount)} back on ${givenOn}, refund ${id}; ${yen(left)} are left of the payment.`,
  );
  return 0;
}

function sayEnd({ id, state, code, left }: RefundedByHand, amount: number): string {
  switch (state) {
    case 'succeeded':
      return `${yen(amount)} went back, refund ${id}; ${yen(left)} are left of the payment.`;
    case 'failed':
      return `the gateway will not give it back (${code}). Clear it up with the gateway; nothing went back.`;
    case 'canceled':
      return `the gateway did not take it (${code}); certainly nothing went back. Give the command again.`;
    default:
      return `the gateway has not answered. trace asks it; do not give it back another way: seikyu refund list`;
  }
}

async function ownerOf(system: System, code: string | undefined): Promise<Merchant> {
  if (code !== undefined) return merchantByCode(system.db, code);
  const [only, ...others] = await listMerchants(system.db);
  if (only !== undefined && others.length === 0) return only;
  throw new Refusal('MERCHANT_NEEDED', 'it is not clear whose bill is meant', {
    next: 'Name the merchant: --merchant <code>. seikyu merchant list shows them.',
    exitCode: 2,
  });
}

/** A person at a terminal types the amount once more, with the payment before their eyes. */
async function confirm(
  payment: RefundablePayment,
  { amount, json }: RefundOptions,
  output: Output,
): Promise<void> {
  const refuse = (message: string, next: string) =>
    new Refusal('REFUND_NOT_CONFIRMED', message, { next, exitCode: 2 });
  if (json || !globalThis.process.stdin.isTTY)
    throw refuse('the amount must be typed once more', 'Give --yes in a script.');
  const { billing_number, charge_id, method, collected_on, left, before } = payment;
  output.line(
    `${billing_number}: ${yen(payment.amount)} by ${method} on ${collected_on}, payment ${charge_id}, ${yen(left)} left`,
  );
  for (const each of before)
    output.line(`  ${each.state}: ${yen(each.amount)}, ${each.reason ?? 'recall'}, ${each.asked_by ?? ''}`);
  const asking = createInterface({ input: globalThis.process.stdin, output: globalThis.process.stdout });
  try {
    if (parseCount(await asking.question('How much, in yen? ')) === amount) return;
  } finally {
    asking.close();
  }
  throw refuse('the amount typed is not that of --amount', 'Nothing was changed.');
}

async function list(
  { db }: System,
  output: Output,
  options: { merchant?: string; credits: boolean },
): Promise<number> {
  const merchant = options.merchant === undefined ? null : (await merchantByCode(db, options.merchant)).id;
  const zoneOf = await zonesOf(db);
  if (options.credits) {
    const credits = await standingCredits(db, merchant, shown);
    output.document(credits);
    output.rows(
      '',
      ['merchant', 'customer', 'bill', 'payment', 'method', 'collected', 'left', 'of'],
      credits.map((each) => ({
        ...each,
        customer: each.customer_number,
        bill: each.billing_number,
        payment: each.charge_id,
        collected: each.collected_on,
        of: each.amount,
      })),
      'Nothing is left over of any payment.',
    );
    return 0;
  }
  const refunds = await listRefunds(db, merchant, shown);
  output.document(refunds);
  output.rows(
    '',
    ['begun', 'merchant', 'bill', 'amount', 'from', 'state', 'code', 'by', 'why'],
    refunds.map((each) => ({
      ...each,
      begun: localTime(each.started_at, zoneOf(each.merchant)),
      bill: each.billing_number,
      from: each.gateway,
      by: each.asked_by,
      why: each.reason,
    })),
    'Nothing has gone back.',
  );
  return refunds.some(({ state }) => state === 'processing' || state === 'unknown') ? 3 : 0;
}
