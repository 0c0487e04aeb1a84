import { type Command, Option } from 'commander';
import type { ChainHead } from '../../billing/audit/chain.ts';
import { lastEntries } from '../../billing/audit/queries.ts';
import { type AuditVerified, verifyAudit } from '../../billing/audit/verify.ts';
import { listMerchants, merchantByCode } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { localTime, type Output } from '../output.ts';
import { withSystem } from './with-system.ts';

interface VerifyOptions {
  json: boolean;
  merchant: string;
  head?: ChainHead;
  fromMonth?: string;
}

export function addAuditCommands(program: Command): void {
  const audit = program
    .command('audit')
    .description('the audit log: what every job, visit, webhook and command wrote, chained by hash');
  audit
    .command('verify')
    .description('finds rows of ledger, history and audit log that were changed, removed, inserted or moved')
    .option('--merchant <code>', 'one merchant', 'all')
    .addOption(
      new Option('--head <no:hash>', 'a head kept elsewhere, as a tie-out has it; with --merchant').argParser(
        parseHead,
      ),
    )
    .addOption(
      new Option(
        '--from-month <YYYY-MM>',
        'from this month on, where older ones are no longer kept',
      ).argParser(parseMonth),
    )
    .addHelpText(
      'after',
      `
Exit code 1 when something is not as it was sealed.

Examples:
  $ seikyu audit verify
  $ seikyu audit verify --merchant minato-gas --head 41:5d1f3c...07`,
    )
    .action((options: VerifyOptions) =>
      withSystem(options, async (system, output) => {
        const { db, ports } = system;
        if (options.head !== undefined && options.merchant === 'all')
          throw new Refusal('AUDIT_HEAD_OF_WHOM', 'a head belongs to the chain of one merchant', {
            next: 'Say whose it is: --merchant <code>, as the name of the tie-out has it.',
            exitCode: 2,
          });
        const merchants =
          options.merchant === 'all' ? await listMerchants(db) : [await merchantByCode(db, options.merchant)];
        const verified: AuditVerified[] = [];
        for (const merchant of merchants) {
          await ports.clock.refresh();
          verified.push(
            await verifyAudit(db, {
              merchant,
              now: ports.clock.now(),
              head: options.head ?? null,
              fromMonth: options.fromMonth ?? null,
            }),
          );
        }
        return tell(verified, output);
      }),
    );
  audit
    .command('log')
    .description('the last entries of a merchant, the newest first')
    .requiredOption('--merchant <code>', 'whose log')
    .addOption(new Option('--limit <count>', 'so many entries').argParser(parseLimit).default(20))
    .addHelpText('after', '\nExample:\n  $ seikyu audit log --merchant minato-gas --limit 50')
    .action((options: { json: boolean; merchant: string; limit: number }) =>
      withSystem(options, async ({ db }, output) => {
        const { id, settings } = await merchantByCode(db, options.merchant);
        const entries = await lastEntries(db, id, options.limit);
        output.document(entries);
        output.rows(
          '',
          ['no', 'at', 'kind', 'actor', 'transfers', 'history', 'hash'],
          entries.map((entry) => ({
            ...entry,
            at: localTime(entry.at, settings.timezone),
            transfers: entry.transfers.count,
            history: entry.history.count,
            hash: `${entry.hash.slice(0, 12)}...`,
          })),
          'Nothing was sealed yet.',
        );
        return 0;
      }),
    );
}

function tell(verified: readonly AuditVerified[], output: Output): number {
  const holds = verified.every((merchant) => merchant.holds);
  output.document({ ok: holds, merchants: verified });
  output.rows(
    '',
    ['merchant', 'holds', 'entries', 'head'],
    verified.map(({ merchant, holds: isWhole, entries, head }) => ({
      merchant,
      holds: isWhole ? 'yes' : 'NO',
      entries,
      head: `${head.no}:${head.hash}`,
    })),
    'There is no merchant.',
  );
  for (const { merchant, findings } of verified) {
    for (const finding of findings) {
      output.line(`${merchant} ${finding.what}: ${finding.detail}`);
      if (finding.actId !== null)
        output.line(`  act ${finding.actId} ${finding.actor ?? ''} ${finding.at ?? ''}`);
      if (finding.candidates.length > 0) output.line(`  its rows now: ${finding.candidates.join(', ')}`);
    }
  }
  output.line(
    holds
      ? 'Every act stands as it was sealed. Keep the heads elsewhere to compare with later.'
      : 'Something was changed behind the program: compare with a backup before anything else is done.',
  );
  return holds ? 0 : 1;
}

function parseHead(text: string): ChainHead {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (match?.[2] !== undefined) return { no: Number(match[1]), hash: match[2] };
  throw new Refusal(
    'AUDIT_HEAD_MALFORMED',
    `${JSON.stringify(text.slice(0, 100))} is not the head of a chain`,
    {
      next: 'Write number and hash of "audit" in a tie-out as <no>:<64 hex digits>.',
      exitCode: 2,
    },
  );
}

function parseMonth(text: string): string {
  if (/^\d{4}-(0[1-9]|1[0-2])$/.test(text)) return text;
  throw new Refusal('MONTH_WRONG', `${JSON.stringify(text.slice(0, 40))} is not a month`, {
    next: 'Write it as YYYY-MM, for example 2026-11.',
    exitCode: 2,
  });
}

function parseLimit(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new Refusal('LIMIT_WRONG', `${JSON.stringify(text.slice(0, 40))} is not a number of entries`, {
    next: 'Write a whole number from 1 to 999999.',
    exitCode: 2,
  });
}
