import { randomBytes, randomUUID } from 'node:crypto';
import type { Pool } from 'pg';
import type { TestCard } from './cards.ts';
import type { SimulatorClock } from './clock.ts';
import {
  type ChargeRow,
  counterPayment,
  currentPage,
  latestCharge,
  type NewCharge,
  type SavedCard,
  savedCard,
  type WebhookPlan,
} from './queries.ts';
import type { WebhookDelivery } from './webhooks.ts';

/** What tests and the demo's control may change while the simulator runs. */
export interface SimulatorSettings {
  webhooks: { mode: 'normal' | 'duplicate' | 'delay' | 'never'; delayMs: number };
  /** Everything answers 503, certainly without effect. */
  outage: boolean;
  latencyMs: number;
  rateLimitPerSecond: number | null;
  /** So many refunds are made next without an answer. */
  refundsUnanswered: number;
  /** So many questions about cards are dealt with next without an answer. */
  cardUpdatesUnanswered: number;
}

/** What the routes share. */
export interface Simulation {
  pool: Pool;
  clock: SimulatorClock;
  settings: SimulatorSettings;
  delivery: WebhookDelivery;
  effects: Effects;
  publicUrl: () => string;
  holdMs: number;
}

/** Effects under way, so that a day's report is read only when nothing can still join that day. */
export interface Effects {
  run<Result>(effect: () => Promise<Result>): Promise<Result>;
  settled(): Promise<void>;
}

export function trackEffects(): Effects {
  const underWay = new Set<Promise<unknown>>();
  return {
    async run(effect) {
      const running = effect();
      underWay.add(running);
      try {
        return await running;
      } finally {
        underWay.delete(running);
      }
    },
    async settled() {
      await Promise.allSettled([...underWay]);
    },
  };
}

export function planWebhook(settings: SimulatorSettings): WebhookPlan {
  const { mode, delayMs } = settings.webhooks;
  return {
    id: `evt_${randomUUID()}`,
    copies: mode === 'duplicate' ? 2 : 1,
    dueInMs: mode === 'never' ? null : mode === 'delay' ? Math.random() * delayMs : 0,
  };
}

export function newCharge(card: TestCard | null, failure: NewCharge['codes']): NewCharge {
  return {
    id: `ch_${randomUUID()}`,
    state: failure === null ? 'succeeded' : 'failed',
    network: card?.brand ?? null,
    lastFour: card?.pan.slice(-4) ?? null,
    codes: failure,
  };
}

export function saveCard(card: TestCard, expires: string): SavedCard {
  const threeDs = card.onPage.kind === 'succeeds' && card.onPage.threeDs !== 'none';
  return {
    token: `tok_${card.name}_${randomBytes(12).toString('hex')}`,
    cardName: card.name,
    brand: card.brand,
    lastFour: card.pan.slice(-4),
    expires,
    networkTransactionId: `ntx_${randomBytes(8).toString('hex')}`,
    threeDsEci: threeDs ? (card.brand === 'mastercard' ? '02' : '05') : null,
  };
}

export interface ChargeBody {
  state: 'succeeded' | 'failed' | 'pending' | 'not_found';
  id: string | null;
  account: string;
  reference: string;
  amount: number | null;
  currency: string | null;
  method: ChargeRow['method'] | null;
  captured_at: string | null;
  codes: {
    code: string | null;
    network: string | null;
    network_code: string | null;
    advice_code: string | null;
  } | null;
  saved_method: {
    token: string;
    brand: string;
    last_four: string;
    expires: string;
    network_transaction_id: string;
    three_ds_eci: string | null;
  } | null;
}

const nothing = {
  amount: null,
  currency: null,
  method: null,
  captured_at: null,
  codes: null,
  saved_method: null,
};

export function savedMethodBody(card: SavedCard): NonNullable<ChargeBody['saved_method']> {
  return {
    token: card.token,
    brand: card.brand,
    last_four: card.lastFour,
    expires: card.expires,
    network_transaction_id: card.networkTransactionId,
    three_ds_eci: card.threeDsEci,
  };
}

export function chargeBody(charge: ChargeRow): ChargeBody {
  return {
    state: charge.state,
    id: charge.id,
    account: charge.account,
    reference: charge.reference,
    amount: charge.amount,
    currency: charge.currency,
    method: charge.method,
    captured_at: charge.capturedAt?.toISOString() ?? null,
    codes:
      charge.state === 'succeeded'
        ? null
        : {
            code: charge.gatewayCode,
            network: charge.network,
            network_code: charge.networkCode,
            advice_code: charge.adviceCode,
          },
    saved_method: charge.savedCard === null ? null : savedMethodBody(charge.savedCard),
  };
}

/** All that is known of a reference now. A page that ended without money is a failure that can take money no more. */
export async function stateOf(
  { pool, clock }: Pick<Simulation, 'pool' | 'clock'>,
  account: string,
  reference: string,
): Promise<ChargeBody> {
  const atCounter = await counterPayment(pool, account, reference);
  if (atCounter !== null && atCounter.cancelledAt !== null) {
    const codes = { code: 'payment_reversed', network: null, network_code: null, advice_code: null };
    return { ...nothing, state: 'failed', id: null, account, reference, codes };
  }
  const page = await currentPage(pool, { account, reference }, new Date(await clock.now()));
  const charge = await latestCharge(pool, account, reference);
  if (charge?.state === 'succeeded') return chargeBody(charge);
  if (page !== null && (page.state === 'open' || page.state === 'challenge')) {
    return { ...nothing, state: 'pending', id: null, account, reference };
  }
  if (atCounter !== null) return { ...nothing, state: 'pending', id: null, account, reference };
  if (charge !== null) return chargeBody(charge);
  if (page !== null) {
    const codes = { code: `page_${page.state}`, network: null, network_code: null, advice_code: null };
    return { ...nothing, state: 'failed', id: null, account, reference, codes };
  }
  return { ...nothing, state: 'not_found', id: null, account, reference };
}

/** The same of a page that only keeps a card. */
export async function setupStateOf(
  { pool, clock }: Pick<Simulation, 'pool' | 'clock'>,
  account: string,
  reference: string,
): Promise<{ state: 'succeeded' | 'failed' | 'pending' | 'not_found' } & Record<string, unknown>> {
  const page = await currentPage(pool, { account, reference }, new Date(await clock.now()));
  if (page === null || !page.setup) return { state: 'not_found', account, reference };
  const card = page.savedToken === null ? null : await savedCard(pool, account, page.savedToken);
  if (card !== null) return { state: 'succeeded', account, reference, saved_method: savedMethodBody(card) };
  if (page.state === 'open' || page.state === 'challenge') return { state: 'pending', account, reference };
  const { network, codes } = page.declined ?? { network: null, codes: null };
  return {
    state: 'failed',
    account,
    reference,
    codes: {
      code: codes === null ? `page_${page.state}` : codes.gatewayCode,
      network,
      network_code: codes?.networkCode ?? null,
      advice_code: codes?.adviceCode ?? null,
    },
  };
}

export const isUniqueViolation = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === '23505';
