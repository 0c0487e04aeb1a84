import { createHash } from 'node:crypto';
import type { SettlementLine } from '../gateways/gateway.ts';
import { idBehind } from '../ids.ts';
import type { ReportKey, ReportTotals } from './queries.ts';

const pieceCharacters = 65_536;

/**
 * A report as COPY takes it into its table, a line for each: what was checked once as it came in is written once, and is
 * not read again by us. Adds up `totals` on the way; the digest is there at the end.
 */
export async function* spooledReport(
  report: ReportKey,
  lines: AsyncIterable<SettlementLine>,
  totals: ReportTotals,
): AsyncIterable<Uint8Array> {
  const digest = createHash('sha256');
  const start = `${report.merchantId}\t${copyText(report.gateway)}\t${report.date}\t`;
  let text = '';
  const taken = (): Uint8Array => {
    const piece = Buffer.from(text, 'utf8');
    digest.update(piece);
    text = '';
    return piece;
  };
  for await (const line of lines) {
    totals.lines += 1;
    totals.amount += line.kind === 'charge' ? line.amount : -line.amount;
    totals.fee += line.fee;
    totals.feeTax += line.feeTax;
    text += `${start}${totals.lines}\t${copyText(line.gatewayChargeId)}\t${copyText(line.reference)}\t${
      idBehind(line.reference) ?? '\\N'
    }\t${copyText(line.kind)}\t${line.amount}\t${copyText(line.currency)}\t${line.fee}\t${line.feeTax}\t${copyText(line.capturedAt)}\n`;
    if (text.length > pieceCharacters) yield taken();
  }
  yield taken();
  totals.digest = digest.digest('hex');
}

export const noLines = (): ReportTotals => ({ lines: 0, amount: 0, fee: 0, feeTax: 0, digest: '' });

function copyText(value: string | null): string {
  if (value === null) return '\\N';
  return /[\\\t\n\r]/.test(value)
    ? value.replace(/[\\\t\n\r]/g, (character) => copyEscapes[character] ?? '')
    : value;
}
const copyEscapes: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
