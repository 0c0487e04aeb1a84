import type { AlertLevel } from '../ports.ts';

export interface Cause {
  level: AlertLevel;
  /** For the operator at three in the morning: what it means and what to do. */
  next: string;
  /** How it closes by itself: where the program has proof. Without this a person closes it. */
  over?: string;
  /** The reason of parked or held rows: over when none of them waits any more. */
  parked?: true;
}

/** By the first word of an alert's cause. `docs/alerts.md` shows this table. */
export const causes: Readonly<Record<string, Cause>> = {
  TRACE_SILENT: {
    level: 'now',
    next: 'nobody looks after unknown outcomes: see that a scheduler and a worker run (`seikyu up`), then `seikyu runs --job trace`',
    over: 'a pass of `trace` ends well',
  },
  ALERT_CHANNEL_FAILS: {
    level: 'now',
    next: 'alerts do not get through on one way: look at its settings and at the other side, then `seikyu alerts test`',
    over: 'a notice gets through',
  },
  RUN_SILENT: {
    level: 'now',
    next: 'a worker fell silent and nobody took its work up: start a worker (`seikyu up`), or run the job again by hand',
    over: 'the run is taken up',
  },
  RUN_WAITING: {
    level: 'now',
    next: 'a run was asked for and nobody does it: start a worker (`seikyu up`), or run the job by hand',
    over: 'the run is taken up',
  },
  RUN_PAUSED: {
    level: 'daily',
    next: 'an operator has paused a job and nobody has resumed it: `seikyu charging resume`',
    over: 'it is resumed',
  },
  CHARGES_WAIT: {
    level: 'now',
    next: 'charges wait until somebody has looked at them: `seikyu charging status` shows the plan, `seikyu charging approve` lets it go',
    over: 'a later run of the job finds nothing that waits',
  },
  RUN_LONG: {
    level: 'daily',
    next: 'a run is under way for very long: `seikyu runs` shows it; a hanging partner shows in the log',
    over: 'the run ends',
  },
  RUN_FAILING: {
    level: 'now',
    next: 'a job failed three times in a row: `seikyu runs --job <name>` says why. Other bills go on; files wait behind one that `ingest` cannot read',
    over: 'a later pass of the job ends well',
  },
  GATEWAY_DOWN: {
    level: 'now',
    next: 'charging rests after 32 calls without an answer; what was not tried is untouched. One charge is tried now and again, and with its first answer the rest goes on; where that takes more than ten minutes, the next slot or `seikyu run charge` goes on',
    over: 'a charge that began later has its answer',
  },
  CARDS_UNANSWERED: {
    level: 'daily',
    next: 'the gateway has not answered for ten days what became of saved cards. They are charged as before and asked about again before their next charge: see with the gateway whether its updater works for the account',
    over: 'the gateway answers such a question',
  },
  OUTCOME_UNKNOWN: {
    level: 'now',
    next: 'the gateway has not told for long what became of a charge. Look it up there by the reference that `seikyu explain` shows; `trace` goes on asking. Never charge the bill another way meanwhile. For three days the merchant’s other bills wait for it with their reminders and retries, then only its own',
    over: 'no charge is unknown for so long any more',
  },
  CARD_CHANGE_UNKNOWN: {
    level: 'daily',
    next: 'the gateway has not told for long whether a customer’s other card was kept. The agreement goes on with the card before it, and the customer cannot begin another change meanwhile; `trace` goes on asking. `seikyu explain <customer number>` shows it',
    over: 'no changed card is unknown for so long any more',
  },
  AMOUNT_DIFFERS: {
    level: 'now',
    next: 'the gateway took another amount than was asked. Nothing was posted and the bill stays locked: clear it up with the gateway',
  },
  SETTLEMENT_DIFFERS: {
    level: 'now',
    next: 'the gateway’s report of that day and our books differ. No bill of the merchant is reminded, tried again or returned until each finding is settled, by later news or by hand: `seikyu findings list` says whose turn it is. Acknowledging the alert releases nothing',
    over: 'no finding of the day is open',
  },
  SETTLEMENT_FEE_DIFFERS: {
    level: 'daily',
    next: 'fees are not as agreed in `gateway.fee`. Nothing waits; claim the difference, or correct the settings: `seikyu findings list`',
    over: 'no finding of the day is open',
  },
  BARCODE_NOT_CONFIRMED: {
    level: 'daily',
    next: 'shops told of payments of that day two weeks ago, and the agency has neither confirmed nor cancelled them. Their bills wait and nobody is reminded of them: ask the agency; `seikyu findings list`',
    over: 'no finding of the day is open',
  },
  BARCODE_UNKNOWN: {
    level: 'now',
    next: 'a shop took money for a barcode that was not issued here, or that this database has forgotten. Nothing is booked: find out with the agency whose money it is',
  },
  PAYOUT_WITHHELD: {
    level: 'now',
    next: 'a payout does not add up, or holds what is not known here: not booked, not told to the merchant. `seikyu findings list` says what and whose turn it is; every run of `reconcile` looks again',
    over: 'the payout is booked',
  },
  PAYOUT_WAITS: {
    level: 'daily',
    next: 'a payout holds charges that no settlement report has told of for a week: ask the gateway for the report; the payout is booked once it is here',
    over: 'the payout is booked',
  },
  PAYOUT_CHANGED: {
    level: 'now',
    next: 'the gateway tells a payout otherwise than it was booked and told. Nothing was changed: clear it up with the gateway, then `seikyu findings settle`',
    over: 'the gateway tells it as it was booked again',
  },
  NOT_PAID_OUT: {
    level: 'now',
    next: 'payments stand in no payout 45 days after they were collected: ask the gateway where the money is',
  },
  SETTLEMENT_REPORT_LATE: {
    level: 'now',
    next: 'reminders and retries of the merchant wait for the gateway’s report: ask the gateway, then `seikyu run reconcile`',
    over: 'the report is stored',
  },
  SETTLEMENT_UNCONFIRMED: {
    level: 'now',
    next: 'the gateway reports money and does not confirm it when asked; the merchant’s bills wait. Ask the gateway about the charge named',
  },
  SAFE_MODE: {
    level: 'now',
    next: 'the database was put back to an older state, or failed over: nothing leaves it. `seikyu restore status`, then `seikyu restore reconcile`',
  },
  RESTORE_UNPROVED: {
    level: 'now',
    next: 'the gateway took money that is not provably of a bill here; `seikyu restore status` names it. Clear it up with the gateway; safe mode then ends with `--accept`',
  },
  TOLD_OTHERWISE: {
    level: 'now',
    next: 'after a restore bills are open here of which the merchant was told that they are paid, unpaid or cancelled: they are parked, so that nobody is charged again. Once the gateway and the archive can be read, `seikyu restore reconcile` may still learn what became of them; clear up the rest with the merchant, then `seikyu parked return` or `seikyu parked release`',
    over: 'no bill is parked for it',
    parked: true,
  },
  AUDIT_UNSEALED: {
    level: 'now',
    next: 'acts wait for more than 15 minutes to be sealed into the audit log; the log of the jobs says why sealing fails. Nothing is lost: the next pass of any job seals them',
  },
  BILLS_LATE: {
    level: 'now',
    next: 'open bills whose next step was due more than four days ago: their job does not run, fails, or the gateway refuses them every day. `seikyu runs`, `seikyu explain` of the bill named',
    over: 'none is late any more',
  },
  UNREACHED_UNTOLD: {
    level: 'daily',
    next: 'no SMS reached these bills, and for over a day the merchant was not told: see that `deliver` runs. A bill with a charge waits for the gateway’s report before it goes back; `seikyu explain` of the bill named',
    over: 'each is told, or ended otherwise',
  },
  BILLS_FORGOTTEN: {
    level: 'now',
    next: 'open bills without a next step: a defect. `seikyu check` names them',
    over: 'each has a next step again',
  },
  FILES_WAITING: {
    level: 'now',
    next: 'files were fetched and not read: `seikyu run ingest`, then `seikyu runs --job ingest`',
    over: 'they are read',
  },
  FILES_LOADING: {
    level: 'now',
    next: 'a load was begun and does not end: `seikyu run ingest`, then `seikyu runs --job ingest`',
    over: 'the load ends',
  },
  REMOVALS_UNFINISHED: {
    level: 'daily',
    next: 'files were taken and still lie in the inbox, or nobody knows: `seikyu run fetch`. They are not taken twice',
    over: 'the removal is written down',
  },
  RECEIPTS_DUE: {
    level: 'now',
    next: 'a file was read and its receipt is not made: `seikyu run deliver`, then `seikyu runs --job deliver`',
    over: 'the receipt is made',
  },
  RESULTS_DUE: {
    level: 'now',
    next: 'results stand in no file yet: `seikyu run deliver`, then `seikyu runs --job deliver`',
    over: 'each stands in a file',
  },
  FILES_UNDELIVERED: {
    level: 'now',
    next: 'files are made and not on the merchant’s server: `seikyu run deliver`; ask the merchant whether the server is in order',
    over: 'they are delivered, or parked',
  },
  TIE_OUT_OPEN: {
    level: 'now',
    next: 'counts or amounts of a file do not close. Nothing of it goes out until they do: `seikyu parked`',
    over: 'no file is parked for it',
    parked: true,
  },
  F_SEQUENCE_GAP: {
    level: 'now',
    next: 'a file is held because one with a lower number has not come. Ask the merchant for the missing one; it then loads by itself. If there is none: `seikyu parked release --file <name>`',
    over: 'no file is held for it',
    parked: true,
  },
  F_LOOKS_RESENT: {
    level: 'now',
    next: 'a file is held because it looks like one that was loaded, with other bytes. Ask the merchant which is meant, then `seikyu parked release --file <name>` or `seikyu parked return --file <name>`',
    over: 'no file is held for it',
    parked: true,
  },
  F_UNUSUAL: {
    level: 'now',
    next: 'a file is held because it has far more bills or money than the merchant’s usual one. Ask the merchant, then `seikyu parked release --file <name>` or `seikyu parked return --file <name>`',
    over: 'no file is held for it',
    parked: true,
  },
  AMOUNT_UNUSUAL: {
    level: 'daily',
    next: 'bills are parked because their amount is far above what the contract is usually billed; nobody was told of them. Show them to the merchant, then `seikyu parked release` or `seikyu parked return`',
    over: 'no bill is parked for it',
    parked: true,
  },
  BILLED_TWICE: {
    level: 'daily',
    next: 'bills are parked because their contract has one for the same billing period already; nobody was told of them. Show them to the merchant, then `seikyu parked release` or `seikyu parked return`',
    over: 'no bill is parked for it',
    parked: true,
  },
  REPLACED_TOO_LATE: {
    level: 'now',
    next: 'a bill was paid, or began to be, while its correction was loaded: the correction is parked. Ask the merchant whether the difference is owed, then `seikyu parked release` or `seikyu parked return`',
    over: 'no bill is parked for it',
    parked: true,
  },
  BANK_BY_LINK: {
    level: 'daily',
    next: 'bank mandates came by file and are kept; their bills go by link until the merchant’s settings name an agency: `autopay.direct_debit`. Tell the merchant',
  },
  DEBIT_RESULT_HELD: {
    level: 'now',
    next: 'a result of bank debits does not fit its request, or answers it a second time; nothing of it is booked. Ask the agency which file counts: `seikyu debit list`, then `seikyu debit accept` or `seikyu debit dismiss`',
    over: 'the result is accepted or dismissed',
  },
  DEBIT_RESULT_LATE: {
    level: 'now',
    next: 'the result of a request for bank debits has not come by the day that was agreed. Ask the agency; the bills wait, and nothing else is charged for them: `seikyu debit list`',
    over: 'every request has its result',
  },
  DEBIT_UNANSWERED: {
    level: 'now',
    next: 'a result leaves debits open: the bank has not answered (N), or with a code that nobody knows. Ask the agency for a result with all answers and accept it: `seikyu debit list`. Never charge the bills another way meanwhile',
    over: 'every debit has its answer',
  },
  DEBIT_CODE_UNKNOWN: {
    level: 'now',
    next: 'the bank answered with a code that no rule knows; the bills are parked and stay locked. Ask the agency what it means, then have a result with a known code sent: `seikyu debit accept`',
    over: 'no bill is parked for it',
    parked: true,
  },
  DEBIT_AGENCY_UNREACHABLE: {
    level: 'daily',
    next: 'the server of whoever debits accounts cannot be read; each run tries again. A changed host key: compare it with the agency before you trust it',
    over: 'its results are read',
  },
  HOLDER_UNWRITABLE: {
    level: 'daily',
    next: 'bills are parked because the name of an account’s holder has characters that banks do not take. Ask the merchant for the mandate again, then `seikyu parked release`',
    over: 'no bill is parked for it',
    parked: true,
  },
  OUTWARD_NAME_TAKEN: {
    level: 'now',
    next: 'another file lies under the name of ours, which was not uploaded: `seikyu parked`; ask the merchant who wrote it',
    over: 'no file is parked for it',
    parked: true,
  },
  OUTWARD_FILE_GONE: {
    level: 'now',
    next: 'a file may have been taken before its delivery was confirmed: `seikyu parked`; ask the merchant, then `file confirm` or `parked release`',
    over: 'no file is parked for it',
    parked: true,
  },
  ARCHIVE_DAMAGED: {
    level: 'now',
    next: 'an archived file cannot be read. Restore the archive folder from a backup, or ask the merchant for the file',
    over: 'no file is parked for it',
    parked: true,
  },
  MESSAGES_SENDING: {
    level: 'now',
    next: 'SMS were claimed for sending and their outcome was not written down: `seikyu run notify` asks the carrier; nothing is sent twice',
    over: 'none is left',
  },
  MESSAGES_UNKNOWN: {
    level: 'now',
    next: 'the carrier should have been asked about SMS and was not: `seikyu run notify`, then `seikyu runs --job notify`',
    over: 'none is left',
  },
  MESSAGES_PLANNED: {
    level: 'daily',
    next: 'SMS wait to be sent for days: `seikyu run notify`, then `seikyu runs --job notify`; the merchant’s hours or pace may be too narrow',
    over: 'none is left',
  },
  SMS_OUTCOME_UNKNOWN: {
    level: 'now',
    next: 'the carrier does not say whether it took a message, which is not sent again: `seikyu parked`; ask the carrier',
    over: 'no message is parked for it',
    parked: true,
  },
  CARRIER_BUSY: {
    level: 'none',
    next: 'the carrier took no messages for a while; they go in a later pass',
    over: 'it did not happen for a day',
  },
  CARRIER_REFUSES: {
    level: 'now',
    next: 'the carrier takes nothing from this account or sender until somebody acts: its code stands in the message; see docs/sms.md. Nothing is lost: messages wait and go in a later pass',
    over: 'the carrier has taken a message since',
  },
  SMS_TAKEN_TWICE: {
    level: 'now',
    next: 'the carrier took a message under two ids: a customer has it twice. `seikyu check --outside` names it; ask the carrier',
  },
  WEBHOOKS_WAITING: {
    level: 'daily',
    next: 'webhooks are stored and not handled, because the gateway gives no answer about them: `seikyu run trace`',
    over: 'none is left',
  },
  SFTP_HOST_KEY_CHANGED: {
    level: 'now',
    next: 'nothing was sent. Ask the merchant, by telephone, for the new fingerprint; write it beside the old one in `exchange.sftp.host_keys` and apply',
    over: 'a later pass of `fetch` ends well',
  },
  SFTP: {
    level: 'daily',
    next: 'the merchant’s inbox could not be read; it is tried again by itself. Ask the merchant whether the server is in order',
    over: 'a later pass of `fetch` ends well',
  },
  DELIVER_SFTP_HOST_KEY_CHANGED: {
    level: 'now',
    next: 'nothing was sent. As `SFTP_HOST_KEY_CHANGED`',
    over: 'a later pass of `deliver` ends well',
  },
  DELIVER: {
    level: 'daily',
    next: 'files could not be uploaded; they wait and go in a later pass. Ask the merchant whether the server is in order',
    over: 'a later pass of `deliver` ends well',
  },
  FILE_LATE: {
    level: 'now',
    next: 'a file that the merchant’s `calendar` expects has not come by its time: ask the merchant. A file that came and was refused does not count: `seikyu runs --job ingest`',
    over: 'the file comes',
  },
  FILE_NOT_TAKEN: {
    level: 'daily',
    next: 'the server refuses the file, or does not give what it lists; the others are taken. Ask the merchant to send it again, or for the right to read and delete it',
    over: 'the file is taken',
  },
  DISK_FULL: {
    level: 'now',
    next: 'the disk of SEIKYU_HOME is full: nothing is half-taken, files stay with the merchant. Make room; the next run carries on',
    over: 'a later pass of the job ends well',
  },
  REFUND_UNKNOWN: {
    level: 'now',
    next: 'the gateway does not tell what became of a refund. Look it up there; `trace` goes on asking. Never refund it another way meanwhile: `seikyu refund list`, and `seikyu file recall <name>` for how far a recall is',
    over: 'no refund is unknown for so long',
  },
  REFUND_REFUSED: {
    level: 'now',
    next: 'the gateway will not give money back: `seikyu refund list`. Clear it up with the gateway; `seikyu refund`, or for a recalled file `seikyu file recall <name>`, tries once more. What the merchant gave back another way: `seikyu refund given`',
  },
  REFUND_DIFFERS: {
    level: 'now',
    next: 'the gateway gave back another amount than was asked. Nothing was booked: clear it up with the gateway',
  },
  UNKNOWN_FILE_NAME: { level: 'daily', next: 'the file stays in the inbox. Tell the merchant' },
  UNKNOWN_FILE_NAMES: { level: 'daily', next: 'the files stay in the inbox. Tell the merchant' },
  LATE_PAYMENT: {
    level: 'daily',
    next: 'money came for a bill that was already returned; it is booked on that bill. Tell the merchant',
  },
  OVERPAID: {
    level: 'daily',
    next: 'money came for a bill that is paid or cancelled; it is the customer’s credit (`seikyu refund list --credits`). Tell the merchant',
  },
  CHECKS_FAILING: {
    level: 'now',
    next: 'many wrong answers on pay pages: somebody guesses customer numbers with links that are not theirs, or the merchant’s numbers in bills and on meter slips differ. `failed_checks` has them by network; a proxy may shut one out. Nobody is locked out',
  },
  WRONG_PERSON: {
    level: 'daily',
    next: 'a phone’s holder says that the bill is not theirs: nothing more is sent there for that customer. Tell the merchant; a contact file with the customer’s number, the same or another, opens the way again',
  },
  FILE_UNREACHED: {
    level: 'now',
    next: 'not one bill by link of a whole file reached a phone, and the merchant’s rule was applied to all of them: rather a wrong column of phone numbers or a blocked sender than its customers. Ask the merchant before it prints paper; `seikyu explain` of a bill says why its SMS did not arrive',
  },
  LINKS_PROBED: {
    level: 'daily',
    next: 'somebody opens links that do not exist. They cannot be guessed; a proxy may shut the address out',
  },
};

/** The entry for a cause as it is stored: `RUN_SILENT ingest`, `SFTP_TIMEOUT`, `DELIVER_UPLOAD_INCOMPLETE`. */
export function causeOf(cause: string): Cause | undefined {
  const word = /^[A-Z_]+/.exec(cause)?.[0] ?? '';
  return causes[word] ?? causes[word.split('_')[0] ?? ''];
}

export function nextOf(cause: string): string {
  return causeOf(cause)?.next ?? 'look at: `seikyu alerts`';
}
