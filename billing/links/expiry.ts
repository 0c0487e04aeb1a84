import { Temporal } from 'temporal-polyfill';
import { linkEndsOn } from '../dunning/decide.ts';
import { dunningPolicyOf, type MerchantSettings } from '../merchants/settings.ts';
import { assertState } from '../refusal.ts';

export interface LinkTerms {
  /** YYYY-MM-DD, both. */
  businessDate: string;
  dueOn: string;
  settingsVersion: number;
  fellBack: boolean;
}

/**
 * The last day on which a link takes money, by the settings the bill was taken in under; with the days that its news take,
 * a barcode. Bills of one file share a few combinations of dates, so that 200,000 of them cost a handful of calendar walks.
 */
export function linkExpiry(
  settings: ReadonlyMap<number, MerchantSettings>,
  newsDays = 0,
): (terms: LinkTerms) => string {
  const known = new Map<string, string>();
  return (terms) => {
    const key = `${terms.businessDate} ${terms.dueOn} ${terms.settingsVersion} ${terms.fellBack}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const policy = settings.get(terms.settingsVersion);
    assertState(policy, `settings version ${terms.settingsVersion} is missing`);
    const ends = linkEndsOn(
      {
        businessDate: Temporal.PlainDate.from(terms.businessDate),
        dueOn: Temporal.PlainDate.from(terms.dueOn),
        policy: dunningPolicyOf(policy),
        fellBackToLink: terms.fellBack,
      },
      newsDays,
    ).toString();
    known.set(key, ends);
    return ends;
  };
}
