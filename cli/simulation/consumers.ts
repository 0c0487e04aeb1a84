import { issueBarcode } from '../../billing/barcodes/issue.ts';
import { viewBarcode } from '../../billing/barcodes/view.ts';
import { learnCardChanges } from '../../billing/card-changes/ask.ts';
import { mayChangeCard, startCardChange } from '../../billing/card-changes/start.ts';
import { checkLastFour, endOf } from '../../billing/checkout/check-last-four.ts';
import { findLink, type Link } from '../../billing/checkout/find-link.ts';
import { learnFromGateway } from '../../billing/checkout/learn.ts';
import { type Started, startCheckout } from '../../billing/checkout/start.ts';
import { type BillView, viewBill } from '../../billing/checkout/view-bill.ts';
import { endByCustomer } from '../../billing/enrolments/end-by-customer.ts';
import type { PageMethod } from '../../billing/gateways/gateway.ts';
import { sendFreshLink } from '../../billing/links/send-fresh.ts';
import { reportWrongPerson } from '../../billing/links/wrong-person.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { isFreshLink, messageOf } from '../../billing/messages/message.ts';
import type { Person } from '../demo/people.ts';
import type { Baton } from './baton.ts';
import type { TakenSms } from './carrier.ts';
import type { Chance } from './chance.ts';
import type { GatewayTruth } from './gateway.ts';
import type { Oracle } from './oracle.ts';
import type { SimulatedProcess } from './process.ts';
import type { Trace } from './trace.ts';

export interface ConsumerWorld {
  baton: Baton;
  chance: Chance;
  /** Of its own: who gives a link back, is locked out, stops automatic payment or changes its card. */
  ways: Chance;
  trace: Trace;
  gateway: GatewayTruth;
  oracle: Pick<Oracle, 'gaveBack' | 'stopped' | 'hasStopped' | 'violated'>;
  count: (what: string) => void;
  /** The web server that lives now. */
  web: () => SimulatedProcess;
  /** A request failed in a way that no fault explains. */
  onFailure: (what: string, error: unknown) => void;
}

/** An answer of the pay page, or what a browser shows when the server is gone. */
type Answered<T> = { answer: T } | 'broken';

/** One request to the web server of now. It may die before the answer; the browser then shows an error. */
async function request<T>(
  world: ConsumerWorld,
  what: string,
  serve: (web: SimulatedProcess) => Promise<T>,
): Promise<Answered<T>> {
  const web = world.web();
  await world.baton.pause(web, world.chance.between(5, 50), `web ${what}`);
  try {
    return { answer: await serve(web) };
  } catch (error) {
    world.onFailure(`web ${what}`, error);
    return 'broken';
  }
}

/** Does not wait for a server that died: whoever sits before the screen sees an error. */
async function browse<T>(
  world: ConsumerWorld,
  what: string,
  serve: (web: SimulatedProcess) => Promise<T>,
): Promise<T | null> {
  const web = world.web();
  const answered = await Promise.race([request(world, what, serve), web.died]);
  return answered === 'broken' || answered === 'died' ? null : answered.answer;
}

/** Opens the link of an SMS and pays, gives up, presses twice or walks away, as this person and the seed will. */
export async function visit(world: ConsumerWorld, sms: TakenSms, customer: Person): Promise<void> {
  const { baton, chance, gateway } = world;
  const think = (least: number, most: number) =>
    baton.pause(null, chance.between(least, most), `${customer.customerNumber} thinks`);
  const token = /\/l\/(\w+)/.exec(sms.body)?.[1];
  if (token === undefined) return;
  const found = await browse(world, 'link', ({ webDb }) => findLink(webDb, token));
  if (found === null) return;
  const { link, merchant } = found;
  const isFresh = isFreshLink(messageOf(sms.messageId).step);
  if (!isFresh && world.ways.hits(notMine)) return giveBack(world, link, sms);
  const isAsked = merchant.settings.checkout.ask !== 'nothing';
  if (isAsked) {
    if (!isFresh && world.ways.hits(lockedOut)) return getLockedOut(world, link);
    const answers = [endOf(customer.customerNumber)];
    if (customer.conduct.fumbles) answers.unshift('0000');
    let last: string | undefined;
    for (const answer of answers) {
      await think(1_000, 20_000);
      last = (
        await browse(world, 'check', ({ webDb, ports }) => checkLastFour(webDb, ports, link, answer, null))
      )?.kind;
    }
    // It went to the customer's own phone, after all that was guessed before.
    if (isFresh && last !== undefined && last !== 'right')
      world.oracle.violated('links', `a new link of ${customer.customerNumber} is ${last} at a right answer`);
  }
  const view = await browse(world, 'bill', ({ webDb, ports }) => viewBill(webDb, ports.clock.now(), link));
  await think(2_000, 60_000);
  if (view !== null && isAsked) await manage(world, link, view, customer);

  if (customer.conduct.paysTwice || customer.conduct.pays === 'barcode') {
    const paid = await payAtShop(world, found, customer);
    if (paid && !customer.conduct.paysTwice) return;
  }
  // A page that does not offer it leads on to a card.
  const method: PageMethod =
    customer.conduct.pays === 'wallet' && merchant.settings.checkout.methods.includes('wallet')
      ? 'wallet'
      : 'card';
  // Whoever has stopped it does not ask for it again.
  const enrols = customer.conduct.enrols && !world.oracle.hasStopped(merchant.code, customer.customerNumber);
  let chargeId = '';
  const press = (by = method) =>
    browse(world, 'pay', ({ webDb, ports }) =>
      startCheckout(webDb, ports, {
        link,
        method: by,
        enrol: enrols,
        language: 'ja',
        returnUrlOf: (id) => {
          chargeId = id;
          return `https://pay.invalid/back/${id}`;
        },
      }),
    );
  const pressed: (Started | null)[] = chance.hits(0.15)
    ? await Promise.all([press(), press()])
    : [await press()];
  // Some change their mind before they type anything.
  if (method === 'card' && !enrols && chance.hits(0.2)) {
    await think(2_000, 40_000);
    pressed.push(await press(merchant.settings.checkout.methods.includes('wallet') ? 'wallet' : 'card'));
  }
  const urls = [...new Set(pressed.flatMap((each) => (each?.kind === 'redirect' ? [each.url] : [])))];
  if (urls.length === 0 || chance.hits(0.1)) return;

  const { declinedFirst, card } = customer.conduct;
  for (const url of urls) {
    // Most take a minute; some come back when the page's half hour is over.
    await (chance.hits(0.08) ? think(25 * 60_000, 40 * 60_000) : think(5_000, 120_000));
    if (declinedFirst !== null) await gateway.payOnPage(url, declinedFirst);
    await think(1_000, 30_000);
    // A 3-D Secure question that nobody answers leaves the page open.
    const paid = chance.hits(0.05) ? 'challenged' : await gateway.payOnPage(url, card);
    world.trace.line(`${customer.customerNumber} on the page: ${paid}`);
  }
  if (enrols && isAsked && world.ways.hits(comesBack)) {
    const atMs = baton.nowMs + world.ways.between(60 * 3_600_000, 144 * 3_600_000);
    baton.at(atMs, `${customer.customerNumber} opens the link once more`, () => {
      void manageLater(world, link, customer);
    });
  }
  if (chance.hits(0.35) || chargeId === '') return;
  await think(500, 5_000);
  await browse(world, 'return', ({ webDb, ports }) =>
    learnFromGateway(webDb, ports, merchant, [chargeId], 'return'),
  );
}

/** Of a visit: the phone belongs to somebody else; a stranger has guessed until the link rests. */
const notMine = 0.06;
const lockedOut = 0.08;
/** Of who chose automatic payment: comes back days later, to stop it or with another card. */
const comesBack = 0.6;
const stops = 0.4;
const changes = 0.5;
const wrongAnswers = 5;
const newCards = ['visa', 'mastercard-challenge', 'jcb', 'later-lost', 'do-not-honor'];

async function giveBack(world: ConsumerWorld, link: Link, sms: TakenSms): Promise<void> {
  const isNews = await browse(world, 'not mine', ({ webDb, ports }) => reportWrongPerson(webDb, ports, link));
  if (isNews !== true) return;
  world.count('links given back');
  world.oracle.gaveBack(sms);
  const shown = await browse(world, 'bill', ({ webDb, ports }) => viewBill(webDb, ports.clock.now(), link));
  if (shown?.state === 'owed')
    world.oracle.violated('links', `a link of ${sms.messageId} that was given back can be paid on`);
}

async function getLockedOut(world: ConsumerWorld, link: Link): Promise<void> {
  for (let times = 0; times < wrongAnswers; times += 1)
    await browse(world, 'check', ({ webDb, ports }) => checkLastFour(webDb, ports, link, '0000', null));
  const shown = await browse(world, 'bill', ({ webDb, ports }) => viewBill(webDb, ports.clock.now(), link));
  if (shown?.state !== 'owed') return;
  const asked = await browse(world, 'new link', ({ webDb, ports }) => sendFreshLink(webDb, ports, link));
  world.count(`new links ${asked ?? 'broken'}`);
}

/** Finds under the bill that automatic payment can be stopped, or that its card can be changed. */
async function manage(world: ConsumerWorld, link: Link, view: BillView, customer: Person): Promise<void> {
  const { merchant, bill, state } = view;
  const { ways } = world;
  if (bill.enrolled_by === null) return;
  if (ways.hits(stops)) {
    const ended = await browse(world, 'stop', ({ webDb, ports }) => endByCustomer(webDb, ports, link));
    if (ended !== true) return;
    world.count('automatic payment stopped');
    world.oracle.stopped(merchant.code, customer.customerNumber);
    return;
  }
  if (!mayChangeCard(bill, state) || !ways.hits(changes)) return;
  let changeId = '';
  const started = await browse(world, 'card', ({ webDb, ports }) =>
    startCardChange(webDb, ports, {
      link,
      language: 'ja',
      returnUrlOf: (id) => {
        changeId = id;
        return `https://pay.invalid/card/${id}`;
      },
    }),
  );
  if (started?.kind !== 'redirect') return;
  await world.baton.pause(null, ways.between(5_000, 120_000), `${customer.customerNumber} looks for a card`);
  const kept = ways.hits(0.15) ? 'left' : world.gateway.keepCard(started.url, ways.oneOf(newCards));
  world.count(`other cards ${kept}`);
  if (changeId === '' || ways.hits(0.4)) return;
  await browse(world, 'card return', ({ webDb, ports }) =>
    learnCardChanges(webDb, ports, merchant, [changeId], 'return'),
  );
}

async function manageLater(world: ConsumerWorld, link: Link, customer: Person): Promise<void> {
  const view = await browse(world, 'bill', ({ webDb, ports }) => viewBill(webDb, ports.clock.now(), link));
  if (view !== null) await manage(world, link, view, customer);
}

/** Shows the barcode, walks to a shop and pays there, perhaps days later, perhaps twice. False: there is none to be had. */
async function payAtShop(
  world: ConsumerWorld,
  { link, merchant }: { link: Link; merchant: Merchant },
  customer: Person,
): Promise<boolean> {
  const { baton, chance, gateway, trace } = world;
  await browse(world, 'barcode', ({ webDb, ports }) => issueBarcode(webDb, ports, link));
  const shown = await browse(world, 'barcode page', ({ webDb, ports }) =>
    viewBarcode(webDb, ports.clock.now(), link),
  );
  if (shown === null) return false;
  const { digits, expires_on: lastDay } = shown.barcode;
  const times = customer.conduct.paysTwice && chance.hits(0.4) ? 2 : 1;
  for (let time = 0; time < times; time += 1) {
    const atMs = baton.nowMs + chance.between(60_000, chance.hits(0.2) ? 6 * 86_400_000 : 6 * 3_600_000);
    baton.at(atMs, `${customer.customerNumber} goes to a shop`, () => {
      const today = baton.now().toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
      // The till refuses it after its last day.
      if (today > lastDay) return;
      trace.line(`${customer.customerNumber} pays at a shop`);
      gateway.payAtShop(merchant.code, digits);
    });
  }
  return true;
}
