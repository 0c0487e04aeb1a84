import type { CardChangeView } from '../../billing/card-changes/view.ts';
import type { BillView } from '../../billing/checkout/view-bill.ts';
import { paths } from '../paths.ts';
import { texts } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { accountOf, debitDayOf } from './bill.tsx';
import { document } from './layout.tsx';

/** Whose account and which utility, which card until now, and the terms once more: the holder of the new card need not be the customer. */
export function cardPage(
  view: BillView,
  visit: Visit,
  change: CardChangeView,
  /** The gateway could not be reached: when the visitor may come back, `10:15`. */
  gatewayDownUntil: string | null = null,
): string {
  const { language } = visit;
  const words = texts[language];
  const { bill, merchant } = view;
  const { settings } = merchant;
  const name = settings.name[language];
  const { brand, last_four: lastFour } = change.card;
  const [, ...terms] = words.termsList(name, debitDayOf(merchant, language), settings.contactPhone, true);
  return document(
    { language, merchant, title: words.cardTitle },
    <form class="card" method="post" action={paths.card.of(visit.id)}>
      <h1>{words.cardTitle}</h1>
      {gatewayDownUntil !== null && (
        <p class="notice bad" role="alert">
          {words.cardGatewayDown(gatewayDownUntil)}
        </p>
      )}
      {change.goesOn && <p class="notice wait">{words.cardGoOn}</p>}
      <p>
        {words.enrolAccount(name, accountOf(bill, language))}
        {brand !== null && lastFour !== null && (
          <>
            <br />
            {words.cardOnFile(words.cardEnd(brand.toUpperCase(), lastFour))}
          </>
        )}
      </p>
      <p>{words.cardText}</p>
      <ul class="plain">
        {words.cardList.map((line) => (
          <li>{line}</li>
        ))}
      </ul>
      <h2>{words.terms}</h2>
      <ul class="terms">
        {[words.cardCovers(name), ...terms].map((term) => (
          <li>{term}</li>
        ))}
      </ul>
      <p class="small">{words.cardAgree}</p>
      <button type="submit">{change.goesOn ? words.goOn : words.cardButton}</button>
      <a class="button quiet" href={paths.bill.of(visit.id)}>
        {words.cardBack}
      </a>
    </form>,
  );
}
