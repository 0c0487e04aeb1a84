import { Refusal } from '../refusal.ts';

/** Which of the bills that the gate parked may go on; each condition narrows it. */
export interface ReleaseRule {
  reason: 'AMOUNT_UNUSUAL' | 'BILLED_TWICE' | null;
  /** Name of the file that brought them. */
  file: string | null;
  amountAtMost: number | null;
  /** The amount against the usual one. */
  timesAtMost: number | null;
}

const next =
  'Write conditions with commas between: reason=AMOUNT_UNUSUAL or reason=BILLED_TWICE, file=<name>, amount<=50000, times<=20.';

/** Reads `reason=AMOUNT_UNUSUAL,times<=20`. Refusal RULE_WRONG. */
export function parseReleaseRule(text: string): ReleaseRule {
  const rule: ReleaseRule = { reason: null, file: null, amountAtMost: null, timesAtMost: null };
  for (const part of text.split(',').map((each) => each.trim())) {
    const [, key = '', value = ''] = /^(reason=|file=|amount<=|times<=)(.+)$/.exec(part) ?? [];
    const number = /^[1-9][0-9]{0,8}$/.test(value) ? Number(value) : null;
    if (key === 'reason=' && (value === 'AMOUNT_UNUSUAL' || value === 'BILLED_TWICE')) rule.reason = value;
    else if (key === 'file=' && value.length <= 255) rule.file = value;
    else if (key === 'amount<=' && number !== null) rule.amountAtMost = number;
    else if (key === 'times<=' && number !== null) rule.timesAtMost = number;
    else {
      throw new Refusal('RULE_WRONG', `${JSON.stringify(part.slice(0, 60))} is no condition of a rule`, {
        next,
        exitCode: 2,
      });
    }
  }
  return rule;
}
