import fs from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { applyMerchant } from '../../billing/merchants/apply.ts';
import { listMerchants, merchantByCode } from '../../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../../billing/merchants/settings.ts';
import { costlyTexts } from '../../billing/messages/texts.ts';
import { Refusal } from '../../billing/refusal.ts';
import { layoutBeside } from '../layout-file.ts';
import { operatorName } from '../operator.ts';
import type { System } from '../system.ts';
import { withSystem } from './with-system.ts';

export function addMerchantCommands(program: Command): void {
  const merchant = program.command('merchant').description('the utilities that bill');
  merchant
    .command('apply')
    .argument('<file.yaml...>', 'settings files; all are checked before any is applied')
    .description('creates or updates merchants; wrong or unknown settings are refused with path and reason')
    .addHelpText('after', '\nExample:\n  $ seikyu merchant apply merchants/*.yaml')
    .action((files: string[], options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        const applied = await applyFiles(system, files);
        output.document(applied);
        output.rows('', ['merchant', 'applied', 'version', 'file'], applied, '');
        for (const { file, warnings } of applied) {
          for (const warning of warnings) output.line(`warning: ${file}: ${warning}`);
        }
        return 0;
      }),
    );
  merchant
    .command('list')
    .description('all merchants')
    .addHelpText('after', '\nExample:\n  $ seikyu merchant list')
    .action((options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const merchants = await listMerchants(db);
        output.document(
          merchants.map(({ code, settingsVersion, settings }) => ({ code, settingsVersion, settings })),
        );
        output.rows(
          '',
          ['merchant', 'name', 'layout', 'timezone', 'version'],
          merchants.map(({ code, settings, settingsVersion }) => ({
            merchant: code,
            name: settings.name.ja,
            layout: settings.layout,
            timezone: settings.timezone,
            version: settingsVersion,
          })),
          'No merchants. Apply a settings file: seikyu merchant apply <file.yaml>',
        );
        return 0;
      }),
    );
  merchant
    .command('show')
    .argument('<code>', 'the merchant’s code')
    .description('a merchant’s current settings, defaults filled in')
    .addHelpText('after', '\nExample:\n  $ seikyu merchant show minato-gas')
    .action((code: string, options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const found = await merchantByCode(db, code);
        output.document({
          code: found.code,
          settingsVersion: found.settingsVersion,
          settings: found.settings,
        });
        output.line(`${found.code}, settings version ${found.settingsVersion}`);
        output.line(JSON.stringify(found.settings, null, 2));
        return 0;
      }),
    );
}

export interface AppliedFile extends Record<string, unknown> {
  merchant: string;
  applied: string;
  version: number;
  file: string;
  warnings: string[];
}

/** Checks all files before it applies the first. Relative paths are relative to the file, keys to SEIKYU_HOME. */
export async function applyFiles(system: System, files: readonly string[]): Promise<AppliedFile[]> {
  const parsed = files.map((file) => {
    const path = resolve(file);
    const { settings, warnings } = parseMerchantSettings(readSettingsFile(path), {
      path: file,
      readable: (keyFile) => readableKey(isAbsolute(keyFile) ? keyFile : join(system.settings.home, keyFile)),
      layout: layoutBeside(dirname(path)),
    });
    // /l/, the short code and 22 characters of the token.
    const linkLength = system.settings.baseUrl.length + '/l/1'.length + 22;
    const { languages, pricePerSegmentYen: price } = settings.notify;
    const costly = costlyTexts({ name: settings.name, languages, linkLength, own: settings.texts });
    return {
      file,
      settings,
      warnings: [
        ...warnings.map(({ path: place, reason }) => (place === '' ? reason : `${place}: ${reason}`)),
        ...costly.map(
          ({ kind, language, segments }) =>
            `the ${language} text "${kind}" needs ${segments.count} SMS segments: each one is paid for${price ? `, ${(segments.count * price).toFixed(2)} yen an SMS` : ''}`,
        ),
      ],
    };
  });
  const applied: AppliedFile[] = [];
  for (const { file, settings, warnings } of parsed) {
    const result = await applyMerchant(system.ports, settings, operatorName());
    applied.push({
      merchant: settings.code,
      applied: result.applied,
      version: result.version,
      file,
      warnings,
    });
  }
  return applied;
}

function readSettingsFile(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (cause) {
    throw new Refusal('SETTINGS_FILE_UNREADABLE', `${path} cannot be read`, {
      next: 'Check the path and its rights.',
      exitCode: 2,
      cause,
    });
  }
}

function readableKey(path: string): 'ok' | 'missing' | 'readable_by_others' {
  if (!fs.existsSync(path)) return 'missing';
  return (fs.statSync(path).mode & 0o077) === 0 ? 'ok' : 'readable_by_others';
}
