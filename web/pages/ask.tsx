import { endOf } from '../../billing/checkout/check-last-four.ts';
import type { BillView } from '../../billing/checkout/view-bill.ts';
import { paths } from '../paths.ts';
import { clockTime, texts } from '../texts.ts';
import type { Visit } from '../visit.ts';
import { document } from './layout.tsx';

/** Nothing of the customer stands here: whoever holds the link has not shown yet to be the customer. */
export function askPage(
  view: BillView,
  visit: Visit,
  otherLanguageUrl: string,
  answer: { kind: 'wrong' } | { kind: 'cooling'; until: string } | null,
): string {
  const words = texts[visit.language];
  const { merchant } = view;
  const problem =
    answer === null
      ? null
      : answer.kind === 'wrong'
        ? words.askWrong
        : words.askCooling(clockTime(answer.until, merchant.settings.timezone));
  // Letters in the number need the other keyboard.
  const isNumeric = /^\d+$/.test(endOf(view.bill.customer_number));
  return document(
    { language: visit.language, merchant, title: words.askTitle, otherLanguageUrl },
    <form class="card" method="post" action={paths.check.of(visit.id)}>
      <h1>{words.askTitle}</h1>
      <p>{words.askText}</p>
      {problem !== null && (
        <p class="notice bad" role="alert" id="problem">
          {problem}
        </p>
      )}
      <label class="field" for="answer">
        {words.askLabel}
      </label>
      <input
        id="answer"
        name="answer"
        type="text"
        inputmode={isNumeric ? 'numeric' : 'text'}
        autocomplete="off"
        autocapitalize="characters"
        maxLength={40}
        required
        aria-describedby={problem === null ? 'hint' : 'problem hint'}
        aria-invalid={problem === null ? undefined : 'true'}
      />
      <p class="hint" id="hint">
        {words.askHint}
      </p>
      <button type="submit">{words.askButton}</button>
    </form>,
  );
}
