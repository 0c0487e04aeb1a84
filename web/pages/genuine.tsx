import { paths } from '../paths.ts';
import type { WebContext } from '../ports.ts';
import { type Language, texts } from '../texts.ts';
import { document } from './layout.tsx';

/** For everybody, with or without a link: how to tell an SMS of ours from one that only looks like it. */
export function genuinePage(
  context: Pick<WebContext, 'baseUrl' | 'gatewayOrigins'>,
  language: Language,
): string {
  const words = texts[language];
  const gateway = context.gatewayOrigins.map((origin) => new URL(origin).host).join(', ');
  const other = language === 'ja' ? 'en' : 'ja';
  return document(
    {
      language,
      merchant: null,
      title: words.genuineTitle,
      isGenuinePage: true,
      otherLanguageUrl: `${paths.genuine.of()}?language=${other}`,
    },
    <section class="card">
      <h1>{words.genuineTitle}</h1>
      <p>{words.genuineText}</p>
      <p class="address">
        <bdi>{`${context.baseUrl}/l/`}</bdi>
      </p>
      <h2>{words.genuineDo}</h2>
      <ul class="plain">
        {words.genuineDoList(gateway).map((line) => (
          <li>{line}</li>
        ))}
      </ul>
      <h2>{words.genuineDoNot}</h2>
      <ul class="plain">
        {words.genuineDoNotList.map((line) => (
          <li>{line}</li>
        ))}
      </ul>
      <h2>{words.genuineDoubt}</h2>
      <p>{words.genuineDoubtText}</p>
    </section>,
  );
}
