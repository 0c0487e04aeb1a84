import { Refusal } from '../../billing/refusal.ts';

/** A whole number as a person types it: `211540` or `211,540`. Refusal NUMBER_WRONG. */
export function parseCount(text: string): number {
  const digits = text.trim().replaceAll(',', '');
  if (/^\d{1,15}$/.test(digits)) return Number(digits);
  throw new Refusal('NUMBER_WRONG', `${JSON.stringify(text.slice(0, 40))} is not a whole number`, {
    next: 'Write digits only, for example 211540.',
    exitCode: 2,
  });
}
