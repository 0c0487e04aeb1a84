/** The consumption tax inside an amount that includes it, rounded down once per rate: ¥1,000 at 10% holds ¥90. */
export function taxIncludedIn(amount: number, ratePercent: number): number {
  return Math.floor((amount * ratePercent) / (100 + ratePercent));
}
