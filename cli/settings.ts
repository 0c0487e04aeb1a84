import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { type CrashPoint, crashPoints } from '../billing/crash-points.ts';
import { Refusal } from '../billing/refusal.ts';

export type DatabaseSettings =
  | { kind: 'embedded' }
  /** `url` for migrations and jobs, `webUrl` for the login role under row security. */
  | { kind: 'external'; url: string; webUrl: string };

export interface StripeSettings {
  secretKey: string;
  webhookSecrets: readonly string[];
  /** Undefined: Stripe itself. */
  baseUrl: string | undefined;
}

export interface Settings {
  database: DatabaseSettings;
  /** Absolute. */
  home: string;
  /** What pay links start with, without a slash at the end. */
  baseUrl: string;
  /** At least 32 characters. With the embedded database made once and kept in `<home>/secrets`. */
  secret: string;
  port: number;
  adminPort: number;
  /** Loopback unless set: these pages have no password of their own. */
  adminHost: string;
  carrier: 'outbox' | 'twilio';
  /** Undefined unless `carrier` is `twilio`. */
  twilio:
    | {
        accountSid: string;
        authToken: string;
        messagingServiceSid: string;
        secondMessagingServiceSid: string | null;
        apiUrl: string;
      }
    | undefined;
  /** Undefined: the simulator. */
  stripe: StripeSettings | undefined;
  /** Undefined: `up` and `demo` start the simulator themselves. */
  simulatorUrl: string | undefined;
  /** Undefined: alerts are not posted. */
  alertWebhook: { url: string; secret: string } | undefined;
  /** Undefined: alerts are not mailed. */
  alertMail: { smtpUrl: string; from: string; to: readonly string[] } | undefined;
  logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** For tests alone: where the process kills itself. */
  crashAt: CrashPoint | undefined;
}

const postgresUrl = z.string().refine(
  (text) => {
    try {
      const url = new URL(text);
      return /^postgres(ql)?:$/.test(url.protocol) && url.pathname.length > 1;
    } catch {
      // Not a URL at all.
      return false;
    }
  },
  // The value may hold a password: it is not repeated.
  'is not a database URL; write postgres://user:password@host:5432/database (special characters percent-encoded)',
);

const webAddress = z
  .string()
  .refine(
    (text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) && new URL(text).search === '',
    'is not a web address; write for example https://pay.example.jp',
  )
  .transform((text) => text.replace(/\/+$/, ''));

/** Like a web address, and its path and query may hold a token: it is not repeated. */
const webhookAddress = z.string().refine((text) => {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username } = new URL(text);
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(hostname);
  return username === '' && (protocol === 'https:' || (protocol === 'http:' && isHere));
}, 'is no address to post to; write for example https://alerts.example.jp/seikyu (http only to this machine)');

const stripeKey = z
  .string()
  .regex(
    /^(sk|rk)_(test|live)_[A-Za-z0-9]+$/,
    'is no secret key of Stripe; write the one that begins with sk_live_, sk_test_, or rk_ for a restricted one',
  );

const stripeWebhookSecrets = z
  .string()
  .transform((text) => text.split(',').map((secret) => secret.trim()))
  .refine(
    (secrets) => secrets.every((secret) => /^whsec_[A-Za-z0-9+/=_-]+$/.test(secret)),
    'is no signing secret of a webhook endpoint; write whsec_..., and two of them with a comma between',
  );

/** Credentials go there: never in the clear, unless it is this machine. */
const apiAddress = z
  .string()
  .refine((text) => {
    if (!URL.canParse(text)) return false;
    const { protocol, hostname, pathname, search } = new URL(text);
    const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(hostname);
    return pathname === '/' && search === '' && (protocol === 'https:' || (protocol === 'http:' && isHere));
  }, 'is no host of an API; write for example https://api.twilio.com (http only to this machine)')
  .transform((text) => new URL(text).origin);

/** An account or a service of Twilio; not repeated, for a token may have slipped in. */
const sid = (letters: string) =>
  z
    .string()
    .regex(
      new RegExp(`^${letters}[0-9a-fA-F]{32}$`),
      `is none; write ${letters} and 32 hexadecimal digits, as Twilio's console shows it`,
    );

// It may hold a password: it is not repeated.
const smtpUrl = z.string().refine((text) => {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password, search } = new URL(text);
  const isWhole = (username === '') === (password === '') && search === '';
  return /^smtps?:$/.test(protocol) && hostname !== '' && isWhole;
}, 'is no mail server; write smtp://user:password@host:587, smtps://... for TLS from the first byte, or smtp://host:25 without a password');

const mailAddress = /^[^\s@<>,;"]+@[A-Za-z0-9.-]+$/;

const mailFrom = z.string().regex(mailAddress, 'is no mail address; write for example seikyu@example.jp');

const mailTo = z
  .string()
  .transform((text) => text.split(',').map((address) => address.trim()))
  .refine(
    (addresses) => addresses.every((address) => mailAddress.test(address)),
    'has a part that is no mail address; write for example night@example.jp,office@example.jp',
  );

const port = (standard: number) =>
  z
    .string()
    .default(String(standard))
    .refine(
      (text) => /^\d{1,5}$/.test(text) && Number(text) <= 65_535,
      `is not a port; write a number from 0 to 65535, for example ${standard}`,
    )
    .transform(Number);

const levels = ['debug', 'info', 'warn', 'error', 'silent'] as const;

const secretMinimum = 32;

const environment = z
  .object({
    DATABASE_URL: postgresUrl.optional(),
    DATABASE_WEB_URL: postgresUrl.optional(),
    SEIKYU_HOME: z.string().default('./var'),
    SEIKYU_BASE_URL: webAddress.optional(),
    SEIKYU_SECRET: z
      .string()
      .min(
        secretMinimum,
        `is too short; write at least ${secretMinimum} random characters, for example from: openssl rand -hex 32`,
      )
      .optional(),
    PORT: port(8080),
    ADMIN_PORT: port(8081),
    ADMIN_HOST: z.string().default('127.0.0.1'),
    SEIKYU_CARRIER: z.enum(['outbox', 'twilio'], 'is not known; write outbox or twilio').default('outbox'),
    TWILIO_ACCOUNT_SID: sid('AC').optional(),
    TWILIO_AUTH_TOKEN: z
      .string()
      .regex(/^[!-~]{16,}$/, "is no token; write it as Twilio's console shows it")
      .optional(),
    TWILIO_MESSAGING_SERVICE_SID: sid('MG').optional(),
    TWILIO_SECOND_MESSAGING_SERVICE_SID: sid('MG').optional(),
    TWILIO_BASE_URL: apiAddress.default('https://api.twilio.com'),
    SEIKYU_GATEWAY: z
      .enum(['simulator', 'stripe'], 'is not known; write simulator or stripe')
      .default('simulator'),
    STRIPE_SECRET_KEY: stripeKey.optional(),
    STRIPE_WEBHOOK_SECRET: stripeWebhookSecrets.optional(),
    STRIPE_BASE_URL: webhookAddress.optional(),
    SIMULATOR_URL: webAddress.optional(),
    SEIKYU_ALERT_WEBHOOK: webhookAddress.optional(),
    SEIKYU_ALERT_WEBHOOK_SECRET: z
      .string()
      .min(
        secretMinimum,
        `is too short; write at least ${secretMinimum} random characters, for example from: openssl rand -hex 32`,
      )
      .optional(),
    SEIKYU_ALERT_MAIL_TO: mailTo.optional(),
    SEIKYU_ALERT_MAIL_FROM: mailFrom.optional(),
    SMTP_URL: smtpUrl.optional(),
    LOG_LEVEL: z.enum(levels, `is not a level; write one of ${levels.join(', ')}`).default('info'),
    SEIKYU_CRASH_AT: z.enum(crashPoints, 'is not a crash point; leave it out').optional(),
  })
  // Looked at together with the single faults, so that all is told at once.
  .superRefine(together);

function together(
  found: {
    DATABASE_URL?: unknown;
    DATABASE_WEB_URL?: unknown;
    SEIKYU_SECRET?: unknown;
    PORT?: unknown;
    ADMIN_PORT?: unknown;
    SEIKYU_BASE_URL?: unknown;
    SEIKYU_CARRIER?: unknown;
    TWILIO_ACCOUNT_SID?: unknown;
    TWILIO_AUTH_TOKEN?: unknown;
    TWILIO_MESSAGING_SERVICE_SID?: unknown;
    SEIKYU_ALERT_WEBHOOK?: unknown;
    SEIKYU_ALERT_WEBHOOK_SECRET?: unknown;
    SEIKYU_ALERT_MAIL_TO?: unknown;
    SEIKYU_ALERT_MAIL_FROM?: unknown;
    SMTP_URL?: unknown;
    SEIKYU_GATEWAY?: unknown;
    STRIPE_SECRET_KEY?: unknown;
    STRIPE_WEBHOOK_SECRET?: unknown;
  },
  context: z.RefinementCtx,
): void {
  const wrong = (name: string, message: string) =>
    context.addIssue({ code: 'custom', path: [name], message });
  if (found.DATABASE_URL !== undefined) {
    if (found.DATABASE_WEB_URL === undefined) {
      wrong(
        'DATABASE_WEB_URL',
        'is missing; with DATABASE_URL write also the URL of the web login role, postgres://seikyu_web_login:...',
      );
    }
    if (found.SEIKYU_SECRET === undefined) {
      wrong(
        'SEIKYU_SECRET',
        `is missing; with DATABASE_URL write at least ${secretMinimum} random characters, for example from: openssl rand -hex 32`,
      );
    }
    if (found.DATABASE_URL === found.DATABASE_WEB_URL) {
      wrong(
        'DATABASE_WEB_URL',
        'is the same as DATABASE_URL; write the URL of the web login role, which row security holds',
      );
    }
  } else if (found.DATABASE_WEB_URL !== undefined) {
    wrong(
      'DATABASE_URL',
      'is missing although DATABASE_WEB_URL is set; write both, or neither for the embedded database',
    );
  }
  if (found.SEIKYU_CARRIER === 'twilio') {
    for (const name of ['TWILIO_ACCOUNT_SID', 'TWILIO_AUTH_TOKEN', 'TWILIO_MESSAGING_SERVICE_SID'] as const) {
      if (found[name] === undefined) wrong(name, 'is missing; SEIKYU_CARRIER=twilio sends with it');
    }
    if (found.SEIKYU_BASE_URL === undefined) {
      wrong('SEIKYU_BASE_URL', 'is missing; write the public address: Twilio calls it with news of each SMS');
    }
  }
  // Each of these is of use with the others only.
  for (const group of [
    ['SEIKYU_ALERT_WEBHOOK', 'SEIKYU_ALERT_WEBHOOK_SECRET'],
    ['SEIKYU_ALERT_MAIL_TO', 'SEIKYU_ALERT_MAIL_FROM', 'SMTP_URL'],
  ] as const) {
    const missing = group.filter((name) => found[name] === undefined);
    if (missing.length === group.length) continue;
    for (const name of missing) wrong(name, `is missing; alerts go out only with ${group.join(', ')} set`);
  }
  if (found.SEIKYU_GATEWAY === 'stripe') {
    for (const name of ['STRIPE_SECRET_KEY', 'STRIPE_WEBHOOK_SECRET'] as const) {
      if (found[name] === undefined)
        wrong(name, 'is missing; with SEIKYU_GATEWAY=stripe write what Stripe’s dashboard shows');
    }
  }
  if (found.PORT !== undefined && found.PORT !== 0 && found.PORT === found.ADMIN_PORT) {
    wrong('ADMIN_PORT', 'is the same as PORT; write another port, for example 8081');
  }
}

/**
 * The only place that reads the environment, once; a `.env` in the working directory fills what is not set there.
 * Errors: Refusal SETTINGS_WRONG with one line for each fault, exit code 2.
 */
export function readSettings(options: { environment?: NodeJS.ProcessEnv; envFile?: string } = {}): Settings {
  const values = options.environment ?? process.env;
  const file = resolve(options.envFile ?? '.env');
  if (options.environment === undefined && fs.existsSync(file)) process.loadEnvFile(file);
  // An empty value is how a container or a shell leaves something unset.
  const present = Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== ''),
  );
  const faults: string[] = [];
  const read = environment.safeParse(present);
  if (!read.success) {
    faults.push(
      ...read.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`.replace(' =', '=')),
    );
    // zod looks at settings together only when each is right by itself.
    const seen = new Set(read.error.issues.map((issue) => issue.path[0]));
    together(present, {
      addIssue: (issue: { path: [string]; message: string }) => {
        if (!seen.has(issue.path[0])) faults.push(`${issue.path[0]} ${issue.message}`);
      },
    } as unknown as z.RefinementCtx);
  }
  if (!read.success || faults.length > 0) {
    throw new Refusal('SETTINGS_WRONG', [...new Set(faults)].join('\n'), {
      context: { faults: faults.length },
      next: 'Correct these in the environment or in .env and start again; nothing was started.',
      exitCode: 2,
    });
  }
  const found = read.data;
  const home = resolve(found.SEIKYU_HOME);
  return {
    database:
      found.DATABASE_URL !== undefined && found.DATABASE_WEB_URL !== undefined
        ? { kind: 'external', url: found.DATABASE_URL, webUrl: found.DATABASE_WEB_URL }
        : { kind: 'embedded' },
    home,
    baseUrl: found.SEIKYU_BASE_URL ?? `http://localhost:${found.PORT}`,
    secret: found.SEIKYU_SECRET ?? secretIn(home),
    port: found.PORT,
    adminPort: found.ADMIN_PORT,
    adminHost: found.ADMIN_HOST,
    carrier: found.SEIKYU_CARRIER,
    twilio:
      found.SEIKYU_CARRIER === 'twilio' &&
      found.TWILIO_ACCOUNT_SID !== undefined &&
      found.TWILIO_AUTH_TOKEN !== undefined &&
      found.TWILIO_MESSAGING_SERVICE_SID !== undefined
        ? {
            accountSid: found.TWILIO_ACCOUNT_SID,
            authToken: found.TWILIO_AUTH_TOKEN,
            messagingServiceSid: found.TWILIO_MESSAGING_SERVICE_SID,
            secondMessagingServiceSid: found.TWILIO_SECOND_MESSAGING_SERVICE_SID ?? null,
            apiUrl: found.TWILIO_BASE_URL,
          }
        : undefined,
    stripe:
      found.SEIKYU_GATEWAY === 'stripe' &&
      found.STRIPE_SECRET_KEY !== undefined &&
      found.STRIPE_WEBHOOK_SECRET !== undefined
        ? {
            secretKey: found.STRIPE_SECRET_KEY,
            webhookSecrets: found.STRIPE_WEBHOOK_SECRET,
            baseUrl: found.STRIPE_BASE_URL,
          }
        : undefined,
    simulatorUrl: found.SIMULATOR_URL,
    alertWebhook:
      found.SEIKYU_ALERT_WEBHOOK !== undefined && found.SEIKYU_ALERT_WEBHOOK_SECRET !== undefined
        ? { url: found.SEIKYU_ALERT_WEBHOOK, secret: found.SEIKYU_ALERT_WEBHOOK_SECRET }
        : undefined,
    alertMail:
      found.SMTP_URL !== undefined &&
      found.SEIKYU_ALERT_MAIL_FROM !== undefined &&
      found.SEIKYU_ALERT_MAIL_TO !== undefined
        ? {
            smtpUrl: found.SMTP_URL,
            from: found.SEIKYU_ALERT_MAIL_FROM,
            to: found.SEIKYU_ALERT_MAIL_TO,
          }
        : undefined,
    logLevel: found.LOG_LEVEL,
    crashAt: found.SEIKYU_CRASH_AT,
  };
}

/** Made at first use. Whoever loses it loses what was sealed with it, so it is never made anew over an old one. */
function secretIn(home: string): string {
  const file = join(home, 'secrets', 'seikyu');
  try {
    // Only the secrets are private: as root, the server's own user must get through the home itself.
    fs.mkdirSync(home, { recursive: true });
    fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const unfinished = `${file}.${process.pid}`;
    if (!fs.existsSync(file)) {
      fs.writeFileSync(unfinished, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600, flush: true });
      try {
        // Fails where another process was quicker: then its secret holds.
        fs.linkSync(unfinished, file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      } finally {
        fs.rmSync(unfinished, { force: true });
      }
    }
    const secret = fs.readFileSync(file, 'utf8').trim();
    if (secret.length >= secretMinimum) return secret;
  } catch (cause) {
    throw new Refusal(
      'SETTINGS_WRONG',
      `SEIKYU_HOME ${home} cannot be used; write a directory you may write to`,
      {
        context: { home, reason: (cause as NodeJS.ErrnoException).code ?? null },
        next: 'Correct this in the environment or in .env and start again; nothing was started.',
        exitCode: 2,
        cause,
      },
    );
  }
  throw new Refusal('SETTINGS_WRONG', `the secret in ${file} is damaged; bring it back from a backup`, {
    context: { file },
    next: 'Without it, sealed names and numbers cannot be read. If nothing is to be kept, remove SEIKYU_HOME.',
    exitCode: 2,
  });
}
