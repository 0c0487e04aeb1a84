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
  // Letters in the number need the other keyboard.
  const isNumeric = /^\d+$/.test(endOf(view.bill.customer_number));
  const isWrong = answer?.kind === 'wrong';
  return document(
    {
      language: visit.language,
      merchant,
      title: isWrong ? `${words.problem}: ${words.askTitle}` : words.askTitle,
      otherLanguageUrl,
    },
    <>
      {answer?.kind === 'cooling' ? (
        <form class="card" method="post" action={paths.freshLink.of(visit.id)}>
          <h1>{words.coolingTitle}</h1>
          <p class="notice wait" role="alert">
            {words.askCooling(clockTime(answer.until, merchant.settings.timezone))}
          </p>
          {view.state === 'owed' && (
            <>
              <p>{words.freshLinkText}</p>
              <button type="submit">{words.freshLinkButton}</button>
            </>
          )}
        </form>
      ) : (
        <form
          class="card"
          method="post"
          action={paths.check.of(visit.id)}
          data-state={view.state === 'paid' ? 'ask_receipt' : 'ask'}
        >
          <h1>{words.askTitle}</h1>
          <p>{words.askText}</p>
          {isWrong && (
            <p class="notice bad" role="alert" id="problem">
              {words.askWrong}
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
            aria-describedby={isWrong ? 'problem hint' : 'hint'}
            aria-invalid={isWrong ? 'true' : undefined}
          />
          <p class="hint" id="hint">
            {words.askHint}
          </p>
          <button type="submit">{words.askButton}</button>
        </form>
      )}
      <p class="aside">
        <a href={paths.notMine.of(visit.id)}>{words.notMine}</a>
      </p>
    </>,
  );
}
