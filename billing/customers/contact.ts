import type { Sealer } from '../sealing.ts';

/** How a customer is reached, as a merchant's file says it. Personal data: sealed wherever it is kept. */
export interface Contact {
  name: string;
  /** E.164 */
  phone: string | null;
  email: string | null;
}

export interface SealedContact {
  sealed: Buffer;
  /** Of all three: "is it still the same" without opening it. */
  digest: Buffer;
  nameDigest: Buffer;
  phoneDigest: Buffer | null;
}

/**
 * Bound to the customer number and not to a row's id: lines are sealed while the file is read, before it is known
 * whether the merchant's database has this customer.
 */
function associatedOf(merchantId: number, customerNumber: string): string {
  return `contact/${merchantId}/${customerNumber}`;
}

export function sealContact(
  sealer: Sealer,
  merchantId: number,
  customerNumber: string,
  contact: Contact,
): SealedContact {
  const { name, phone, email } = contact;
  const plaintext = JSON.stringify([name, phone, email]);
  return {
    sealed: sealer.seal('contact', plaintext, associatedOf(merchantId, customerNumber)),
    digest: sealer.digest(`contact:${plaintext}`),
    nameDigest: sealer.digest(`name:${comparableName(name)}`),
    phoneDigest: phone === null ? null : sealer.digest(`phone:${phone}`),
  };
}

/** Throws SealBroken. */
export function openContact(
  sealer: Sealer,
  merchantId: number,
  customerNumber: string,
  sealed: Uint8Array,
): Contact {
  const plaintext = sealer.open('contact', sealed, associatedOf(merchantId, customerNumber));
  const [name, phone, email] = JSON.parse(plaintext) as [string, string | null, string | null];
  return { name, phone, email };
}

/** NFKC without spaces: 山田　花子 and 山田花子, ﾔﾏﾀﾞ and ヤマダ are one name. */
function comparableName(name: string): string {
  return name.normalize('NFKC').replace(/\s/g, '');
}
