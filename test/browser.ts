import sparticuz from '@sparticuz/chromium';
import { type Browser, chromium } from 'playwright-core';

export const phone = { width: 390, height: 844 };
export const desktop = { width: 1280, height: 900 };

export async function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: await sparticuz.executablePath(),
    // One process for all ends with its first closed window; and the browser's own rules are part of what is tested.
    args: sparticuz.args.filter(
      (argument) =>
        !/^--(single-process|disable-web-security|allow-running-insecure-content)$/.test(argument),
    ),
    headless: true,
  });
}

/** Without a font for Japanese every character is the same empty box: pictures of that would look like faults of the pages. */
export async function hasJapaneseFont(browser: Browser): Promise<boolean> {
  const page = await browser.newPage();
  const [one, other] = await page.evaluate(() =>
    ['請', '求'].map((character) => {
      const canvas = document.createElement('canvas');
      canvas.getContext('2d')?.fillText(character, 10, 20);
      return canvas.toDataURL();
    }),
  );
  await page.close();
  return one !== other;
}
