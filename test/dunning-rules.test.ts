import fs from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  adviceRules,
  type Ceiling,
  ceilings,
  defaultCeilings,
  gatewayAdviceRules,
  gatewayRules,
  networkRules,
  type RuleTable,
} from '../billing/dunning/card-retry-rules.ts';

const page = join(import.meta.dirname, '../docs/retry-rules.md');

function tableOf(title: string, table: RuleTable): string {
  const rows = Object.entries(table.codes).map(([code, rule]) => {
    const wait = rule.afterHours === undefined ? '' : `, not before ${rule.afterHours} h`;
    return `| \`${code}\` | ${rule.verdict}${wait} | ${rule.why} |`;
  });
  return [
    `### ${title}`,
    '',
    `${table.source}; edition ${table.edition}; ${table.confidence}.`,
    '',
    '| code | verdict | why |',
    '|---|---|---|',
    ...rows,
  ].join('\n');
}

const ceilingRow = (network: string) => (ceiling: Ceiling) =>
  `| ${network} | ${ceiling.attempts} in ${ceiling.hours} h | ${ceiling.source} |`;

const each = (kind: string, tables: Readonly<Record<string, RuleTable>>): string[] =>
  Object.entries(tables)
    .filter(([name]) => name !== 'simulator')
    .map(([name, table]) => tableOf(`${kind}: ${name}`, table));

/** UPDATE_DOCS=1 writes the tables anew from the rules. */
test('the page of retry rules says what the rules say', () => {
  const wanted = [
    ...each('Response codes', networkRules),
    ...each('Advice', adviceRules),
    ...each('Gateway codes', gatewayRules),
    ...each('Gateway advice', gatewayAdviceRules),
    [
      '### Ceilings',
      '',
      '| network | attempts | source |',
      '|---|---|---|',
      ...Object.entries(ceilings).flatMap(([network, list]) => list.map(ceilingRow(network))),
      ...defaultCeilings.map(ceilingRow('all others')),
    ].join('\n'),
  ].join('\n\n');
  const text = fs.readFileSync(page, 'utf8');
  const [start, end] = ['<!-- rules: written by test/dunning-rules.test.ts -->', '<!-- /rules -->'];
  const from = text.indexOf(start) + start.length;
  const to = text.indexOf(end);
  expect(text.indexOf(start)).toBeGreaterThan(0);
  if (process.env.UPDATE_DOCS === '1') {
    fs.writeFileSync(page, `${text.slice(0, from)}\n\n${wanted}\n\n${text.slice(to)}`);
  } else {
    expect(text.slice(from, to).trim()).toBe(wanted);
  }
});
