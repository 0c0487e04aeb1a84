import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { formatOffset } from '../../billing/calendar/offsets.ts';
import {
  dunningPolicyOf,
  parseMerchantSettings,
  SettingsRefusal,
  type SettingsSurroundings,
} from '../../billing/merchants/settings.ts';
import { layoutBeside } from '../../cli/layout-file.ts';

const FINGERPRINT = `SHA256:${'A'.repeat(43)}`;
const around: SettingsSurroundings = { path: 'merchant.yaml', readable: () => 'ok', layout: () => undefined };

/** The shortest settings that are taken, with more lines. */
function minimal(more = ''): string {
  return `merchant: minato-gas
name: { ja: みなとガス株式会社, en: Minato Gas }
registration_number: T7000012050002
contact_phone: "0120-000-111"
exchange: { sftp: { host: sftp.example.jp, username: minato, private_key_file: keys/minato, host_keys: ["${FINGERPRINT}"] } }
${more}`;
}

function refusals(yaml: string, surroundings = around): string[] {
  try {
    parseMerchantSettings(yaml, surroundings);
  } catch (error) {
    if (!(error instanceof SettingsRefusal)) throw error;
    expect(error).toMatchObject({ code: 'MERCHANT_SETTINGS', exitCode: 2 });
    return error.problems.map(({ path, reason }) => `${path}: ${reason}`);
  }
  return [];
}

describe('the sample merchants', () => {
  const sample = (code: string) =>
    parseMerchantSettings(readFileSync(`cli/demo/samples/${code}/merchant.yaml`, 'utf8'), {
      ...around,
      layout: layoutBeside(`cli/demo/samples/${code}`),
    });

  it('minato-gas is what a merchant gets by default', () => {
    const { settings, warnings } = sample('minato-gas');
    expect(warnings).toEqual([]);
    const byDefault = parseMerchantSettings(minimal(), around).settings;
    // What an agency gives a merchant has no default.
    const { barcode, ...checkout } = settings.checkout;
    expect(barcode).toEqual({ issuer: '929023', companyCode: '10001', numberDigits: 10 });
    expect(byDefault).toEqual({
      ...settings,
      exchange: { ...byDefault.exchange },
      checkout: { ...checkout, brand: { ...checkout.brand, logo: null } },
      // Without barcodes there is nothing to print.
      notify: { ...settings.notify, unreached: 'returned' },
    });
    expect(settings.checkout.brand.logo).toMatch(/^<svg /);
    expect(settings.notify).toEqual({
      hours: { fromMinute: 540, untilMinute: 1170 },
      paceSegmentsPerSecond: 20,
      reminders: [-3, 1, 7].map((count) => ({ kind: 'bank_days', count })),
      languages: ['ja', 'en'],
      unreached: 'kept',
      dailyCapPerPhone: 5,
      pricePerSegmentYen: null,
    });
    expect(dunningPolicyOf(settings)).toMatchObject({
      attempts: 4,
      returnAfter: { kind: 'days', count: 30 },
      linkValidDays: 60,
      paydayDay: 25,
      debitDay: 'due_date',
    });
    expect(dunningPolicyOf(settings).on.map(formatOffset)).toEqual(['+0d', '+3bd', '+10bd', 'next_payday']);
  });

  it('kita-denryoku has its own layout, hours and three attempts', () => {
    const { settings, warnings } = sample('kita-denryoku');
    expect(warnings).toEqual([]);
    expect(settings).toMatchObject({
      layout: 'kita-denryoku/1',
      layoutText: readFileSync('cli/demo/samples/kita-denryoku/layout.yaml', 'utf8'),
    });
    expect(settings.autopay).toEqual({ debitDay: 27, directDebit: null, noticeDaysBefore: 3 });
    expect(settings.exchange).toMatchObject({ inbound: 'from_kd', completion: 'stable', reject: 'file' });
    expect(settings.dunning.card.attempts).toBe(3);
  });

  it('sakura-suido has bank debits beside the default for cards', () => {
    const { settings } = sample('sakura-suido');
    expect(settings.publicCharge).toBe(true);
    expect(settings.autopay.directDebit).toMatchObject({
      creditor: { consignorCode: '1234567890', bank: '0001', accountType: 1 },
      submit: { kind: 'bank_days', count: -7 },
      late: 'link',
    });
    expect(dunningPolicyOf(settings, 'debit').on.map(formatOffset)).toEqual(['+0d', 'next_debit_day']);
    expect(dunningPolicyOf(settings, 'card').attempts).toBe(4);
  });
});

describe('refused with path and reason', () => {
  const tail = (text: string) => minimal(text);
  it.each([
    ['unknown key', tail('notfy: {}'), 'notfy: is not a setting; did you mean notify?'],
    [
      'unknown key deep',
      tail('dunning: { card: { attempts: 1, on: [+0d], of: 1 } }'),
      'dunning.card.of: is not a setting; did you mean on?',
    ],
    [
      'unknown key, nothing near',
      tail('autopay: { zebra: 1 }'),
      'autopay.zebra: is not a setting; known here: debit_day, notice_days_before, refresh_days_before, direct_debit',
    ],
    ...[
      [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        'must be shapes and text alone: no scripts, styles, references or images',
      ],
      [
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><path/></svg>',
        'must be shapes and text alone: no scripts, styles, references or images',
      ],
      [
        '<svg xmlns="http://www.w3.org/2000/svg"><a href="https://evil.example"/></svg>',
        'must be shapes and text alone: no scripts, styles, references or images',
      ],
      [
        '<svg xmlns="http://www.w3.org/2000/svg"><path fill="url(https://evil.example)"/></svg>',
        'must be shapes and text alone: no scripts, styles, references or images',
      ],
      [
        '<svg xmlns="http://www.w3.org/2000/svg"><!DOCTYPE a></svg>',
        'must be shapes and text alone: no scripts, styles, references or images',
      ],
      [
        '<html xmlns="http://www.w3.org/1999/xhtml"></html>',
        'must be an SVG image: <svg xmlns="http://www.w3.org/2000/svg" ...>...</svg>',
      ],
      [
        `<svg xmlns="http://www.w3.org/2000/svg">${'<path/>'.repeat(900)}</svg>`,
        'must not be longer than 6000 bytes',
      ],
    ].map(
      ([svg, reason]) =>
        [
          `a logo that is more than an image: ${svg?.slice(0, 90)}`,
          tail(`checkout: { brand: { logo: '${svg}' } }`),
          `checkout.brand.logo: ${reason}`,
        ] as [string, string, string],
    ),
    ['wrong type', tail('public_charge: 1'), 'public_charge: must be true or false'],
    ['wrong type', tail('checkout: { link_valid_days: soon }'), 'checkout.link_valid_days: must be a number'],
    ['a group is wanted', tail('notify: [1]'), 'notify: must be a group of settings'],
    [
      'enum',
      tail('checkout: { methods: [card, cash] }'),
      'checkout.methods[1]: must be one of card, barcode, wallet',
    ],
    [
      'a text that names an amount',
      tail('texts: { first_notice: { ja: "{merchant} {amount}\\n{link}" } }'),
      'texts.first_notice.ja: has {amount}; known are {merchant}, {link}, {due_date}',
    ],
    [
      'paper without a barcode',
      tail('notify: { unreached: kept }'),
      'notify.unreached: kept needs checkout.barcode, and barcode among checkout.methods: paper carries it',
    ],
    ['twice', tail('checkout: { methods: [card, card] }'), 'checkout.methods[1]: names card twice'],
    [
      'colour',
      tail('checkout: { brand: { color: blue } }'),
      'checkout.brand.color: must look like "#0b6e99", in quotes',
    ],
    [
      'no sign',
      tail('notify: { reminders: [3bd] }'),
      'notify.reminders[0]: the sign is missing: +3bd or -3bd',
    ],
    [
      'no unit',
      tail('notify: { reminders: [+3] }'),
      'notify.reminders[0]: the unit is missing: +3bd (bank business days) or +3d (days)',
    ],
    [
      'payday as reminder',
      tail('notify: { reminders: [next_payday] }'),
      'notify.reminders[0]: next_payday cannot stand here, only a number of days',
    ],
    ['repeated', tail('notify: { reminders: [+1bd, +1bd] }'), 'notify.reminders[1]: repeats +1bd'],
    [
      'hours',
      tail('notify: { hours: "19:00-09:00" }'),
      'notify.hours: must end after it starts, on the same day',
    ],
    [
      'zone',
      tail('timezone: Asia/Edo'),
      'timezone: must be a time zone of the IANA list, such as Asia/Tokyo',
    ],
    [
      'zone',
      tail('timezone: "+09:00"'),
      'timezone: must be a time zone of the IANA list, such as Asia/Tokyo',
    ],
    ['currency', tail('currency: USD'), 'currency: must be JPY: other currencies are not billed'],
    [
      'attempts',
      tail('dunning: { card: { attempts: 3, on: [+0d, +3bd] } }'),
      'dunning.card.on: has 2 entries for 3 attempts; the first attempt counts',
    ],
    [
      'first attempt',
      tail('dunning: { card: { attempts: 1, on: [+1bd] } }'),
      'dunning.card.on[0]: must be +0d: the first attempt is on the debit date',
    ],
    [
      'debit day',
      tail('dunning: { card: { attempts: 2, on: [+0d, next_debit_day] } }'),
      'dunning.card.on: next_debit_day needs autopay.debit_day to be a day of the month',
    ],
    ['debit day', tail('autopay: { debit_day: 32 }'), 'autopay.debit_day: must be 31 or less'],
    [
      'no debit',
      tail('dunning: { debit: { attempts: 1, on: [+0d] } }'),
      'dunning.debit: has no autopay.direct_debit to go with it',
    ],
    [
      'link too short',
      tail('checkout: { link_valid_days: 5 }'),
      'notify.reminders[2]: comes after the link has ended (checkout.link_valid_days 5)',
    ],
    ['then', tail('dunning: { then: court }'), 'dunning.then: must be link'],
    ['return', tail('dunning: { return_after: -1d }'), 'dunning.return_after: must lie after the due date'],
    [
      'code',
      minimal().replace('merchant: minato-gas', 'merchant: Minato'),
      'merchant: must be 2 to 32 of lower-case letters, digits and hyphens',
    ],
    ['missing', minimal().replace('merchant: minato-gas', ''), 'merchant: is missing'],
    [
      'unquoted',
      minimal().replace('"0120-000-111"', '120'),
      'contact_phone: must be text: put the number in quotes',
    ],
    ['number', minimal().replace('T7000012050002', 'T700'), 'registration_number: must be T and 13 digits'],
    [
      'english',
      minimal().replace(', en: Minato Gas', ''),
      'name.en: is missing although notify.languages has en',
    ],
    [
      'same folder',
      minimal().replace('exchange: {', 'exchange: { inbound: /a, outbound: a/,'),
      'exchange.outbound: must not be the inbound folder: our own files would be read as bills',
    ],
    [
      'dots',
      minimal().replace('exchange: {', 'exchange: { inbound: ../other,'),
      'exchange.inbound: must not contain .. or a backslash',
    ],
    [
      'host keys',
      minimal().replace(`"${FINGERPRINT}"`, ''),
      'exchange.sftp.host_keys: needs the fingerprint of the server: without it any server would be believed',
    ],
    [
      'host keys',
      minimal().replace(FINGERPRINT, 'SHA256:abc'),
      'exchange.sftp.host_keys[0]: must be a fingerprint as ssh-keygen -l prints it: SHA256:...',
    ],
  ])('%s', (_, yaml, expected) => {
    expect(refusals(yaml)).toEqual([expected]);
  });

  it.each([
    ['[+1bd, -3bd]', 'notify.reminders[1]'],
    // Five bank days are at least seven days, so +6d comes before them.
    ['[+5bd, +6d]', 'notify.reminders[1]'],
  ])('reminders %s are out of order', (reminders, path) => {
    expect(refusals(minimal(`notify: { reminders: ${reminders} }`))).toEqual([
      expect.stringMatching(new RegExp(`^${path.replace(/[[\]]/g, '\\$&')}: is out of order: from 20`)),
    ]);
  });

  it.each(['[+0d, +10bd, +3bd]', '[+0d, next_payday, +3bd]', '[+0d, +5d, +2bd]'])(
    'attempts %s are out of order',
    (on) => {
      expect(refusals(minimal(`dunning: { card: { attempts: 3, on: ${on} } }`))).toEqual([
        expect.stringMatching(/^dunning\.card\.on\[2\]: is out of order/),
      ]);
    },
  );

  it('a reminder after the return', () => {
    expect(refusals(minimal('dunning: { return_after: +5d }'))).toEqual([
      'notify.reminders[2]: comes after the bill is returned (dunning.return_after +5d)',
    ]);
  });

  it('all problems at once', () => {
    expect(refusals(minimal('currency: USD\ntimezone: Mars\nsomething: 1')).length).toBe(3);
  });

  it.each([
    [
      'exchange.sftp.private_key',
      minimal().replace('private_key_file: keys/minato', 'private_key: hunter2secret'),
    ],
    [
      'exchange.sftp.password',
      minimal().replace('private_key_file:', 'password: hunter2secret, private_key_file:'),
    ],
    [
      'exchange.sftp.private_key_file',
      minimal().replace('keys/minato', '"-----BEGIN OPENSSH PRIVATE KEY----- hunter2secret"'),
    ],
    ['stripe_secret_key', minimal('stripe_secret_key: hunter2secret')],
    ['contact_phone', minimal().replace('"0120-000-111"', 'sk_live_hunter2secret')],
  ])('a secret written into %s, without repeating it', (path, yaml) => {
    const found = refusals(yaml);
    expect(found.filter((text) => text.startsWith(`${path}: `) && /secret/.test(text))).toHaveLength(1);
    expect(found.join()).not.toContain('hunter2');
  });

  it('broken YAML by line, without repeating the line', () => {
    expect(refusals('merchant: a\npassword: "hunter2secret\n')).toEqual([
      expect.stringMatching(/^: line \d+, column \d+: not YAML/),
    ]);
    expect(refusals('merchant: a\nmerchant: b\n')).toEqual([
      expect.stringContaining('line 2, column 1: not YAML'),
    ]);
    expect(refusals('')).toEqual([expect.stringContaining('must be a list of settings')]);
    expect(refusals('a: &x [1]\nb: *x\n')).toEqual([expect.stringContaining('aliases')]);
  });

  it('key files that others can read, and layouts that are not there', () => {
    expect(refusals(minimal(), { ...around, readable: () => 'readable_by_others' })).toEqual([
      'exchange.sftp.private_key_file: other users can read keys/minato: chmod 600 it',
    ]);
    expect(refusals(minimal('layout: own.yaml'), around)).toEqual([
      'layout: the file own.yaml does not exist; built in are standard/1 and standard/2',
    ]);
    const problems = [{ path: 'billing.amount.bytes', reason: 'runs over' }];
    expect(
      refusals(minimal('layout: own.yaml'), {
        ...around,
        layout: () => ({ name: 'own/1', text: '', problems }),
      }),
    ).toEqual(['layout: own.yaml: billing.amount.bytes: runs over']);
  });
});

it('warns where only holidays put the order in doubt', () => {
  const yaml = minimal('dunning: { card: { attempts: 3, on: [+0d, +7bd, +14d] }, return_after: +14d }');
  expect(parseMerchantSettings(yaml, around).warnings).toEqual([
    { path: 'notify.reminders[2]', reason: expect.stringContaining('where holidays lie between') },
    { path: 'dunning.card.on[2]', reason: expect.stringContaining('out of order in some weeks') },
  ]);
});

it('warns of what is odd and takes it', () => {
  const odd = minimal(
    'notify: { hours: "07:00-22:00" }\ncheckout: { brand: { color: "#ffee00" }, link_valid_days: 20 }',
  )
    .replace('T7000012050002', 'T8000012050002')
    .replace('contact_phone: "0120-000-111"', '');
  const { warnings } = parseMerchantSettings(odd, { ...around, readable: () => 'missing' });
  expect(warnings.map((warning) => warning.path).sort()).toEqual([
    'checkout.brand.color',
    'checkout.link_valid_days',
    'contact_phone',
    'exchange.sftp.private_key_file',
    'notify.hours',
    'registration_number',
  ]);
});
