import { Temporal } from 'temporal-polyfill';
import type { DeclineCodes } from '../gateways/gateway.ts';
import {
  adviceRules,
  type Ceiling,
  ceilings,
  defaultCeilings,
  gatewayAdviceRules,
  gatewayRules,
  networkRules,
  type RuleTable,
  type RuleVerdict,
} from './card-retry-rules.ts';

/** The rule that decided, kept with the attempt so that it can be explained years later. */
export interface AppliedRule {
  source: string;
  edition: string;
  code: string;
  why: string;
}

/**
 * What may be done after a declined charge. `retry_at` with a null instant: whenever the merchant's policy says.
 * `no_rule`: not one of the codes is known, so a person decides and nothing is retried.
 */
export type Verdict =
  | { kind: 'retry_at'; notBefore: Temporal.Instant | null; rule: AppliedRule }
  | { kind: 'needs_customer'; rule: AppliedRule }
  | { kind: 'never_this_method'; rule: AppliedRule }
  | { kind: 'stop'; rule: AppliedRule }
  | { kind: 'no_rule'; unknownCodes: string[] };

interface Declined {
  /** The gateway's name, as its adapter gives it. */
  gateway: string;
  codes: DeclineCodes;
  /** When the charge was declined: waits count from here. */
  at: Temporal.Instant;
  /**
   * Every attempt, this one included, made with this card and amount in the last 30 days: the customer's own ones
   * count too. With it a retry never comes earlier than the network's ceiling allows.
   */
  attemptsAt?: readonly Temporal.Instant[];
}

interface Finding {
  verdict: RuleVerdict;
  notBefore: Temporal.Instant | null;
  rule: AppliedRule;
}

const STRICTEST_FIRST: readonly RuleVerdict[] = ['never_this_method', 'stop', 'needs_customer', 'retry_at'];

/** The strictest of what network, advice and gateway say; among waits the longest. */
export function verdictOf(declined: Declined): Verdict {
  const { codes, gateway } = declined;
  const network = codes.network?.toLowerCase() ?? '';
  const findings: Finding[] = [];
  const unknownCodes: string[] = [];

  const look = (owner: string, code: string | null, tables: (RuleTable | undefined)[]) => {
    if (code === null || code === '') return;
    let known = false;
    for (const table of tables) {
      const rule = table === undefined || !Object.hasOwn(table.codes, code) ? undefined : table.codes[code];
      if (table === undefined || rule === undefined) continue;
      known = true;
      findings.push({
        verdict: rule.verdict,
        notBefore: rule.afterHours === undefined ? null : declined.at.add({ hours: rule.afterHours }),
        rule: { source: table.source, edition: table.edition, code, why: rule.why },
      });
    }
    if (!known) unknownCodes.push(`${owner}:${code}`);
  };
  look(gateway, codes.gatewayCode, [own(gatewayRules, gateway)]);
  look(network, codes.networkCode, [own(networkRules, network)]);
  look(`${network}-advice`, codes.adviceCode, [own(adviceRules, network), own(gatewayAdviceRules, gateway)]);

  const strictest = STRICTEST_FIRST.find((verdict) =>
    findings.some((finding) => finding.verdict === verdict),
  );
  if (strictest === undefined) return { kind: 'no_rule', unknownCodes };
  const deciding = findings.filter((finding) => finding.verdict === strictest).reduce(later);
  if (strictest !== 'retry_at') return { kind: strictest, rule: deciding.rule };

  const room = ceilingAllows({
    network: codes.network,
    attemptsAt: declined.attemptsAt ?? [],
    at: deciding.notBefore ?? declined.at,
  });
  if (room.allowed) return { kind: 'retry_at', notBefore: deciding.notBefore, rule: deciding.rule };
  const { ceiling, from } = room;
  const why = `${deciding.rule.why}; the network allows ${ceiling.attempts} attempts in ${ceiling.hours} hours`;
  return { kind: 'retry_at', notBefore: from, rule: { ...deciding.rule, why } };
}

export type CeilingAnswer =
  | { allowed: true }
  /** One more attempt is allowed from this instant on. */
  | { allowed: false; from: Temporal.Instant; ceiling: Ceiling };

/** Whether one more attempt at an instant stays under the network's ceilings for one card and amount. */
export function ceilingAllows(question: {
  network: string | null;
  attemptsAt: readonly Temporal.Instant[];
  at: Temporal.Instant;
}): CeilingAnswer {
  const rules = own(ceilings, question.network?.toLowerCase() ?? '') ?? defaultCeilings;
  const newestFirst = [...question.attemptsAt].sort((one, other) => Temporal.Instant.compare(other, one));
  let answer: CeilingAnswer = { allowed: true };
  for (const ceiling of rules) {
    // Room comes when the oldest of the last `attempts` ones has left the window.
    const oldest = newestFirst[ceiling.attempts - 1];
    if (oldest === undefined) continue;
    const from = oldest.add({ hours: ceiling.hours });
    if (Temporal.Instant.compare(question.at, from) >= 0) continue;
    if (answer.allowed || Temporal.Instant.compare(from, answer.from) > 0) {
      answer = { allowed: false, from, ceiling };
    }
  }
  return answer;
}

/** The first whole day that is not before the instant: a charge may run at any hour of its day. */
export function firstWholeDayFrom(instant: Temporal.Instant, zone: string): Temporal.PlainDate {
  const local = instant.toZonedDateTimeISO(zone);
  const startsToday = Temporal.ZonedDateTime.compare(local.startOfDay(), local) === 0;
  return startsToday ? local.toPlainDate() : local.toPlainDate().add({ days: 1 });
}

function later(one: Finding, other: Finding): Finding {
  if (other.notBefore === null) return one;
  if (one.notBefore === null) return other;
  return Temporal.Instant.compare(other.notBefore, one.notBefore) > 0 ? other : one;
}

/** A code from outside such as `constructor` must not find what every object inherits. */
function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
