import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  costlyTexts,
  problemOfText,
  segmentsOf,
  type TextKind,
  textKindOf,
  textOf,
} from '../../billing/messages/texts.ts';

const LINK = 'https://pay.example.jp/l/1AbCdEfGhIjKlMnOpQrStUv';
const builtIn = { dueOn: '2026-12-28', own: undefined };
const KINDS: TextKind[] = [
  'first_notice',
  'reminder_before_due',
  'reminder_after_due',
  'failure',
  'fallback_link',
  'card_ended',
  'fresh_link',
];

describe('segments', () => {
  it.each([
    ['', 'gsm-7', 0, 0],
    ['a'.repeat(160), 'gsm-7', 160, 1],
    ['a'.repeat(161), 'gsm-7', 161, 2],
    ['a'.repeat(306), 'gsm-7', 306, 2],
    ['a'.repeat(307), 'gsm-7', 307, 3],
    ['€'.repeat(80), 'gsm-7', 160, 1],
    // 76 pairs fill 152 of 153: the last septet of each segment stays empty.
    ['€'.repeat(153), 'gsm-7', 306, 3],
    ['あ'.repeat(70), 'ucs-2', 70, 1],
    ['あ'.repeat(71), 'ucs-2', 71, 2],
    ['あ'.repeat(134), 'ucs-2', 134, 2],
    ['あ'.repeat(135), 'ucs-2', 135, 3],
    // 33 pairs fill 66 of 67 units.
    ['😀'.repeat(67), 'ucs-2', 134, 3],
    ['a`', 'ucs-2', 2, 1],
  ])('%s', (text, encoding, units, count) => {
    expect(segmentsOf(text)).toEqual({ encoding, units, count });
  });

  it('never counts fewer segments than the units need', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 400 }), (text) => {
        const { encoding, units, count } = segmentsOf(text);
        const [single, several] = encoding === 'gsm-7' ? [160, 153] : [70, 67];
        expect(count).toBeGreaterThanOrEqual(
          units <= single ? Math.min(units, 1) : Math.ceil(units / several),
        );
      }),
    );
  });
});

describe('texts', () => {
  it('tell amount and date before a debit, in one segment', () => {
    const say = (language: 'ja' | 'en', amount: number, on: string) =>
      textOf({
        kind: 'debit_notice',
        language,
        merchantName: 'みなとガス株式会社',
        link: null,
        ...builtIn,
        debit: { amount, on },
      });
    expect(say('ja', 4_980, '2027-01-04')).toBe(
      'みなとガス株式会社\n1月4日に4,980円を自動払いでお支払いいただきます。',
    );
    expect(say('en', 4_980, '2027-01-04')).toBe(
      'みなとガス株式会社: JPY 4,980 will be charged automatically on 2027-01-04.',
    );
    expect(segmentsOf(say('ja', 99_999_999, '2027-12-31')).count).toBe(1);
    expect(() =>
      textOf({ kind: 'debit_notice', language: 'ja', merchantName: 'み', link: null, ...builtIn }),
    ).toThrow('debit_notice without a link');
  });

  it.each(KINDS)(
    '%s costs one segment for names of nine characters, with the link on its own line',
    (kind) => {
      for (const [language, merchantName] of [
        ['ja', 'みなとガス株式会社'],
        ['en', 'Sakura City Waterworks'],
      ] as const) {
        const text = textOf({ kind, language, merchantName, link: LINK, ...builtIn });
        expect(segmentsOf(text).count).toBe(1);
        expect(text.split('\n').at(-1)).toBe(LINK);
        expect(text.startsWith(merchantName)).toBe(true);
        expect(text.replace(LINK, '')).not.toMatch(/\d|円|¥/);
      }
    },
  );

  it('a failure that is tried again may come without a link', () => {
    for (const language of ['ja', 'en'] as const) {
      const text = textOf({ kind: 'failure', language, merchantName: 'みなとガス', link: null, ...builtIn });
      expect(text).not.toContain('http');
    }
    expect(
      segmentsOf(
        textOf({
          kind: 'failure',
          language: 'ja',
          merchantName: 'みなとガス株式会社',
          link: null,
          ...builtIn,
        }),
      ).count,
    ).toBe(1);
    expect(() =>
      textOf({ kind: 'first_notice', language: 'ja', merchantName: 'み', link: null, ...builtIn }),
    ).toThrow();
  });

  it.each([
    ['first_notice', false, 'first_notice'],
    ['reminder:-3bd', false, 'reminder_before_due'],
    ['reminder:-3bd', true, 'reminder_after_due'],
    ['failure:2', true, 'failure'],
    ['fallback_link', true, 'fallback_link'],
    ['fresh_link:2', true, 'fresh_link'],
    ['again:reminder:+1bd', true, 'reminder_after_due'],
  ])('step %s, after due %s, says %s', (step, afterDue, kind) =>
    expect(textKindOf(step, afterDue)).toBe(kind),
  );

  it.each([
    ['fallback_link', 'card_closed', 'card_ended'],
    ['again:fallback_link', 'card_expired', 'card_ended'],
    ['fallback_link', 'no_method', 'fallback_link'],
    ['fallback_link', 'never_this_method', 'fallback_link'],
    ['reminder:-3bd', 'card_closed', 'reminder_before_due'],
  ])('step %s of a bill that fell back for %s says %s', (step, why, kind) =>
    expect(textKindOf(step, false, why)).toBe(kind),
  );

  it('names the texts that cost more than one segment', () => {
    const merchant = {
      name: { ja: 'みなとガス株式会社', en: 'Minato Gas' },
      languages: ['ja', 'en'] as const,
      own: undefined,
    };
    expect(costlyTexts({ ...merchant, linkLength: LINK.length })).toEqual([]);
    expect(
      costlyTexts({ ...merchant, linkLength: 60 }).map((text) => `${text.language} ${text.kind}`),
    ).toEqual([...KINDS.map((kind) => `ja ${kind}`)]);
  });
});

describe('a merchant’s own texts', () => {
  const own = { first_notice: { ja: '{merchant}です。お支払は{due_date}まで\n{link}' } };
  const said = (language: 'ja' | 'en', merchantName: string) =>
    textOf({ kind: 'first_notice', language, merchantName, link: LINK, dueOn: '2026-12-08', own });

  it('are filled in, in their language; the others stay built in', () => {
    expect(said('ja', 'みなとガス')).toBe(`みなとガスです。お支払は12月8日まで\n${LINK}`);
    // What is filled in is never read as a placeholder, nor as a pattern.
    expect(said('ja', '{link} $&')).toBe(`{link} $&です。お支払は12月8日まで\n${LINK}`);
    expect(said('en', 'Minato Gas')).toBe(`Minato Gas: your bill is ready.\n${LINK}`);
    const english = { first_notice: { en: '{merchant}, due {due_date}\n{link}' } };
    const message = { kind: 'first_notice', language: 'en', merchantName: 'G', link: LINK } as const;
    expect(textOf({ ...message, dueOn: '2026-12-08', own: english })).toBe(`G, due 8 Dec\n${LINK}`);
  });

  it.each<[string, string | null]>([
    ['{merchant}\n料金のお知らせ\n{link}', null],
    ['{merchant} {amount}\n{link}', 'has {amount}; known are {merchant}, {link}, {due_date}'],
    ['{merchant} {\n{link}', 'has {; known are {merchant}, {link}, {due_date}'],
    ['料金\n{link}', 'must name the {merchant}: customers do not know the sender'],
    ['{merchant} {link}', 'must end with {link} on a line of its own'],
    ['{merchant}\n{link}\n以上', 'must end with {link} on a line of its own'],
    ['{merchant} {link}\n{link}', 'must end with {link} on a line of its own'],
    ['{merchant} http://a.example\n{link}', 'must hold no address but {link}'],
    ['{merchant}\u202e\n{link}', 'must not contain control characters'],
    [`{merchant}${'長'.repeat(300)}\n{link}`, 'must not be longer than 300 characters'],
  ])('%s', (text, problem) => expect(problemOfText(text)).toBe(problem));

  it('that cost more than one segment are named', () => {
    const long = { fresh_link: { ja: `{merchant}${'長'.repeat(40)}\n{link}` } };
    const merchant = { name: { ja: 'み', en: 'M' }, languages: ['ja'] as const, linkLength: LINK.length };
    expect(costlyTexts({ ...merchant, own: long })).toMatchObject([
      { kind: 'fresh_link', language: 'ja', segments: { count: 2 } },
    ]);
  });
});
