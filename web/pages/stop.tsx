import type { BillView } from '../../billing/checkout/view-bill.ts';
import { paths } from '../paths.ts';
import { texts } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { accountOf } from './bill.tsx';
import { document } from './layout.tsx';

/** Asked once more, with whose account it is: who has several must not end the wrong one. */
export function stopPage(view: BillView, visit: Visit): string {
  const words = texts[visit.language];
  const { bill, merchant } = view;
  return document(
    { language: visit.language, merchant, title: words.stopTitle },
    <form class="card" method="post" action={paths.stop.of(visit.id)}>
      <h1>{words.stopTitle}</h1>
      <p>{words.enrolAccount(merchant.settings.name[visit.language], accountOf(bill, visit.language))}</p>
      <ul class="plain">
        {words.stopList.map((line) => (
          <li>{line}</li>
        ))}
      </ul>
      <button type="submit">{words.stopButton}</button>
      <a class="button quiet" href={paths.bill.of(visit.id)}>
        {words.stopBack}
      </a>
    </form>,
  );
}
