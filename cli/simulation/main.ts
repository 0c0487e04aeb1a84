import { openLog } from '../log.ts';
import { answerTasks } from './worker.ts';

// A worker of `seikyu simulate`: seeds come as messages, results go back. It ends with whoever started it.
answerTasks(openLog({ level: 'warn', part: 'simulation' }));
