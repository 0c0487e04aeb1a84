/** A worker's hold on one chunk. Every transaction that writes the chunk's outcome tests it. */
export interface Fence {
  merchantId: number;
  job: string;
  businessDate: string;
  pass: number;
  chunkNo: number;
  owner: string;
  fence: number;
}

export class FenceLost extends Error {
  constructor(fence: Fence) {
    super(
      `chunk ${fence.job} ${fence.businessDate} pass ${fence.pass} no ${fence.chunkNo} was taken up by another worker; this one writes nothing`,
    );
    this.name = 'FenceLost';
  }
}
