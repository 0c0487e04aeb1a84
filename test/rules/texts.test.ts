import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { costlyTexts, segmentsOf, type TextKind, textKindOf, textOf } from '../../billing/messages/texts.ts';

const LINK = 'https://pay.example.jp/l/1AbCdEfGhIjKlMnOpQrStUv';
const KINDS: TextKind[] = [
  'first_notice',
  'reminder_before_due',
  'reminder_after_due',
  'failure',
  'fallback_link',
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
  it.each(KINDS)(
    '%s costs one segment for names of nine characters, with the link on its own line',
    (kind) => {
      for (const [language, merchantName] of [
        ['ja', 'みなとガス株式会社'],
        ['en', 'Sakura City Waterworks'],
      ] as const) {
        const text = textOf({ kind, language, merchantName, link: LINK });
        expect(segmentsOf(text).count).toBe(1);
        expect(text.split('\n').at(-1)).toBe(LINK);
        expect(text.startsWith(merchantName)).toBe(true);
        expect(text.replace(LINK, '')).not.toMatch(/\d|円|¥/);
      }
    },
  );

  it('a failure that is tried again may come without a link', () => {
    for (const language of ['ja', 'en'] as const) {
      const text = textOf({ kind: 'failure', language, merchantName: 'みなとガス', link: null });
      expect(text).not.toContain('http');
    }
    expect(
      segmentsOf(textOf({ kind: 'failure', language: 'ja', merchantName: 'みなとガス株式会社', link: null }))
        .count,
    ).toBe(1);
    expect(() => textOf({ kind: 'first_notice', language: 'ja', merchantName: 'み', link: null })).toThrow();
  });

  it.each([
    ['first_notice', false, 'first_notice'],
    ['reminder:-3bd', false, 'reminder_before_due'],
    ['reminder:-3bd', true, 'reminder_after_due'],
    ['failure:2', true, 'failure'],
    ['fallback_link', true, 'fallback_link'],
    ['fresh_link:2', true, 'fresh_link'],
  ])('step %s, after due %s, says %s', (step, afterDue, kind) =>
    expect(textKindOf(step, afterDue)).toBe(kind),
  );

  it('names the texts that cost more than one segment', () => {
    const merchant = {
      name: { ja: 'みなとガス株式会社', en: 'Minato Gas' },
      languages: ['ja', 'en'] as const,
    };
    expect(costlyTexts({ ...merchant, linkLength: LINK.length })).toEqual([]);
    expect(
      costlyTexts({ ...merchant, linkLength: 60 }).map((text) => `${text.language} ${text.kind}`),
    ).toEqual([...KINDS.map((kind) => `ja ${kind}`)]);
  });
});
