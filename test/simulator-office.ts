import { Temporal } from 'temporal-polyfill';
import { type VirtualClock, virtualClock } from '../billing/clock.ts';
import { countLoaded } from '../billing/exchanges/queries.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { type GatewaySimulator, startGatewaySimulator } from '../cli/demo/gateway-simulator/server.ts';
import type { Ports } from '../jobs/ports.ts';
import { makeBills, makeMerchant } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { portsFor } from './ports.ts';

export const apiKey = 'a key for this test only';
const morning = '2026-12-01T01:00:00Z';

/** Our database and the simulator's with its own books, for processes that share them and are killed. */
export interface SimulatorOffice {
  ours: TestDatabase;
  theirs: TestDatabase;
  simulator: GatewaySimulator;
  clock: VirtualClock;
  ports: Ports;
  /** What the simulator answers to its control. */
  control(path: string, body: unknown): Promise<unknown>;
  /** A merchant of its own with a bill over 1,000, 1,001 ... for each of these cards, on the morning of 1 December. */
  merchantWith(cards: readonly string[]): Promise<Merchant>;
  close(): Promise<void>;
}

/** The simulator takes no request of any size. */
const savedAtOnce = 1_000;

export async function openSimulatorOffice(): Promise<SimulatorOffice> {
  const ours = await testDatabase();
  const theirs = await testDatabase();
  const clock = virtualClock(ours.db);
  await clock.set(Temporal.Instant.from(morning));
  const simulator = await startGatewaySimulator({
    databaseUrl: theirs.url,
    secret: apiKey,
    clockUrl: ours.url,
    holdMs: 300,
  });
  const gateway = simulatorGateway({ baseUrl: simulator.url, apiKey, webhookSecret: apiKey });
  const ports = portsFor(ours.db, clock, gateway, '/nonexistent');
  let merchants = 0;
  const control: SimulatorOffice['control'] = async (path, body) => {
    const response = await fetch(`${simulator.url}/control${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return response.json();
  };
  return {
    ours,
    theirs,
    simulator,
    clock,
    ports,
    control,
    async merchantWith(cards) {
      merchants += 1;
      await clock.set(Temporal.Instant.from(morning));
      const merchant = await makeMerchant(ports, `power-${merchants}`, '');
      const methods: { token: string }[] = [];
      for (let from = 0; from < cards.length; from += savedAtOnce) {
        const some = cards.slice(from, from + savedAtOnce);
        const saved = await control('/saved-methods', { account: merchant.code, cards: some });
        methods.push(...(saved as { methods: { token: string }[] }).methods);
      }
      await makeBills(
        ports,
        merchant,
        methods.map(({ token }, index) => ({ number: `B${index}`, amount: 1_000 + index, card: token })),
      );
      // As ingest does after a file of this size.
      if (cards.length >= 2_000) await countLoaded(ours.db);
      return merchant;
    },
    async close() {
      await gateway.close();
      await simulator.close();
      await ours.drop();
      await theirs.drop();
    },
  };
}
