/**
 * The barcode keeps the size of a printed slip: 60 mm at most, and on a narrow phone as wide as the screen. Bars stay black
 * on white in the dark and on paper.
 */
export const barcodeStyle = `
.barcode { text-align: center; }
.barcode ol.terms { text-align: left; }
svg.bars { display: block; width: 100%; max-width: 34rem; height: auto; margin: 1rem auto .25rem; background: #fff; }
.digits { font: 600 .8125rem/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.methods h2 { font-size: 1rem; margin: 0; }
.another { text-align: center; }
@media print { svg.bars { width: 60mm; } .another { display: none; } }
`;
