import type { Command } from 'commander';
import type { Process } from '../program.ts';
import { addFileRecallCommand } from './file-recall.ts';

export function addFileCommands(program: Command, process: Process): void {
  const files = program.command('file').description('files that merchants sent');
  addFileRecallCommand(files, process);
}
