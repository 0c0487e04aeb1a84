import fs from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { causes } from '../billing/alerts/causes.ts';
import { invariants, outsideInvariants } from '../billing/checks/invariants.ts';
import { crashPoints } from '../billing/crash-points.ts';
import { events } from '../billing/ledger/ledger.ts';
import { parseMerchantSettings, SettingsRefusal } from '../billing/merchants/settings.ts';
import { findingRules } from '../billing/reconciliation/findings.ts';
import { processes } from '../billing/trace/processes.ts';
import {
  type OffSession,
  type OnPage,
  TEST_CARDS,
  type Updater,
} from '../cli/demo/gateway-simulator/cards.ts';
import { buildProgram, everyCommand } from '../cli/program.ts';
import { sabotageByName, sabotages } from '../cli/simulation/sabotage.ts';
import { fieldsOf } from '../files/layouts/fields.ts';
import { parseLayout } from '../files/layouts/layout.ts';
import { namedInward, namedOutward } from '../files/layouts/names.ts';
import { catalogue } from '../files/standard/catalogue.ts';
import { inwardKinds } from '../files/standard/names.ts';
import { jobNames } from '../jobs/job.ts';
import { jobs } from '../jobs/jobs.ts';
import { type Timed, timetable } from '../jobs/schedule.ts';
import { checkout, filesUnder, read } from './source.ts';

/**
 * The documentation tells of everything that people and scripts rely on, and of nothing that does not exist. Parts that
 * follow from the program are written by: UPDATE_DOCS=1 npx vitest run test/docs.test.ts
 */

/** Compares the part between `<!-- name: ... -->` and `<!-- /name -->` with what it should be. */
function expectGenerated(path: string, name: string, content: string): void {
  const text = read(path);
  const start = text.indexOf('-->', text.indexOf(`<!-- ${name}:`)) + 4;
  const end = text.indexOf(`<!-- /${name} -->`);
  expect(start, `${path} has a place for ${name}`).toBeGreaterThan(4);
  const wanted = `\n${content.trim()}\n\n`;
  if (process.env.UPDATE_DOCS === '1') {
    fs.writeFileSync(join(checkout, path), text.slice(0, start) + wanted + text.slice(end));
  } else {
    expect(text.slice(start, end)).toBe(wanted);
  }
}

/** The words in backquotes of a column (from 0) of all tables of a page. */
function tableColumn(path: string, column: number, underHeading?: string): string[] {
  let rows = read(path).split('\n');
  if (underHeading !== undefined) {
    const from = rows.findIndex((row) => row.startsWith('#') && row.endsWith(underHeading));
    expect(from, `${path} has a heading ${underHeading}`).toBeGreaterThan(-1);
    const to = rows.findIndex((row, index) => index > from && row.startsWith('#'));
    rows = rows.slice(from, to === -1 ? undefined : to);
  }
  return rows
    .filter((row) => row.startsWith('|') && !/^\|[-|: ]+\|$/.test(row))
    .flatMap((row) =>
      [...(row.split('|')[column + 1] ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ''),
    );
}

const sorted = (names: Iterable<string>): string[] => [...new Set(names)].sort();

describe('commands', () => {
  const program = buildProgram({ stop: new AbortController().signal });
  const commands = [...everyCommand(program)].filter((command) => command.commands.length === 0);

  const nameOf = (command: Command): string =>
    command.parent ? `${nameOf(command.parent)} ${command.name()}` : command.name();
  const helpOf = (command: Command): string => {
    let help = '';
    command.configureOutput({
      writeOut: (text) => {
        help += text;
      },
      getOutHelpWidth: () => 110,
      getOutHasColors: () => false,
    });
    command.outputHelp();
    return help;
  };

  test.each(commands.map((command) => [nameOf(command), command] as const))(
    '%s has a description, an example, --json, and options that say what they do',
    (name, command) => {
      expect(command.description()).not.toBe('');
      expect(helpOf(command)).toMatch(
        new RegExp(`Examples?:\\n( +\\$ .*\\n)* +\\$ (\\S+=\\S+ )?${name.replace(/ list$/, '( list)?')}\\b`),
      );
      expect(command.options.map((option) => option.long)).toContain('--json');
      for (const option of command.options) expect(option.description, option.flags).not.toBe('');
      for (const argument of command.registeredArguments)
        expect(argument.description, argument.name()).not.toBe('');
    },
  );

  test('the page of commands is what the program says', () => {
    const pages = commands.map(
      (command) => `## ${nameOf(command)}\n\n\`\`\`\n${helpOf(command).trim()}\n\`\`\``,
    );
    expectGenerated('docs/commands.md', 'commands', pages.join('\n\n'));
  });

  test('commands named in the documentation exist', () => {
    const known = new Set([...everyCommand(program)].map(nameOf));
    const wrong = pages().flatMap((path) =>
      [...read(path).matchAll(/(?:npx |`)seikyu ([a-z]+)(?: ([a-z]+))?/g)]
        .filter(
          ([, first, second]) => !known.has(`seikyu ${first} ${second}`) && !known.has(`seikyu ${first}`),
        )
        .map(([text]) => `${path}: ${text}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('jobs', () => {
  const whenOf = (timed: Timed): string => {
    const every = timed.everyMinutes ?? 0;
    const pace = every === 60 ? 'hourly' : every % 60 === 0 ? `every ${every / 60} h` : `every ${every} min`;
    return timed.first === '00:05' ? pace : `${timed.first} to ${timed.last}, ${pace}`;
  };

  test('each has its row with its times and what wants a person', () => {
    const rows = read('docs/operating.md').split('\n');
    for (const job of jobNames) {
      const row = rows.find((line) => line.startsWith(`| \`${job}\``));
      expect(row, job).toBeDefined();
      for (const timed of timetable.filter((entry) => entry.job === job))
        expect(row).toContain(`| ${whenOf(timed)} |`);
      const counts = [...(row?.split('|')[4] ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1]);
      expect(counts, job).toEqual([...jobs[job].attention]);
    }
    expect(tableColumn('docs/operating.md', 0, 'The billing day').filter((name) => name !== '')).toEqual(
      timetable.map(({ job }) => job),
    );
  });
});

describe('settings', () => {
  test('every setting of the environment has its row, and every row its setting', () => {
    const known = [...read('cli/settings.ts').matchAll(/^ {4}([A-Z][A-Z_]+): /gm)].map(
      (match) => match[1] ?? '',
    );
    expect(known.length).toBeGreaterThan(8);
    expect(sorted(tableColumn('docs/settings.md', 0))).toEqual(sorted(known));
  });

  test('every variable of the environment that the program reads is known', () => {
    const page = read('docs/settings.md');
    const variables = ['cli/settings.ts', 'cli/system.ts'].flatMap((path) =>
      [...read(path).matchAll(/process\.env\.([A-Z_]+)/g)].map((match) => match[1] ?? ''),
    );
    expect(variables.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  /** Asked from the parser itself: it lists the known keys where it meets one that it does not know. */
  function merchantKeys(path: readonly string[] = []): string[] {
    const stranger = 'zzzzzzzzzzzz';
    const yaml = [...path, stranger].map((key, depth) => `${'  '.repeat(depth)}${key}:`).join('\n');
    try {
      parseMerchantSettings(`${yaml} 1\n`, { path: 'x', readable: () => 'ok', layout: () => undefined });
    } catch (error) {
      if (!(error instanceof SettingsRefusal)) throw error;
      const told = error.problems.find((problem) => problem.path === [...path, stranger].join('.'));
      const keys = /known here: (.*)$/.exec(told?.reason ?? '')?.[1]?.split(', ') ?? [];
      if (keys.length === 0) return [path.join('.')];
      return keys.flatMap((key) => merchantKeys([...path, key]));
    }
    return [];
  }

  test('every key of a merchant has its row, and every row its key', () => {
    const keys = merchantKeys();
    expect(keys).toContain('dunning.card.attempts');
    const page = tableColumn('docs/merchants.md', 0);
    // The parts of direct debit stand together in one row until they are of effect.
    const debit = 'autopay.direct_debit';
    expect(sorted(page)).toEqual(sorted(keys.map((key) => (key.startsWith(`${debit}.`) ? debit : key))));
    const row = read('docs/merchants.md')
      .split('\n')
      .find((line) => line.includes(`| \`${debit}\``));
    for (const key of keys.filter((name) => name.startsWith(`${debit}.`)))
      expect(row).toContain(
        `\`${key.split('.').at(-1)}\``.replace(/`(host|port|username|private_key_file|host_keys)`/, '`sftp`'),
      );
  });
});

describe('alerts', () => {
  const within = (minutes: number): string =>
    minutes === 0
      ? 'at once'
      : minutes % 1440 === 0
        ? `${minutes / 1440} d`
        : minutes % 60 === 0
          ? `${minutes / 60} h`
          : `${minutes} min`;

  test('the table of causes is the one that notices are made of', () => {
    const rows = Object.entries(causes).map(
      ([cause, { level, next, over }]) => `| \`${cause}\` | ${level} | ${next} | ${over ?? 'a person'} |`,
    );
    expectGenerated(
      'docs/alerts.md',
      'causes',
      ['| cause | level | what to do | closed by |', '|---|---|---|---|', ...rows].join('\n'),
    );
  });

  test('the table of what is traced is the one that trace goes by', () => {
    const rows = processes.map(
      ({ what, minutes, cause, safely }) =>
        `| ${what} | ${within(minutes)} | ${cause === null ? '' : `\`${cause}\``} | ${safely} |`,
    );
    expectGenerated(
      'docs/alerts.md',
      'processes',
      ['| what | may take | alert | moved by itself |', '|---|---|---|---|', ...rows].join('\n'),
    );
    expect(processes.filter(({ cause }) => cause !== null && causes[cause] === undefined)).toEqual([]);
  });
});

describe('files', () => {
  const codesOn = (path: string) =>
    [...read(path).matchAll(/\b[FEW]_[A-Z][A-Z_]*[A-Z]\b/g)].map((match) => match[0]);
  const filePages = () => filesUnder('docs/files', /\.md$/);

  test('every code is explained, and every code explained exists', () => {
    const explained = filePages().flatMap((path) =>
      tableColumn(path, 0).filter((word) => /^[FEW]_/.test(word)),
    );
    const mentioned = new Set(filePages().flatMap(codesOn));
    expect(Object.keys(catalogue).filter((code) => !mentioned.has(code))).toEqual([]);
    expect([...explained, ...mentioned].filter((code) => !(code in catalogue))).toEqual([]);
  });

  test('the page of codes has each of them once, with what everybody does', () => {
    expect(tableColumn('docs/files/codes.md', 0).sort()).toEqual(Object.keys(catalogue).sort());
    const rows = read('docs/files/codes.md')
      .split('\n')
      .filter((row) => /^\| `[FEW]_/.test(row));
    expect(
      rows.filter((row) => row.split('|').some((cell, at) => at > 0 && at < 5 && cell.trim() === '')),
    ).toEqual([]);
  });

  test('what the program gives stands in the tables; what it never gives is said to be reserved', () => {
    const explained = new Set(filePages().flatMap((path) => tableColumn(path, 0)));
    const given = Object.keys(catalogue).filter((code) =>
      [
        ...filesUnder('billing', /\.ts$/),
        ...filesUnder('jobs', /\.ts$/),
        ...filesUnder('files', /(?<!catalogue)\.ts$/),
      ].some((path) => read(path).includes(code)),
    );
    expect(given.filter((code) => !explained.has(code))).toEqual([]);
  });

  test('every kind that is read has its page', () => {
    const names = filePages().map((path) => path.replace('docs/files/', '').replace('.md', ''));
    expect(inwardKinds.filter((kind) => !names.includes(kind))).toEqual([]);
  });
});

test('the chart of the ledger is the one on its page', () => {
  const rows = [...read('docs/ledger.md').matchAll(/^\| `(\w+)`[^|]*\| `(\w+)` \| `(\w+)` \|$/gm)].map(
    ([, event, debit, credit]) => [event, { debit, credit }],
  );
  expect(Object.fromEntries(rows)).toEqual(events);
});

describe('what holds', () => {
  const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
    [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

  test('the invariants of check stand on the page, with what is looked at and what is not', () => {
    expectGenerated(
      'docs/reliability.md',
      'invariants',
      table(
        ['no', 'invariant', 'what check looks at', 'what no look can show'],
        invariants.map(({ id, name, looks, elsewhere }) => [id, name, looks, elsewhere]),
      ),
    );
    expectGenerated(
      'docs/reliability.md',
      'outside',
      table(
        ['no', 'with the outside’s own lists', 'at stake', 'what to do'],
        outsideInvariants.map(({ id, name, matters, next }) => [id, name, matters, next]),
      ),
    );
  });

  test('every crash point stands on the page', () => {
    const points = tableColumn('docs/reliability.md', 0).filter((word) => /^\w+\.\w+$/.test(word));
    expect(sorted(points)).toEqual(sorted(crashPoints));
  });
});

test('the kinds of findings are those that the program knows', () => {
  const holds = (rule: { holdsResults: boolean; holdsDunning: boolean }): string =>
    [rule.holdsResults ? 'its result row' : '', rule.holdsDunning ? 'dunning' : '']
      .filter(Boolean)
      .join(', ');
  const rows = Object.entries(findingRules).map(
    ([kind, rule]) =>
      `| \`${kind}\` | ${rule.means} | ${rule.owner} | ${rule.settlesItself} | ${rule.byHand} | ${holds(rule)} |`,
  );
  expectGenerated(
    'docs/reconciliation.md',
    'findings',
    [
      '| kind | what differs | owner | settles itself when | by hand | holds back |',
      '|---|---|---|---|---|---|',
      ...rows,
    ].join('\n'),
  );
});

test('the page of test cards is what the simulator does', () => {
  const grouped = (digits: string) => digits.replace(/(\d{4})(?=\d)/g, '$1 ');
  const onPage = (on: OnPage): string =>
    on.kind === 'declines'
      ? `declined: \`${on.codes.gatewayCode}\`${codesOf(on.codes)}`
      : {
          none: 'pays',
          frictionless: 'pays, 3-D Secure unseen',
          challenge: 'pays after a 3-D Secure question',
        }[on.threeDs];
  const codesOf = (codes: { networkCode: string | null; adviceCode: string | null }): string =>
    [
      codes.networkCode ? ` (${codes.networkCode}` : '',
      codes.adviceCode ? `, advice ${codes.adviceCode}` : '',
      codes.networkCode ? ')' : '',
    ].join('');
  const calls = (when: 'every' | 'odd' | { first: number }): string =>
    when === 'every'
      ? 'always'
      : when === 'odd'
        ? 'every other time'
        : when.first === 1
          ? 'once'
          : `${when.first} times`;
  const later = (off: OffSession | null): string => {
    if (off === null) return '';
    if (off.kind === 'succeeds') return 'pays';
    if (off.kind === 'declines')
      return `declined ${calls(off.calls)}: \`${off.codes.gatewayCode}\`${codesOf(off.codes)}`;
    return `${off.fault.replaceAll('_', ' ')}, ${calls(off.calls)}`;
  };
  const before = (updater: Updater): string => {
    if (updater.kind === 'unknown') return '';
    return updater.kind === 'closed' ? `closed: \`${updater.code}\`` : `replaced by \`${updater.becomes}\``;
  };
  const rows = TEST_CARDS.map(
    (card) =>
      `| ${card.name} | ${card.brand} | \`${grouped(card.pan)}\` | ${onPage(card.onPage)} | ${later(card.offSession)} | ${before(card.updater)} |`,
  );
  expectGenerated(
    'docs/test-cards.md',
    'cards',
    [
      '| name | brand | number | on the page | later | asked before |',
      '|---|---|---|---|---|---|',
      ...rows,
    ].join('\n'),
  );
});

describe('layouts', () => {
  const page = read('docs/layouts.md');

  test('the examples are layouts', () => {
    const examples = [...page.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? '');
    expect(examples).toHaveLength(2);
    expect(examples.map((yaml) => parseLayout(yaml, 'docs/layouts.md').name)).toEqual([
      'kita-denryoku/1',
      'sakura-suido/1',
    ]);
  });

  test('every key, kind of file and field of the vocabulary has its place', () => {
    const keys = [
      ...(read('files/layouts/spec.ts').split('const formShape')[1]?.split('export ')[0] ?? '').matchAll(
        /^ {2,6}([a-z_]+): (?!string|'|\w+,$)/gm,
      ),
    ].map((match) => match[1] ?? '');
    const fields = Object.values(fieldsOf).flatMap((all) => all.map(({ name }) => name));
    expect(keys).toContain('record_bytes');
    expect(
      [...keys, ...fields, ...namedInward, ...namedOutward].filter((word) => !page.includes(`\`${word}\``)),
    ).toEqual([]);
  });
});

describe('pages', () => {
  test('links inside the documentation lead somewhere', () => {
    const wrong = pages().flatMap((path) =>
      [...read(path).matchAll(/\]\(([^)\s]+)\)/g)]
        .map((match) => match[1] ?? '')
        .filter((target) => !/^[a-z]+:/.test(target))
        .filter((target) => !leads(path, target))
        .map((target) => `${path}: ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  test('files and folders named in the documentation exist', () => {
    const wrong = pages().flatMap((path) =>
      [
        ...read(path).matchAll(
          /`((?:billing|cli|files|jobs|web|migrations|test|bench|docs|\.ci)\/[\w./-]+)`/g,
        ),
      ]
        .map((match) => match[1] ?? '')
        .filter((target) => !fs.existsSync(join(checkout, target)) && !/<|\*/.test(target))
        .map((target) => `${path}: ${target}`),
    );
    // An example of a path, not a path.
    expect(wrong.filter((line) => !line.startsWith('docs/STYLE.md'))).toEqual([]);
  });

  test('the table of sabotages has each guard once, noticed by an invariant that is there for it', () => {
    const [, table = ''] =
      /<!-- sabotage:[^>]*-->([\s\S]*?)<!-- \/sabotage -->/.exec(read('docs/reliability.md')) ?? [];
    const rows = [...table.matchAll(/^\| `(.+)` \| (.+) \| (\d+) \| (.+) \|$/gm)];
    expect(rows.map(([, name, without]) => ({ name, without }))).toEqual(
      sabotages.map(({ name, without }) => ({ name, without })),
    );
    for (const [, name, , seeds, invariant] of rows) {
      expect(Number(seeds), name).toBeLessThanOrEqual(200);
      expect(sabotageByName(name ?? '')?.expects, name).toContain(invariant);
    }
  });

  test('each page has one title, and every page is linked from another', () => {
    const untitled = pages().filter((path) => (proseOf(path).match(/^# /gm) ?? []).length !== 1);
    expect(untitled).toEqual([]);
    const linked = new Set(
      pages().flatMap((path) =>
        [...read(path).matchAll(/\]\(([^)\s#]+)/g)].map((match) => join(dirname(path), match[1] ?? '')),
      ),
    );
    expect(pages().filter((path) => path !== 'README.md' && !linked.has(path))).toEqual([]);
  });

  test('the changelog has a heading for what is not released, and tells effects under the usual headings', () => {
    const headings = [...read('CHANGELOG.md').matchAll(/^##+ (.*)$/gm)].map((match) => match[1] ?? '');
    expect(headings[0]).toBe('[Unreleased]');
    const usual =
      /^(\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}|Added|Changed|Deprecated|Removed|Fixed|Security)$/;
    expect(headings.filter((heading) => !usual.test(heading))).toEqual([]);
  });

  test('decisions are numbered without gaps and say context, decision and consequences', () => {
    const decisions = filesUnder('docs/decisions', /\.md$/);
    expect(decisions.map((path) => Number(path.replace('docs/decisions/', '').slice(0, 4)))).toEqual(
      decisions.map((_, index) => index + 1),
    );
    const listed = [...read('docs/architecture.md').matchAll(/^\| \[\d{4}\]\((decisions\/[^)]+)\)/gm)];
    expect(listed.map(([, path]) => `docs/${path}`)).toEqual(decisions);
    for (const path of decisions) {
      expect(read(path), path).toMatch(/^# \d{4} .+\n\n\*\*Status:\*\*/);
    }
  });
});

function pages(): string[] {
  return ['README.md', 'CHANGELOG.md', ...filesUnder('docs', /\.md$/)];
}

/** Without code blocks, whose comments look like headings. */
const proseOf = (path: string): string => read(path).replace(/^```[\s\S]*?^```/gm, '');

function leads(path: string, target: string): boolean {
  const [file = '', anchor] = target.split('#');
  const to = file === '' ? path : join(dirname(path), file);
  if (!fs.existsSync(join(checkout, to))) return false;
  if (anchor === undefined) return true;
  const anchors = [...proseOf(to).matchAll(/^#+ (.*)$/gm)].map((match) =>
    (match[1] ?? '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
  return anchors.includes(anchor);
}
