import type { Pool } from 'pg';
import type { CardCodes } from './cards.ts';

export type ChargeState = 'succeeded' | 'failed';
export type PageState = 'open' | 'challenge' | 'paid' | 'cancelled' | 'closed' | 'expired';

export interface ChargeRow {
  sequence: number;
  id: string;
  account: string;
  reference: string;
  state: ChargeState;
  origin: 'off_session' | 'hosted_page' | 'counter';
  method: 'card' | 'wallet' | 'barcode';
  amount: number;
  currency: string;
  network: string | null;
  lastFour: string | null;
  gatewayCode: string | null;
  networkCode: string | null;
  adviceCode: string | null;
  createdAt: Date;
  capturedAt: Date | null;
  savedCard: SavedCard | null;
}

export interface SavedCard {
  token: string;
  cardName: string;
  brand: string;
  lastFour: string;
  expires: string;
  networkTransactionId: string;
  threeDsEci: string | null;
}

export interface HostedPage {
  id: string;
  account: string;
  reference: string;
  invoiceId: string | null;
  fingerprint: string;
  state: PageState;
  amount: number;
  currency: string;
  returnUrl: string;
  language: 'ja' | 'en';
  merchantName: string;
  method: 'card' | 'wallet';
  saveMethod: boolean;
  /** Keeps a card and takes no money. */
  setup: boolean;
  savedToken: string | null;
  /** The last card that was typed on a page that takes no money, where it was declined. */
  declined: { network: string | null; codes: CardCodes } | null;
  expiresAt: Date;
  challengeId: string | null;
  challengeCard: string | null;
  challengeCardExpires: string | null;
}

export interface StoredAnswer {
  fingerprint: string;
  status: number;
  body: unknown;
}

export interface WebhookRow {
  id: string;
  account: string;
  reference: string;
  kind: string;
  createdAt: Date;
  copies: number;
  attempts: number;
}

/** How a webhook made now will be sent: `dueInMs` null = never. */
export interface WebhookPlan {
  id: string;
  copies: number;
  dueInMs: number | null;
}

export interface NewCharge {
  id: string;
  state: ChargeState;
  network: string | null;
  lastFour: string | null;
  codes: CardCodes | null;
}

const CHARGE_COLUMNS = `
  c.sequence::float8 as sequence, c.id, c.account, c.reference, c.state, c.origin, c.method, c.amount::float8 as amount,
  c.currency, c.network, c.last_four as "lastFour", c.gateway_code as "gatewayCode",
  c.network_code as "networkCode", c.advice_code as "adviceCode", c.created_at as "createdAt",
  c.captured_at as "capturedAt",
  case when s.token is null then null else jsonb_build_object(
    'token', s.token, 'cardName', s.card_name, 'brand', s.brand, 'lastFour', s.last_four, 'expires', s.expires,
    'networkTransactionId', s.network_transaction_id, 'threeDsEci', s.three_ds_eci) end as "savedCard"`;

const PAGE_COLUMNS = `
  id, account, reference, invoice_id as "invoiceId", fingerprint, state, amount::float8 as amount, currency, return_url as "returnUrl", language,
  merchant_name as "merchantName", method, save_method as "saveMethod", expires_at as "expiresAt",
  challenge_id as "challengeId", challenge_card as "challengeCard",
  challenge_card_expires as "challengeCardExpires", setup, saved_token as "savedToken", declined`;

export async function storedAnswer(
  pool: Pool,
  account: string,
  key: string,
  madeAfter: Date,
): Promise<StoredAnswer | null> {
  const { rows } = await pool.query<StoredAnswer>(
    `select fingerprint, status, body
     from gateway_simulator.idempotency_keys
     where account = $1 and key = $2 and created_at > $3`,
    [account, key, madeAfter],
  );
  return rows[0] ?? null;
}

export async function savedCard(pool: Pool, account: string, token: string): Promise<SavedCard | null> {
  const { rows } = await pool.query<SavedCard>(
    `select token, card_name as "cardName", brand, last_four as "lastFour", expires,
            network_transaction_id as "networkTransactionId", three_ds_eci as "threeDsEci"
     from gateway_simulator.saved_cards
     where account = $1 and token = $2`,
    [account, token],
  );
  return rows[0] ?? null;
}

/** Saved cards of an account by their tokens, with what each has become. */
export async function savedCards(
  pool: Pool,
  account: string,
  tokens: readonly string[],
): Promise<Map<string, { cardName: string; successor: SavedCard | null }>> {
  const { rows } = await pool.query<{ token: string; cardName: string; successor: SavedCard | null }>(
    `select c.token, c.card_name as "cardName",
            case when s.token is null then null else jsonb_build_object(
              'token', s.token, 'cardName', s.card_name, 'brand', s.brand, 'lastFour', s.last_four, 'expires', s.expires,
              'networkTransactionId', s.network_transaction_id, 'threeDsEci', s.three_ds_eci) end as successor
     from gateway_simulator.saved_cards c
     left join gateway_simulator.card_successors x on x.token = c.token
     left join gateway_simulator.saved_cards s on s.token = x.successor
     where c.account = $1 and c.token = any($2::text[])`,
    [account, tokens],
  );
  return new Map(rows.map(({ token, ...row }) => [token, row]));
}

/** Keeps successors of saved cards; one that has a successor already keeps it. */
export async function saveSuccessors(
  pool: Pool,
  account: string,
  successors: readonly { token: string; card: SavedCard }[],
): Promise<void> {
  if (successors.length === 0) return;
  await saveCards(
    pool,
    account,
    successors.map(({ card }) => card),
  );
  await pool.query(
    `insert into gateway_simulator.card_successors (token, successor)
     select * from unnest($1::text[], $2::text[]) on conflict (token) do nothing`,
    [successors.map(({ token }) => token), successors.map(({ card }) => card.token)],
  );
}

export async function countCall(pool: Pool, token: string): Promise<number> {
  const { rows } = await pool.query<{ calls: number }>(
    `update gateway_simulator.saved_cards
     set calls = calls + 1
     where token = $1
     returning calls`,
    [token],
  );
  return rows[0]?.calls ?? 0;
}

/**
 * Key, charge and webhook stand or fall together in one statement. False: the key already stands (the other request
 * was first). A second capture of the reference fails on the unique index instead.
 */
export async function executeOffSession(
  pool: Pool,
  request: {
    account: string;
    reference: string;
    invoiceId: string | null;
    amount: number;
    currency: string;
    key: string;
    fingerprint: string;
    keysMadeAfter: Date;
    now: Date;
    status: number;
    body: unknown;
    /** Null: an answer is kept but no money moved. */
    charge: NewCharge | null;
    webhook: WebhookPlan | null;
  },
): Promise<boolean> {
  const { charge, webhook } = request;
  const { rowCount } = await pool.query(
    `with key as (
       insert into gateway_simulator.idempotency_keys as k
         (account, key, fingerprint, status, body, created_at)
       values ($1::text, $3, $4, $5, $6, $7::timestamptz)
       on conflict (account, key) do update
       set fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body,
           created_at = excluded.created_at
       where k.created_at <= $8
       returning 1
     ), charge as (
       insert into gateway_simulator.charges
         (id, account, reference, state, origin, amount, currency, network, last_four,
          gateway_code, network_code, advice_code, created_at, captured_at, invoice_id)
       select $9, $1::text, $2::text, $10::text, 'off_session', $11, $12, $13, $14, $15, $16, $17, $7::timestamptz,
              case when $10::text = 'succeeded' then $7::timestamptz end, $21::text
       from key
       where $9::text is not null
       returning 1
     ), webhook as (
       insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
       select $18, $1::text, $2::text, 'charge.' || $10::text, $7::timestamptz, $19,
              clock_timestamp() + make_interval(secs => $20::float8 / 1000),
              case when $20::float8 is null then 'suppressed' end
       from charge
       where $18::text is not null
     )
     select 1 from key`,
    [
      request.account,
      request.reference,
      request.key,
      request.fingerprint,
      request.status,
      JSON.stringify(request.body),
      request.now,
      request.keysMadeAfter,
      charge?.id ?? null,
      charge?.state ?? null,
      request.amount,
      request.currency,
      charge?.network ?? null,
      charge?.lastFour ?? null,
      charge?.codes?.gatewayCode ?? null,
      charge?.codes?.networkCode ?? null,
      charge?.codes?.adviceCode ?? null,
      webhook?.id ?? null,
      webhook?.copies ?? 1,
      webhook?.dueInMs ?? null,
      request.invoiceId,
    ],
  );
  return rowCount === 1;
}

/** The capture of the reference if there is one, else its newest failed attempt. */
export async function latestCharge(
  pool: Pool,
  account: string,
  reference: string,
): Promise<ChargeRow | null> {
  const { rows } = await pool.query<ChargeRow>(
    `select ${CHARGE_COLUMNS}
     from gateway_simulator.charges c
     left join gateway_simulator.saved_cards s on s.token = c.saved_token
     where c.account = $1 and c.reference = $2
     order by (c.state = 'succeeded') desc, c.sequence desc
     limit 1`,
    [account, reference],
  );
  return rows[0] ?? null;
}

export async function chargesOf(
  pool: Pool,
  account: string,
  afterSequence: number,
  limit: number,
): Promise<ChargeRow[]> {
  const { rows } = await pool.query<ChargeRow>(
    `select ${CHARGE_COLUMNS}
     from gateway_simulator.charges c
     left join gateway_simulator.saved_cards s on s.token = c.saved_token
     where c.account = $1 and c.sequence > $2
     order by c.sequence
     limit $3`,
    [account, afterSequence, limit],
  );
  return rows;
}

export interface CaptureRow {
  sequence: number;
  id: string;
  reference: string;
  invoiceId: string | null;
  amount: number;
  currency: string;
  method: ChargeRow['method'];
  capturedAt: Date;
  /** How much of it went back. */
  refunded: number;
}

/** One keyset page of a time's captures in the order they were taken. */
export async function capturesBetween(
  pool: Pool,
  account: string,
  from: Date,
  until: Date,
  after: { capturedAt: Date; sequence: number } | null,
  limit: number,
): Promise<CaptureRow[]> {
  const { rows } = await pool.query<CaptureRow>(
    `select sequence::float8 as sequence, id, reference, invoice_id as "invoiceId", amount::float8 as amount, currency, method,
            captured_at as "capturedAt",
            coalesce((select sum(r.amount) from gateway_simulator.refunds r where r.charge_id = charges.id), 0)::float8 as refunded
     from gateway_simulator.charges
     where account = $1 and state = 'succeeded' and captured_at >= $2 and captured_at < $3
       and (captured_at, sequence) > ($4, $5)
     order by captured_at, sequence
     limit $6`,
    [account, from, until, after?.capturedAt ?? new Date(0), after?.sequence ?? 0, limit],
  );
  return rows;
}

export interface WeekTotals {
  currency: string;
  gross: number;
  fee: number;
  feeTax: number;
}

/** What was captured less what went back in a span of time, by currency, with the fees of the single charges. */
export async function totalsBetween(
  pool: Pool,
  account: string,
  from: Date,
  until: Date,
): Promise<WeekTotals[]> {
  const { rows } = await pool.query<WeekTotals>(
    `select currency, sum(amount)::float8 as gross, sum(fee)::float8 as fee, sum(fee * 10 / 100)::float8 as "feeTax"
     from (
       select currency, amount, amount * 325 / 10000 as fee
       from gateway_simulator.charges
       where account = $1 and state = 'succeeded' and captured_at >= $2 and captured_at < $3
       union all
       select currency, -amount, 0 from gateway_simulator.refunds
       where account = $1 and refunded_at >= $2 and refunded_at < $3
     ) captured
     group by currency order by currency`,
    [account, from, until],
  );
  return rows;
}

/** The page of a reference; the first request for it decides what it is. */
export async function openPage(
  pool: Pool,
  page: Omit<
    HostedPage,
    'challengeId' | 'challengeCard' | 'challengeCardExpires' | 'savedToken' | 'declined'
  >,
): Promise<HostedPage> {
  await pool.query(
    `insert into gateway_simulator.hosted_pages
       (id, account, reference, fingerprint, state, amount, currency, return_url, language, merchant_name,
        save_method, expires_at, invoice_id, method, setup)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
     on conflict (account, reference) do nothing`,
    [
      page.id,
      page.account,
      page.reference,
      page.fingerprint,
      page.state,
      page.amount,
      page.currency,
      page.returnUrl,
      page.language,
      page.merchantName,
      page.saveMethod,
      page.expiresAt,
      page.invoiceId,
      page.method,
      page.setup,
    ],
  );
  const { rows } = await pool.query<HostedPage>(
    `select ${PAGE_COLUMNS} from gateway_simulator.hosted_pages where account = $1 and reference = $2`,
    [page.account, page.reference],
  );
  const stored = rows[0];
  if (stored === undefined) throw new Error('the page just opened is gone');
  return stored;
}

/**
 * The page, expired first if its time is over: the row lock makes a payment under way finish before, so what is
 * answered as expired can take no more money.
 */
export async function currentPage(
  pool: Pool,
  key: { id: string } | { challengeId: string } | { account: string; reference: string },
  now: Date,
): Promise<HostedPage | null> {
  const [where, values] =
    'id' in key
      ? ['id = $1', [key.id]]
      : 'challengeId' in key
        ? ['challenge_id = $1', [key.challengeId]]
        : ['account = $1 and reference = $2', [key.account, key.reference]];
  const read = () =>
    pool.query<HostedPage>(
      `select ${PAGE_COLUMNS} from gateway_simulator.hosted_pages where ${where}`,
      values,
    );
  const page = (await read()).rows[0];
  if (page === undefined) return null;
  if ((page.state !== 'open' && page.state !== 'challenge') || page.expiresAt > now) return page;
  await pool.query(
    `update gateway_simulator.hosted_pages
     set state = 'expired'
     where id = $1 and state = any('{open,challenge}') and expires_at <= $2`,
    [page.id, now],
  );
  return (await read()).rows[0] ?? null;
}

/** True: this call ended the page. False: it had ended before, perhaps with money. */
export async function endPage(
  pool: Pool,
  pageId: string,
  state: 'closed' | 'cancelled',
  now: Date,
  webhook: WebhookPlan,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with page as (
       update gateway_simulator.hosted_pages
       set state = $2
       where id = $1 and state = any('{open,challenge}')
       returning account, reference
     ), webhook as (
       insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
       select $3, account, reference, 'hosted_page.' || $2, $4, $5,
              clock_timestamp() + make_interval(secs => $6::float8 / 1000),
              case when $6::float8 is null then 'suppressed' end
       from page
     )
     select 1 from page`,
    [pageId, state, webhook.id, now, webhook.copies, webhook.dueInMs],
  );
  return rowCount === 1;
}

export async function beginChallenge(
  pool: Pool,
  pageId: string,
  challenge: { id: string; cardName: string; cardExpires: string },
  now: Date,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `update gateway_simulator.hosted_pages
     set state = 'challenge', challenge_id = $2, challenge_card = $3, challenge_card_expires = $4
     where id = $1 and state = any('{open,challenge}') and expires_at > $5`,
    [pageId, challenge.id, challenge.cardName, challenge.cardExpires, now],
  );
  return rowCount === 1;
}

/** True: this call took the money. Page, charge, saved card and webhook stand or fall together. */
export async function captureOnPage(
  pool: Pool,
  pageId: string,
  /** Not null: only if this challenge is still the page's. */
  challengeId: string | null,
  charge: NewCharge,
  save: SavedCard | null,
  now: Date,
  webhook: WebhookPlan,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with page as (
       update gateway_simulator.hosted_pages
       set state = 'paid'
       where id = $1 and expires_at > $6
         and case when $2::text is null then state = any('{open,challenge}')
                  else state = 'challenge' and challenge_id = $2 end
       returning account, reference, invoice_id, amount, currency, save_method, method
     ), saved as (
       insert into gateway_simulator.saved_cards
         (token, account, card_name, brand, last_four, expires, network_transaction_id, three_ds_eci)
       select $7, account, $8, $4, $5, $9, $10, $11
       from page
       where save_method and $7::text is not null
       returning token
     ), charge as (
       insert into gateway_simulator.charges
         (id, account, reference, invoice_id, state, origin, method, amount, currency, network, last_four, saved_token,
          created_at, captured_at)
       select $3, account, reference, invoice_id, 'succeeded', 'hosted_page', method, amount, currency, $4, $5,
              (select token from saved), $6, $6
       from page
       returning account, reference
     ), webhook as (
       insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
       select $12, account, reference, 'charge.succeeded', $6, $13,
              clock_timestamp() + make_interval(secs => $14::float8 / 1000),
              case when $14::float8 is null then 'suppressed' end
       from charge
     )
     select 1 from charge`,
    [
      pageId,
      challengeId,
      charge.id,
      charge.network,
      charge.lastFour,
      now,
      save?.token ?? null,
      save?.cardName ?? null,
      save?.expires ?? null,
      save?.networkTransactionId ?? null,
      save?.threeDsEci ?? null,
      webhook.id,
      webhook.copies,
      webhook.dueInMs,
    ],
  );
  return rowCount === 1;
}

/** A declined attempt on the page; the page stays open for another card. */
export async function declineOnPage(
  pool: Pool,
  pageId: string,
  challengeId: string | null,
  charge: NewCharge,
  now: Date,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with page as (
       update gateway_simulator.hosted_pages
       set state = 'open', challenge_id = null, challenge_card = null, challenge_card_expires = null
       where id = $1
         and case when $2::text is null then state = any('{open,challenge}')
                  else state = 'challenge' and challenge_id = $2 end
       returning account, reference, amount, currency, method
     )
     insert into gateway_simulator.charges
       (id, account, reference, state, origin, method, amount, currency, network, last_four,
        gateway_code, network_code, advice_code, created_at)
     select $3, account, reference, 'failed', 'hosted_page', method, amount, currency, $4, $5, $6, $7, $8, $9
     from page`,
    [
      pageId,
      challengeId,
      charge.id,
      charge.network,
      charge.lastFour,
      charge.codes?.gatewayCode ?? null,
      charge.codes?.networkCode ?? null,
      charge.codes?.adviceCode ?? null,
      now,
    ],
  );
  return rowCount === 1;
}

/** True: this call kept the card. Page, saved card and webhook stand or fall together. */
export async function saveOnPage(
  pool: Pool,
  pageId: string,
  challengeId: string | null,
  save: SavedCard,
  now: Date,
  webhook: WebhookPlan,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with page as (
       update gateway_simulator.hosted_pages
       set state = 'paid', saved_token = $4
       where id = $1 and setup and expires_at > $3
         and case when $2::text is null then state = any('{open,challenge}')
                  else state = 'challenge' and challenge_id = $2 end
       returning account, reference
     ), saved as (
       insert into gateway_simulator.saved_cards
         (token, account, card_name, brand, last_four, expires, network_transaction_id, three_ds_eci)
       select $4, account, $5, $6, $7, $8, $9, $10 from page
     )
     insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
     select $11, account, reference, 'setup.succeeded', $3, $12,
            clock_timestamp() + make_interval(secs => $13::float8 / 1000),
            case when $13::float8 is null then 'suppressed' end
     from page`,
    [
      pageId,
      challengeId,
      now,
      save.token,
      save.cardName,
      save.brand,
      save.lastFour,
      save.expires,
      save.networkTransactionId,
      save.threeDsEci,
      webhook.id,
      webhook.copies,
      webhook.dueInMs,
    ],
  );
  return rowCount === 1;
}

/** A declined card on a page that takes no money; the page stays open for another one. */
export async function declineSetup(
  pool: Pool,
  pageId: string,
  challengeId: string | null,
  declined: NonNullable<HostedPage['declined']>,
): Promise<void> {
  await pool.query(
    `update gateway_simulator.hosted_pages
     set state = 'open', challenge_id = null, challenge_card = null, challenge_card_expires = null, declined = $3
     where id = $1 and setup
       and case when $2::text is null then state = any('{open,challenge}')
                else state = 'challenge' and challenge_id = $2 end`,
    [pageId, challengeId, JSON.stringify(declined)],
  );
}

export async function saveCards(pool: Pool, account: string, cards: readonly SavedCard[]): Promise<void> {
  await pool.query(
    `insert into gateway_simulator.saved_cards
       (token, account, card_name, brand, last_four, expires, network_transaction_id, three_ds_eci)
     select token, $1, card_name, brand, last_four, expires, network_transaction_id, three_ds_eci
     from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       as card(token, card_name, brand, last_four, expires, network_transaction_id, three_ds_eci)`,
    [
      account,
      cards.map((card) => card.token),
      cards.map((card) => card.cardName),
      cards.map((card) => card.brand),
      cards.map((card) => card.lastFour),
      cards.map((card) => card.expires),
      cards.map((card) => card.networkTransactionId),
      cards.map((card) => card.threeDsEci),
    ],
  );
}

export async function dueWebhooks(pool: Pool, limit: number): Promise<WebhookRow[]> {
  const { rows } = await pool.query<WebhookRow>(
    `select id, account, reference, kind, created_at as "createdAt", copies, attempts
     from gateway_simulator.webhooks
     where settled is null and due_at <= clock_timestamp()
     order by due_at
     limit $1`,
    [limit],
  );
  return rows;
}

export async function recordDeliveries(
  pool: Pool,
  deliveries: readonly { id: string; settled: 'delivered' | 'gave_up' | null; retryInMs: number }[],
): Promise<void> {
  await pool.query(
    `update gateway_simulator.webhooks w
     set attempts = w.attempts + 1, settled = d.settled,
         due_at = clock_timestamp() + make_interval(secs => d.retry_in_ms / 1000)
     from unnest($1::text[], $2::text[], $3::float8[]) as d(id, settled, retry_in_ms)
     where w.id = d.id`,
    [
      deliveries.map((each) => each.id),
      deliveries.map((each) => each.settled),
      deliveries.map((each) => each.retryInMs),
    ],
  );
}

export interface RefundRow {
  id: string;
  chargeReference: string;
  reference: string;
  amount: number;
  currency: string;
  refundedAt: Date;
}

const refundColumns = `r.id, r.charge_reference as "chargeReference", r.reference, r.amount::float8 as amount, r.currency,
  r.refunded_at as "refundedAt"`;

export async function refundByReference(
  pool: Pool,
  account: string,
  reference: string,
): Promise<RefundRow | null> {
  const { rows } = await pool.query<RefundRow>(
    `select ${refundColumns} from gateway_simulator.refunds r where account = $1 and reference = $2`,
    [account, reference],
  );
  return rows[0] ?? null;
}

/** Gives back what is left of a capture, once for each reference. Null: there is no such capture, or not so much left. */
export async function executeRefund(
  pool: Pool,
  refund: {
    id: string;
    account: string;
    reference: string;
    chargeReference: string;
    amount: number;
    currency: string;
    now: Date;
  },
): Promise<RefundRow | null> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    const { rows: charges } = await client.query<{ id: string; left: number }>(
      `select c.id, (c.amount - coalesce((select sum(r.amount) from gateway_simulator.refunds r where r.charge_id = c.id), 0))::float8
                as left
       from (select * from gateway_simulator.charges
             where account = $1 and reference = $2 and state = 'succeeded' and currency = $3 for update) c`,
      [refund.account, refund.chargeReference, refund.currency],
    );
    const [charge] = charges;
    if (charge !== undefined && charge.left >= refund.amount) {
      await client.query(
        `insert into gateway_simulator.refunds (id, account, reference, charge_id, charge_reference, amount, currency, refunded_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (account, reference) do nothing`,
        [
          refund.id,
          refund.account,
          refund.reference,
          charge.id,
          refund.chargeReference,
          refund.amount,
          refund.currency,
          refund.now,
        ],
      );
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
  return refundByReference(pool, refund.account, refund.reference);
}

/** All that was given back in a span: few, against captures. */
export async function refundsBetween(
  pool: Pool,
  account: string,
  from: Date,
  until: Date,
): Promise<RefundRow[]> {
  const { rows } = await pool.query<RefundRow>(
    `select ${refundColumns} from gateway_simulator.refunds r
     where account = $1 and refunded_at >= $2 and refunded_at < $3 order by refunded_at, sequence`,
    [account, from, until],
  );
  return rows;
}

export interface CounterPayment {
  id: string;
  account: string;
  reference: string;
  barcode: string;
  amount: number;
  currency: string;
  shop: string;
  paidAt: Date;
  finalAt: Date;
  cancelledAt: Date | null;
}

const COUNTER_COLUMNS = `id, account, reference, barcode, amount::float8 as amount, currency, shop, paid_at as "paidAt",
  final_at as "finalAt", cancelled_at as "cancelledAt"`;

export async function insertCounterPayment(
  pool: Pool,
  payment: CounterPayment,
  webhook: WebhookPlan,
): Promise<void> {
  await pool.query(
    `with paid as (
       insert into gateway_simulator.counter_payments
         (id, account, reference, barcode, amount, currency, shop, paid_at, final_at)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
       returning account, reference
     )
     insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
     select $10, account, reference, 'barcode.preliminary', $8, $11,
            clock_timestamp() + make_interval(secs => $12::float8 / 1000),
            case when $12::float8 is null then 'suppressed' end
     from paid`,
    [
      payment.id,
      payment.account,
      payment.reference,
      payment.barcode,
      payment.amount,
      payment.currency,
      payment.shop,
      payment.paidAt,
      payment.finalAt,
      webhook.id,
      webhook.copies,
      webhook.dueInMs,
    ],
  );
}

/** Captures what has become final, as of the moment when it did. */
export async function captureFinalPayments(pool: Pool, now: Date): Promise<void> {
  await pool.query(
    `with final as (
       update gateway_simulator.counter_payments set captured = true
       where not captured and cancelled_at is null and final_at <= $1
       returning *
     )
     insert into gateway_simulator.charges
       (id, account, reference, state, origin, method, amount, currency, created_at, captured_at)
     select id, account, reference, 'succeeded', 'counter', 'barcode', amount, currency, paid_at, final_at from final`,
    [now],
  );
}

export async function counterPayment(
  pool: Pool,
  account: string,
  reference: string,
): Promise<CounterPayment | null> {
  const { rows } = await pool.query<CounterPayment>(
    `select ${COUNTER_COLUMNS} from gateway_simulator.counter_payments where account = $1 and reference = $2`,
    [account, reference],
  );
  return rows[0] ?? null;
}

/** Payments that were made, became final or were cancelled in a span. */
export async function counterNews(
  pool: Pool,
  account: string,
  from: Date,
  until: Date,
): Promise<CounterPayment[]> {
  const { rows } = await pool.query<CounterPayment>(
    `select ${COUNTER_COLUMNS} from gateway_simulator.counter_payments
     where account = $1
       and ((paid_at >= $2 and paid_at < $3) or (cancelled_at >= $2 and cancelled_at < $3)
            or (cancelled_at is null and final_at >= $2 and final_at < $3))
     order by paid_at, id`,
    [account, from, until],
  );
  return rows;
}

/** False: it is final, or there is none. */
export async function cancelCounterPayment(
  pool: Pool,
  account: string,
  reference: string,
  now: Date,
  webhook: WebhookPlan,
): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with cancelled as (
       update gateway_simulator.counter_payments set cancelled_at = $3
       where account = $1 and reference = $2 and cancelled_at is null and not captured and final_at > $3
       returning account, reference
     )
     insert into gateway_simulator.webhooks (id, account, reference, kind, created_at, copies, due_at, settled)
     select $4, account, reference, 'barcode.cancelled', $3, $5,
            clock_timestamp() + make_interval(secs => $6::float8 / 1000),
            case when $6::float8 is null then 'suppressed' end
     from cancelled`,
    [account, reference, now, webhook.id, webhook.copies, webhook.dueInMs],
  );
  return rowCount === 1;
}
