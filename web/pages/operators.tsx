import type { ComponentChildren, VNode } from 'preact';
import { renderToString } from 'preact-render-to-string';
import type { OpenAlert } from '../../billing/alerts/queries.ts';
import type { OutboxMessage } from '../../billing/carriers/outbox.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import type { ParkedItem } from '../../billing/parked/queries.ts';
import type { PassRow } from '../../billing/runs/queries.ts';
import type { Watched } from '../../billing/trace/watch.ts';
import { adminPaths } from '../paths.ts';

export const operatorStyle = `
:root { color-scheme: light dark; --paper: #f4f5f7; --card: #fff; --ink: #1b1d23; --soft: #5b6070; --line: #dfe2e8; --act: #1f5fbf; --good: #12724a; --bad: #b3261e; --wait: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161c; --card: #1e2129; --ink: #eceef3; --soft: #a4aabb; --line: #333846; --act: #8ab4ff; --good: #6fd3a4; --bad: #ff9a92; --wait: #f0c265; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, "Hiragino Sans", "Noto Sans JP", "Noto Sans CJK JP", sans-serif; }
header { background: var(--card); border-bottom: 1px solid var(--line); }
header .wrap { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: baseline; padding-block: .8rem; }
.wrap { max-width: 68rem; margin-inline: auto; padding-inline: 1rem; }
header strong { font-size: 1.05rem; }
header p { margin: 0 0 0 auto; color: var(--soft); font-variant-numeric: tabular-nums; }
a { color: var(--act); }
a[aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; white-space: nowrap; }
.at { white-space: nowrap; }
.empty { color: var(--soft); background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .75rem 1rem; margin: 0; }
.done { color: var(--good); } .failed, .now { color: var(--bad); font-weight: 600; } .attention, .stopped, .daily { color: var(--wait); font-weight: 600; }
.sms { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; margin: 0 0 .75rem; max-width: 34rem; }
.sms p { margin: 0; } .sms .body { white-space: pre-wrap; overflow-wrap: anywhere; margin-top: .35rem; font-size: 1.05rem; }
.soft { color: var(--soft); font-size: .875rem; }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
`;

function document(title: string, now: string, current: string, content: ComponentChildren): string {
  const link = (href: string, name: string) => (
    <a href={href} aria-current={href === current ? 'page' : undefined}>
      {name}
    </a>
  );
  return `<!doctype html>${renderToString(
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>{`${title} - Seikyu`}</title>
        <link rel="stylesheet" href={adminPaths.style} />
      </head>
      <body>
        <header>
          <div class="wrap">
            <strong>Seikyu</strong>
            {link(adminPaths.status, 'Status')}
            {link(adminPaths.outbox, 'SMS outbox')}
            <p>{now}</p>
          </div>
        </header>
        <main class="wrap">{content}</main>
      </body>
    </html>,
  )}`;
}

function Table(props: { head: string[]; rows: ComponentChildren[][]; empty: string }): VNode {
  if (props.rows.length === 0) return <p class="empty">{props.empty}</p>;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            {props.head.map((name) => (
              <th scope="col">{name}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((cells) => (
            <tr>
              {cells.map((cell) => (
                <td>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const listed = (counts: object): string =>
  Object.entries(counts)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');

export function statusPage(status: {
  now: string;
  merchants: readonly Merchant[];
  passes: readonly PassRow[];
  parked: readonly ParkedItem[];
  alerts: readonly OpenAlert[];
  tracers: readonly Watched[];
  at: (instant: string) => string;
}): string {
  const { at } = status;
  return document(
    'Status',
    status.now,
    adminPaths.status,
    <>
      <h2>Alerts ({status.alerts.length})</h2>
      <Table
        head={['Level', 'Merchant', 'What', 'Times', 'Last']}
        rows={status.alerts.map((alert) => [
          <span class={alert.level}>{alert.level}</span>,
          alert.merchant,
          <>
            {alert.message}
            <br />
            <span class="soft">{alert.cause}</span>
          </>,
          alert.occurrences,
          <span class="at">{at(alert.last_at)}</span>,
        ])}
        empty="Nothing wants a person."
      />
      <h2>Trace</h2>
      <Table
        head={['Merchant', 'Last ended well', '']}
        rows={status.tracers.map((last) => [
          last.merchant,
          <span class="at">{at(last.at)}</span>,
          last.isSilent ? <span class="now">silent</span> : '',
        ])}
        empty="There is no merchant yet."
      />
      <h2>Parked ({status.parked.length})</h2>
      <Table
        head={['Merchant', 'What', 'Reason', 'Facts', 'Since']}
        rows={status.parked.map((item) => [
          item.merchant,
          item.billing_number ?? `${item.subject} ${item.subject_id}`,
          item.reason,
          listed(item.context),
          <span class="at">{at(item.parked_at)}</span>,
        ])}
        empty="Nothing is parked."
      />
      <h2>Latest runs</h2>
      <Table
        head={['Business date', 'Merchant', 'Job', 'Pass', 'Outcome', 'Counts', 'Started']}
        rows={status.passes.map((pass) => [
          pass.business_date,
          pass.merchant,
          pass.job,
          pass.pass,
          <span class={pass.outcome ?? ''}>{pass.outcome ?? 'running'}</span>,
          <>
            {listed(pass.counts)}
            {pass.failure !== null && (
              <>
                <br />
                <span class="failed">{pass.failure}</span>
              </>
            )}
          </>,
          <span class="at">{at(pass.started_at)}</span>,
        ])}
        empty="No job ran yet."
      />
      <h2>Merchants</h2>
      <Table
        head={['Code', 'Name', 'Settings version', 'Layout']}
        rows={status.merchants.map((merchant) => [
          merchant.code,
          `${merchant.settings.name.ja} (${merchant.settings.name.en})`,
          merchant.settingsVersion,
          merchant.settings.layout,
        ])}
        empty="No merchant yet. Apply one: seikyu merchant apply <file.yaml>"
      />
    </>,
  );
}

export function outboxPage(outbox: {
  now: string;
  messages: readonly OutboxMessage[];
  at: (instant: string) => string;
}): string {
  return document(
    'SMS outbox',
    outbox.now,
    adminPaths.outbox,
    <>
      <h2>SMS outbox</h2>
      {outbox.messages.length === 0 && <p class="empty">No SMS yet.</p>}
      {outbox.messages.map((message) => (
        <article class="sms">
          <p class="soft">
            {outbox.at(message.acceptedAt)} · {message.merchant} · {message.to}
          </p>
          <p class="body" lang="ja">
            <WithLinks text={message.body} />
          </p>
        </article>
      ))}
    </>,
  );
}

/** Only web addresses become links, whatever else the text holds. */
function WithLinks({ text }: { text: string }): VNode {
  return (
    <>
      {text.split(/(https?:\/\/[^\s<>"]+)/).map((part, index) =>
        index % 2 === 1 ? (
          <a href={part} target="_blank" rel="noreferrer noopener">
            {part}
          </a>
        ) : (
          part
        ),
      )}
    </>
  );
}
