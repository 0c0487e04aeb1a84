import type { Language } from './texts.ts';

const ja = {
  title: 'コンビニでのお支払い',
  label: 'お支払い用バーコード',
  until: (date: string) => `${date}まで使えます`,
  steps: [
    'コンビニのレジで、この画面か印刷したものを見せて「支払い」とお伝えください。',
    '現金でお支払いください。お使いのスマホ決済アプリの請求書払いでも読み取れます。',
    'レジの控え(領収書)をお受け取りください。',
  ],
  once: 'お支払いは一度だけです。カードなどほかの方法でお支払いになったら、このバーコードは使わないでください。',
  otherWays: 'ほかの支払い方法',
  ways: '支払い方法',
  showBarcode: 'コンビニで支払う(バーコードを表示)',
  barcodeHint: 'バーコードをレジで読み取ります。印刷してもお使いいただけます。',
  wallet: 'スマホ決済で支払う',
  walletHint: '次に開くページで、お使いのスマホ決済を承認します。',
};

export type BarcodeTexts = typeof ja;

const en: BarcodeTexts = {
  title: 'Pay at a convenience store',
  label: 'Barcode for your payment',
  until: (date) => `Valid until ${date}`,
  steps: [
    'Show this screen, or a print of it, at the till of a convenience store and say “shiharai” (payment).',
    'Pay in cash. Payment apps on your phone that take bills can read it too.',
    'Keep the receipt from the till.',
  ],
  once: 'Pay only once. If you have paid by card or in another way, please do not use this barcode any more.',
  otherWays: 'Other ways to pay',
  ways: 'Ways to pay',
  showBarcode: 'Pay at a convenience store (show barcode)',
  barcodeHint: 'The till scans the barcode. A print of it works too.',
  wallet: 'Pay by wallet',
  walletHint: 'On the next page you approve the payment in your wallet.',
};

export const barcodeTexts: Record<Language, BarcodeTexts> = { ja, en };
