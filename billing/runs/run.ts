/** One run: a job for a merchant and a business date. The run table is the truth; cron only asks. */
export interface RunKey {
  merchantId: number;
  job: string;
  businessDate: string;
}

export interface Lease {
  /** `<host>:<pid>:<random>`: one process of one machine. */
  owner: string;
  seconds: number;
}

/** A killed process is missed after this; the next look of any other takes its work up, all within 60 s. */
export const leaseSeconds = 40;
export const heartbeatEveryMs = 10_000;

export function ownerName(host: string, pid: number, nonce: string): string {
  return `${host.replaceAll(':', '_')}:${pid}:${nonce}`;
}

/** A lease of a process of this machine that lives no more needs no waiting: the fence keeps it out anyway. */
export function diedHere(owner: string, host: string, pidIsAlive: (pid: number) => boolean): boolean {
  const [ownerHost, pid] = owner.split(':');
  return ownerHost === host.replaceAll(':', '_') && pid !== undefined && !pidIsAlive(Number(pid));
}
