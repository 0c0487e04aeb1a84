import type { Merchant } from '../../billing/merchants/merchant.ts';
import { paths } from '../paths.ts';
import { texts } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { document } from './layout.tsx';

/** Asked once more: the customer who slips here gets no SMS until they call. Holds nothing of the bill. */
export function notMinePage(merchant: Merchant, visit: Visit): string {
  const words = texts[visit.language];
  const name = merchant.settings.name[visit.language];
  return document(
    { language: visit.language, merchant, title: words.notMineTitle },
    <form class="card" method="post" action={paths.notMine.of(visit.id)}>
      <h1>{words.notMineTitle}</h1>
      <p>{words.notMineText(name)}</p>
      <ul class="plain">
        {words.notMineList(name).map((line) => (
          <li>{line}</li>
        ))}
      </ul>
      <button type="submit">{words.notMineButton}</button>
      <a class="button quiet" href={paths.bill.of(visit.id)}>
        {words.notMineBack}
      </a>
    </form>,
  );
}
