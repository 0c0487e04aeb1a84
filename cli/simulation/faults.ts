import type { Chance } from './chance.ts';

/** Probabilities for one chance to go wrong. */
export interface FaultProfile {
  /** A process is killed at a crash point, or while a call is on its way. */
  killAtCrashPoint: number;
  killInCall: number;
  /** A process stands still at a crash point for up to three minutes: longer than its lease. */
  stall: number;
  /** COMMIT is answered by a broken connection. */
  lostCommit: number;
  /** The database server crashes between two steps of a load: its unlogged tables are empty afterwards. */
  stagingLost: number;
  gateway: {
    timeoutBefore: number;
    timeoutAfter: number;
    /** The call takes effect when nobody waits for it any more. */
    timeoutLate: number;
    error500Before: number;
    error500After: number;
    rateLimited: number;
    lookupFails: number;
    /** Each day, that the gateway is down for up to three hours. */
    outage: number;
    webhookLost: number;
    webhookTwice: number;
    /** Up to two days late instead of a few seconds. */
    webhookLate: number;
    reportLate: number;
    reportCutOff: number;
    /** For one line of a day's first report: it comes later, stands under the next day, with a wrong fee, or twice. */
    lineLate: number;
    lineMoves: number;
    lineFee: number;
    lineTwice: number;
    /** For a day's report: a charge that nobody here made. */
    lineForeign: number;
    payoutsLate: number;
    /** The list says one yen less of its newest payout, until it is asked again. */
    payoutDiffers: number;
    /** A shop takes its word back; it tells of a payment up to 18 hours later. */
    shopTakesBack: number;
    shopToldLate: number;
    /** Somebody of the same household pays the same barcode again. */
    shopPaidTwice: number;
    /** A saved card that the updater is asked about has a new number, or is closed; it answers on a later day. */
    cardReplaced: number;
    cardClosed: number;
    cardNewsLate: number;
  };
  carrier: {
    timeoutBefore: number;
    timeoutAfter: number;
    timeoutLate: number;
    refused: number;
    rateLimited: number;
    lookupFails: number;
    /** Its word on a delivery does not come, comes twice, or says that an SMS was lost that somebody reads. */
    newsLost: number;
    newsTwice: number;
    newsWrong: number;
  };
  store: {
    unreachable: number;
    /** The connection breaks before or after the effect of one operation. */
    brokenBefore: number;
    brokenAfter: number;
    /** Half of a transfer arrives. */
    halfTransfer: number;
    /** A download ends early and says nothing. */
    shortDownload: number;
    refused: number;
  };
  /** Who debits accounts by files. */
  bank: {
    /** An answer comes one or two bank days later, and perhaps later again. */
    late: number;
    /** For a debit: N or a code that nobody knows, and the truth days later; or a refusal although the money was taken. */
    unanswered: number;
    tookAfterAll: number;
    /** A file that cannot count; the right one comes hours later. */
    cutOff: number;
    wrongSum: number;
    recordMissing: number;
    recordForeign: number;
    /** The same bytes again, under their name or another. */
    again: number;
    againOtherwise: number;
    /** A second file for the request: it says the same, or what nobody should believe. */
    secondSame: number;
    secondWrong: number;
    slowWrite: number;
    /** Each day, another creditor's result in the folder. */
    othersResult: number;
  };
  disk: { full: number };
  /** Where alerts are sent. */
  receiver: { timeoutBefore: number; timeoutAfter: number; error500: number };
  merchant: {
    /** A file grows slowly under its final name. */
    slowWrite: number;
    hostileName: number;
    sendsAgain: number;
    brokenFile: number;
    /** Between two files of bills, one of holds, contacts or agreements that end. */
    holds: number;
    contacts: number;
    endings: number;
    /** Of bank mandates instead of their end: another account. */
    newAccounts: number;
    /** Each day, that somebody notices that a file was wrong, and recalls it. */
    recallsFile: number;
    /** Each day, that an operator gives a payment or a part of it back. */
    refunds: number;
    /** Each day, that an operator pauses charging for some hours, or stops it for the day. */
    haltsCharging: number;
  };
  /** Clocks of processes differ by up to so many milliseconds. */
  skewMs: number;
}

export const wild: FaultProfile = {
  killAtCrashPoint: 0.02,
  killInCall: 0.004,
  stall: 0.012,
  lostCommit: 0.003,
  stagingLost: 0.05,
  gateway: {
    timeoutBefore: 0.04,
    timeoutAfter: 0.04,
    timeoutLate: 0.03,
    error500Before: 0.02,
    error500After: 0.02,
    rateLimited: 0.05,
    lookupFails: 0.08,
    outage: 0.06,
    webhookLost: 0.15,
    webhookTwice: 0.2,
    webhookLate: 0.15,
    reportLate: 0.2,
    reportCutOff: 0.1,
    lineLate: 0.1,
    lineMoves: 0.08,
    lineFee: 0.05,
    lineTwice: 0.05,
    lineForeign: 0.03,
    payoutsLate: 0.2,
    payoutDiffers: 0.15,
    shopTakesBack: 0.2,
    shopToldLate: 0.3,
    shopPaidTwice: 0.15,
    cardReplaced: 0.2,
    cardClosed: 0.1,
    cardNewsLate: 0.3,
  },
  carrier: {
    timeoutBefore: 0.04,
    timeoutAfter: 0.04,
    timeoutLate: 0.03,
    refused: 0.02,
    rateLimited: 0.05,
    lookupFails: 0.1,
    newsLost: 0.1,
    newsTwice: 0.2,
    newsWrong: 0.3,
  },
  store: {
    unreachable: 0.05,
    brokenBefore: 0.01,
    brokenAfter: 0.015,
    halfTransfer: 0.03,
    shortDownload: 0.02,
    refused: 0.01,
  },
  bank: {
    late: 0.15,
    unanswered: 0.1,
    tookAfterAll: 0.04,
    cutOff: 0.05,
    wrongSum: 0.05,
    recordMissing: 0.04,
    recordForeign: 0.04,
    again: 0.15,
    againOtherwise: 0.1,
    secondSame: 0.1,
    secondWrong: 0.08,
    slowWrite: 0.4,
    othersResult: 0.03,
  },
  disk: { full: 0.05 },
  receiver: { timeoutBefore: 0.1, timeoutAfter: 0.1, error500: 0.1 },
  merchant: {
    slowWrite: 0.5,
    hostileName: 0.1,
    sendsAgain: 0.15,
    brokenFile: 0.1,
    holds: 0.4,
    contacts: 0.2,
    endings: 0.2,
    newAccounts: 0.5,
    recallsFile: 0.06,
    refunds: 0.25,
    haltsCharging: 0.15,
  },
  skewMs: 400,
};

/** The outside world as it should be. */
export const calm: FaultProfile = {
  killAtCrashPoint: 0,
  killInCall: 0,
  stall: 0,
  lostCommit: 0,
  stagingLost: 0,
  gateway: {
    timeoutBefore: 0,
    timeoutAfter: 0,
    timeoutLate: 0,
    error500Before: 0,
    error500After: 0,
    rateLimited: 0,
    lookupFails: 0,
    outage: 0,
    webhookLost: 0,
    webhookTwice: 0,
    webhookLate: 0,
    reportLate: 0,
    reportCutOff: 0,
    lineLate: 0,
    lineMoves: 0,
    lineFee: 0,
    lineTwice: 0,
    lineForeign: 0,
    payoutsLate: 0,
    payoutDiffers: 0,
    shopTakesBack: 0,
    shopToldLate: 0,
    shopPaidTwice: 0,
    cardReplaced: 0,
    cardClosed: 0,
    cardNewsLate: 0,
  },
  carrier: {
    timeoutBefore: 0,
    timeoutAfter: 0,
    timeoutLate: 0,
    refused: 0,
    rateLimited: 0,
    lookupFails: 0,
    newsLost: 0,
    newsTwice: 0,
    newsWrong: 0,
  },
  store: { unreachable: 0, brokenBefore: 0, brokenAfter: 0, halfTransfer: 0, shortDownload: 0, refused: 0 },
  bank: {
    late: 0,
    unanswered: 0,
    tookAfterAll: 0,
    cutOff: 0,
    wrongSum: 0,
    recordMissing: 0,
    recordForeign: 0,
    again: 0,
    againOtherwise: 0,
    secondSame: 0,
    secondWrong: 0,
    slowWrite: 0,
    othersResult: 0,
  },
  disk: { full: 0 },
  receiver: { timeoutBefore: 0, timeoutAfter: 0, error500: 0 },
  merchant: {
    slowWrite: 0,
    hostileName: 0,
    sendsAgain: 0,
    brokenFile: 0,
    holds: 0,
    contacts: 0,
    endings: 0,
    newAccounts: 0,
    recallsFile: 0,
    refunds: 0,
    haltsCharging: 0,
  },
  skewMs: 400,
};

/** What goes wrong next, part by part. */
export class Faults {
  profile: FaultProfile;
  readonly #chance: Chance;

  constructor(profile: FaultProfile, chance: Chance) {
    this.profile = profile;
    this.#chance = chance;
  }

  /** The first of these that hits, or null. One draw, so that probabilities add up. */
  draw<Name extends string>(odds: Readonly<Record<Name, number>>, ...names: readonly Name[]): Name | null {
    let rest = this.#chance.next();
    for (const name of names) {
      rest -= odds[name];
      if (rest < 0) return name;
    }
    return null;
  }

  hits(probability: number): boolean {
    return this.#chance.hits(probability);
  }

  between(least: number, most: number): number {
    return this.#chance.between(least, most);
  }
}
