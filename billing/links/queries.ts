import type { Tx } from '../db.ts';

export interface NewLink {
  invoiceId: string;
  version: number;
  keyId: number;
  tokenHash: Buffer;
  /** YYYY-MM-DD, the last day on which it takes money. */
  expiresOn: string;
}

/** A link that is there already stays as it is: its token is on a customer's phone. */
export async function insertLinks(tx: Tx, merchantId: number, links: readonly NewLink[]): Promise<number> {
  if (links.length === 0) return 0;
  return tx.run(
    `insert into links (merchant_id, invoice_id, version, key_id, token_hash, expires_on)
     select $1, l.invoice_id, l.version, l.key_id, l.token_hash, l.expires_on
     from unnest($2::uuid[], $3::int[], $4::smallint[], $5::bytea[], $6::date[])
       as l(invoice_id, version, key_id, token_hash, expires_on)
     on conflict (merchant_id, invoice_id, version) do nothing`,
    [
      merchantId,
      links.map((link) => link.invoiceId),
      links.map((link) => link.version),
      links.map((link) => link.keyId),
      links.map((link) => link.tokenHash),
      links.map((link) => link.expiresOn),
    ],
  );
}
