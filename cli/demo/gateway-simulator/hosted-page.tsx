import { createHash } from 'node:crypto';
import type { ComponentChildren, VNode } from 'preact';
import { renderToString } from 'preact-render-to-string';
import { TEST_CARDS } from './cards.ts';
import type { HostedPage } from './queries.ts';

type Language = 'ja' | 'en';

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1b22; --paper: #fff; --soft: #f3f2f7; --line: #8b8798; --act: #3b2fb0; --bad: #b3001b; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceaf4; --paper: #17161c; --soft: #24222c; --line: #7d7988; --act: #aaa2ff; --bad: #ff8a96; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--soft); color: var(--ink); font: 16px/1.6 system-ui, "Hiragino Sans", "Noto Sans JP", sans-serif; }
main { max-width: 30rem; margin: 0 auto; padding: 1.25rem; background: var(--paper); min-height: 100vh; }
h1 { font-size: 1.1rem; margin: 0; }
.amount { font-size: 2rem; font-weight: 700; margin: .25rem 0 1rem; }
label { display: block; margin: .9rem 0 .25rem; font-weight: 600; }
input { width: 100%; min-height: 48px; padding: .5rem .75rem; font: inherit; font-size: 1.1rem; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
button, .button { display: block; width: 100%; min-height: 52px; margin-top: 1.25rem; padding: .75rem; border: 0; border-radius: 8px; background: var(--act); color: var(--paper); font: inherit; font-weight: 700; text-align: center; text-decoration: none; cursor: pointer; }
button.quiet { background: transparent; color: inherit; border: 1px solid var(--line); margin-top: .75rem; }
.notice { border-left: 4px solid var(--bad); padding: .5rem .75rem; background: var(--soft); }
.demo { margin-top: 2rem; font-size: .875rem; }
a { color: var(--act); }
a.button { color: var(--paper); }
table { border-collapse: collapse; font-size: .875rem; }
td, th { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }
`;
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64');

const WORDS = {
  ja: {
    title: 'カードでのお支払い',
    number: 'カード番号',
    expires: '有効期限(月/年)',
    cvc: 'セキュリティコード',
    pay: (amount: string) => `${amount} を支払う`,
    cancel: 'やめて戻る',
    back: 'お支払いページへ戻る',
    save: 'このカードは今後の自動払いに登録されます。',
    setupTitle: '自動払いのカードの登録',
    setup: 'このカードを登録する',
    setupText: 'カードを登録するだけで、いまお支払いはありません。',
    saved: 'カードの登録は完了しています。',
    notSaved: 'カードは登録されませんでした。',
    paid: 'お支払いは完了しています。',
    cancelled: 'お支払いは取り消されました。',
    closed: 'このページではお支払いいただけません。',
    expired: 'このページの有効期限が切れました。',
    missing: 'ページが見つかりません。',
    unavailable: 'ただいまご利用いただけません。しばらくしてからもう一度お試しください。',
    wallet: 'スマホ決済でのお支払い',
    walletText: 'スマホ決済のアプリで内容を確認し、支払いを承認してください。',
    approve: '承認して支払う',
    decline: '残高不足で失敗する',
    challenge: '本人認証(3Dセキュア)',
    challengeText: (last: string) => `末尾 ${last} のカードの発行会社による確認です。`,
    succeed: '認証に成功する',
    fail: '認証に失敗する',
    demo: 'これは模擬の決済ページです。実際のカードは使えません。',
    cards: 'テストカードの一覧',
    again: '別のカードでもう一度お試しいただけます。',
    problem: {
      not_a_test_card: 'このカード番号は使えません。テストカードの番号を入力してください。',
      bad_expiry: '有効期限を確認してください(例: 12/30)。',
      bad_cvc: 'セキュリティコードを確認してください。',
    },
    declined: {
      insufficient_funds: '残高不足のため、お支払いできませんでした。',
      expired_card: 'カードの有効期限が切れています。',
      incorrect_cvc: 'セキュリティコードが違います。',
      authentication_failed: '本人認証ができませんでした。',
      wallet_declined: 'スマホ決済の残高不足のため、お支払いできませんでした。',
      other: 'カード会社の判断により、お支払いできませんでした。',
    },
  },
  en: {
    title: 'Pay by card',
    number: 'Card number',
    expires: 'Expiry (MM/YY)',
    cvc: 'Security code',
    pay: (amount: string) => `Pay ${amount}`,
    cancel: 'Cancel and go back',
    back: 'Back to the payment page',
    save: 'This card will be kept for automatic payment.',
    setupTitle: 'A card for automatic payment',
    setup: 'Keep this card',
    setupText: 'The card is kept. Nothing is paid now.',
    saved: 'The card has been kept.',
    notSaved: 'No card was kept.',
    paid: 'This has been paid.',
    cancelled: 'This payment was cancelled.',
    closed: 'This page takes no more payments.',
    expired: 'This page has expired.',
    missing: 'There is no such page.',
    unavailable: 'Not available at the moment. Please try again in a while.',
    wallet: 'Pay by wallet',
    walletText: 'Check the amount in the app of your wallet and approve the payment.',
    approve: 'Approve and pay',
    decline: 'Fail for lack of balance',
    challenge: 'Cardholder check (3-D Secure)',
    challengeText: (last: string) => `The issuer of the card ending in ${last} asks who you are.`,
    succeed: 'Pass the check',
    fail: 'Fail the check',
    demo: 'This is a simulated payment page. Real cards are refused.',
    cards: 'List of test cards',
    again: 'You can try another card.',
    problem: {
      not_a_test_card: 'This card number cannot be used. Please type the number of a test card.',
      bad_expiry: 'Please check the expiry date (for example 12/30).',
      bad_cvc: 'Please check the security code.',
    },
    declined: {
      insufficient_funds: 'The card has not enough funds.',
      expired_card: 'The card has expired.',
      incorrect_cvc: 'The security code is wrong.',
      authentication_failed: 'The cardholder check failed.',
      wallet_declined: 'The wallet has not enough balance.',
      other: 'The card issuer declined the payment.',
    },
  },
} as const;

export type FormProblem = keyof (typeof WORDS)['en']['problem'];

function money(amount: number, currency: string, language: Language): string {
  const format = new Intl.NumberFormat(language, { style: 'currency', currency });
  return format.format(amount / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 0));
}

function page(language: Language, title: string, content: ComponentChildren): string {
  return `<!doctype html>${renderToString(
    <html lang={language}>
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <title>{title}</title>
        {/* A constant; escaped, it would no longer fit the hash in the policy. */}
        <style dangerouslySetInnerHTML={{ __html: STYLE }} />
      </head>
      <body>
        <main>{content}</main>
      </body>
    </html>,
  )}`;
}

function Demo({ language }: { language: Language }): VNode {
  const words = WORDS[language];
  return (
    <p class="demo">
      {words.demo}{' '}
      <a href="/test-cards" target="_blank" rel="noreferrer">
        {words.cards}
      </a>
    </p>
  );
}

/** Browsers apply `form-action` to the redirect after the post too, so the merchant's origin is named. */
export function pageHeaders(returnUrl: string | null): Record<string, string> {
  const target = returnUrl === null ? '' : ` ${new URL(returnUrl).origin}`;
  return {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; form-action 'self'${target}; frame-ancestors 'none'; base-uri 'none'`,
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  };
}

export function cardForm(
  hosted: HostedPage,
  shown: { problem: FormProblem | null; declinedCode: string | null },
): string {
  const words = WORDS[hosted.language];
  const amount = money(hosted.amount, hosted.currency, hosted.language);
  const declined =
    shown.declinedCode === null
      ? null
      : ((words.declined as Record<string, string>)[shown.declinedCode] ?? words.declined.other);
  return page(
    hosted.language,
    hosted.setup ? words.setupTitle : words.title,
    <>
      <h1>{hosted.merchantName}</h1>
      <p class="amount">{hosted.setup ? words.setupTitle : amount}</p>
      {shown.problem !== null && (
        <p class="notice" role="alert">
          {words.problem[shown.problem]}
        </p>
      )}
      {shown.problem === null && declined !== null && (
        <p class="notice" role="alert" data-code={shown.declinedCode}>
          {declined} {words.again}
        </p>
      )}
      <form method="post" action={`/pay/${hosted.id}`} autocomplete="on">
        <label for="number">{words.number}</label>
        <input
          id="number"
          name="number"
          inputmode="numeric"
          autocomplete="cc-number"
          maxLength={23}
          required
        />
        <div class="pair">
          <div>
            <label for="expires">{words.expires}</label>
            <input
              id="expires"
              name="expires"
              autocomplete="cc-exp"
              placeholder="12/30"
              maxLength={7}
              required
            />
          </div>
          <div>
            <label for="cvc">{words.cvc}</label>
            <input id="cvc" name="cvc" inputmode="numeric" autocomplete="cc-csc" maxLength={4} required />
          </div>
        </div>
        {hosted.saveMethod && <p>{hosted.setup ? words.setupText : words.save}</p>}
        <button type="submit">{hosted.setup ? words.setup : words.pay(amount)}</button>
      </form>
      <form method="post" action={`/pay/${hosted.id}/cancel`}>
        <button type="submit" class="quiet">
          {words.cancel}
        </button>
      </form>
      <Demo language={hosted.language} />
    </>,
  );
}

/** The wallet's own approval, on a page instead of in an app. */
export function walletForm(hosted: HostedPage, declinedCode: string | null): string {
  const words = WORDS[hosted.language];
  const amount = money(hosted.amount, hosted.currency, hosted.language);
  return page(
    hosted.language,
    words.wallet,
    <>
      <h1>{hosted.merchantName}</h1>
      <p class="amount">{amount}</p>
      {declinedCode !== null && (
        <p class="notice" role="alert" data-code={declinedCode}>
          {words.declined.wallet_declined}
        </p>
      )}
      <p>{words.walletText}</p>
      <form method="post" action={`/pay/${hosted.id}`}>
        <button type="submit" name="result" value="approve">
          {words.approve}
        </button>
        <button type="submit" name="result" value="decline" class="quiet">
          {words.decline}
        </button>
      </form>
      <form method="post" action={`/pay/${hosted.id}/cancel`}>
        <button type="submit" class="quiet">
          {words.cancel}
        </button>
      </form>
      <p class="demo">{words.demo}</p>
    </>,
  );
}

/** The register of a shop: what a cashier's scanner would read is typed in. */
export function counterPage(shown: string | { amount: number; receipt: string } | null): string {
  return page(
    'en',
    'A shop’s register',
    <>
      <h1>A shop’s register</h1>
      {typeof shown === 'string' && (
        <p class="notice" role="alert" data-code={shown}>
          The register refuses it: {shown.replaceAll('_', ' ')}
        </p>
      )}
      {shown !== null && typeof shown === 'object' && (
        <p class="notice" data-receipt={shown.receipt}>
          {money(shown.amount, 'JPY', 'en')} received. Receipt {shown.receipt}
        </p>
      )}
      <form method="post" action="/counter">
        <label for="account">Merchant</label>
        <input id="account" name="account" maxLength={64} required />
        <label for="barcode">44 digits of the barcode</label>
        <input id="barcode" name="barcode" inputmode="numeric" maxLength={80} required />
        <button type="submit">Pay in cash</button>
      </form>
    </>,
  );
}

export function challengePage(hosted: HostedPage, lastFour: string): string {
  const words = WORDS[hosted.language];
  return page(
    hosted.language,
    words.challenge,
    <>
      <h1>{words.challenge}</h1>
      {!hosted.setup && <p class="amount">{money(hosted.amount, hosted.currency, hosted.language)}</p>}
      <p>{words.challengeText(lastFour)}</p>
      <form method="post" action={`/acs/${hosted.challengeId}`}>
        <button type="submit" name="result" value="succeed">
          {words.succeed}
        </button>
        <button type="submit" name="result" value="fail" class="quiet">
          {words.fail}
        </button>
      </form>
      <Demo language={hosted.language} />
    </>,
  );
}

export function endedPage(hosted: HostedPage): string {
  const words = WORDS[hosted.language];
  const state = hosted.state === 'open' || hosted.state === 'challenge' ? 'closed' : hosted.state;
  return page(
    hosted.language,
    words.title,
    <>
      <h1>{hosted.merchantName}</h1>
      <p>{hosted.setup ? (state === 'paid' ? words.saved : words.notSaved) : words[state]}</p>
      <a class="button" href={hosted.returnUrl}>
        {words.back}
      </a>
    </>,
  );
}

export function messagePage(message: 'missing' | 'unavailable'): string {
  return page(
    'ja',
    WORDS.ja.title,
    <>
      <p>{WORDS.ja[message]}</p>
      <p lang="en">{WORDS.en[message]}</p>
    </>,
  );
}

export function testCardsPage(): string {
  return page(
    'en',
    'Test cards',
    <>
      <h1>Test cards</h1>
      <p>Any expiry date in the future, any security code.</p>
      <table>
        <thead>
          <tr>
            <th>Number</th>
            <th>Name</th>
            <th>Brand</th>
          </tr>
        </thead>
        <tbody>
          {TEST_CARDS.map((card) => (
            <tr key={card.name}>
              <td>{card.pan}</td>
              <td>{card.name}</td>
              <td>{card.brand}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>,
  );
}
