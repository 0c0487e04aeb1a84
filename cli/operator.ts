import { hostname, userInfo } from 'node:os';

/** Who gave a command: the account on the machine, for the act's row. */
export function operatorName(): string {
  let user: string;
  try {
    user = userInfo().username;
  } catch {
    // A container may run under a user id without a name.
    user = `uid ${process.getuid?.() ?? '?'}`;
  }
  return `${user}@${hostname()}`;
}
