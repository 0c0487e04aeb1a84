import { CommanderError } from 'commander';
import { reportFailure, wrongUsage } from './output.ts';
import { buildProgram, everyCommand } from './program.ts';

// A promise that never settles would end the process with 0: the code for success is set at the proven end only.
process.exitCode = 1;

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    console.error('Stopping in order; press Ctrl-C again to stop at once.');
    stop.abort(new Error(`stopped by ${signal}`));
  });
}
// `seikyu runs | head` closes the pipe early: that is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const json = process.argv.includes('--json');
const program = buildProgram({ stop: stop.signal });
if (json) {
  for (const command of everyCommand(program)) {
    command.showHelpAfterError(false);
    command.configureOutput({ outputError: (text, write) => write(wrongUsage(text)) });
  }
}
try {
  await program.parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    // Help and version are done; everything else that commander ends is wrong usage.
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.exitCode = reportFailure(error, json);
  }
}
// Sockets that a stopped part may still hold must not keep a finished command alive.
if (process.exitCode !== undefined) setTimeout(() => process.exit(), 2_000).unref();
