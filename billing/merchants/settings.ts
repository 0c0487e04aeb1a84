import { Temporal } from 'temporal-polyfill';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { isBankDay } from '../calendar/bank-days.ts';
import { type DebitDay, isAfter } from '../calendar/debit-date.ts';
import type { ExpectedFile } from '../calendar/expected-days.ts';
import { type Hours, parseHours } from '../calendar/hours.ts';
import {
  applyCountedOffset,
  applyOffset,
  type CountedOffset,
  formatOffset,
  type Offset,
  parseCountedOffset,
  parseOffset,
} from '../calendar/offsets.ts';
import { type CreditPolicy, creditPolicies } from '../credits/credit.ts';
import type { BankDebit, DunningPolicy } from '../dunning/decide.ts';
import type { GatewayLimits } from '../gateway-states/state.ts';
import { type OwnTexts, ownKinds, problemOfText } from '../messages/texts.ts';
import { Refusal } from '../refusal.ts';

/** A merchant's settings as `merchant apply` takes them. Files hold references to secrets, never secrets. */
export interface MerchantSettings {
  code: string;
  name: { ja: string; en: string };
  /** `T` and 13 digits; null: not an issuer of qualified invoices. */
  registrationNumber: string | null;
  contactPhone: string | null;
  /** IANA name. */
  timezone: string;
  currency: 'JPY';
  publicCharge: boolean;
  /** `standard/1`, `standard/2`, or the name that a layout file gives itself: `kita-denryoku/1`. */
  layout: string;
  /** The layout file as it was when the settings were applied; null: built in. Absent in settings of before. */
  layoutText?: string | null;
  exchange: ExchangeSettings & { completion: 'done_file' | 'stable'; reject: 'line' | 'file' };
  notify: {
    hours: Hours;
    paceSegmentsPerSecond: number;
    reminders: CountedOffset[];
    languages: ('ja' | 'en')[];
    unreached: 'returned' | 'kept';
    /** Whether a phone that an SMS did not reach is tried once more from the carrier's second sender. Absent: no. */
    secondSender?: true;
    /** Absent in settings that were applied before the key was known. */
    dailyCapPerPhone?: number;
    /** What the carrier takes for a segment; null: no cost is shown. Absent like the cap. */
    pricePerSegmentYen?: number | null;
  };
  checkout: {
    methods: ('card' | 'barcode' | 'wallet')[];
    ask: 'customer_number_last4' | 'nothing';
    linkValidDays: number;
    /** `logo`: an SVG image, as text. Null or absent: none. */
    brand: { color: string; logo?: string | null };
    /** Wrong answers to `ask` within an hour before somebody is told. Absent in settings of before. */
    failureBudget?: number;
    /** Null: none can be made. Absent in settings that were applied before the key was known. */
    barcode?: BarcodeSettings | null;
  };
  autopay: {
    debitDay: DebitDay;
    directDebit: DirectDebitSettings | null;
    /** So many days before the debit date customers are told how much and when. Absent: they are not. */
    noticeDaysBefore?: number;
    /** So many days before a charge its card is asked about. Absent: `defaultRefreshDays`. */
    refreshDaysBefore?: number;
  };
  dunning: {
    card: AttemptSettings;
    debit: AttemptSettings | null;
    /** `then` in the file. */
    fallBackTo: 'link';
    returnAfter: CountedOffset;
    paydayDay: number;
  };
  /** Absent in settings that were applied before the key was known: `gatesOf` fills in. */
  gates?: GateSettings;
  /** Files that are to come, and by when. Absent in settings that were applied before the key was known. */
  calendar?: ExpectedFile[];
  /** Absent in settings that were applied before the key was known. */
  gateway?: {
    fee: FeeSettings | null;
    stripeAccount?: string | null;
    /** Charges a second, and calls at the same time, over all processes. Absent: the gateway does not say. */
    ratePerSecond?: number;
    concurrency?: number;
  };
  /** SMS in the merchant's own words. Absent: the built-in ones. */
  texts?: OwnTexts;
  /** Absent where nothing was said: nobody is asked before charging. */
  charge?: { approve: boolean };
  /** Absent where nothing was said: `creditPolicyOf` fills in. */
  credit?: CreditPolicy;
}

export function creditPolicyOf({ credit }: Pick<MerchantSettings, 'credit'>): CreditPolicy {
  return credit ?? 'keep';
}

export function limitsOf({ gateway }: Pick<MerchantSettings, 'gateway'>): GatewayLimits {
  return { ratePerSecond: gateway?.ratePerSecond ?? null, concurrency: gateway?.concurrency ?? null };
}

/** From when on a file or bill is so unusual that a person looks first. A factor of 0: never. */
export interface GateSettings {
  /** Count or total of a billing file, against the median of the merchant's last ones. */
  fileTimes: number;
  /** Amount of a bill, against the median of its contract's last ones. */
  billTimes: number;
  /** More bills of one contract for one billing period than it ever had. */
  twice: boolean;
}

const defaultGates: GateSettings = { fileTimes: 5, billTimes: 10, twice: true };

export function gatesOf(settings: Pick<MerchantSettings, 'gates'>): GateSettings {
  return settings.gates ?? defaultGates;
}

/** As the agency gave them to the merchant. */
export interface BarcodeSettings {
  /** 6 digits. */
  issuer: string;
  companyCode: string;
  numberDigits: number;
}

/** What the gateway takes for a charge: percent of the amount, and tax in percent of that; each rounded down to a yen. */
export interface FeeSettings {
  ratePercent: number;
  taxPercent: number;
  toleranceYen: number;
}

export interface ExchangeSettings {
  sftp: { host: string; port: number; username: string; privateKeyFile: string; hostKeys: string[] };
  inbound: string;
  outbound: string;
}

export interface AttemptSettings {
  attempts: number;
  on: Offset[];
}

export interface DirectDebitSettings {
  layout: 'zengin-91';
  exchange: ExchangeSettings;
  creditor: {
    consignorCode: string;
    consignorName: string;
    bank: string;
    branch: string;
    accountType: 1 | 2;
    account: string;
  };
  submit: CountedOffset;
  result: CountedOffset;
  late: 'link' | 'next_debit_day';
  /** Debits in one file at most. Absent in settings that were applied before the key was known. */
  recordsPerFile?: number;
}

export interface SettingsProblem {
  /** `dunning.card.on[2]`; empty for the file as a whole. */
  path: string;
  reason: string;
}

/** Settings refused, with every place and reason. */
export class SettingsRefusal extends Refusal {
  readonly problems: SettingsProblem[];

  constructor(file: string, problems: SettingsProblem[]) {
    const lines = problems.map(({ path, reason }) => (path === '' ? reason : `${path}: ${reason}`));
    super('MERCHANT_SETTINGS', `${file} is refused.\n${lines.join('\n')}`, {
      next: 'Correct the settings and apply them again; nothing was changed.',
      context: { file, problems: problems.length },
      exitCode: 2,
    });
    this.problems = problems;
  }
}

/** What the parser must ask of the disk; `keyFile` and `file` as they stand in the settings. */
export interface SettingsSurroundings {
  /** The settings file's name, for messages. */
  path: string;
  readable(keyFile: string): 'ok' | 'missing' | 'readable_by_others';
  /** The layout file, judged; undefined: there is none of that name. */
  layout(file: string): LayoutFile | undefined;
}

/** What this room knows of a layout: its name, its text to keep, and what is wrong with it. */
export interface LayoutFile {
  name: string;
  text: string;
  problems: readonly SettingsProblem[];
}

const builtInLayouts = ['standard/1', 'standard/2'];

/** The built-in defaults: what a merchant gets who says nothing else. */
const DEFAULT_REMINDERS = ['-3bd', '+1bd', '+7bd'];
const DEFAULT_CARD = { attempts: 4, on: ['+0d', '+3bd', '+10bd', 'next_payday'] };

/** A family's contracts and their reminders; a number that stands with hundreds of customers is a slip. */
export const defaultDailyCap = 5;

/** With 200,000 links on a morning and one visitor in a hundred mistyping, a few hundred within an hour are nobody's attack. */
export const defaultFailureBudget = 1_000;

/** What one large bank takes for a file. */
export const defaultRecordsPerFile = 50_000;
/** Time enough for a link before the charge would have been. */
export const defaultRefreshDays = 3;

/** Networks fine more than 15 attempts in 30 days; gateways advise 8. */
const MAX_ATTEMPTS = 15;
const ADVISED_ATTEMPTS = 8;
const MAX_FILE_CHARACTERS = 64 * 1024;

const quoted = (what: string) => `must be text: put ${what} in quotes`;
const line = (max: number) =>
  z
    .string()
    .min(1, 'must not be empty')
    .max(max, `must not be longer than ${max} characters`)
    .refine((text) => !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text), 'must not contain control characters');
const digits = (count: number) =>
  z.string({ error: quoted('it') }).regex(new RegExp(`^\\d{${count}}$`), `must be ${count} digits`);
const wholeNumber = (min: number, max: number) =>
  z
    .number({ error: 'must be a number' })
    .int('must be a whole number')
    .min(min, `must be ${min} or more`)
    .max(max, `must be ${max} or less`);

function offsetOf<T>(parse: (text: string) => { ok: true; offset: T } | { ok: false; reason: string }) {
  return z.union([z.string(), z.number()], { error: 'must look like +3bd' }).transform((value, context) => {
    // YAML reads +3 as a number: the reason should speak of the missing unit.
    const text = typeof value === 'number' ? `${value < 0 ? '' : '+'}${value}` : value;
    const parsed = parse(text);
    if (parsed.ok) return parsed.offset;
    context.addIssue({ code: 'custom', message: parsed.reason });
    return z.NEVER;
  });
}
const countedOffset = offsetOf(parseCountedOffset);
const anyOffset = offsetOf(parseOffset);

const hours = z.string({ error: 'must look like "09:00-19:30"' }).transform((text, context) => {
  const parsed = parseHours(text);
  if (parsed.ok) return parsed.hours;
  context.addIssue({ code: 'custom', message: parsed.reason });
  return z.NEVER;
});

const wallTime = z
  .string({ error: 'must look like "20:00", in quotes' })
  .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'must look like "20:00"')
  .transform((text) => Number(text.slice(0, 2)) * 60 + Number(text.slice(3)));

/** `/inbound` and `data/in` are folders on the merchant's server; `..` is never needed. */
const folder = line(200).refine(
  (text) => !text.split('/').includes('..') && !text.includes('\\'),
  'must not contain .. or a backslash',
);

const hostKey = z
  .string()
  .regex(/^SHA256:[A-Za-z0-9+/]{43}=?$/, 'must be a fingerprint as ssh-keygen -l prints it: SHA256:...');

const sftp = z.strictObject({
  host: z
    .string()
    .regex(/^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$/, 'must be a host name or an address'),
  port: wholeNumber(1, 65_535).default(22),
  username: line(64).regex(/^[A-Za-z0-9_][A-Za-z0-9._@-]*$/, 'must be a login name'),
  private_key_file: line(300),
  host_keys: z
    .array(hostKey)
    .min(1, 'needs the fingerprint of the server: without it any server would be believed')
    .max(2, 'takes one fingerprint, or two while the key is changed'),
});
const exchangeShape = {
  sftp,
  inbound: folder.default('inbound'),
  outbound: folder.default('outbound'),
};
const attempts = z.strictObject({ attempts: wholeNumber(1, MAX_ATTEMPTS), on: z.array(anyOffset).min(1) });

/** Four decimals at most: whole millionths, so that a fee is a matter of integers. */
const percent = z
  .number({ error: 'must be a number' })
  .min(0, 'must be 0 or more')
  .max(100, 'must be 100 or less')
  .refine((value) => Number(value.toFixed(4)) === value, 'must have four decimals at most');

/** 1 would hold every second file. */
const gateTimes = wholeNumber(0, 1_000).refine((times) => times !== 1, 'must be 0 (never), or 2 or more');

const logoBytesAtMost = 6_000;
/**
 * An image and nothing else. It is only ever shown as an `<img>`, where neither scripts nor references have an effect; what
 * could have one if somebody opened it alone is refused.
 */
const logo = z
  .string({ error: 'must be the text of an SVG image' })
  .transform((text) => text.trim())
  .refine(
    (text) => Buffer.byteLength(text) <= logoBytesAtMost,
    `must not be longer than ${logoBytesAtMost} bytes`,
  )
  .refine(
    (text) => /^<svg\s[^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/.test(text) && text.endsWith('</svg>'),
    'must be an SVG image: <svg xmlns="http://www.w3.org/2000/svg" ...>...</svg>',
  )
  .refine(
    (text) =>
      !/<!|<\?|<\s*(script|foreignObject|iframe|image|a|use|style)\b|\bon\w+\s*=|href|javascript:|url\(/i.test(
        text,
      ),
    'must be shapes and text alone: no scripts, styles, references or images',
  );

const ownText = z
  .string({ error: 'must be a text' })
  .transform((text) => text.trim())
  .superRefine((text, context) => {
    const message = problemOfText(text);
    if (message !== null) context.addIssue({ code: 'custom', message });
  });

const languages = z.enum(['ja', 'en']);
const methods = z.enum(['card', 'barcode', 'wallet']);

const settingsSchema = z.strictObject({
  merchant: z
    .string()
    .regex(/^[a-z0-9-]{2,32}$/, 'must be 2 to 32 of lower-case letters, digits and hyphens'),
  name: z.strictObject({ ja: line(40), en: line(60).optional() }),
  registration_number: z
    .string({ error: quoted('it') })
    .regex(/^T\d{13}$/, 'must be T and 13 digits')
    .optional(),
  contact_phone: z
    .string({ error: quoted('the number') })
    .regex(/^\+?[0-9][0-9-]{4,18}[0-9]$/, 'must be a telephone number')
    .optional(),
  timezone: z
    .string()
    .refine(isZone, 'must be a time zone of the IANA list, such as Asia/Tokyo')
    .default('Asia/Tokyo'),
  currency: z.literal('JPY', { error: 'must be JPY: other currencies are not billed' }).default('JPY'),
  public_charge: z.boolean({ error: 'must be true or false' }).default(false),
  layout: line(300).default('standard/1'),
  exchange: z.strictObject({
    ...exchangeShape,
    completion: z.enum(['done_file', 'stable']).default('done_file'),
    reject: z.enum(['line', 'file']).default('line'),
  }),
  notify: z
    .strictObject({
      hours: hours.default({ fromMinute: 9 * 60, untilMinute: 19 * 60 + 30 }),
      pace_segments_per_second: wholeNumber(1, 1000).default(20),
      reminders: z
        .array(countedOffset)
        .max(10, 'takes 10 reminders at most')
        .default(() => DEFAULT_REMINDERS.map(builtInCounted)),
      languages: z.array(languages).min(1, 'needs a language').default(['ja', 'en']),
      unreached: z.enum(['returned', 'kept']).optional(),
      second_sender: z.boolean({ error: 'must be true or false' }).default(false),
      daily_cap_per_phone: wholeNumber(1, 1000).default(defaultDailyCap),
      price_per_segment_yen: z
        .number({ error: 'must be a number' })
        .min(0, 'must be 0 or more')
        .max(1000, 'must be 1000 or less')
        .optional(),
    })
    .prefault({}),
  checkout: z
    .strictObject({
      methods: z.array(methods).min(1, 'needs a way to pay').default(['card', 'barcode', 'wallet']),
      ask: z.enum(['customer_number_last4', 'nothing']).default('customer_number_last4'),
      link_valid_days: wholeNumber(1, 366).default(60),
      failure_budget: wholeNumber(10, 1_000_000).default(defaultFailureBudget),
      brand: z
        .strictObject({
          color: z
            .string()
            .regex(/^#[0-9a-fA-F]{6}$/, 'must look like "#0b6e99", in quotes')
            .default('#0b6e99'),
          logo: logo.optional(),
        })
        .prefault({}),
      barcode: z
        .strictObject({
          issuer: digits(6),
          company_code: z
            .string({ error: quoted('the code') })
            .regex(/^\d{1,15}$/, 'must be 1 to 15 digits, in quotes'),
          number_digits: wholeNumber(6, 20).default(10),
        })
        .optional(),
    })
    .prefault({}),
  autopay: z
    .strictObject({
      debit_day: z
        .union([z.literal('due_date'), wholeNumber(1, 31)], {
          error: 'must be due_date or a day of the month, 1 to 31',
        })
        .default('due_date'),
      notice_days_before: wholeNumber(1, 31).optional(),
      refresh_days_before: wholeNumber(0, 31).optional(),
      direct_debit: z
        .strictObject({
          layout: z.literal('zengin-91', { error: 'must be zengin-91' }).default('zengin-91'),
          exchange: z.strictObject(exchangeShape),
          creditor: z.strictObject({
            consignor_code: digits(10),
            // The agency's files carry half-width kana, capitals, digits and a few signs, 40 bytes.
            consignor_name: line(40).regex(
              /^[ｱ-ﾟA-Z0-9 ().-]+$/,
              'must be half-width kana without small ones, or capitals',
            ),
            bank: digits(4),
            branch: digits(3),
            account_type: z.union([z.literal(1), z.literal(2)], {
              error: 'must be 1 (ordinary) or 2 (current)',
            }),
            account: digits(7),
          }),
          submit: countedOffset.default(() => builtInCounted('-7bd')),
          result: countedOffset.default(() => builtInCounted('+4bd')),
          late: z.enum(['link', 'next_debit_day']).default('link'),
          // The form counts with six digits; portals take 50,000 and fewer.
          records_per_file: wholeNumber(1, 999_999).default(defaultRecordsPerFile),
        })
        .optional(),
    })
    .prefault({}),
  dunning: z
    .strictObject({
      card: attempts.default(() => ({
        attempts: DEFAULT_CARD.attempts,
        on: DEFAULT_CARD.on.map(builtIn),
      })),
      debit: attempts.optional(),
      // biome-ignore lint/suspicious/noThenProperty: the word of the settings file
      then: z.literal('link', { error: 'must be link' }).default('link'),
      return_after: countedOffset.default(() => builtInCounted('+30d')),
      payday: wholeNumber(1, 31).default(25),
    })
    .prefault({}),
  gates: z
    .strictObject({
      file_times: gateTimes.default(defaultGates.fileTimes),
      bill_times: gateTimes.default(defaultGates.billTimes),
      twice: z.boolean({ error: 'must be true or false' }).default(defaultGates.twice),
    })
    .prefault({}),
  calendar: z
    .array(
      z.strictObject({
        kind: z.enum(['billing', 'cancel']),
        on: z.union([z.literal('business_days'), wholeNumber(1, 31)], {
          error: 'must be business_days or a day of the month, 1 to 31',
        }),
        roll: z.enum(['next', 'previous']).default('next'),
        by: wallTime,
      }),
    )
    .max(10, 'takes 10 files at most')
    .default(() => []),
  gateway: z
    .strictObject({
      fee: z
        .strictObject({
          rate_percent: percent,
          tax_percent: percent.default(10),
          tolerance_yen: wholeNumber(0, 1_000_000).default(0),
        })
        .optional(),
      stripe_account: z
        .string({ error: quoted('the account') })
        .regex(/^acct_[A-Za-z0-9]{1,64}$/, 'must be an account of Stripe: acct_...')
        .optional(),
      rate_per_second: z
        .number({ error: 'must be a number' })
        .min(0.1, 'must be 0.1 or more')
        .max(10_000, 'must be 10000 or less')
        .optional(),
      concurrency: wholeNumber(1, 1_000).optional(),
    })
    .prefault({}),
  texts: z
    .partialRecord(z.enum(ownKinds), z.strictObject({ ja: ownText.optional(), en: ownText.optional() }))
    .optional(),
  charge: z.strictObject({ approve: z.boolean({ error: 'must be true or false' }) }).optional(),
  credit: z.enum(creditPolicies).optional(),
});

type Read = z.infer<typeof settingsSchema>;

/** Reads and judges a merchant's settings. Throws `SettingsRefusal` with all problems at once. */
export function parseMerchantSettings(
  yamlText: string,
  around: SettingsSurroundings,
): { settings: MerchantSettings; warnings: SettingsProblem[] } {
  const problems: SettingsProblem[] = [];
  const warnings: SettingsProblem[] = [];
  const refuse = (path: string, reason: string) => problems.push({ path, reason });
  const warn = (path: string, reason: string) => warnings.push({ path, reason });

  const raw = readYaml(yamlText, around.path);
  findSecrets(raw, '', refuse);
  const secretPaths = new Set(problems.map((problem) => problem.path));

  const parsed = settingsSchema.safeParse(raw);
  if (!parsed.success) {
    for (const problem of parsed.error.issues.flatMap(problemsOf)) {
      if (!secretPaths.has(problem.path)) problems.push(problem);
    }
    throw new SettingsRefusal(around.path, problems);
  }
  const read = parsed.data;
  const layout = judgeLayout(read.layout, around, refuse);
  judgeFiles(read, around, refuse, warn);
  judgeDunning(read, refuse, warn);
  judgeRest(read, refuse, warn);
  if (problems.length > 0) throw new SettingsRefusal(around.path, problems);
  return { settings: settingsFrom(read, layout), warnings };
}

/** The part of the settings by which `decideNext` decides, for cards or for bank debits. */
/** Never later than customers are told of the charge: nobody is told of one that cannot be made. */
export function refreshDaysOf({ autopay }: MerchantSettings): number {
  return Math.max(autopay.refreshDaysBefore ?? defaultRefreshDays, autopay.noticeDaysBefore ?? 0);
}

export function dunningPolicyOf(settings: MerchantSettings, way: 'card' | 'debit' = 'card'): DunningPolicy {
  const { card, debit, returnAfter, paydayDay } = settings.dunning;
  const chosen = way === 'debit' ? (debit ?? onceOnly) : card;
  return {
    attempts: chosen.attempts,
    on: chosen.on,
    returnAfter,
    reminders: settings.notify.reminders,
    linkValidDays: settings.checkout.linkValidDays,
    paydayDay,
    debitDay: settings.autopay.debitDay,
  };
}

/** Where nothing is said of a second debit, there is none. */
const onceOnly: AttemptSettings = { attempts: 1, on: [{ kind: 'days', count: 0 }] };

/** Null: the merchant has nobody who debits accounts. */
export function bankDebitOf({ autopay }: Pick<MerchantSettings, 'autopay'>): BankDebit | null {
  const { directDebit } = autopay;
  if (directDebit === null) return null;
  return { submitBankDays: Math.abs(directDebit.submit.count), late: directDebit.late };
}

function readYaml(text: string, file: string): unknown {
  if (text.length > MAX_FILE_CHARACTERS) {
    throw new SettingsRefusal(file, [{ path: '', reason: 'is too large for settings' }]);
  }
  const lineCounter = new LineCounter();
  // Without pretty errors: they quote the line, which may hold a secret.
  const document = parseDocument(text, { lineCounter, prettyErrors: false, version: '1.2' });
  if (document.errors.length > 0) {
    throw new SettingsRefusal(
      file,
      document.errors.map((error) => {
        const at = lineCounter.linePos(error.pos[0]);
        return { path: '', reason: `line ${at.line}, column ${at.col}: not YAML (${error.code})` };
      }),
    );
  }
  try {
    const value: unknown = document.toJS({ maxAliasCount: 0 });
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch (cause) {
    if (!(cause instanceof ReferenceError)) throw cause;
    throw new SettingsRefusal(file, [{ path: '', reason: 'aliases (*name) are not taken in settings' }]);
  }
  throw new SettingsRefusal(file, [
    { path: '', reason: 'must be a list of settings, such as merchant: ...' },
  ]);
}

const SECRET_KEY = /^(.*_)?(private_key|password|passwd|pass|passphrase|secret|token|api_key|secret_key)$/i;
const SECRET_VALUE = /PRIVATE KEY|^(sk|rk)_(live|test)_|^whsec_|:\/\/[^/\s]*:[^/\s]*@/;

/** Names the place and never repeats the value. */
function findSecrets(value: unknown, path: string, refuse: (path: string, reason: string) => void): void {
  if (typeof value === 'string') {
    if (SECRET_VALUE.test(value)) refuse(path, 'holds a secret: keep it in a file and name the file here');
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  for (const [key, child] of Object.entries(value)) {
    const childPath = Array.isArray(value) ? `${path}[${key}]` : join(path, key);
    if (!Array.isArray(value) && SECRET_KEY.test(key)) {
      const instead = /private_key$/i.test(key) ? 'private_key_file' : 'a reference';
      refuse(childPath, `is a place for a secret: settings take ${instead}, never the secret itself`);
    } else {
      findSecrets(child, childPath, refuse);
    }
  }
}

function problemsOf(issue: z.core.$ZodIssue): SettingsProblem[] {
  const path = pathText(issue.path);
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        path: join(path, key),
        reason: `is not a setting${suggestion(key, issue.path)}`,
      }));
    case 'invalid_value':
      if (issue.values.length > 1) return [{ path, reason: `must be one of ${issue.values.join(', ')}` }];
      return [{ path, reason: issue.message }];
    case 'invalid_type':
      if (issue.input === undefined && /received undefined/.test(issue.message)) {
        return [{ path, reason: 'is missing' }];
      }
      if (/^Invalid input/.test(issue.message)) {
        return [{ path, reason: `must be ${TYPE_WORDS[issue.expected] ?? issue.expected}` }];
      }
      return [{ path, reason: issue.message }];
    default:
      return [{ path, reason: issue.message }];
  }
}

const TYPE_WORDS: Record<string, string> = {
  string: 'text (in quotes where it looks like a number)',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list: [a, b]',
  object: 'a group of settings',
};

function pathText(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) text = typeof part === 'number' ? `${text}[${part}]` : join(text, String(part));
  return text;
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

function suggestion(key: string, path: readonly PropertyKey[]): string {
  const known = knownKeys(path);
  const nearest = known
    .map((candidate) => ({ candidate, distance: editDistance(key.toLowerCase(), candidate) }))
    .sort((one, other) => one.distance - other.distance)[0];
  if (nearest !== undefined && nearest.distance <= Math.max(1, Math.floor(key.length / 3))) {
    return `; did you mean ${nearest.candidate}?`;
  }
  return known.length === 0 ? '' : `; known here: ${known.join(', ')}`;
}

function knownKeys(path: readonly PropertyKey[]): string[] {
  let schema: unknown = settingsSchema;
  for (const part of path) {
    const shape = shapeOf(schema);
    schema = shape === null ? undefined : shape[String(part)];
  }
  return Object.keys(shapeOf(schema) ?? {});
}

function shapeOf(schema: unknown): Record<string, unknown> | null {
  let inner = schema;
  while (inner instanceof z.ZodPrefault || inner instanceof z.ZodDefault || inner instanceof z.ZodOptional) {
    inner = inner.def.innerType;
  }
  return inner instanceof z.ZodObject ? inner.shape : null;
}

function editDistance(one: string, other: string): number {
  let previous = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let row = 1; row <= one.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= other.length; column += 1) {
      const replaced = (previous[column - 1] ?? 0) + (one[row - 1] === other[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[other.length] ?? 0;
}

type Say = (path: string, reason: string) => void;

function judgeLayout(layout: string, around: SettingsSurroundings, refuse: Say): LayoutFile | null {
  if (builtInLayouts.includes(layout)) return null;
  const file = around.layout(layout);
  if (file === undefined) {
    refuse('layout', `the file ${layout} does not exist; built in are ${builtInLayouts.join(' and ')}`);
    return null;
  }
  for (const { path, reason } of file.problems)
    refuse('layout', `${layout}: ${path === '' ? reason : `${path}: ${reason}`}`);
  return file;
}

function judgeFiles(read: Read, around: SettingsSurroundings, refuse: Say, warn: Say): void {
  const exchanges: [string, { sftp: Read['exchange']['sftp']; inbound: string; outbound: string }][] = [
    ['exchange', read.exchange],
  ];
  const debit = read.autopay.direct_debit;
  if (debit !== undefined) exchanges.push(['autopay.direct_debit.exchange', debit.exchange]);
  for (const [path, exchange] of exchanges) {
    const keyFile = exchange.sftp.private_key_file;
    const keyPath = `${path}.sftp.private_key_file`;
    const state = around.readable(keyFile);
    if (state === 'readable_by_others') {
      refuse(keyPath, `other users can read ${keyFile}: chmod 600 it`);
    } else if (state === 'missing') {
      warn(keyPath, `${keyFile} does not exist yet: no file can be fetched or delivered until it does`);
    }
    if (new Set(exchange.sftp.host_keys).size < exchange.sftp.host_keys.length) {
      refuse(`${path}.sftp.host_keys`, 'names the same fingerprint twice');
    }
    if (trimSlashes(exchange.inbound) === trimSlashes(exchange.outbound)) {
      refuse(`${path}.outbound`, 'must not be the inbound folder: our own files would be read as bills');
    }
  }
}

function judgeDunning(read: Read, refuse: Say, warn: Say): void {
  const { dunning, notify, checkout, autopay } = read;
  const returnAfter = dunning.return_after;
  const returnDays = atLeastDays(returnAfter);
  if (returnAfter.count <= 0) refuse('dunning.return_after', 'must lie after the due date');

  notify.reminders.forEach((reminder, index) => {
    const path = `notify.reminders[${index}]`;
    const before = notify.reminders[index - 1];
    const wrong = before === undefined ? null : orderProblem([before, reminder], read);
    if (wrong !== null) (wrong.mostly ? refuse : warn)(path, wrong.reason);
    const lateFor = returnAfter.count > 0 ? orderProblem([reminder, returnAfter], read) : null;
    if (lateFor !== null) {
      const limit = `(dunning.return_after ${formatOffset(returnAfter)})`;
      if (lateFor.mostly) refuse(path, `comes after the bill is returned ${limit}`);
      else warn(path, `comes after the bill is returned ${limit} where holidays lie between`);
    }
    if (reminder.count > 0 && atLeastDays(reminder) > checkout.link_valid_days) {
      refuse(path, `comes after the link has ended (checkout.link_valid_days ${checkout.link_valid_days})`);
    }
  });
  if (returnDays > checkout.link_valid_days) {
    warn('checkout.link_valid_days', 'links end before the bill is returned: for a while nobody can pay');
  }

  for (const way of ['card', 'debit'] as const) {
    const plan = dunning[way];
    if (plan === undefined) continue;
    const path = `dunning.${way}`;
    if (plan.attempts !== plan.on.length) {
      refuse(
        `${path}.on`,
        `has ${plan.on.length} entries for ${plan.attempts} attempts; the first attempt counts`,
      );
    }
    if (plan.attempts > ADVISED_ATTEMPTS) {
      warn(`${path}.attempts`, `more than ${ADVISED_ATTEMPTS} attempts: gateways advise against it`);
    }
    const first = plan.on[0];
    if (first !== undefined && !('count' in first && first.count === 0)) {
      refuse(`${path}.on[0]`, 'must be +0d: the first attempt is on the debit date');
      continue;
    }
    if (autopay.debit_day === 'due_date' && plan.on.some((offset) => offset.kind === 'next_debit_day')) {
      refuse(`${path}.on`, 'next_debit_day needs autopay.debit_day to be a day of the month');
      continue;
    }
    plan.on.forEach((offset, index) => {
      const wrong = index === 0 ? null : orderProblem(plan.on.slice(0, index + 1), read);
      if (wrong !== null) (wrong.mostly ? refuse : warn)(`${path}.on[${index}]`, wrong.reason);
      // The due date is never before the debit date, so this compares what can be compared.
      if ('count' in offset && atLeastDays(offset) > mostDays(returnAfter) + 31) {
        refuse(`${path}.on[${index}]`, 'comes after the bill is returned (dunning.return_after)');
      }
    });
  }
  if (dunning.debit !== undefined && autopay.direct_debit === undefined) {
    refuse('dunning.debit', 'has no autopay.direct_debit to go with it');
  }
}

function judgeRest(read: Read, refuse: Say, warn: Say): void {
  const { notify, checkout, autopay } = read;
  const number = read.registration_number;
  if (number === undefined) {
    warn('registration_number', 'is missing: pay pages and receipts are no qualified invoices');
  } else if (!checkDigitHolds(number)) {
    // Sole proprietors' numbers follow another rule, so this is no ground to refuse.
    warn('registration_number', 'its check digit does not hold: compare it with the public register');
  }
  if (read.contact_phone === undefined) {
    warn('contact_phone', 'is missing: customers are shown no number to call');
  }
  if (notify.hours.fromMinute < 8 * 60 || notify.hours.untilMinute > 21 * 60) {
    warn('notify.hours', 'SMS before 08:00 or after 21:00 disturb customers');
  }
  repeated(notify.languages, 'notify.languages', refuse);
  repeated(checkout.methods, 'checkout.methods', refuse);
  const { barcode } = checkout;
  if (barcode !== undefined && barcode.company_code.length + barcode.number_digits > 21) {
    refuse('checkout.barcode.number_digits', 'and company_code have 21 digits together at most');
  }
  if (notify.languages.includes('en') && read.name.en === undefined) {
    refuse('name.en', 'is missing although notify.languages has en');
  }
  if (notify.unreached === 'kept' && !hasBarcodes(read)) {
    refuse(
      'notify.unreached',
      'kept needs checkout.barcode, and barcode among checkout.methods: paper carries it',
    );
  }
  if (contrastWithWhite(checkout.brand.color) < 4.5) {
    warn('checkout.brand.color', 'white text on this colour is hard to read: choose a darker one');
  }
  const debit = autopay.direct_debit;
  if (debit !== undefined) {
    const path = 'autopay.direct_debit';
    if (debit.submit.count >= 0) refuse(`${path}.submit`, 'must lie before the debit date, such as -7bd');
    if (debit.result.count <= 0) refuse(`${path}.result`, 'must lie after the debit date, such as +4bd');
    for (const key of ['submit', 'result'] as const)
      if (debit[key].kind === 'days') refuse(`${path}.${key}`, 'counts bank business days: bd');
    if (debit.late === 'next_debit_day' && autopay.debit_day === 'due_date') {
      refuse(`${path}.late`, 'next_debit_day needs autopay.debit_day to be a day of the month');
    }
    const sameServer =
      debit.exchange.sftp.host === read.exchange.sftp.host &&
      debit.exchange.sftp.port === read.exchange.sftp.port &&
      debit.exchange.sftp.username === read.exchange.sftp.username;
    if (sameServer && trimSlashes(debit.exchange.inbound) === trimSlashes(read.exchange.inbound)) {
      refuse(`${path}.exchange.inbound`, 'is the folder of the bills');
    }
  }
}

function hasBarcodes({ checkout }: Read): boolean {
  return checkout.barcode !== undefined && checkout.methods.includes('barcode');
}

function repeated(values: readonly string[], path: string, refuse: Say): void {
  values.forEach((value, index) => {
    if (values.indexOf(value) !== index) refuse(`${path}[${index}]`, `names ${value} twice`);
  });
}

/** Every bank day of two years, with all their long holidays. */
let probes: Temporal.PlainDate[] | null = null;
function probeDays(): Temporal.PlainDate[] {
  if (probes !== null) return probes;
  probes = [];
  const end = Temporal.PlainDate.from('2027-12-31');
  for (let day = Temporal.PlainDate.from('2026-01-01'); !isAfter(day, end); day = day.add({ days: 1 })) {
    if (isBankDay(day)) probes.push(day);
  }
  return probes;
}

interface OrderProblem {
  /** On more than half of all days: a mistake. Otherwise a matter of holidays, which the schedule itself resolves. */
  mostly: boolean;
  reason: string;
}

/** Why the last of the offsets is out of order, or null. Bank days and days are compared on real dates. */
function orderProblem(offsets: readonly Offset[], read: Read): OrderProblem | null {
  const last = offsets.at(-1);
  const before = offsets.at(-2);
  // The named days are the first after the attempt before, whatever that was.
  if (last === undefined || before === undefined || !('count' in last)) return null;
  const [shown, previousShown] = [formatOffset(last), formatOffset(before)];
  if (shown === previousShown) return { mostly: true, reason: `repeats ${shown}` };
  const around = { paydayDay: read.dunning.payday, debitDay: read.autopay.debit_day };
  let wrong = 0;
  let example = '';
  for (const base of probeDays()) {
    let previous = base;
    for (const offset of offsets.slice(0, -1)) previous = applyOffset(base, offset, { previous, ...around });
    const on = applyCountedOffset(base, last);
    if (isAfter(on, previous)) continue;
    wrong += 1;
    if (wrong === 1) example = `from ${base} it falls on ${on}, but ${previousShown} falls on ${previous}`;
  }
  if (wrong === 0) return null;
  const mostly = wrong * 2 > probeDays().length;
  return { mostly, reason: `is out of order${mostly ? '' : ' in some weeks'}: ${example}` };
}

/** The fewest and the most calendar days of an offset: five bank days fill a week, holidays stretch it. */
function atLeastDays(offset: CountedOffset): number {
  return offset.kind === 'days' ? offset.count : Math.floor((offset.count * 7) / 5);
}
function mostDays(offset: CountedOffset): number {
  return offset.kind === 'days' ? offset.count : Math.ceil((offset.count * 7) / 5) + 10;
}

/** Check digit of a corporate number: 9 less the weighted sum modulo 9, weights 1 and 2 from the right. */
function checkDigitHolds(registrationNumber: string): boolean {
  const all = registrationNumber.slice(1);
  let sum = 0;
  for (let fromRight = 0; fromRight < 12; fromRight += 1) {
    sum += Number(all[12 - fromRight]) * (fromRight % 2 === 0 ? 1 : 2);
  }
  return 9 - (sum % 9) === Number(all[0]);
}

/** WCAG contrast ratio against white, 1 to 21; 4.5 is the least for text. */
function contrastWithWhite(color: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05);
}

function isZone(name: string): boolean {
  // A fixed offset such as +09:00 parses too, but knows no daylight saving.
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name);
    return true;
  } catch (cause) {
    if (cause instanceof RangeError) return false;
    throw cause;
  }
}

function trimSlashes(folderName: string): string {
  return folderName.replace(/^\.?\/+|\/+$/g, '');
}

function builtIn(text: string): Offset {
  const parsed = parseOffset(text);
  if (!parsed.ok) throw new Error(`impossible state: built-in offset ${text}`);
  return parsed.offset;
}

function builtInCounted(text: string): CountedOffset {
  const parsed = parseCountedOffset(text);
  if (!parsed.ok) throw new Error(`impossible state: built-in offset ${text}`);
  return parsed.offset;
}

function exchangeFrom(exchange: z.infer<z.ZodObject<typeof exchangeShape>>): ExchangeSettings {
  return {
    sftp: {
      host: exchange.sftp.host,
      port: exchange.sftp.port,
      username: exchange.sftp.username,
      privateKeyFile: exchange.sftp.private_key_file,
      hostKeys: exchange.sftp.host_keys,
    },
    inbound: exchange.inbound,
    outbound: exchange.outbound,
  };
}

function settingsFrom(read: Read, layout: LayoutFile | null): MerchantSettings {
  const debit = read.autopay.direct_debit;
  const fee = read.gateway.fee;
  return {
    code: read.merchant,
    name: { ja: read.name.ja, en: read.name.en ?? read.name.ja },
    registrationNumber: read.registration_number ?? null,
    contactPhone: read.contact_phone ?? null,
    timezone: read.timezone,
    currency: read.currency,
    publicCharge: read.public_charge,
    layout: layout?.name ?? read.layout,
    ...(layout === null ? {} : { layoutText: layout.text }),
    exchange: {
      ...exchangeFrom(read.exchange),
      completion: read.exchange.completion,
      reject: read.exchange.reject,
    },
    notify: {
      hours: read.notify.hours,
      paceSegmentsPerSecond: read.notify.pace_segments_per_second,
      reminders: read.notify.reminders,
      languages: read.notify.languages,
      unreached: read.notify.unreached ?? (hasBarcodes(read) ? 'kept' : 'returned'),
      ...(read.notify.second_sender ? { secondSender: true as const } : {}),
      dailyCapPerPhone: read.notify.daily_cap_per_phone,
      pricePerSegmentYen: read.notify.price_per_segment_yen ?? null,
    },
    checkout: {
      methods: read.checkout.methods,
      ask: read.checkout.ask,
      linkValidDays: read.checkout.link_valid_days,
      brand: { color: read.checkout.brand.color, logo: read.checkout.brand.logo ?? null },
      failureBudget: read.checkout.failure_budget,
      // Left out where it is not set, as below.
      ...(read.checkout.barcode === undefined
        ? {}
        : {
            barcode: {
              issuer: read.checkout.barcode.issuer,
              companyCode: read.checkout.barcode.company_code,
              numberDigits: read.checkout.barcode.number_digits,
            },
          }),
    },
    autopay: {
      ...(read.autopay.notice_days_before === undefined
        ? {}
        : { noticeDaysBefore: read.autopay.notice_days_before }),
      ...(read.autopay.refresh_days_before === undefined
        ? {}
        : { refreshDaysBefore: read.autopay.refresh_days_before }),
      debitDay: read.autopay.debit_day,
      directDebit:
        debit === undefined
          ? null
          : {
              layout: debit.layout,
              exchange: exchangeFrom(debit.exchange),
              creditor: {
                consignorCode: debit.creditor.consignor_code,
                consignorName: debit.creditor.consignor_name,
                bank: debit.creditor.bank,
                branch: debit.creditor.branch,
                accountType: debit.creditor.account_type,
                account: debit.creditor.account,
              },
              submit: debit.submit,
              result: debit.result,
              late: debit.late,
              recordsPerFile: debit.records_per_file,
            },
    },
    dunning: {
      card: read.dunning.card,
      debit: read.dunning.debit ?? null,
      fallBackTo: read.dunning.then,
      returnAfter: read.dunning.return_after,
      paydayDay: read.dunning.payday,
    },
    gates: { fileTimes: read.gates.file_times, billTimes: read.gates.bill_times, twice: read.gates.twice },
    calendar: read.calendar.map(({ kind, on, roll, by }) => ({ kind, on, roll, byMinute: by })),
    gateway: {
      fee:
        fee === undefined
          ? null
          : { ratePercent: fee.rate_percent, taxPercent: fee.tax_percent, toleranceYen: fee.tolerance_yen },
      // Left out where it is not set: settings that were applied before stay the same to the last byte.
      ...(read.gateway.stripe_account === undefined ? {} : { stripeAccount: read.gateway.stripe_account }),
      ...(read.gateway.rate_per_second === undefined ? {} : { ratePerSecond: read.gateway.rate_per_second }),
      ...(read.gateway.concurrency === undefined ? {} : { concurrency: read.gateway.concurrency }),
    },
    ...(read.texts === undefined ? {} : { texts: read.texts as OwnTexts }),
    ...(read.charge === undefined ? {} : { charge: read.charge }),
    ...(read.credit === undefined ? {} : { credit: read.credit }),
  };
}
