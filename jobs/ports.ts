import type { AlertSender } from '../billing/alerts/sender.ts';
import type { Carrier } from '../billing/carriers/carrier.ts';
import type { Db } from '../billing/db.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import type { Clock, Crash, Disk, Ids, Log, Randomness } from '../billing/ports.ts';
import type { Sealer } from '../billing/sealing.ts';
import type { OpenRemoteStore } from '../files/store.ts';

/** Tells workers that there are chunks to do. A hint: whoever does not hear it finds them at its next look. */
export type WakeWorkers = (chunks: number) => Promise<void>;

/** All that a job takes from the outside world, handed in by the process entries. */
export interface Ports {
  db: Db;
  clock: Clock;
  ids: Ids;
  randomness: Randomness;
  crash: Crash;
  log: Log;
  disk: Disk;
  sealer: Sealer;
  gateway: Gateway;
  carrier: Carrier;
  /** Where operators are told; none = alerts only stand in the list. */
  alertSenders: readonly AlertSender[];
  openStore: OpenRemoteStore;
  /** Absent: nobody is woken. */
  wake?: WakeWorkers;
  /** Absolute folder of the encrypted file archive. */
  archiveFolder: string;
  /** Reads a merchant's SFTP private key; the path is relative to SEIKYU_HOME. */
  readKeyFile: (path: string) => Promise<string>;
  /** What pay links start with, e.g. `https://pay.example.jp`. */
  baseUrl: string;
}
