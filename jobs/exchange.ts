import type { ExchangeSettings } from '../billing/merchants/settings.ts';
import type { RemoteStore } from '../files/store.ts';
import type { Ports } from './ports.ts';

/** The server on which a partner, the merchant or the agency, puts and takes files. */
export async function openExchange(
  ports: Pick<Ports, 'openStore' | 'readKeyFile'>,
  { sftp }: Pick<ExchangeSettings, 'sftp'>,
): Promise<RemoteStore> {
  const { host, port, username, privateKeyFile, hostKeys } = sftp;
  const privateKey = await ports.readKeyFile(privateKeyFile);
  return ports.openStore({ host, port, username, privateKey, hostKeys });
}
