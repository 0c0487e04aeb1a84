import type { ChargeAnswer } from '../../billing/gateways/gateway.ts';
import type { JobName } from '../../jobs/job.ts';
import type { Ports } from '../../jobs/ports.ts';
import type { FaultProfile } from './faults.ts';

/** One guard taken away, to see that the simulation notices: a check that never fails proves nothing. */
export interface Sabotage {
  name: string;
  /** What is taken away. */
  without: string;
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

/** A declaration that "not found" proves everything at once. */
const atOnce = -24 * 3_600_000;

export const sabotages: readonly Sabotage[] = [
  {
    name: 'timeout-is-failure',
    without: 'a call without an answer is unknown, here it counts as declined; and reports teach nothing',
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
    faults: gatewayFaults({ timeoutLate: 0.2, webhookLost: 0.8 }),
    ports: ({ gateway }) => ({
      gateway: { ...gateway, semantics: { ...gateway.semantics, notFoundConclusiveAfterMs: atOnce } },
    }),
  },
  {
    name: 'sms-sent-again',
    without: 'an SMS without an answer is asked about; here it is sent again',
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
    ports: ({ carrier }) => ({
      carrier: { ...carrier, semantics: { ...carrier.semantics, notFoundConclusiveAfterMs: atOnce } },
    }),
  },
  {
    name: 'no-collection-lock',
    without: 'one open charge for a bill: the lock row is not unique and nobody looks at it',
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
    statements: [['c.state = any($11::text[])', '$11::text[] is not null']],
  },
  {
    name: 'no-look-before-sending',
    without:
      'a message is not sent after its bill was settled: neither ended with the bill nor looked at again',
    statements: [
      [`where merchant_id = $1 and invoice_id = any($2::uuid[]) and state = 'planned'`, 'where false'],
      [`case when i.state in ('paid', 'unpaid', 'cancelled') then i.state`, `case when false then i.state`],
      [`when l.dead_reason is not null then 'link_dead'`, `when false then 'link_dead'`],
    ],
  },
  {
    name: 'files-taken-twice',
    without: 'the same bytes are taken in once: no look for them and no unique index',
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
    statements: [['r.outward_file_id is null and i.file_id <> all', 'i.file_id <> all']],
  },
  {
    name: 'no-temporary-name',
    without: 'a file is uploaded under a temporary name',
    ports: ({ openStore }) => ({
      openStore: async (connection) => {
        const store = await openStore(connection);
        const finalOf = (path: string) => path.replace(/\/\.([^/]+)\.part$/, '/$1');
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
    withoutJob: 'trace',
  },
  {
    name: 'no-reconcile',
    without: 'reports of the gateway are read: the job reconcile never runs',
    withoutJob: 'reconcile',
  },
  {
    name: 'nobody-is-told',
    without: 'alerts for a person now are sent',
    ports: () => ({ alertSenders: [] }),
  },
  {
    name: 'no-fence',
    without: 'a worker that has lost its chunk writes nothing',
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
