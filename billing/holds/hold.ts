/** Why a customer is not charged and not reminded for a while. */
export const holdReasons = [
  'dispute',
  'hardship',
  'disaster',
  'deceased',
  'bankruptcy',
  'legal_representative',
  'paid_elsewhere',
] as const;

export type HoldReason = (typeof holdReasons)[number];
