import type { Tx } from '../db.ts';
import { type Fence, FenceLost } from './fence.ts';

/**
 * First statement of every transaction that writes for a chunk. The share lock stays until COMMIT, so the chunk cannot
 * be claimed by another worker between this test and the outcome; a late worker finds a newer fence and writes nothing.
 */
export async function holdFence(tx: Tx, fence: Fence): Promise<void> {
  const held = await tx.query(
    `select 1 from chunks
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and chunk_no = $5
       and state = 'ready' and lease_owner = $6 and fence = $7
     for share`,
    [fence.merchantId, fence.job, fence.businessDate, fence.pass, fence.chunkNo, fence.owner, fence.fence],
  );
  if (held.length !== 1) throw new FenceLost(fence);
}
