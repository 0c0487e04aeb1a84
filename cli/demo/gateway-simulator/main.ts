import { startGatewaySimulator } from './server.ts';

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') {
    console.error(`${name} is not set`);
    process.exit(2);
  }
  return value;
}

const optional = (name: string): string | undefined => process.env[name] || undefined;

const options = {
  databaseUrl: required('SIMULATOR_DATABASE_URL'),
  secret: required('SIMULATOR_SECRET'),
  port: Number(optional('SIMULATOR_PORT') ?? '0'),
  clockUrl: optional('SIMULATOR_CLOCK_URL') ?? null,
  webhookUrl: optional('SIMULATOR_WEBHOOK_URL') ?? null,
  holdMs: Number(optional('SIMULATOR_HOLD_MS') ?? '15000'),
  onError: (error: unknown) => {
    // The message only: no statement, no value, no card.
    console.error(JSON.stringify({ error: error instanceof Error ? error.message : 'unknown error' }));
  },
};
const publicUrl = optional('SIMULATOR_PUBLIC_URL');
const simulator = await startGatewaySimulator(publicUrl === undefined ? options : { ...options, publicUrl });

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  await simulator.close();
  process.exit(0);
}
process.on('SIGTERM', () => void stop());
process.on('SIGINT', () => void stop());
// Whoever started the process holds its stdin: when that one dies, however, the simulator goes too.
process.stdin.on('end', () => void stop());
process.stdin.on('close', () => void stop());
process.stdin.resume();

console.log(JSON.stringify({ listening: simulator.port }));
