/** What must hold of money, files and bills, numbered for ever: alerts, tests and the simulation name them by number. */
export interface Invariant {
  id: number;
  /** A sentence that is true while all is well. */
  name: string;
  /** What is looked at on the live database. */
  looks: string;
  /** What of it no look at data can show, and what shows it instead; empty: nothing. */
  elsewhere: string;
  /** What is lost when it does not hold. */
  matters: string;
  /** What usually breaks it. */
  breaks: string;
  /** What a person does about it. */
  next: string;
}

export const invariants: readonly Invariant[] = [
  {
    id: 1,
    name: 'each input file is taken in once, by its name, its bytes and its sequence number',
    looks: 'files that are loading, released or held, grouped by name, digest and sequence number',
    elsewhere: 'what lies on the merchant’s server: the simulation',
    matters: 'a file that is taken in twice bills every customer in it twice',
    breaks: 'a unique index of billing_files that was dropped or is corrupt, rows written by hand',
    next: 'stop ingest, compare the two files by their receipts, and have the bills of the second one cancelled',
  },
  {
    id: 2,
    name: 'every line read is accepted or rejected, never both, and every accepted one is one bill of its file',
    looks:
      'counts and amounts of each released file against its bills and rejected lines; lines with two fates',
    elsewhere: 'that the file had these lines: its trailer, and the simulation',
    matters: 'a line without an outcome is money that the merchant waits for and nobody collects',
    breaks: 'a load that was carried on over lost staging rows, bills deleted or moved by hand',
    next: 'deliver nothing of that file; compare its archived copy with its bills line by line',
  },
  {
    id: 3,
    name: 'there is one bill for each billing number of a merchant',
    looks: 'all bills, grouped by merchant and billing number',
    elsewhere: '',
    matters: 'two bills of one number are two charges for one debt',
    breaks: 'a unique index that is corrupt, often after the operating system’s sorting rules changed',
    next: 'stop charge, reindex invoices, and cancel the bill that the merchant did not mean',
  },
  {
    id: 4,
    name: 'no bill is paid twice without the surplus being a credit, and no attempt begins while another is open',
    looks:
      'charges by bill: paid ones without a credit, open ones, and each attempt against the end of the one before (clocks may differ by 15 minutes)',
    elsewhere: 'what the gateway has captured: check --outside',
    matters: 'a customer is charged twice',
    breaks: 'a lock row deleted by hand, an outcome recorded as failed that was unknown',
    next: 'stop charge, ask the gateway about each charge of the bill, and give back what was taken twice',
  },
  {
    id: 5,
    name: 'no message was claimed for sending after its bill was settled',
    looks: 'messages that went out or may have, against the end of their bills',
    elsewhere:
      'that one step of one bill is one message is its primary key (see 7); what the carrier took: check --outside',
    matters: 'a customer who has paid is told to pay',
    breaks: 'bills settled outside their one transition, clocks of two machines far apart',
    next: 'apologise through the merchant; compare the clocks of the machines',
  },
  {
    id: 6,
    name: 'what was taken is what was asked for, and what was asked for is what the bill says',
    looks: 'payments against their charges, charges against their bills: amount, currency, bill, state',
    elsewhere: 'what the gateway really took: check --outside',
    matters: 'a customer pays another amount than the bill says',
    breaks: 'a gateway that captures in part, an amount changed by hand after the charge began',
    next: 'compare with the gateway’s own record; correct by a refund or a new bill, never by an update',
  },
  {
    id: 7,
    name: 'nothing is booked twice, no run is done with work left over, and the keys that keep it so stand',
    looks:
      'transfers by entry over all months, chunks left in passes that ended well, unique keys in the catalog',
    elsewhere:
      'that running a job again changes nothing: each job is run twice in its tests, with the tables compared',
    matters: 'a second run of a job would bill, send or book a second time',
    breaks:
      'a unique index that was dropped or never became valid, a job that does not find its work by what is left',
    next: 'put the key back (seikyu db status tells the schema’s version) before any job runs again',
  },
  {
    id: 8,
    name: 'each bill and charge is in the state in which its history ends, step by step without a gap',
    looks: 'the chain of history rows of each bill and charge against its state and version',
    elsewhere:
      'that the order and number of webhooks, returns and answers do not matter: all orders are tried in tests',
    matters: 'two ways of learning one outcome ended in different states, and one of them is wrong',
    breaks: 'a state written outside its one transition function, history deleted',
    next: 'explain the bill; the gateway’s answer decides which state is right',
  },
  {
    id: 9,
    name: 'every line of a stored settlement report is a charge of ours with its amount, and every payment of a reported day stands in one',
    looks:
      'lines of settlement reports against charges and payments, up to the day to which reports are complete; a finding settled by a person is settled',
    elsewhere: 'days that are not reported yet: check --outside',
    matters: 'money is at the gateway that nobody booked, or was booked and never came',
    breaks:
      'a database that lost its last transactions, charges made at the gateway by hand, a report read in part',
    next: 'seikyu explain --charge with the gateway’s id; run reconcile; settle what remains with the gateway',
  },
  {
    id: 10,
    name: 'one process at a time does a job of a merchant, fences only grow, and a bill is locked exactly while its charge is open',
    looks: 'runs against their passes and chunks: numbers, owners, leases, fences; locks against charges',
    elsewhere:
      'that a late worker writes nothing: tests and the simulation stop one for longer than its lease',
    matters: 'two processes charge the same bills, or a bill stays locked for ever',
    breaks: 'leases or fences changed by hand, clocks of database servers that went back',
    next: 'stop all workers but one; a lock without an open charge goes only after the gateway was asked',
  },
  {
    id: 11,
    name: 'every bill that is not final has a next step or is parked, one that was parked before anybody saw it stays unseen, held files are parked, and whatever waits too long has an open alert',
    looks:
      'bills against agenda, messages, charges and parked items; with the clock: everything in a passing state for longer than a day (bills and planned messages: five days) against open alerts, parked items and findings',
    elsewhere: 'that all of it ends once faults have ended: the simulation',
    matters: 'a bill is forgotten without a sound',
    breaks:
      'an agenda row deleted by hand, a scheduler that does not run, an alert acknowledged without doing anything',
    next: 'seikyu runs shows which job did not run; run it, or park the bill',
  },
  {
    id: 12,
    name: 'attempts at a bill are numbered without gaps, stay within what card networks and the merchant’s plan allow, and none begins while the customer is held',
    looks:
      'attempt numbers; automatic attempts and messages that began during a hold (clocks may differ by 15 minutes); attempts on a card after it was declined for good or called replaced, closed or expired, before the decline allows, above a network’s ceiling or the merchant’s number',
    elsewhere: 'codes and their verdicts: tables of cases in tests',
    matters: 'networks fine the merchant, and customers are charged again after their bank forbade it',
    breaks: 'a card saved twice, a plan changed between attempts, charges made by hand',
    next: 'stop charge for the merchant; end the card; look at the rule that explain shows',
  },
  {
    id: 13,
    name: 'the ledger gives back no more than was taken',
    looks:
      'refunds and chargebacks in the ledger against what was taken, by bill, else by customer; refunds and credits on later bills against payments and the ledger; recalled bills against what was kept of their money',
    elsewhere: 'what the gateway has given back: check --outside sees captures, the simulation all of it',
    matters: 'money is given away',
    breaks: 'a refund made twice after a lost answer',
    next: 'ask the gateway for its refunds of that charge, and stop further ones',
  },
  {
    id: 14,
    name: 'a bill has its one final result row exactly when it is final, result rows say what was paid, money after it is an adjustment, what goes back for paper has an unreached row and no way to pay, and outward files hold what they say, in gapless numbers',
    looks:
      'bills against final rows, late and surplus payments against adjustments and their numbers, unreached rows against results, links and barcodes, paid rows against allocations, unpaid ones against payments known before, files against their rows, sums and numbers',
    elsewhere:
      'that a file made again has the same bytes: its bytes are kept (see 15); what the gateway shows captured: check --outside',
    matters: 'the merchant books a bill twice, never, or as unpaid although it was paid',
    breaks: 'result rows changed after their file was made, a file deleted',
    next: 'deliver nothing more to that merchant, and tell it which rows are wrong',
  },
  {
    id: 15,
    name: 'the bytes of outward files are kept whole, and the newest have the digest that was promised',
    looks: 'sizes and parts of all outward files; digests of the newest 256 MiB, single files up to 64 MiB',
    elsewhere:
      'what lies on the merchant’s server: the upload compares it, the simulation watches every step there',
    matters: 'a file made again would differ from the one that the merchant has',
    breaks: 'parts deleted or changed by hand, a broken disk',
    next: 'take the file from the merchant’s server or a backup; do not redeliver it',
  },
  {
    id: 16,
    name: 'merchants are kept apart by every key, foreign key and row policy of the schema',
    looks:
      'the catalog: merchant_id leads all keys and references, all foreign keys stand, are valid and enforced, row security and its policies cover all tables',
    elsewhere:
      'that no page, file, SMS or log line of one merchant holds data of another: tests ask every route with another’s ids',
    matters: 'one merchant sees or bills another’s customers',
    breaks: 'a key or policy dropped for a repair and not put back, a table made by hand',
    next: 'put it back before the web is started again',
  },
  {
    id: 17,
    name: 'what was taken from outside and is used in names, files and pages has the shape that the contract allows',
    looks:
      'billing, customer and contract numbers, descriptions, names of files and archive paths, against their patterns',
    elsewhere:
      'that pages escape, statements take parameters and files need no quotes: tests with hostile input',
    matters: 'a byte of an input file could become a path, a formula or markup',
    breaks: 'rows loaded past ingest',
    next: 'stop deliver for that merchant, and see how the row came in',
  },
  {
    id: 18,
    name: 'whatever went out had its intent committed before, to servers whose keys are known',
    looks:
      'messages and files that went out without a claim or rename written down before, outcomes before their beginning, merchants without host keys',
    elsewhere:
      'what went out past the database: check --outside; that other servers are refused: tests with a changed host key',
    matters: 'something was sent or charged that nobody can find again',
    breaks: 'a database that lost its last transactions, rows written by hand',
    next: 'check --outside, and see docs/restore.md on a backup that was put back',
  },
  {
    id: 19,
    name: 'no card number, phone number, e-mail address, link or key stands in alerts, failures, parked items or descriptions',
    looks: 'free texts that operators and logs show: patterns, and for card numbers the Luhn digit',
    elsewhere:
      'names, and the logs themselves: tests and the simulation look for names and numbers that they planted',
    matters: 'personal data leaves the sealed columns',
    breaks: 'an error message of a library that repeats its input',
    next: 'correct the code that wrote the text, then remove the text; a card number is a case for your acquirer',
  },
  {
    id: 20,
    name: 'the ledger says of every bill and payment what they say themselves, moves money along its chart only and is only ever appended to, and states moved along their graph',
    looks:
      'transfers by bill and by payment against bills, allocations and credits; accounts by event; rights of the web role; history rows against the graphs',
    elsewhere: 'that debits equal credits: each row is one transfer from an account to another',
    matters: 'the books are wrong',
    breaks: 'rows written or deleted by hand, a state changed without its posting',
    next: 'explain the bill; correct by a further posting, never by an update',
  },
];

/** The half of an invariant whose truth the outside world has, asked by `check --outside`. */
export interface OutsideInvariant {
  id: number;
  name: string;
  matters: string;
  next: string;
}

export const outsideInvariants: readonly OutsideInvariant[] = [
  {
    id: 4,
    name: 'the gateway took money once for each bill, what it gave back and what we keep as a credit aside',
    matters: 'a customer was charged twice',
    next: 'refund the second capture at the gateway',
  },
  {
    id: 5,
    name: 'the carrier took each message once, and only while its bill was owed',
    matters: 'a customer was told twice, or after having paid',
    next: 'see how often trace and notify asked for it; nothing can be called back',
  },
  {
    id: 6,
    name: 'the gateway took the amount and currency that we asked for',
    matters: 'a customer paid another amount than the bill says',
    next: 'correct at the gateway; nothing was booked',
  },
  {
    id: 9,
    name: 'every capture of the gateway is a payment of ours, and every payment of ours is one of its captures',
    matters: 'money is at the gateway that nobody booked, or was booked and never came',
    next: 'run trace and reconcile; after a restored backup see docs/restore.md',
  },
  {
    id: 14,
    name: 'no bill was told unpaid after the gateway had taken its money',
    matters: 'the merchant collects again what is paid',
    next: 'tell the merchant which bill is paid after all',
  },
  {
    id: 18,
    name: 'every capture and every SMS has its intent here',
    matters: 'something was charged or sent that this database knows nothing of',
    next: 'stop charge and notify; the database has lost transactions, or something else uses the same account',
  },
];
