import type { Carrier } from '../billing/carriers/carrier.ts';
import type { Db } from '../billing/db.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import type { Clock, Log } from '../billing/ports.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import { openDisk } from '../files/disk.ts';
import type { Ports } from '../jobs/ports.ts';

const secret = 'a secret for tests only, long enough to pass';

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

const noCarrier: Carrier = {
  name: 'none',
  semantics: { callDeadlineMs: 1_000, notFoundConclusiveAfterMs: 1_000, concurrency: 1 },
  send: async () => ({ kind: 'unknown', why: 'no carrier here' }),
  lookup: async () => ({ kind: 'unknown', why: 'no carrier here' }),
  // biome-ignore lint/correctness/useYield: it ends before its first line.
  list: async function* () {
    throw new Error('no carrier here');
  },
};

export function portsFor(db: Db, clock: Clock, gateway: Gateway, archiveFolder: string): Ports {
  const randomness = seededRandomness(`${process.pid} ${clock.elapsedMs()}`);
  const ids = timeOrderedIds(clock, randomness);
  return {
    db,
    clock,
    ids,
    randomness,
    crash: async () => undefined,
    log: silent,
    disk: openDisk(ids),
    sealer: makeSealer(deriveKeys(secret), randomness),
    gateway,
    carrier: noCarrier,
    alertSenders: [],
    openStore: () => {
      throw new Error('no store here');
    },
    archiveFolder,
    readKeyFile: async () => '',
    baseUrl: 'https://pay.invalid',
  };
}
