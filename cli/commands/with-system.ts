import { openLog } from '../log.ts';
import { type Output, openOutput } from '../output.ts';
import { readSettings, type Settings } from '../settings.ts';
import { type OpenOptions, openSystem, type System } from '../system.ts';

/** Opens the system for one command, closes it in any case, and sets the exit code that the command returns. */
export async function withSystem(
  options: { json: boolean },
  work: (system: System, output: Output) => Promise<number>,
  open: OpenOptions = {},
  settings: Settings = readSettings(),
): Promise<void> {
  const log = openLog({ level: settings.logLevel === 'info' ? 'warn' : settings.logLevel, part: 'command' });
  const system = await openSystem(settings, log, open);
  let code: number;
  try {
    code = await work(system, openOutput(options.json));
  } finally {
    await system.close();
  }
  process.exitCode = code;
}
