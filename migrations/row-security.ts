/** Text that puts new tables under row security, and says what the web role may do with them: nothing, unless granted. */
export function ofOneMerchant(
  tables: readonly string[],
  webGrants: Readonly<Record<string, string>>,
): string {
  const secured = tables.map(
    (table) => `
alter table ${table} enable row level security;
create policy ${table}_of_one_merchant on ${table} to seikyu_web
  using (merchant_id = nullif(current_setting('seikyu.merchant_id', true), '')::int);`,
  );
  const granted = Object.entries(webGrants).map(
    ([table, rights]) => `grant ${rights} on ${table} to seikyu_web;`,
  );
  return [...secured, ...granted].join('\n');
}
