import type { Disk } from '../../billing/ports.ts';
import { diskFull } from '../../files/disk.ts';
import type { Baton, Mortal } from './baton.ts';
import type { Faults } from './faults.ts';

/** What lies on the machine's disk, whichever process put it there. */
export type DiskContent = Map<string, Buffer>;

/** A disk in memory that can be full. Reading never gives the baton away: it happens inside transactions too. */
export function simulatedDisk(baton: Baton, self: Mortal, faults: Faults, content: DiskContent): Disk {
  return {
    async write(path, pieces) {
      const parts: Uint8Array[] = [];
      for await (const piece of pieces) parts.push(Uint8Array.from(piece));
      await baton.pause(self, 0, `disk.write ${parts.length}`);
      if (faults.hits(faults.profile.disk.full)) {
        throw diskFull(new Error('ENOSPC: no space left on device'));
      }
      const whole = Buffer.concat(parts);
      content.set(path, whole);
      return whole.length;
    },

    async *read(path) {
      const whole = content.get(path);
      if (whole === undefined) {
        throw Object.assign(new Error('ENOENT: no such file or directory'), { code: 'ENOENT' });
      }
      yield Buffer.from(whole);
    },

    exists: async (path) => content.has(path),

    list: async (folder) =>
      [...content.keys()]
        .filter((path) => path.startsWith(`${folder}/`) && !path.slice(folder.length + 1).includes('/'))
        .map((path) => path.slice(folder.length + 1))
        .sort(),

    async remove(path) {
      content.delete(path);
    },
  };
}
