import type { FastifyInstance } from 'fastify';
import { Refusal } from '../billing/refusal.ts';

/** Binds a server. `setting` is what its operator changes where another program has the port. Returns the port. */
export async function listen(
  app: Pick<FastifyInstance, 'listen' | 'server'>,
  { host, port, setting }: { host: string; port: number; setting: 'PORT' | 'ADMIN_PORT' },
): Promise<number> {
  try {
    await app.listen({ host, port });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw cause;
    throw new Refusal(
      code === 'EACCES' ? 'PORT_FORBIDDEN' : 'PORT_TAKEN',
      code === 'EACCES' ? `port ${port} may not be opened by this user` : `port ${port} is in use`,
      {
        next:
          code === 'EACCES'
            ? `Set ${setting} to a port above 1023.`
            : `Does another seikyu run here, or a demo? Stop it (Ctrl-C). A second one beside it wants another port (${setting}) and another folder (SEIKYU_HOME).`,
        context: { host, port },
        cause,
      },
    );
  }
  const address = app.server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}
