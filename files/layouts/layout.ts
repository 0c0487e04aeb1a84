import type { FileEncoding } from '../decode.ts';
import type { OwnNames } from '../standard/names.ts';
import type { InwardLayout } from '../standard/read.ts';
import type { Row } from '../standard/write.ts';
import { compileCsv } from './csv.ts';
import { type MappedKind, mappedKinds } from './fields.ts';
import { compileFixed } from './fixed-width.ts';
import { judgeLayout } from './judge.ts';
import {
  type NamedInward,
  type NamedOutward,
  type NamePattern,
  namedInward,
  namePattern,
  ownNames,
} from './names.ts';
import { LayoutRefusal, type LayoutSpec, readSpec } from './spec.ts';

/** What the first and the last record of a file may say. */
export interface FileTotals {
  readonly records: number;
  readonly sum: number;
}

/** How one kind of records is read and written. Rows are those of `standard/1`, the record type first. */
export interface KindLayout extends InwardLayout {
  /** Titles or header with its line end; '' where the layout has neither. `businessDate` is `YYYY-MM-DD`. */
  head(about: { businessDate: string; sequence: number }): string;
  /** One record with its line end. Throws `CannotWrite` on a value that the layout has no form for. */
  row(fields: Row): string;
  /** Trailer or total line with its line end; '' where the layout has neither. */
  tail(totals: FileTotals): string;
}

/** A layout file, compiled: what it describes itself, and which encoding, line ends and names all its files have. */
export interface Layout {
  /** With its version: `kita-denryoku/1`. */
  readonly name: string;
  readonly encoding: FileEncoding;
  readonly newline: '\n' | '\r\n';
  readonly kinds: ReadonlyMap<MappedKind, KindLayout>;
  readonly outwardNames: ReadonlyMap<NamedOutward, NamePattern>;
  inwardNames(merchant: string): OwnNames;
  /** The name of a file that the merchant writes; undefined: the standard's. `businessDate` is `YYYY-MM-DD`. */
  inwardName(kind: NamedInward, businessDate: string, sequence: number): string | undefined;
}

/** Reads, judges and compiles a layout. Throws `LayoutRefusal` with every place and reason; `file` is for its message. */
export function parseLayout(yamlText: string, file: string): Layout {
  const spec = readSpec(yamlText, file);
  const problems = judgeLayout(spec);
  if (problems.length > 0) throw new LayoutRefusal(file, problems);
  return compileLayout(spec);
}

function compileLayout(spec: LayoutSpec): Layout {
  const kinds = new Map<MappedKind, KindLayout>();
  for (const kind of mappedKinds) {
    if (spec[kind] === undefined) continue;
    kinds.set(kind, spec.format === 'csv' ? compileCsv(spec, kind) : compileFixed(spec, kind));
  }
  const inward = new Map<NamedInward, NamePattern>();
  const outward = new Map<NamedOutward, NamePattern>();
  for (const [kind, text] of Object.entries(spec.names)) {
    const pattern = namePattern(text);
    if ('reason' in pattern) continue;
    if ((namedInward as readonly string[]).includes(kind)) inward.set(kind as NamedInward, pattern);
    else outward.set(kind as NamedOutward, pattern);
  }
  return {
    name: spec.layout,
    encoding: spec.encoding,
    newline: spec.newline === 'crlf' ? '\r\n' : '\n',
    kinds,
    outwardNames: outward,
    inwardNames: (merchant) => ownNames(inward, merchant),
    inwardName: (kind, businessDate, sequence) => inward.get(kind)?.write(businessDate, sequence),
  };
}
