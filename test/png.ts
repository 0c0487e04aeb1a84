import { crc32, deflateSync, inflateSync } from 'node:zlib';

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const colorsAtMost = 256;

/**
 * The same picture with one byte for each point instead of three or four: a page has a few dozen colours, and the shades at
 * the edges of letters beyond the 256 most frequent ones go to their nearest. For 8-bit RGB or RGBA as a browser writes it.
 */
export function withPalette(png: Buffer): Buffer {
  const parts: Buffer[] = [];
  let header = Buffer.alloc(0);
  for (let at = signature.length; at < png.length; ) {
    const size = png.readUInt32BE(at);
    const kind = png.toString('latin1', at + 4, at + 8);
    const content = png.subarray(at + 8, at + 8 + size);
    if (kind === 'IHDR') header = Buffer.from(content);
    if (kind === 'IDAT') parts.push(content);
    at += size + 12;
  }
  const [width, height, bytes] = [header.readUInt32BE(0), header.readUInt32BE(4), header[9] === 6 ? 4 : 3];
  const points = unfiltered(inflateSync(Buffer.concat(parts)), width, height, bytes);

  const counts = new Map<number, number>();
  for (let at = 0; at < points.length; at += bytes) {
    const color = points.readUIntBE(at, 3);
    counts.set(color, (counts.get(color) ?? 0) + 1);
  }
  const palette = [...counts]
    .sort((one, other) => other[1] - one[1])
    .slice(0, colorsAtMost)
    .map(([color]) => color);
  const places = new Map(palette.map((color, place) => [color, place]));
  const rows = Buffer.alloc((width + 1) * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const color = points.readUIntBE((row * width + column) * bytes, 3);
      let place = places.get(color);
      if (place === undefined) {
        place = nearest(palette, color);
        places.set(color, place);
      }
      rows[row * (width + 1) + 1 + column] = place;
    }
  }
  header[9] = 3;
  const colors = Buffer.alloc(palette.length * 3);
  palette.forEach((color, place) => {
    colors.writeUIntBE(color, place * 3, 3);
  });
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('PLTE', colors),
    chunk('IDAT', deflateSync(rows, { level: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function unfiltered(filtered: Buffer, width: number, height: number, bytes: number): Buffer {
  const stride = width * bytes;
  const points = Buffer.alloc(stride * height);
  for (let row = 0; row < height; row++) {
    const filter = filtered[row * (stride + 1)];
    for (let at = 0; at < stride; at++) {
      const left = at >= bytes ? (points[row * stride + at - bytes] ?? 0) : 0;
      const up = row > 0 ? (points[(row - 1) * stride + at] ?? 0) : 0;
      const upLeft = row > 0 && at >= bytes ? (points[(row - 1) * stride + at - bytes] ?? 0) : 0;
      const predicted = [0, left, up, (left + up) >> 1, paeth(left, up, upLeft)][filter ?? 0] ?? 0;
      points[row * stride + at] = ((filtered[row * (stride + 1) + 1 + at] ?? 0) + predicted) & 255;
    }
  }
  return points;
}

function paeth(left: number, up: number, upLeft: number): number {
  const guess = left + up - upLeft;
  const [toLeft, toUp, toUpLeft] = [left, up, upLeft].map((each) => Math.abs(guess - each)) as [
    number,
    number,
    number,
  ];
  if (toLeft <= toUp && toLeft <= toUpLeft) return left;
  return toUp <= toUpLeft ? up : upLeft;
}

function nearest(palette: readonly number[], color: number): number {
  let best = 0;
  let distance = Number.POSITIVE_INFINITY;
  palette.forEach((known, place) => {
    const apart = [16, 8, 0].reduce(
      (sum, shift) => sum + (((known >> shift) & 255) - ((color >> shift) & 255)) ** 2,
      0,
    );
    if (apart < distance) [best, distance] = [place, apart];
  });
  return best;
}

function chunk(kind: string, content: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(kind, 'latin1'), content]);
  const framed = Buffer.alloc(named.length + 8);
  framed.writeUInt32BE(content.length, 0);
  named.copy(framed, 4);
  framed.writeUInt32BE(crc32(named), named.length + 4);
  return framed;
}
