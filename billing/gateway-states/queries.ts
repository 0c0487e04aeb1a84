import { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { fresh, type GatewayState } from './state.ts';

interface Row {
  pace_per_second: number | null;
  slowed_at: string | null;
  silent: number;
  opened_at: string | null;
  probe_at: string | null;
  rest_seconds: number | null;
}

const columns = 'pace_per_second, slowed_at, silent, opened_at, probe_at, rest_seconds';

export async function gatewayState(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
): Promise<GatewayState> {
  const [row] = await db.query<Row & Record<string, unknown>>(
    `select ${columns} from gateway_states where merchant_id = $1 and gateway = $2`,
    [merchantId, gateway],
  );
  return stateOf(row);
}

/** Locks the row, and makes it where there is none: of two processes the second sees what the first has written. */
export async function lockGatewayState(tx: Tx, merchantId: number, gateway: string): Promise<GatewayState> {
  await tx.run(
    `insert into gateway_states (merchant_id, gateway) values ($1, $2) on conflict (merchant_id, gateway) do nothing`,
    [merchantId, gateway],
  );
  const [row] = await tx.query<Row & Record<string, unknown>>(
    `select ${columns} from gateway_states where merchant_id = $1 and gateway = $2 for update`,
    [merchantId, gateway],
  );
  return stateOf(row);
}

export async function writeGatewayState(
  tx: Tx,
  merchantId: number,
  gateway: string,
  { pacePerSecond, slowedAt, silent, rest }: GatewayState,
): Promise<void> {
  await tx.run(
    `update gateway_states
     set pace_per_second = $3, slowed_at = $4::timestamptz, silent = $5, opened_at = $6::timestamptz,
         probe_at = $7::timestamptz, rest_seconds = $8
     where merchant_id = $1 and gateway = $2`,
    [
      merchantId,
      gateway,
      pacePerSecond,
      slowedAt === null ? null : instantText(slowedAt),
      silent,
      rest === null ? null : instantText(rest.openedAt),
      rest === null ? null : instantText(rest.probeAt),
      rest?.seconds ?? null,
    ],
  );
}

/** Moves the time of the next probe, by compare-and-set: who takes one moves it ahead. False: another process has it. */
export async function moveProbe(
  tx: Tx,
  merchantId: number,
  gateway: string,
  seen: Temporal.Instant,
  next: Temporal.Instant,
): Promise<boolean> {
  const taken = await tx.run(
    `update gateway_states set probe_at = $4::timestamptz
     where merchant_id = $1 and gateway = $2 and probe_at = $3::timestamptz`,
    [merchantId, gateway, instantText(seen), instantText(next)],
  );
  return taken === 1;
}

/** Automatic charges that a process may be calling for at this moment. */
export async function callsUnderWay(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  now: Temporal.Instant,
): Promise<number> {
  const [row] = await tx.query<{ calls: number }>(
    `select count(*) as calls
     from collection_locks l
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
     where l.merchant_id = $1 and c.gateway = $2 and c.origin = 'auto' and c.state = 'processing'
       and c.deadline_at > $3::timestamptz`,
    [merchantId, gateway, instantText(now)],
  );
  return row?.calls ?? 0;
}

function stateOf(row: Row | undefined): GatewayState {
  if (row === undefined) return fresh;
  const at = (text: string | null) => (text === null ? null : Temporal.Instant.from(text));
  const [openedAt, probeAt] = [at(row.opened_at), at(row.probe_at)];
  return {
    pacePerSecond: row.pace_per_second,
    slowedAt: at(row.slowed_at),
    silent: row.silent,
    rest:
      openedAt === null || probeAt === null ? null : { openedAt, probeAt, seconds: row.rest_seconds ?? 0 },
  };
}
