import type { ChargeAnswer } from '../../billing/gateways/gateway.ts';
import { referenceOf } from '../../billing/ids.ts';
import type { JobName } from '../../jobs/job.ts';
import type { Ports } from '../../jobs/ports.ts';
import type { FaultProfile } from './faults.ts';

/** One guard taken away, to see that the simulation notices: a check that never fails proves nothing. */
export interface Sabotage {
  name: string;
  /** What is taken away. */
  without: string;
  /** Invariants that are there for it: the first violation must be of one of these. */
  expects: readonly string[];
  /** Run on the fresh database. */
  schema?: readonly string[];
  /** Texts of statements, and what stands there instead. */
  statements?: readonly (readonly [string, string])[];
  ports?: (ports: Ports) => Partial<Ports>;
  withoutJob?: JobName;
  /** More of the fault that the guard is for, so that few seeds are enough. */
  faults?: (profile: FaultProfile) => FaultProfile;
}

const gatewayFaults =
  (more: Partial<FaultProfile['gateway']>) =>
  (profile: FaultProfile): FaultProfile => ({ ...profile, gateway: { ...profile.gateway, ...more } });

const twiceAtShops = gatewayFaults({ shopPaidTwice: 1, shopTakesBack: 0 });

const manyRecalls = (profile: FaultProfile): FaultProfile => ({
  ...profile,
  merchant: { ...profile.merchant, recallsFile: 0.5 },
});

const bankFaults =
  (more: Partial<FaultProfile['bank']>) =>
  (profile: FaultProfile): FaultProfile => ({ ...profile, bank: { ...profile.bank, ...more } });

/** A declaration that "not found" proves everything at once. */
const atOnce = -24 * 3_600_000;

export const sabotages: readonly Sabotage[] = [
  {
    name: 'timeout-is-failure',
    without: 'a call without an answer is unknown, here it counts as declined; and reports teach nothing',
    expects: ['I-4', 'I-9'],
    withoutJob: 'reconcile',
    faults: gatewayFaults({ timeoutAfter: 0.2, webhookLost: 0.8 }),
    statements: [['and a.act_on - 1 > coalesce(', 'and false and a.act_on - 1 > coalesce(']],
    ports: ({ gateway }) => ({
      gateway: {
        ...gateway,
        async charge(request, signal): Promise<ChargeAnswer> {
          const answer = await gateway.charge(request, signal);
          if (answer.kind !== 'unknown') return answer;
          const codes = {
            gatewayCode: 'insufficient_funds',
            network: 'visa',
            networkCode: '51',
            adviceCode: null,
          };
          return { kind: 'failed', codes, gatewayChargeId: null };
        },
      },
    }),
  },
  {
    name: 'absence-proves-at-once',
    without: '"not found" at the gateway proves nothing before the call can no longer take effect',
    // I-18: a refund that was taken for not made.
    expects: ['I-4', 'I-9', 'I-18'],
    faults: gatewayFaults({ timeoutLate: 0.2, webhookLost: 0.8 }),
    ports: ({ gateway }) => ({
      gateway: { ...gateway, semantics: { ...gateway.semantics, notFoundConclusiveAfterMs: atOnce } },
    }),
  },
  {
    name: 'sms-sent-again',
    without: 'an SMS without an answer is asked about; here it is sent again',
    expects: ['I-5'],
    ports: ({ carrier }) => ({
      carrier: {
        ...carrier,
        async send(request, signal) {
          const answer = await carrier.send(request, signal);
          return answer.kind === 'unknown'
            ? { kind: 'not_executed', why: answer.why, retryAfterMs: null }
            : answer;
        },
      },
    }),
  },
  {
    name: 'sms-absence-proves-at-once',
    without: '"not found" at the carrier proves nothing before the send can no longer take effect',
    expects: ['I-5'],
    ports: ({ carrier }) => ({
      carrier: { ...carrier, semantics: { ...carrier.semantics, notFoundConclusiveAfterMs: atOnce } },
    }),
  },
  {
    name: 'no-collection-lock',
    without: 'one open charge for a bill: the lock row is not unique and nobody looks at it',
    expects: ['I-4', 'I-10'],
    schema: [
      `alter table collection_locks drop constraint collection_locks_pkey`,
      `alter table collection_locks add primary key (merchant_id, charge_id)`,
    ],
    statements: [
      ['l.charge_id as locked_by', 'null::uuid as locked_by'],
      ['k.charge_id, ch.origin as charge_origin', 'null::uuid as charge_id, ch.origin as charge_origin'],
    ],
  },
  {
    name: 'no-compare-and-set',
    without: 'an outcome changes a charge only from a state that allows it',
    expects: ['I-20', 'I-8'],
    // Keys that would stop it, too: several guards stand behind each other.
    schema: [
      `alter table payments drop constraint payments_pkey cascade`,
      `alter table credits drop constraint credits_pkey cascade`,
      `alter table allocations drop constraint allocations_pkey cascade`,
    ],
    statements: [['c.state = any($11::text[])', '$11::text[] is not null']],
  },
  {
    name: 'no-look-before-sending',
    without:
      'a message is not sent after its bill was settled: neither ended with the bill nor looked at again',
    expects: ['I-5'],
    statements: [
      [`where merchant_id = $1 and invoice_id = any($2::uuid[]) and state = 'planned'`, 'where false'],
      [`when i.state in ('paid', 'unpaid', 'cancelled') then i.state`, `when false then i.state`],
      [`when l.dead_reason is not null then 'link_dead'`, `when false then 'link_dead'`],
    ],
  },
  {
    name: 'no-look-for-holds',
    without: 'a customer who is held is not charged and gets no SMS: nobody looks, at the moment of either',
    expects: ['I-12'],
    faults: (profile) => ({
      ...profile,
      merchant: { ...profile.merchant, holds: 1, contacts: 0, endings: 0 },
    }),
    statements: [
      ['(select from holds h where h.merchant_id', '(select from holds h where false and h.merchant_id'],
    ],
  },
  {
    name: 'shops-word-locks-nothing',
    without: 'a bill that a shop says is paid is locked: here it stays free',
    expects: ['I-4', 'I-10', 'I-20'],
    statements: [
      [
        'select $1, invoice_id, charge_id, $3::timestamptz, $4::timestamptz from first',
        'select $1, invoice_id, charge_id, $3::timestamptz, $4::timestamptz from first where false',
      ],
    ],
  },
  {
    name: 'surplus-is-no-credit',
    without: 'what is paid at a shop after the card, or twice, is kept as the customer’s credit',
    expects: ['I-4', 'I-20'],
    faults: twiceAtShops,
    statements: [
      [
        'select $1, id, customer_id, amount, credit_reason, $11::timestamptz from new where not allocated',
        'select $1, id, customer_id, amount, credit_reason, $11::timestamptz from new where false',
      ],
    ],
  },
  {
    name: 'credits-without-sum',
    without:
      'no more of a credit is put on bills than there is: neither what was used, nor the check is looked at',
    expects: ['I-13', 'I-20'],
    faults: twiceAtShops,
    schema: ['alter table payments drop constraint payments_spent_at_most'],
    statements: [
      ['p.refunded + p.reused < p.amount\n  join invoices b', 'true\n  join invoices b'],
      ['p.amount - p.refunded - p.reused as amount\n  from credits', 'p.amount as amount\n  from credits'],
    ],
  },
  {
    name: 'refund-without-intent',
    without: 'money is given back under the reference of a refund that was written down before',
    expects: ['I-18'],
    faults: manyRecalls,
    ports: ({ gateway, ids }) => ({
      gateway: {
        ...gateway,
        refund: (request, signal) =>
          gateway.refund({ ...request, reference: referenceOf(ids.uuid()) }, signal),
      },
    }),
  },
  {
    name: 'refunds-without-sum',
    without:
      'no more is given back than was taken: neither the rest, nor an open refund, nor the check is looked at',
    expects: ['I-13'],
    faults: manyRecalls,
    schema: [
      'alter table payments drop constraint payments_refunded_at_most',
      'alter table payments drop constraint payments_spent_at_most',
      'drop index refunds_one_open',
    ],
    statements: [
      ['p.refunded + p.reused < p.amount', 'true'],
      ['p.amount - p.refunded - p.reused as amount', 'p.amount as amount'],
      [`r.charge_id = p.id and r.state in ('processing', 'unknown')`, 'r.charge_id = p.id and false'],
    ],
  },
  {
    name: 'recall-notice-without-key',
    without: 'a bill has one correction: its message has no key, and the bill is looked at again and again',
    // A second one is stopped by the key of the history: then the run that fails is what is noticed.
    expects: ['I-5', 'no failure without a cause'],
    faults: manyRecalls,
    schema: ['alter table messages drop constraint messages_pkey'],
    statements: [
      ['on conflict (merchant_id, invoice_id, step) do nothing', ''],
      [`b.invoice_id = m.invoice_id and b.state <> 'done'`, 'b.invoice_id = m.invoice_id and false'],
    ],
  },
  {
    name: 'files-taken-twice',
    without: 'the same bytes are taken in once: no look for them and no unique index',
    expects: ['I-1', 'I-3'],
    schema: [
      'drop index billing_files_once_by_name',
      'drop index billing_files_once_by_bytes',
      'drop index billing_files_once_by_sequence',
    ],
    statements: [
      [`and (name = $3 or (sha256 = $4 and lines_read > 0))`, 'and $3::text is null and $4::text is null'],
      [`and sequence = $3 and state in ('loading', 'released', 'held')`, 'and $3::int is null'],
    ],
  },
  {
    name: 'rows-told-twice',
    without: 'a result row stands in one file: here each file has all of them',
    expects: ['I-14'],
    statements: [['r.outward_file_id is null and i.file_id <> all', 'i.file_id <> all']],
  },
  {
    name: 'paper-told-twice',
    without: 'a bill that no SMS reaches stands in one unreached file: here each file has all of them',
    expects: ['I-14'],
    statements: [['where u.merchant_id = $1 and u.outward_file_id is null', 'where u.merchant_id = $1']],
  },
  {
    name: 'disputes-hold-nothing',
    without: 'what a finding says the gateway has otherwise is not told before that is settled',
    expects: ['I-9'],
    faults: gatewayFaults({ lineLate: 0.5 }),
    statements: [
      [
        "where merchant_id = $1 and state = 'open' and invoice_id is not null\n    and kind in",
        'where merchant_id = $1 and false and kind in',
      ],
    ],
  },
  {
    name: 'chain-begins-anew',
    without: 'an entry of the audit log carries the hash of the one before',
    expects: ['audit'],
    statements: [
      ["encode(hash, 'hex') as hash from audit_heads", "repeat('00', 32) as hash from audit_heads"],
    ],
  },
  {
    name: 'no-temporary-name',
    without: 'a file is uploaded under a temporary name',
    expects: ['I-15'],
    ports: ({ openStore }) => ({
      openStore: async (connection) => {
        const store = await openStore(connection);
        const finalOf = (path: string) => path.replace(/\/\.([^/]+)\.\d+\.part$/, '/$1');
        return {
          ...store,
          upload: (path, content) => store.upload(finalOf(path), content),
          stat: (path) => store.stat(finalOf(path)),
          rename: async () => undefined,
        };
      },
    }),
  },
  {
    name: 'no-trace',
    without: 'somebody asks about unknown outcomes: the job trace never runs',
    expects: ['I-11'],
    withoutJob: 'trace',
  },
  {
    name: 'no-reconcile',
    without: 'reports of the gateway are read: the job reconcile never runs',
    expects: ['I-9', 'I-11'],
    withoutJob: 'reconcile',
  },
  {
    name: 'no-count-of-staging',
    without: 'staged lines are counted before each part of a load',
    expects: ['I-1', 'I-2', 'I-11', 'I-14'],
    faults: (profile) => ({ ...profile, stagingLost: 0.5 }),
    statements: [
      [
        'select count(*) as lines, coalesce(sum(amount), 0)::bigint as amount',
        `select coalesce((select lines_staged from billing_files where merchant_id = $1 and id = $2::uuid), count(*)) as lines,
                coalesce((select amount_accepted from billing_files where merchant_id = $1 and id = $2::uuid), sum(amount), 0)::bigint as amount`,
      ],
      ['select exists (select from staged_bills', 'select true or exists (select from staged_bills'],
    ],
  },
  {
    name: 'nobody-is-told',
    without: 'alerts for a person now are sent',
    expects: ['alerts'],
    ports: () => ({ alertSenders: [] }),
  },
  {
    name: 'no-halts',
    without: 'charging that an operator has paused begins nothing: nobody looks',
    expects: ['halts'],
    faults: (profile) => ({ ...profile, merchant: { ...profile.merchant, haltsCharging: 1 } }),
    statements: [
      [
        'select from run_halts h where h.merchant_id',
        'select from run_halts h where false and h.merchant_id',
      ],
      [
        "where merchant_id = $1 and job = $2 and (kind = 'pause' or business_date = $3::date)\n     order by",
        'where false and merchant_id = $1 and job = $2 and business_date = $3::date\n     order by',
      ],
    ],
  },
  {
    name: 'no-gate',
    without: 'a second bill for a month waits for a person: here nothing is suspect',
    expects: ['gates'],
    statements: [['and (($6 and h.same > 1)', 'and (($6 and false and h.same > 1)']],
  },
  {
    name: 'adjustments-told-again',
    without: 'an adjustment stands in one file: here each file takes all there ever were',
    expects: ['I-14'],
    faults: twiceAtShops,
    statements: [['a.outward_file_id is null\n    and exists', 'true\n    and exists']],
  },
  {
    name: 'no-answer-is-refusal',
    without: 'a debit that the bank has not answered (N) is unknown, here it counts as short of funds',
    expects: ['I-9', 'I-4'],
    faults: bankFaults({ unanswered: 0.6 }),
    statements: [
      [
        'a.amount, c.currency, a.code, q.debit_on',
        `a.amount, c.currency, case a.code when 'N' then '1' else a.code end as code, q.debit_on`,
      ],
    ],
  },
  {
    name: 'second-result-counts',
    without: 'a second result for a request counts only when a person has asked the agency',
    expects: ['I-9', 'I-4'],
    faults: bankFaults({ secondWrong: 1 }),
    statements: [['select r.file_id, r.state, r.debit_on', `select r.file_id, 'asked' as state, r.debit_on`]],
  },
  {
    name: 'debits-asked-of-gateway',
    without:
      'nobody but the bank can say what became of a debit: here trace asks the card gateway, which knows nothing of it',
    expects: ['I-9', 'I-4'],
    faults: bankFaults({ late: 0.6, unanswered: 0.4 }),
    statements: [
      [
        'c.origin, c.gateway, c.amount, c.currency, c.started_at',
        `c.origin, 'simulator' as gateway, c.amount, c.currency, c.started_at`,
      ],
      [`c.id = l.charge_id and c.gateway = 'zengin-91')`, `c.id = l.charge_id and false)`],
      [`and c.gateway <> 'zengin-91'\n       and l.charge_id between`, 'and l.charge_id between'],
    ],
  },
  {
    name: 'debits-lock-nothing',
    without: 'what a bank is asked for is locked: here the bill stays free, and dunning goes on with it',
    expects: ['I-4', 'I-10'],
    schema: [
      `create function forget_lock() returns trigger language plpgsql as $$
       begin
         delete from collection_locks l using charges c
         where l.merchant_id = new.merchant_id and l.charge_id = new.charge_id
           and c.merchant_id = l.merchant_id and c.id = l.charge_id and c.gateway = 'zengin-91';
         return null;
       end $$`,
      `create trigger forget_lock after insert on collection_locks for each row execute function forget_lock()`,
    ],
  },
  {
    name: 'no-fence',
    without: 'a worker that has lost its chunk writes nothing',
    // A late worker may also run into what was meant to be impossible, and stop there.
    expects: ['I-10', 'I-4', 'I-14', 'I-15', 'no failure without a cause'],
    statements: [
      [
        `and state = 'ready' and lease_owner = $6 and fence = $7\n     for share`,
        'and $6::text is not null and $7::bigint is not null',
      ],
    ],
  },
];

export function sabotageByName(name: string): Sabotage | undefined {
  return sabotages.find((sabotage) => sabotage.name === name);
}
