import { Temporal } from 'temporal-polyfill';
import { describe, expect, test } from 'vitest';
import {
  admits,
  afterBatch,
  type BatchNews,
  fresh,
  type GatewayState,
  isQuiet,
  paceOf,
} from '../../billing/gateway-states/state.ts';

const now = Temporal.Instant.from('2026-12-01T01:00:00Z');
const later = (seconds: number) => now.add({ seconds });
const good: BatchNews = { refused: 0, anyConclusive: true, silentAtEnd: 0 };
const silent = (calls: number): BatchNews => ({ refused: 0, anyConclusive: false, silentAtEnd: calls });
const unlimited = { ratePerSecond: null, concurrency: null };
const limited = { ratePerSecond: 100, concurrency: null };
const resting = (seconds: number): GatewayState => ({
  ...fresh,
  silent: 32,
  rest: { openedAt: now, probeAt: later(seconds), seconds },
});

describe('how fast', () => {
  test.each([
    ['nobody said', fresh, unlimited, null],
    ['a little less than what the gateway allows', fresh, limited, 98],
    ['what was found', { ...fresh, pacePerSecond: 32 }, unlimited, 32],
    ['the slower of the two', { ...fresh, pacePerSecond: 32 }, limited, 32],
    ['the slower of the two', { ...fresh, pacePerSecond: 320 }, limited, 98],
  ])('%s', (_, state, limits, pace) => {
    expect(paceOf(state, limits)).toBe(pace);
  });

  test.each([
    ['refused without a pace: the first one', fresh, { ...good, refused: 1 }, unlimited, 32],
    ['refused: half of it', { ...fresh, pacePerSecond: 32 }, { ...good, refused: 9 }, unlimited, 16],
    ['refused at the gateway’s own rate: half of that', fresh, { ...good, refused: 1 }, limited, 49],
    [
      'never slower than one a second',
      { ...fresh, pacePerSecond: 1.5 },
      { ...good, refused: 1 },
      unlimited,
      1,
    ],
    [
      'refused twice within a second: once',
      { pacePerSecond: 32, slowedAt: now, silent: 0, rest: null },
      { ...good, refused: 1 },
      unlimited,
      32,
    ],
    [
      'slowed by a clock that was ahead: again',
      { pacePerSecond: 32, slowedAt: later(3_600), silent: 0, rest: null },
      { ...good, refused: 1 },
      unlimited,
      16,
    ],
    ['answered: a little faster', { ...fresh, pacePerSecond: 40 }, good, unlimited, 45],
    [
      'answered, up to what the gateway allows: no pace of its own',
      { ...fresh, pacePerSecond: 90 },
      good,
      limited,
      null,
    ],
    ['silence says nothing of the pace', { ...fresh, pacePerSecond: 40 }, silent(5), unlimited, 40],
  ])('%s', (_, state, news, limits, pace) => {
    const after = afterBatch(state, news, limits, now);
    expect(after.pacePerSecond === null ? null : Math.round(after.pacePerSecond)).toBe(pace);
  });
});

describe('whether it answers', () => {
  test.each([
    ['an answer ends the silence', { ...fresh, silent: 20 }, good, 0, null],
    [
      'what came after the last answer counts',
      { ...fresh, silent: 20 },
      { ...good, silentAtEnd: 3 },
      3,
      null,
    ],
    ['silence adds up over batches and processes', { ...fresh, silent: 20 }, silent(11), 31, null],
    ['32 calls without an answer: it rests', { ...fresh, silent: 20 }, silent(12), 32, 30],
    ['a probe without an answer: it rests twice as long', resting(30), silent(1), 32, 60],
    ['five minutes at most', resting(200), silent(1), 32, 300],
    ['a probe with an answer: it is back', resting(300), good, 0, null],
  ])('%s', (_, state, news, calls, seconds) => {
    const after = afterBatch(state, news, unlimited, later(600));
    expect([after.silent, after.rest?.seconds ?? null]).toEqual([calls, seconds]);
    if (after.rest !== null && state.rest === null) expect(after.rest.openedAt).toEqual(later(600));
    if (after.rest !== null && state.rest !== null) expect(after.rest.openedAt).toEqual(state.rest.openedAt);
  });

  test.each([
    ['it answers', fresh, 0, 'go'],
    ['it rests', resting(60), 59, 'rest'],
    ['the rest is over: one tries', resting(60), 60, 'probe'],
    ['the clock has stepped back behind its beginning: one tries', resting(60), -1, 'probe'],
  ])('%s', (_, state, seconds, kind) => {
    expect(admits(state, later(seconds)).kind).toBe(kind);
  });

  test('nothing is written while all is well', () => {
    expect(isQuiet(fresh, good)).toBe(true);
    expect(isQuiet(fresh, { ...good, silentAtEnd: 1 })).toBe(false);
    expect(isQuiet({ ...fresh, silent: 1 }, good)).toBe(false);
    expect(isQuiet(resting(30), good)).toBe(false);
    expect(isQuiet({ ...fresh, pacePerSecond: 3 }, good)).toBe(false);
  });
});
