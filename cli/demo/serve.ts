import { listMerchants } from '../../billing/merchants/queries.ts';
import { applyFiles } from '../commands/merchant.ts';
import type { System } from '../system.ts';
import { type DemoHome, openDemoHome } from './home.ts';

/** The demo's SFTP server for a command on the demo's data. Where it had to take another port, the settings follow. */
export async function serveDemoHome(system: System): Promise<DemoHome> {
  const home = await openDemoHome(system.settings.home);
  try {
    const { port, hostKeyFingerprint } = home.sftp;
    const hasMoved = (await listMerchants(system.db)).some(
      ({ settings: { exchange } }) =>
        exchange.sftp.hostKeys.includes(hostKeyFingerprint) && exchange.sftp.port !== port,
    );
    if (hasMoved) await applyFiles(system, home.settingsFiles);
    return home;
  } catch (error) {
    await home.sftp.stop();
    throw error;
  }
}
