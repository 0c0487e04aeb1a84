import { createHash } from 'node:crypto';
import { barcodeStyle } from './barcode-style.ts';

/** Phone first. No inline styles anywhere: the policy allows this file and the merchant's colour only. */
export const style = `${barcodeStyle}
:root { color-scheme: light dark;
  --paper: #f4f5f7; --card: #fff; --ink: #1b1d23; --soft: #5b6070; --line: #dfe2e8; --field: #8a90a0;
  --good: #12724a; --good-soft: #e5f4ec; --wait: #8a5a00; --wait-soft: #fdf3dc; --bad: #b3261e; --bad-soft: #fdeceb;
  --brand: #3f4656; --on-brand: #fff; --act: #2b5fa8; --on-act: #fff; --shadow: 0 1px 2px rgb(20 22 28 / 6%), 0 8px 24px rgb(20 22 28 / 6%); }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161c; --card: #1e2129; --ink: #eceef3; --soft: #a4aabb; --line: #333846; --field: #767d90;
  --act: #8ab4ff; --on-act: #14161c;
  --good: #6fd3a4; --good-soft: #17332a; --wait: #f0c265; --wait-soft: #3a2f17; --bad: #ff9a92; --bad-soft: #432423; --shadow: none; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: flex; flex-direction: column; background: var(--paper); color: var(--ink);
  font: 16px/1.65 system-ui, -apple-system, "Hiragino Sans", "Noto Sans JP", "Noto Sans CJK JP", "Yu Gothic", Meiryo, sans-serif; }
.wrap { width: 100%; max-width: 30rem; margin-inline: auto; padding-inline: 1.125rem; }
.top { background: var(--brand); color: var(--on-brand); padding-block: .8rem 4.25rem; }
.top .wrap { display: flex; align-items: center; justify-content: space-between; gap: 1rem; }
.merchant { display: flex; align-items: center; gap: .6rem; min-height: 2.5rem; margin: 0; font-weight: 700; font-size: 1.0625rem; overflow-wrap: anywhere; }
.merchant img { flex: none; height: 2.5rem; width: auto; max-width: 7rem; padding: .25rem; border-radius: 8px; background: #fff; }
.languages { flex: none; margin-left: auto; }
.languages a { display: inline-block; padding: .4rem .8rem; border: 1px solid currentcolor; border-radius: 99px; color: inherit; font-size: .875rem; line-height: 1.4; text-decoration: none; }
main { flex: 1; margin-top: -3.25rem; padding-bottom: 1.5rem; }
.card { background: var(--card); border-radius: 16px; box-shadow: var(--shadow); padding: 1.4rem 1.25rem; margin-bottom: 1rem; }
h1 { font-size: 1.25rem; line-height: 1.4; margin: 0 0 .5rem; }
h2 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: 0 0 .75rem; }
h1, .state p, .notice { text-wrap: balance; }
/* Japanese breaks between phrases, where the browser knows how. */
:lang(ja) :is(h1, .state p, .notice, button) { word-break: auto-phrase; }
.card > :last-child, details > :last-child { margin-bottom: 0; }
a { color: var(--act); }
.bill-title { color: var(--soft); font-size: 1rem; font-weight: 600; margin: 0; }
.amount { font-size: clamp(1.75rem, 10.5vw, 2.625rem); white-space: nowrap; line-height: 1.2; font-weight: 700; letter-spacing: -.01em; margin: .1rem 0 .6rem; font-variant-numeric: tabular-nums; }
.amount small { font-size: .5em; font-weight: 700; letter-spacing: 0; margin-left: .15em; }
.due { display: inline-block; margin: 0 0 .25rem; padding: .3rem .75rem; border-radius: 8px; background: var(--paper); font-weight: 600; word-break: keep-all; }
.due.over { background: var(--wait-soft); color: var(--wait); }
dl.facts { margin: .9rem 0 0; border-top: 1px solid var(--line); }
dl.facts > div { display: flex; gap: 1rem; justify-content: space-between; padding: .6rem 0; border-bottom: 1px solid var(--line); }
dl.facts dt { flex: none; color: var(--soft); }
dl.facts dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
details { margin: .75rem 0 0; }
summary { cursor: pointer; padding: .35rem 0; color: var(--act); font-weight: 600; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; margin-top: .25rem; }
caption { text-align: left; color: var(--soft); }
th, td { text-align: right; padding: .4rem 0 .4rem .75rem; border-bottom: 1px solid var(--line); font-weight: 400; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
td:not(:first-child) { white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: .8125rem; }
table + .small { margin-top: .6rem; }
thead th { color: var(--soft); font-size: .8125rem; }
.small { font-size: .875rem; color: var(--soft); }
.terms { margin: .25rem 0 0; padding-left: 1.2rem; font-size: .875rem; color: var(--soft); }
.terms li { margin-bottom: .35rem; }
.tick { display: flex; gap: .8rem; align-items: flex-start; padding: .9rem; border: 1.5px solid var(--line); border-radius: 12px; cursor: pointer; }
.tick:has(:checked) { border-color: var(--act); background: color-mix(in srgb, var(--act) 7%, transparent); }
.tick input { flex: none; width: 1.5rem; height: 1.5rem; margin: .05rem 0 0; accent-color: var(--act); }
.tick span { display: block; }
.tick .small { display: block; }
.tick .account { margin-top: .25rem; color: inherit; overflow-wrap: anywhere; }
label.field { display: block; font-weight: 600; margin: 1rem 0 .35rem; }
input[type=text] { width: 100%; min-height: 3.5rem; padding: .5rem .9rem; font: inherit; font-size: 1.5rem; letter-spacing: .2em; color: inherit; background: var(--card); border: 1.5px solid var(--field); border-radius: 12px; }
input[aria-invalid=true] { border-color: var(--bad); }
.hint { color: var(--soft); font-size: .875rem; margin: .4rem 0 0; }
button, .button { display: block; width: 100%; min-height: 3.5rem; margin-top: 1.1rem; padding: .8rem 1rem; border: 0; border-radius: 12px; background: var(--act); color: var(--on-act); font: inherit; font-size: 1.0625rem; font-weight: 700; text-align: center; text-decoration: none; cursor: pointer; }
button:hover, .button:hover { filter: brightness(1.07); }
.button.quiet { background: transparent; color: var(--act); border: 1.5px solid var(--line); }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; border-radius: 8px; }
.top :focus-visible { outline-color: currentcolor; }
.notice { padding: .8rem 1rem; border-radius: 12px; margin-bottom: 1rem; }
.notice.bad { background: var(--bad-soft); color: var(--bad); }
.notice.wait { background: var(--wait-soft); color: var(--wait); }
.notice.good { background: var(--good-soft); color: var(--good); }
ul.plain { margin: 0 0 1rem; padding-left: 1.2rem; text-align: left; }
ul.plain li { margin-bottom: .35rem; }
.card h2:not(:first-child) { margin-top: 1.25rem; }
.address { padding: .7rem .9rem; border-radius: 8px; background: var(--paper); font-weight: 700; overflow-wrap: anywhere; }
.aside { text-align: center; font-size: .9375rem; }
.aside a { display: inline-block; padding: .5rem; }
.receipt .no-print { margin-top: 1rem; }
.receipt h1 { margin-top: .25rem; }
.receipt dl.facts + dl.facts { margin-top: 0; border-top: 0; }
.secure { display: flex; gap: .6rem; align-items: flex-start; margin: .9rem 0 0; font-size: .875rem; color: var(--soft); }
.secure svg { flex: none; margin-top: .2rem; }
.state { text-align: center; padding-top: 2rem; }
.state .icon { display: inline-flex; width: 4.25rem; height: 4.25rem; border-radius: 50%; align-items: center; justify-content: center; margin-bottom: .9rem; }
.icon.good { background: var(--good-soft); color: var(--good); }
.icon.wait { background: var(--wait-soft); color: var(--wait); }
.icon.bad { background: var(--bad-soft); color: var(--bad); }
.icon.plain { background: var(--paper); color: var(--soft); }
.state p, .state ul { color: var(--soft); }
.state .amount { color: var(--ink); font-size: clamp(1.75rem, 9vw, 2rem); }
.state dl.facts, .state table { text-align: left; }
footer { padding-block: .25rem 2rem; color: var(--soft); font-size: .875rem; text-align: center; }
footer p { margin: 0 0 .25rem; }
.visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 22rem) { table { font-size: .8125rem; } th, td { padding-left: .5rem; } }
@media (min-width: 48rem) {
  .wrap { max-width: 34rem; }
  .top { padding-block: 1.1rem 6rem; }
  main { margin-top: -4.5rem; }
  .card { padding: 2rem; }
}
@media print { .top { background: none; color: inherit; padding-bottom: 1rem; } main { margin-top: 0; } form, .languages, .no-print, .button, footer a[href^='/'] { display: none; } .receipt .notice { display: none; } .merchant img { padding: 0; } .card { box-shadow: none; border: 1px solid var(--line); } }
`;

/** In the address, so that browsers may keep the file for good. */
export const styleVersion = createHash('sha256').update(style).digest('hex').slice(0, 10);
