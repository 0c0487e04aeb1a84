import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db, Tx } from '../db.ts';
import { openLedger } from '../ledger/queries.ts';
import { Refusal } from '../refusal.ts';
import type { Merchant } from './merchant.ts';
import type { MerchantSettings } from './settings.ts';

interface MerchantRow {
  id: number;
  code: string;
  short_code: string;
  settings_version: number;
  settings: MerchantSettings;
}

const merchantOf = (row: MerchantRow): Merchant => ({
  id: row.id,
  code: row.code,
  shortCode: row.short_code,
  settingsVersion: row.settings_version,
  settings: row.settings,
});

/** All merchants with their current settings, by code. */
export async function listMerchants(db: Pick<Db, 'query'>): Promise<Merchant[]> {
  const rows = await db.query<MerchantRow>(
    `select m.id, m.code, m.short_code, m.settings_version, s.settings
     from merchants m
     join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
     order by m.code`,
  );
  return rows.map(merchantOf);
}

/** Each merchant's time zone by code, for showing instants; UTC for what is nobody's. */
export async function zonesOf(db: Pick<Db, 'query'>): Promise<(code: string) => string> {
  const zones = new Map((await listMerchants(db)).map(({ code, settings }) => [code, settings.timezone]));
  return (code) => zones.get(code) ?? 'UTC';
}

/** Refusal MERCHANT_UNKNOWN where there is none with this code. */
export async function merchantByCode(db: Pick<Db, 'query'>, code: string): Promise<Merchant> {
  const merchants = await listMerchants(db);
  const found = merchants.find((merchant) => merchant.code === code);
  if (found) return found;
  throw new Refusal('MERCHANT_UNKNOWN', `there is no merchant ${JSON.stringify(code)}`, {
    next:
      merchants.length === 0
        ? 'Apply a settings file first: seikyu merchant apply <file.yaml>'
        : `Known merchants: ${merchants.map((merchant) => merchant.code).join(', ')}`,
    exitCode: 2,
  });
}

/**
 * The merchant's account at Stripe; null: the account of the key itself. Refusal MERCHANT_UNKNOWN, and
 * GATEWAY_ACCOUNT_SHARED where another merchant has the same: a payout of both could be put to neither.
 */
export async function stripeAccountOf(db: Pick<Db, 'query'>, code: string): Promise<string | null> {
  const rows = await db.query<{ code: string; account: string | null }>(
    `with accounts as (
       select m.code, s.settings #>> '{gateway,stripeAccount}' as account
       from merchants m
       join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
     )
     select other.code, other.account
     from accounts mine join accounts other on other.account is not distinct from mine.account
     where mine.code = $1 order by other.code = $1 desc, other.code`,
    [code],
  );
  const [mine, other] = rows;
  if (mine === undefined) {
    throw new Refusal('MERCHANT_UNKNOWN', `there is no merchant ${JSON.stringify(code)}`, {
      next: 'Apply its settings first: seikyu merchant apply <file.yaml>',
      exitCode: 2,
    });
  }
  if (other === undefined) return mine.account;
  throw new Refusal('GATEWAY_ACCOUNT_SHARED', `merchant ${other.code} has the same account at Stripe`, {
    next: 'Give each merchant its own account: gateway: { stripe_account: acct_... } in its settings.',
    context: { account: mine.account, merchants: rows.length },
  });
}

/** The account at Stripe that a merchant's charges are in already; undefined: it has none there. */
export async function stripeAccountInUse(
  tx: Pick<Tx, 'query'>,
  code: string,
): Promise<{ account: string | null } | undefined> {
  const [row] = await tx.query<{ account: string | null }>(
    `select s.settings #>> '{gateway,stripeAccount}' as account
     from merchants m
     join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
     where m.code = $1
       and exists (select from charges c where c.merchant_id = m.id and c.gateway = 'stripe')`,
    [code],
  );
  return row;
}

/** Settings as they were at a version: a bill keeps the one it was taken in under. */
export async function settingsByVersion(
  db: Pick<Db, 'query'>,
  merchantId: number,
  versions: readonly number[],
): Promise<Map<number, MerchantSettings>> {
  const rows = await db.query<{ version: number; settings: MerchantSettings }>(
    `select version, settings from merchant_settings where merchant_id = $1 and version = any($2::int[])`,
    [merchantId, versions],
  );
  return new Map(rows.map((row) => [row.version, row.settings]));
}

export type Applied = 'created' | 'changed' | 'unchanged';

/** Creates the merchant, or adds a version of its settings where they differ from the current one. */
export async function storeSettings(
  tx: Tx,
  settings: MerchantSettings,
  sha256: string,
  at: Temporal.Instant,
): Promise<{ applied: Applied; merchantId: number; version: number }> {
  // Merchants are few and ids gapless: one apply at a time.
  await tx.run(`lock table merchants in share row exclusive mode`);
  const [current] = await tx.query<{ id: number; settings_version: number; sha256: string }>(
    `select m.id, m.settings_version, s.sha256 from merchants m
     join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
     where m.code = $1`,
    [settings.code],
  );
  if (current && current.sha256 === sha256)
    return { applied: 'unchanged', merchantId: current.id, version: current.settings_version };
  const version = (current?.settings_version ?? 0) + 1;
  let merchantId = current?.id;
  if (merchantId === undefined) {
    const [next] = await tx.query<{ id: number }>(`select coalesce(max(id), 0) + 1 as id from merchants`);
    merchantId = next?.id ?? 1;
    await tx.run(
      `insert into merchants (id, code, short_code, settings_version, created_at)
       values ($1, $2, $3, $4, $5::timestamptz)`,
      [merchantId, settings.code, merchantId.toString(36), version, instantText(at)],
    );
    const firstDay = businessDateOf(at, settings.timezone);
    await openLedger(tx, merchantId, firstDay.with({ day: 1 }).toString());
  } else {
    await tx.run(`update merchants set settings_version = $2 where id = $1`, [merchantId, version]);
  }
  await tx.run(
    `insert into merchant_settings (merchant_id, version, settings, sha256, applied_at)
     values ($1, $2, $3::jsonb, $4, $5::timestamptz)`,
    [merchantId, version, JSON.stringify(settings), sha256, instantText(at)],
  );
  return { applied: current ? 'changed' : 'created', merchantId, version };
}
