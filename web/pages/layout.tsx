import type { ComponentChildren, VNode } from 'preact';
import { renderToString } from 'preact-render-to-string';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { paths } from '../paths.ts';
import { styleVersion } from '../style.ts';
import { type Language, texts } from '../texts.ts';
import { kept } from './kept.ts';

export interface Frame {
  language: Language;
  /** Null where nobody knows whose page it would be. */
  merchant: Merchant | null;
  title: string;
  /** Where the same page is in the other language; null: no switch. */
  otherLanguageUrl?: string | null;
  /** The page that all others lead to in their last line. */
  isGenuinePage?: boolean;
}

/** A whole document. Text is escaped by the renderer; there is no other way in, for `kept` too takes only what is rendered. */
export function document(frame: Frame, content: ComponentChildren): string {
  const { language, merchant, title } = frame;
  const words = texts[language];
  const name = merchant?.settings.name[language];
  const other: Language = language === 'ja' ? 'en' : 'ja';
  const offersOther = merchant?.settings.notify.languages.includes(other) ?? true;
  const of = merchant ?? words;
  return `<!doctype html>${renderToString(
    <html lang={language}>
      {kept(of, `head ${language} ${title}`, () => (
        <head>
          <meta charset="utf-8" />
          <meta name="viewport" content="width=device-width, initial-scale=1" />
          <meta name="robots" content="noindex, nofollow" />
          <meta name="format-detection" content="telephone=no" />
          <title>{name === undefined ? title : `${title} - ${name}`}</title>
          <link rel="stylesheet" href={paths.style.of(styleVersion)} />
          {merchant !== null && (
            <link rel="stylesheet" href={paths.brand.of(merchant.settings.checkout.brand.color)} />
          )}
        </head>
      ))}
      <body>
        <header class="top">
          <div class="wrap">
            {merchant !== null &&
              kept(of, `letterhead ${language}`, () => (
                <Letterhead merchant={merchant} language={language} />
              ))}
            {frame.otherLanguageUrl && offersOther && (
              <nav class="languages">
                <a href={frame.otherLanguageUrl} lang={other} hreflang={other}>
                  {words.otherLanguage}
                </a>
              </nav>
            )}
          </div>
        </header>
        <main class="wrap">{content}</main>
        {kept(of, `foot ${language} ${frame.isGenuinePage === true}`, () => (
          <footer class="wrap">
            {merchant !== null && <Contact merchant={merchant} language={language} />}
            {frame.isGenuinePage !== true && (
              <p>
                <a href={`${paths.genuine.of()}?language=${language}`}>{words.genuine}</a>
              </p>
            )}
          </footer>
        ))}
      </body>
    </html>,
  )}`;
}

function Letterhead({ merchant, language }: { merchant: Merchant; language: Language }): VNode {
  const { logo } = merchant.settings.checkout.brand;
  return (
    <p class="merchant">
      {logo && (
        // The name beside it says the same.
        <img src={paths.logo.of(merchant.shortCode, merchant.settingsVersion)} alt="" height="32" />
      )}
      <span>{merchant.settings.name[language]}</span>
    </p>
  );
}

function Contact({ merchant, language }: { merchant: Merchant; language: Language }): VNode {
  const phone = merchant.settings.contactPhone;
  return (
    <>
      <p>{merchant.settings.name[language]}</p>
      {phone !== null && (
        <p>
          {texts[language].questions} <a href={`tel:${phone}`}>{phone}</a>
        </p>
      )}
    </>
  );
}

export type Mood = 'good' | 'wait' | 'bad' | 'plain';

const strokes: Record<Mood, string> = {
  good: 'M5 12.5l4.5 4.5L19 7.5',
  wait: 'M12 3a9 9 0 1 0 .01 0M12 7.5V12l3 2',
  bad: 'M12 6v7M12 17.5v.5',
  plain: 'M12 11v6.5M12 6.5v.5',
};

export function Icon({ mood }: { mood: Mood }): VNode {
  return (
    <span class={`icon ${mood}`}>
      <svg
        width="34"
        height="34"
        viewBox="0 0 24 24"
        fill="none"
        stroke="currentColor"
        stroke-width="2.4"
        stroke-linecap="round"
        stroke-linejoin="round"
        aria-hidden="true"
      >
        <path d={strokes[mood]} />
      </svg>
    </span>
  );
}
