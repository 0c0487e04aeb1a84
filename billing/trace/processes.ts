/**
 * Everything that is begun and must come to an end, how long it may take, and who is told when it does not. Each is
 * confirmed or alerted within its time. `docs/alerts.md` shows this table.
 */
export interface TracedProcess {
  /** The process and the states in which it only passes through. */
  what: string;
  /** So long it may stand there. */
  minutes: number;
  /** First word of the alert's cause; null where `safely` always ends it. */
  cause: string | null;
  /** Its name among the counts of a pass. */
  count: string | null;
  /** For the message: `3 <stand>, such as ...`. */
  stand: string;
  /** The move that is made without asking, because it can do no harm. */
  safely: string;
  /** Looked at once a business date, and while its alert is open: the look reads every open bill. */
  daily?: true;
}

const hour = 60;
const day = 24 * hour;

export const processes: readonly TracedProcess[] = [
  {
    what: 'charge: processing, unknown, or on a page that has ended',
    minutes: day,
    cause: 'OUTCOME_UNKNOWN',
    count: 'unknown_too_long',
    stand: 'charges without a conclusive outcome for over a day or after ten questions',
    safely:
      'the gateway is asked after 1, 2, 5, 15 and then every 60 minutes; a page that is over is closed first',
  },
  {
    what: 'card change: processing, unknown, or on a page that has ended',
    minutes: day,
    cause: 'CARD_CHANGE_UNKNOWN',
    count: 'card_changes_unknown',
    stand: 'changed cards without a conclusive outcome for over a day',
    safely: 'asked about like a charge; a page that is over is closed first',
  },
  {
    what: 'checkout session: open past its end',
    minutes: 1,
    cause: null,
    count: null,
    stand: 'visits past their end',
    safely: 'expired, unless its charge has no conclusive outcome yet: then that is traced',
  },
  {
    what: 'webhook: stored, not handled',
    minutes: hour,
    cause: 'WEBHOOKS_WAITING',
    count: 'webhooks_waiting',
    stand: 'webhooks not handled for over an hour',
    safely: 'handled again: it only tells us to ask',
  },
  {
    what: 'SMS: sending',
    minutes: hour,
    cause: 'MESSAGES_SENDING',
    count: 'messages_sending',
    stand: 'SMS in sending for over an hour',
    safely: 'none: `notify` asks the carrier',
  },
  {
    what: 'SMS: unknown, its next question overdue',
    minutes: 20 * hour,
    cause: 'MESSAGES_UNKNOWN',
    count: 'messages_unknown',
    stand: 'SMS that the carrier should have been asked about 20 hours ago',
    safely: 'none: `notify` asks the carrier',
  },
  {
    what: 'SMS: planned',
    minutes: 4 * day,
    cause: 'MESSAGES_PLANNED',
    count: 'messages_planned',
    stand: 'SMS planned for more than four days ago',
    safely: 'none: `notify` sends it, after one more look',
  },
  {
    what: 'input file: fetched',
    minutes: 2 * hour,
    cause: 'FILES_WAITING',
    count: 'files_waiting',
    stand: 'files fetched over two hours ago and not read',
    safely: 'none: `ingest` reads it',
  },
  {
    what: 'input file: loading',
    minutes: hour,
    cause: 'FILES_LOADING',
    count: 'files_loading',
    stand: 'files loading for over an hour',
    safely: 'none: `ingest` goes on where it stopped',
  },
  {
    what: 'input file: taken, its removal not written down',
    minutes: 8 * hour,
    cause: 'REMOVALS_UNFINISHED',
    count: 'removals_unfinished',
    stand: 'files taken over eight hours ago and perhaps still in the inbox',
    safely: 'none: `fetch` carries the removal on',
  },
  {
    what: 'receipt: due',
    minutes: 12 * hour,
    cause: 'RECEIPTS_DUE',
    count: 'receipts_due',
    stand: 'files read over twelve hours ago and without a receipt',
    safely: 'none: `deliver` makes it',
  },
  {
    what: 'SMS: not delivered, its bill open and the merchant not told',
    minutes: day,
    cause: 'UNREACHED_UNTOLD',
    count: 'unreached_untold',
    stand: 'bills that no SMS reached for over a day and that the merchant was not told of',
    safely: 'none: `deliver` keeps the bill or hands it back',
    daily: true,
  },
  {
    what: 'result, enrolment or unreached row: in no file',
    minutes: day,
    cause: 'RESULTS_DUE',
    count: 'results_due',
    stand: 'rows for the merchant in no file for over a day',
    safely: 'none: `deliver` freezes it',
    daily: true,
  },
  {
    what: 'outward file: frozen or being renamed, not delivered',
    minutes: 12 * hour,
    cause: 'FILES_UNDELIVERED',
    count: 'files_undelivered',
    stand: 'files not delivered for over twelve hours',
    safely: 'none: `deliver` looks at the server and uploads what is not there',
  },
  {
    what: 'bill: its next step was due',
    minutes: 4 * day,
    cause: 'BILLS_LATE',
    count: 'late_bills',
    stand: 'open bills that wait since more than four days for a step that was due',
    safely: 'none',
    daily: true,
  },
  {
    what: 'bill: open without a next step',
    minutes: 0,
    cause: 'BILLS_FORGOTTEN',
    count: 'forgotten_bills',
    stand: 'open bills with nothing on their agenda',
    safely: 'none',
    daily: true,
  },
  {
    what: 'run: asked for',
    minutes: 30,
    cause: 'RUN_WAITING',
    count: 'waiting_runs',
    stand: 'runs asked for over half an hour ago that nobody does',
    safely: 'none: any worker takes it',
  },
  {
    what: 'run: its worker silent',
    minutes: 15,
    cause: 'RUN_SILENT',
    count: 'silent_runs',
    stand: 'runs whose worker fell silent and that nobody took up',
    safely: 'none: any worker takes it up under a new fence',
  },
  {
    what: 'run: paused by an operator',
    minutes: 12 * hour,
    cause: 'RUN_PAUSED',
    count: 'paused_runs',
    stand: 'jobs paused for over twelve hours',
    safely: 'none: it goes on with `seikyu charging resume`',
  },
  {
    what: 'run: under way',
    minutes: 6 * hour,
    cause: 'RUN_LONG',
    count: 'long_runs',
    stand: 'runs under way for over six hours',
    safely: 'none',
  },
  {
    what: 'run: its last three passes failed',
    minutes: 0,
    cause: 'RUN_FAILING',
    count: 'failing_runs',
    stand: 'runs that failed three times in a row',
    safely: 'the next slot tries again',
  },
];

export function processOf(cause: string): TracedProcess | undefined {
  const [word] = cause.split(' ');
  return processes.find((process) => process.cause === word);
}
