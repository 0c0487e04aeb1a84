import type { Bench, Figure } from './figure.ts';

/** `npm run bench -- <name>... [--json] [--lines=20000]`: without a name, all of them. */
const benches: Record<string, () => Promise<Bench>> = {
  ingest: async () => {
    const { ingestBench } = await import('./ingest.ts');
    return (report) => ingestBench(report, { lines: numberOf('lines') ?? 200_000 });
  },
  'ingest-growth': async () => {
    const { ingestGrowthBench } = await import('./ingest.ts');
    return (report) => ingestGrowthBench(report, { lines: numberOf('lines') ?? 4_000_000 });
  },
  reconcile: async () => {
    const { reconcileBench } = await import('./reconcile.ts');
    return (report) => reconcileBench(report, { lines: numberOf('lines') ?? 1_000_000 });
  },
  audit: async () => {
    const { auditBench } = await import('./audit.ts');
    return (report) => auditBench(report, { lines: numberOf('lines') ?? 200_000 });
  },
  decode: async () => {
    const { decodeBench } = await import('./decode.ts');
    return (report) => decodeBench(report, { lines: numberOf('lines') ?? 200_000 });
  },
  deliver: async () => {
    const { deliverBench } = await import('./deliver.ts');
    return (report) => deliverBench(report, { lines: numberOf('lines') ?? 200_000 });
  },
  notify: async () => {
    const { notifyBench } = await import('./notify.ts');
    return (report) => notifyBench(report, { messages: numberOf('messages') ?? 20_000 });
  },
  'pay-page': async () => {
    const { payPageBench } = await import('./pay-page.ts');
    return (report) => payPageBench(report, { seconds: numberOf('seconds') ?? 10 });
  },
  morning: async () => {
    const { morningBench } = await import('./morning.ts');
    return (report) => morningBench(report, { messages: numberOf('messages') ?? 200_000 });
  },
  charge: async () => {
    const { chargeBench } = await import('./charge.ts');
    return (report) => chargeBench(report, { lines: numberOf('lines') ?? 50_000 });
  },
  'charge-growth': async () => {
    const { chargeGrowthBench } = await import('./charge.ts');
    return (report) => chargeGrowthBench(report, { lines: numberOf('lines') ?? 1_000_000 });
  },
  'rate-limit': async () => {
    const { rateLimitBench } = await import('./rate-limit.ts');
    return (report) => rateLimitBench(report, { lines: numberOf('lines') ?? 6_000 });
  },
  plan: async () => {
    const { planBench } = await import('./plan.ts');
    return (report) => planBench(report, { lines: numberOf('lines') ?? 1_000_000 });
  },
  check: async () => (await import('./check.ts')).checkBench,
};

/** `--lines=20000`: smaller than what is quoted, to see that it runs. */
function numberOf(option: string): number | undefined {
  const given = process.argv.find((argument) => argument.startsWith(`--${option}=`));
  if (given === undefined) return undefined;
  const value = Number(given.slice(given.indexOf('=') + 1));
  if (Number.isSafeInteger(value) && value > 0) return value;
  console.error(`--${option} must be a whole number greater than 0`);
  return process.exit(2);
}

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
