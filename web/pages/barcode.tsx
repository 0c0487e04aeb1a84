import type { VNode } from 'preact';
import { readableDigits } from '../../billing/barcodes/digits.ts';
import type { BarcodeRow } from '../../billing/barcodes/queries.ts';
import { barcodeSymbol } from '../../billing/barcodes/symbol.ts';
import type { PayMethod } from '../../billing/checkout/methods.ts';
import type { BillView } from '../../billing/checkout/view-bill.ts';
import { barcodeTexts } from '../barcode-texts.ts';
import { paths } from '../paths.ts';
import { longDate, money } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { document } from './layout.tsx';

/** In modules: tall enough that a scanner which is held askew still crosses every bar. */
const barsHigh = 90;

/** The barcode as a register reads it from a phone or from paper, with its digits below. */
export function barcodePage(page: {
  view: BillView;
  barcode: BarcodeRow;
  visit: Visit;
  otherLanguageUrl: string;
}): string {
  const { view, barcode, visit } = page;
  const { language } = visit;
  const words = barcodeTexts[language];
  const { merchant, bill } = view;
  return document(
    { language, merchant, title: words.title, otherLanguageUrl: page.otherLanguageUrl },
    <>
      <section class="card barcode" data-state="barcode">
        <h1>{words.title}</h1>
        <p class="amount">{money(bill.amount, bill.currency, language)}</p>
        <p class="due">{words.until(longDate(barcode.expires_on, language))}</p>
        <Bars digits={barcode.digits} label={words.label} />
        <p class="digits">{readableDigits(barcode.digits)}</p>
        <ol class="terms">
          {words.steps.map((step) => (
            <li>{step}</li>
          ))}
        </ol>
        <p class="notice wait">{words.once}</p>
      </section>
      <p class="another">
        <a href={paths.bill.of(visit.id)}>{words.otherWays}</a>
      </p>
    </>,
  );
}

/** Always black on white, whatever the colours of the page: scanners know no dark mode. */
function Bars({ digits, label }: { digits: string; label: string }): VNode {
  const { bars, widthModules } = barcodeSymbol(digits);
  const path = bars.map(({ at, width }) => `M${at} 0h${width}v${barsHigh}h-${width}z`).join('');
  return (
    <svg
      class="bars"
      viewBox={`0 0 ${widthModules} ${barsHigh}`}
      role="img"
      aria-label={label}
      shape-rendering="crispEdges"
    >
      <rect width={widthModules} height={barsHigh} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

/** The ways to pay beside the card's form: each a form of its own, so that a press says all. */
export function OtherMethods(props: {
  methods: readonly PayMethod[];
  visit: Visit;
  language: Visit['language'];
  /** Nothing stands before it: these are all the ways there are. */
  isAlone: boolean;
  /** A card, where the form before it is not for one: what its button says. */
  byCard: string | null;
}): VNode | null {
  const { methods, visit, language, isAlone, byCard } = props;
  const words = barcodeTexts[language];
  const others = methods.filter((method) => method !== 'card');
  if (others.length === 0 && byCard === null) return null;
  return (
    <section class="card methods">
      <h2>{isAlone ? words.ways : words.otherWays}</h2>
      {byCard !== null && (
        <form method="post" action={paths.pay.of(visit.id)}>
          <button type="submit" class="button quiet">
            {byCard}
          </button>
        </form>
      )}
      {others.map((method) =>
        method === 'barcode' ? (
          <form method="post" action={paths.barcode.of(visit.id)}>
            <button type="submit" class="button quiet">
              {words.showBarcode}
            </button>
            <p class="hint">{words.barcodeHint}</p>
          </form>
        ) : (
          <form method="post" action={paths.payBy.of(visit.id, method)}>
            <button type="submit" class="button quiet">
              {words.wallet}
            </button>
            <p class="hint">{words.walletHint}</p>
          </form>
        ),
      )}
    </section>
  );
}
