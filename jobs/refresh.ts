import type { BillRange } from '../billing/autopay/queries.ts';
import { askGateway, prepareQuestion, questionOf, windowOf } from '../billing/card-refreshes/ask.ts';
import { countToRefresh, openRefreshes, rangesToRefresh } from '../billing/card-refreshes/queries.ts';
import { recordAnswer } from '../billing/card-refreshes/record.ts';
import type { ChunkContext, Counts, Job } from './job.ts';

/** Where the gateway has no updater there are only bills without a card to look for. */
const billsPerChunkWithoutUpdater = 500;

type RefreshChunk = (BillRange & { bills: number }) | { open: string };

/**
 * Asks the gateway about the cards that are soon to be charged, some days before: a card that was replaced is charged by its
 * new token, and whoever has none any more gets a link while there is time. Question, commit, call, answer; a question that
 * was not answered is asked again under its reference.
 */
export const refresh: Job<RefreshChunk & Record<string, unknown>> = {
  name: 'refresh',
  does: 'asks the gateway about cards that are soon to be charged: replaced, closed or expired ones',
  attention: ['given_up'],
  shared: true,

  async plan({ ports, merchant, businessDate }) {
    const { db, gateway } = ports;
    const open = await openRefreshes(db, merchant.id, gateway.name);
    const window = windowOf(merchant, gateway, businessDate);
    const ranges = await rangesToRefresh(db, window, billsPerChunk(gateway.semantics.cardsPerRefresh));
    return [...open.map(({ id }) => ({ open: id })), ...ranges.map((range) => ({ ...range }))];
  },

  async runChunk(context, chunk) {
    const { ports, merchant, stop } = context;
    if (stop.aborted) return {};
    const counts: Counts = {};
    const add = (more: Counts) => {
      for (const [name, count] of Object.entries(more))
        if (count > 0) counts[name] = (counts[name] ?? 0) + count;
    };
    const question = await questionOfChunk(context, chunk, add);
    await ports.crash('refresh.after_intent');
    if (question === null || stop.aborted) return counts;
    const answer = await askGateway(ports, merchant, question);
    await ports.crash('refresh.after_gateway');
    add(await recordAnswer(ports, context, question.refreshId, answer));
    await ports.crash('refresh.after_outcome');
    return counts;
  },

  async dryRun({ ports, merchant, businessDate }) {
    const { cards, without_card } = await countToRefresh(
      ports.db,
      windowOf(merchant, ports.gateway, businessDate),
    );
    const open = await openRefreshes(ports.db, merchant.id, ports.gateway.name);
    return { would_ask_about: cards, without_card, open_questions: open.length };
  },
};

const billsPerChunk = (cardsPerRefresh: number): number =>
  cardsPerRefresh > 0 ? cardsPerRefresh : billsPerChunkWithoutUpdater;

async function questionOfChunk(
  context: ChunkContext,
  chunk: RefreshChunk,
  add: (more: Counts) => void,
): Promise<Awaited<ReturnType<typeof questionOf>>> {
  const { ports, merchant } = context;
  if ('open' in chunk) return questionOf(ports, merchant, String(chunk.open));
  const most = billsPerChunk(ports.gateway.semantics.cardsPerRefresh);
  const { question, withoutCard, waiting } = await prepareQuestion(ports, context, chunk, most);
  add({ without_card: withoutCard, waiting, asked: question?.tokens.length ?? 0 });
  return question;
}
