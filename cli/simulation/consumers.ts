import { issueBarcode } from '../../billing/barcodes/issue.ts';
import { viewBarcode } from '../../billing/barcodes/view.ts';
import { checkLastFour, endOf } from '../../billing/checkout/check-last-four.ts';
import { findLink, type Link } from '../../billing/checkout/find-link.ts';
import { learnFromGateway } from '../../billing/checkout/learn.ts';
import { type Started, startCheckout } from '../../billing/checkout/start.ts';
import { viewBill } from '../../billing/checkout/view-bill.ts';
import type { PageMethod } from '../../billing/gateways/gateway.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import type { Person } from '../demo/people.ts';
import type { Baton } from './baton.ts';
import type { TakenSms } from './carrier.ts';
import type { Chance } from './chance.ts';
import type { GatewayTruth } from './gateway.ts';
import type { SimulatedProcess } from './process.ts';
import type { Trace } from './trace.ts';

export interface ConsumerWorld {
  baton: Baton;
  chance: Chance;
  trace: Trace;
  gateway: GatewayTruth;
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
  if (merchant.settings.checkout.ask !== 'nothing') {
    const answers = [endOf(customer.customerNumber)];
    if (customer.conduct.fumbles) answers.unshift('0000');
    for (const answer of answers) {
      await think(1_000, 20_000);
      await browse(world, 'check', ({ webDb, ports }) => checkLastFour(webDb, ports, link, answer, null));
    }
  }
  await browse(world, 'bill', ({ webDb, ports }) => viewBill(webDb, ports.clock.now(), link));
  await think(2_000, 60_000);

  if (customer.conduct.paysTwice || customer.conduct.pays === 'barcode') {
    const paid = await payAtShop(world, found, customer);
    if (paid && !customer.conduct.paysTwice) return;
  }
  // A page that does not offer it leads on to a card.
  const method: PageMethod =
    customer.conduct.pays === 'wallet' && merchant.settings.checkout.methods.includes('wallet')
      ? 'wallet'
      : 'card';
  let chargeId = '';
  const press = (by = method) =>
    browse(world, 'pay', ({ webDb, ports }) =>
      startCheckout(webDb, ports, {
        link,
        method: by,
        enrol: customer.conduct.enrols,
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
  if (method === 'card' && !customer.conduct.enrols && chance.hits(0.2)) {
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
  if (chance.hits(0.35) || chargeId === '') return;
  await think(500, 5_000);
  await browse(world, 'return', ({ webDb, ports }) =>
    learnFromGateway(webDb, ports, merchant, [chargeId], 'return'),
  );
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
