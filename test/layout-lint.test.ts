import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Refusal } from '../billing/refusal.ts';
import { buildProgram } from '../cli/program.ts';
import { totalsOf } from '../files/zengin91/file.ts';
import { writeDebits } from '../files/zengin91/write.ts';
import { samplesFolder } from './inbox.ts';

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'seikyu-lint-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

/** The command in this process: a process of its own takes seconds to start. */
async function lint(...options: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const before = process.exitCode;
  const lines: string[] = [];
  const log = vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line));
  try {
    await buildProgram({ stop: new AbortController().signal }).parseAsync([
      'node',
      'seikyu',
      'layout',
      'lint',
      ...options,
    ]);
    return { status: Number(process.exitCode), stdout: lines.join('\n'), stderr: '' };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { status: error.exitCode, stdout: '', stderr: error.message };
  } finally {
    log.mockRestore();
    process.exitCode = before;
  }
}
const json = async (...options: string[]) => {
  const { status, stdout } = await lint(...options, '--json');
  return { status, told: JSON.parse(stdout) };
};
const sample = (merchant: string, name: string) => join(samplesFolder, merchant, name);
const written = (name: string, content: string | Buffer) => {
  fs.writeFileSync(join(folder, name), content);
  return join(folder, name);
};

describe('layout lint', () => {
  test('shows line by line what a sample becomes', async () => {
    const kita = await lint(
      sample('kita-denryoku', 'layout.yaml'),
      '--sample',
      sample('kita-denryoku', 'inbound/KD_SEIKYU_20261125_0001.CSV'),
    );
    expect(kita.status).toBe(0);
    expect(kita.stdout).toContain('髙島 健');
    expect(kita.stdout).toContain('no sequence: 30 lines read, 30 accepted over 270615 yen, 0 refused.');
    const suido = await json(
      sample('sakura-suido', 'layout.yaml'),
      '--sample',
      sample('sakura-suido', 'inbound/SUIDO_20261125_0002.DAT'),
      '--lines',
      '1',
    );
    expect(suido).toMatchObject({
      status: 0,
      told: {
        layout: 'sakura-suido/1',
        kind: 'billing',
        refused: null,
        header: { businessDate: '2026-11-25', sequence: 2 },
        linesRead: 25,
        amountAccepted: 145_475,
        lines: [
          {
            line: 2,
            outcome: 'accepted',
            billing_number: 'SS26110001',
            customer_name: 'ｽｽﾞｷ ﾊﾅｺ',
            amount: 3311,
          },
        ],
      },
    });
  });

  test('tells refused lines and refused files, and that they want a person', async () => {
    const partial = await json(
      'standard/1',
      '--sample',
      sample('minato-gas', 'inbound/billing_minato-gas_20261126_0002.csv'),
    );
    expect(partial).toMatchObject({ status: 3, told: { linesRejected: 11 } });
    expect(partial.told.lines[4]).toEqual({
      line: 6,
      outcome: 'refused',
      code: 'E_FORMAT',
      field: 'amount',
      message: 'the form of the value is wrong',
      billing_number: 'MG2611-00045',
    });
    const bad = written('KD_SEIKYU_20261125_0001.CSV', Buffer.of(0x41, 0x80));
    expect(await json(sample('kita-denryoku', 'layout.yaml'), '--sample', bad)).toMatchObject({
      status: 3,
      told: { refused: { code: 'F_ENCODING', byte: 1 } },
    });
  });

  test('says what is wrong with a layout, with path and reason', async () => {
    const yaml = fs.readFileSync(sample('sakura-suido', 'layout.yaml'), 'utf8').replace('at: 54', 'at: 53');
    const { status, stderr } = await lint(written('layout.yaml', yaml));
    expect(status).toBe(2);
    expect(stderr).toContain('billing.phone: overlaps billing.customer_name, which runs from byte 24 to 53');
    expect((await lint(sample('sakura-suido', 'layout.yaml'))).status).toBe(0);
    expect((await lint(join(folder, 'nothing.yaml'))).status).toBe(2);
  });

  test('reads results back as the merchant would', async () => {
    const result = written(
      'KD_KEKKA_20261126_0001.CSV',
      Buffer.concat([
        Buffer.from(
          '90bf8b8194d48d862c82a88b71976c94d48d862c8c8b89ca2c8be08a7a2c8efb945b93fa2c94bb96be93fa8e9e2c8efb945b95fb96400d0a',
          'hex',
        ),
        Buffer.from('KD1,C1,9,4511,,20261126090000,\r\n'),
      ]),
    );
    expect(await json(sample('kita-denryoku', 'layout.yaml'), '--sample', result)).toMatchObject({
      status: 0,
      told: {
        kind: 'result',
        lines: [{ line: 2, billing_number: 'KD1', outcome: 'unpaid', amount: '4511' }],
      },
    });
  });

  test('shows bank debits, and whether a result answers its request', async () => {
    const debit = {
      bank: '0001',
      bankName: '',
      branch: '103',
      branchName: '',
      accountType: '1',
      account: '7000111',
      holder: 'ﾀﾅｶ ﾐｻｷ',
      amount: 3729,
      newCode: '1',
      customerNumber: '0000700003',
      resultCode: '0',
    };
    const header = {
      consignorCode: '1234567890',
      consignorName: 'ｻｸﾗｼ',
      debitDay: '0104',
      bank: '0001',
      bankName: '',
      branch: '001',
      branchName: '',
      accountType: '1',
      account: '1234567',
    };
    const file = (debits: (typeof debit)[], isResult: boolean) =>
      writeDebits({
        framing: '',
        endsWithFraming: false,
        batches: [{ header, debits, trailer: totalsOf(debits, isResult) }],
      });
    const request = written('request', file([debit], false));
    const result = written('result', file([{ ...debit, resultCode: '1' }], true));
    expect(
      await json('zengin-91', '--sample', result, '--request', request, '--date', '2026-12-28'),
    ).toMatchObject({
      status: 0,
      told: {
        refused: null,
        writtenAlike: true,
        lines: [{ debit_day: '2027-01-04', outcome: 'failed', amount: 3729 }],
      },
    });
    const other = written('other', file([{ ...debit, amount: 1 }], true));
    expect(await json('zengin-91', '--sample', other, '--request', request)).toMatchObject({
      status: 3,
      told: { refused: { rejected: 'AMOUNT_CHANGED', record: 1 } },
    });
    expect(await json('zengin-91', '--sample', written('short', 'x'))).toMatchObject({
      status: 3,
      told: { refused: { code: 'LENGTH' } },
    });
    expect((await lint('zengin-91')).status).toBe(0);
  });
});
