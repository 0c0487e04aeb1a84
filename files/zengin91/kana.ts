/** Where a text stands decides which signs it may have: names of parties, or of banks and branches. */
export type KanaPlace = 'party' | 'bank';

export interface KanaProfile {
  /** ｦ: forbidden by the older rule, permitted in names by a revision of it. */
  readonly allowsWo: boolean;
}

export const strictKana: KanaProfile = { allowsWo: false };

export type Kana =
  | { readonly text: string; readonly refused?: undefined }
  | { readonly text?: undefined; readonly refused: string };

const signs: Record<KanaPlace, string> = { party: '().-', bank: '-' };

const dakuten = 'ﾞ';
const handakuten = 'ﾟ';
// What a mark may follow: ﾞ the rows of ｶ ｻ ﾀ ﾊ and ｳ, ﾟ the row of ﾊ.
const takes: Record<string, string> = { [dakuten]: 'ｳｶｷｸｹｺｻｼｽｾｿﾀﾁﾂﾃﾄﾊﾋﾌﾍﾎ', [handakuten]: 'ﾊﾋﾌﾍﾎ' };
const combining: Record<string, string> = { [dakuten]: '\u3099', [handakuten]: '\u309a' };

const small = 'ァィゥェォャュョッヮヵヶｧｨｩｪｫｬｭｮｯ';
const large = 'アイウエオヤユヨツワカケｱｲｳｴｵﾔﾕﾖﾂ';

/** Full-width kana with their half-width forms; a mark stands after its base. */
const halfWidth = new Map<string, string>();
for (let code = 0xff66; code <= 0xff9d; code += 1) {
  const half = String.fromCharCode(code);
  const full = half.normalize('NFKC');
  halfWidth.set(full, half);
  for (const mark of [dakuten, handakuten])
    if (takes[mark]?.includes(half)) halfWidth.set((full + combining[mark]).normalize('NFC'), half + mark);
}

/**
 * A text in the characters of the standard, one byte each: wide letters and kana become narrow ones, small kana large,
 * a prolonging sign a hyphen. What has no form (kanji, a comma, a mark without its base) is refused, told by its number:
 * names are personal.
 */
export function toKana(text: string, place: KanaPlace, profile: KanaProfile = strictKana): Kana {
  let kana = '';
  for (const character of text.normalize('NFC')) {
    const converted = oneKana(character, place, profile);
    const misplaced =
      converted !== undefined && converted in takes && !takes[converted]?.includes(kana.at(-1) ?? ' ');
    if (converted === undefined || misplaced) {
      const number = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
      return { refused: misplaced ? `U+${number} marks nothing` : `U+${number} cannot stand in it` };
    }
    kana += converted;
  }
  return { text: kana };
}

/** Whether a text keeps to the characters of the standard as it stands. */
export function isKana(text: string, place: KanaPlace, profile: KanaProfile = strictKana): boolean {
  return toKana(text, place, profile).text === text;
}

function oneKana(character: string, place: KanaPlace, profile: KanaProfile): string | undefined {
  if (/^[ー‐−–ｰ]$/.test(character)) return '-';
  if (/^[ﾞ゛\u3099]$/.test(character)) return dakuten;
  if (/^[ﾟ゜\u309a]$/.test(character)) return handakuten;
  const narrow = character.normalize('NFKC');
  if (/^[0-9A-Za-z ]$/.test(narrow)) return narrow.toUpperCase();
  if (narrow.length === 1 && signs[place].includes(narrow)) return narrow;
  const code = character.charCodeAt(0);
  // Hiragana stand as far before their katakana.
  const katakana = code >= 0x3041 && code <= 0x3096 ? String.fromCharCode(code + 0x60) : character;
  const whole = large[small.indexOf(katakana)] ?? katakana;
  const half = halfWidth.get(whole) ?? whole;
  if (half === 'ｦ') return profile.allowsWo ? half : undefined;
  return half >= 'ｱ' && half < dakuten ? half : undefined;
}

/** One byte a character: half-width kana are A1 to DF of JIS X 0201. */
export function kanaBytes(text: string): Buffer {
  const bytes = Buffer.allocUnsafe(text.length);
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code >= 0x20 && code < 0x7f) bytes[at] = code;
    else if (code >= 0xff61 && code <= 0xff9f) bytes[at] = code - 0xff61 + 0xa1;
    else throw new RangeError('not a character of one byte');
  }
  return bytes;
}

/** Undefined: a byte is no character of the standard's code. */
export function kanaText(bytes: Uint8Array): string | undefined {
  let text = '';
  for (const byte of bytes) {
    if (byte >= 0x20 && byte < 0x7f) text += String.fromCharCode(byte);
    else if (byte >= 0xa1 && byte <= 0xdf) text += String.fromCharCode(byte - 0xa1 + 0xff61);
    else return undefined;
  }
  return text;
}
