/** Addresses that no visitor comes from over the internet: a proxy of ours, the machine itself, a test. */
const inside =
  /^(127\.|10\.|192\.168\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|::1$|::$|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)/i;

const withoutPrefix = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/i, '');

/** Whether what this address says about whom it speaks for is believed. */
export function isInside(address: string): boolean {
  return inside.test(withoutPrefix(address));
}

/**
 * What counts as one visitor's network: an IPv4 address, or the /64 that an IPv6 subscriber has for themselves. Null where
 * the address says nothing of the visitor, because a proxy does not hand theirs on: all would count as one.
 */
export function networkOf(address: string): string | null {
  const plain = withoutPrefix(address);
  if (isInside(plain)) return null;
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::');
  const parts = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const rest = tail === '' ? 0 : tail.split(':').length;
    while (parts.length + rest < 8) parts.push('0');
    parts.push(...(tail === '' ? [] : tail.split(':')));
  }
  return parts
    .slice(0, 4)
    .map((part) => part.toLowerCase().replace(/^0+(?=.)/, ''))
    .join(':');
}
