// After tsc: what the built program reads beside its code goes to dist/ too, at the same place.
import fs from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const rooms = ['billing', 'cli', 'files', 'jobs', 'web', 'migrations'];
// Compiled by tsc, or of use only in a checkout.
const left = /\.tsx?$|(^|\/)(\.gitattributes|biome\.json|tsconfig\.json|seikyu\.js)$/;

let copied = 0;
for (const room of rooms) {
  if (!fs.existsSync(join(root, room))) continue;
  for (const path of fs.readdirSync(join(root, room), { recursive: true, encoding: 'utf8' })) {
    const from = join(room, path);
    if (left.test(from.replaceAll('\\', '/')) || !fs.statSync(join(root, from)).isFile()) continue;
    fs.cpSync(join(root, from), join(dist, from), { preserveTimestamps: true });
    copied += 1;
  }
}
console.log(`copied ${copied} files to dist`);
