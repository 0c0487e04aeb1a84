import type { Bench, Figure } from './figure.ts';

/** `npm run bench -- <name>... [--json]`: without a name, all of them. */
const benches: Record<string, () => Promise<Bench>> = {
  ingest: async () => (await import('./ingest.ts')).ingestBench,
  check: async () => (await import('./check.ts')).checkBench,
};

const names = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const asJson = process.argv.includes('--json');
const unknown = names.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`there is no benchmark ${unknown.join(', ')}; there are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}

// A promise that never settles would otherwise end the process with 0.
process.exitCode = 1;
for (const [name, open] of Object.entries(benches)) {
  if (names.length > 0 && !names.includes(name)) continue;
  await (await open())(print);
}
process.exitCode = 0;

function print(figure: Figure): void {
  if (asJson) {
    console.log(JSON.stringify(figure));
    return;
  }
  const { name, value, unit, baseline } = figure;
  const compared = baseline
    ? `  ${baseline.ratio} x ${baseline.name} (${baseline.value} ${baseline.unit})`
    : '';
  console.log(`${name.padEnd(40)} ${String(value).padStart(10)} ${unit}${compared}`);
}
